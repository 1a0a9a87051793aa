/** Which entries to list: those that fit all members given. */
export interface AuditQuery {
  readonly limit?: number | undefined
  /** Only entries of a lower index: `next` of the page before. */
  readonly before?: number | undefined
  /** Only entries of a higher index. */
  readonly after?: number | undefined
  readonly type?: string | undefined
  readonly workload?: string | undefined
  readonly tool?: string | undefined
  readonly grant?: string | undefined
  readonly task?: string | undefined
  /** RFC 3339. */
  readonly since?: string | undefined
  readonly until?: string | undefined
}

/** One entry of the log; `event` is what its leaf hash is of. */
export interface AuditEntry {
  readonly index: number
  readonly time: string
  readonly type: string
  readonly event: Readonly<Record<string, unknown>>
  readonly leaf_hash: string
}

/** Entries, the newest first; with `next` there are more. */
export interface AuditPage {
  readonly entries: readonly AuditEntry[]
  readonly next?: number
  readonly tree_size: number
}

/** What an export holds: entries that fit all members given. */
export interface AuditExportQuery {
  readonly format?: 'jsonl' | 'csv' | undefined
  /** RFC 3339. */
  readonly from?: string | undefined
  /** RFC 3339: only entries before. */
  readonly to?: string | undefined
  readonly type?: string | undefined
  readonly workload?: string | undefined
  readonly tool?: string | undefined
  readonly grant?: string | undefined
  readonly task?: string | undefined
  /** Only entries of a higher index: where an export that was cut off goes on. */
  readonly after?: number | undefined
  /** The last index: `last` of the export that was cut off. */
  readonly until?: number | undefined
}

/** An export under way: entries of the indexes `first` to `last`, nothing where `last` is before `first`. */
export interface AuditExport {
  readonly first: number
  readonly last: number
  /** The entry that records it; absent where the broker holds its log, and records nothing. */
  readonly audit_index?: number
  /** To be read once, to its end: only then is the export complete. */
  readonly lines: AsyncIterable<ExportedLines>
}

/** Some whole lines of an export, as they are to be kept: of JSON Lines, each is what its entry's leaf hash is of. */
export interface ExportedLines {
  readonly bytes: Uint8Array
  readonly entries: number
  /** Absent where there is no entry among them. */
  readonly last_index?: number
}

/** An export that is to be proven: its filters, and the first and last index of the whole of it. */
export interface AuditProofQuery extends Pick<AuditExportQuery, 'type' | 'workload' | 'tool' | 'grant' | 'task'> {
  readonly first: number
  /** One less than `first` where it is empty. */
  readonly last: number
}

/** Some whole lines of a proof, to go behind the entries of an export as JSON Lines. */
export interface ProofLines {
  readonly bytes: Uint8Array
  /** How many entries the checkpoint has that the proof ends with. */
  readonly checkpoint_size: number
  /** How many entries the proof has come past; absent where that is not known. */
  readonly reached?: number
}

/** One grant's entries with what proves that they are in the log: verifies alone, against the log's public key. */
export interface Receipt {
  /** The version of this form: 1. */
  readonly receipt: number
  readonly grant: string
  /** In order of index; `body` is the very text that was hashed, `proof` the hashes of its inclusion proof in base64. */
  readonly entries: readonly { readonly index: number; readonly body: string; readonly proof: readonly string[] }[]
  /** How many more there are, by the broker's word; absent where there are none. */
  readonly left_out?: number
  /** The signed note of the checkpoint that they are under. */
  readonly checkpoint: string
}

/** A place outside of the database that keeps the log's checkpoints. */
export interface AnchorRecord {
  readonly anchor: string
  readonly kind: 'file' | 'http' | 'witness'
  readonly kept_size?: number
  /** Entries of checkpoints that it did not have when it was tried last. */
  readonly behind_entries: number
  /** Why it could not be kept to, at the last try. */
  readonly failure?: string
  /** What it has of a log that is not this one: it holds the log until an admin accepts it. */
  readonly contradiction?: { readonly size: number; readonly root?: string; readonly why: string; readonly kept_at?: string }
}

export interface AnchorList {
  readonly log_size: number
  /** Whether nothing is issued. */
  readonly held: boolean
  readonly anchors: readonly AnchorRecord[]
}

/** A checkpoint that is not of the log, as an anchor has it. */
export interface AbandonedCheckpoint {
  readonly anchor: string
  readonly size: number
  readonly root?: string
}

export interface RestorationAcceptance {
  readonly reason: string
  readonly abandoned: readonly AbandonedCheckpoint[]
}

/** What was accepted, and what has ended with it. */
export interface RestoredAccepted {
  /** The number of entries from which the log goes on. */
  readonly log_size: number
  readonly abandoned: readonly AbandonedCheckpoint[]
  /** Assertions and ID tokens that were signed before are refused. */
  readonly proofs_from: string
  readonly kid: string
  readonly ended_sessions: number
  readonly cancelled_enrolments: number
  readonly audit_index: number
}
