import type { PublicJwk } from './key.ts'

/** How far a workload may be trusted. */
export type Stage = 'sandbox' | 'pilot' | 'production'
/** Only an active one gets anything; a retired one never does again. */
export type WorkloadStatus = 'active' | 'suspended' | 'retired'

/** Who is accountable for a workload. */
export interface Owner {
  readonly team: string
  /** Where to reach a person, by reference such as `oncall:support`. */
  readonly contact: string
}

/** A workload that is to be registered. */
export interface Registration {
  readonly name: string
  readonly environment: string
  readonly stage: Stage
  readonly owner: Owner
  readonly purpose: string
  readonly tags?: readonly string[]
  /** RFC 3339 date or date-time. */
  readonly review_at: string
  /** Absent: the agent enrols a key of its own, by a code. */
  readonly jwks?: unknown
}

/** What is to change; what is absent stays. */
export interface WorkloadChange {
  readonly stage?: Stage
  readonly owner?: Owner
  readonly purpose?: string
  readonly tags?: readonly string[]
  readonly review_at?: string
}

/** A workload as the API shows it; times are RFC 3339. */
export interface WorkloadRecord {
  readonly name: string
  readonly spiffe_id: string
  readonly environment: string
  readonly stage: Stage
  readonly owner: Owner
  readonly purpose: string
  readonly tags: readonly string[]
  readonly review_at: string
  readonly status: WorkloadStatus
  readonly created_at: string
  readonly updated_at: string
  readonly keys: readonly WorkloadKeyRecord[]
}

/** A public key of a workload; a removed one stays listed. One that is `ending` proves the workload until `removed_at`. */
export interface WorkloadKeyRecord {
  readonly kid: string
  readonly alg: string
  readonly jwk: PublicJwk
  readonly status: string
  readonly added_at: string
  readonly removed_at?: string
}

/** A code that was just made. */
export interface CreatedEnrolment {
  readonly enrolment: string
  readonly workload: string
  /** `stint_enroll_…`, given this once. */
  readonly code: string
  readonly expires_at: string
}

/** A code and what became of it; times are RFC 3339. */
export interface EnrolmentRecord {
  readonly enrolment: string
  readonly workload: string
  readonly status: 'open' | 'redeemed' | 'cancelled' | 'expired'
  readonly created_at: string
  readonly expires_at: string
  readonly ended_at?: string
  /** The key that was registered by it. */
  readonly kid?: string
}

/** Which enrolments to list. */
export interface EnrolmentQuery {
  readonly limit?: number | undefined
  /** `next` of the page before. */
  readonly after?: string | undefined
}

/** The newest first; with `next` there are more. */
export interface EnrolmentPage {
  readonly enrolments: readonly EnrolmentRecord[]
  readonly next?: string
}

/** What a change returns: the record, and the index of the audit entry that records the change. */
export type Recorded<R> = R & { readonly audit_index?: number }

/** Which workloads to list: those that fit all members given. */
export interface WorkloadQuery {
  readonly status?: string | undefined
  readonly stage?: string | undefined
  readonly team?: string | undefined
  readonly limit?: number | undefined
  /** `next` of the page before. */
  readonly after?: string | undefined
}

/** Sorted by name; with `next` there are more. */
export interface WorkloadPage {
  readonly workloads: readonly WorkloadRecord[]
  readonly next?: string
}

/** What to end: everything that matches all that is given; `grant` stands alone. */
export interface Revocation {
  readonly grant?: string | undefined
  readonly workload?: string | undefined
  readonly task?: string | undefined
  /** RFC 3339: what was granted before. */
  readonly before?: string | undefined
  readonly reason?: string | undefined
}

/** What a revocation did. */
export interface RevocationResult {
  /** Number of live grants that were ended, as far as they were counted. */
  readonly revoked: number
  /** There were more than were counted; they have ended too. */
  readonly more: boolean
  readonly already_ended: number
  /** How the end reaches those who hold or accept the credential (invariant 8). */
  readonly effect: string
  readonly audit_index?: number
}

/** The policy set in force. */
export interface PolicyInForce {
  readonly hash: string
  readonly in_force_since: string
  readonly cedar_version: string
  /** How many. */
  readonly policies: number
  readonly tools: number
  readonly audit_index: number
}

/** A policy set that is to come into force, as a whole. */
export interface PolicyChange {
  /** Text by relative path with forward slashes. */
  readonly files: Readonly<Record<string, string>>
  /** Hash of the set that must be in force for the change to happen; `null`: none may be. */
  readonly expected?: string | null | undefined
}

/** What putting a policy set in force did. */
export interface PolicyApplied {
  readonly hash: string
  readonly previous: string | null
  readonly changed: boolean
  readonly audit_index: number
}

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

/** Where people sign in to operate a broker. */
export interface SignIn {
  /** The OpenID Connect issuer of the company. */
  readonly issuer: string
  readonly client_id: string
  readonly scopes: readonly string[]
}

/** A sign-in of a person; times are RFC 3339. */
export interface SessionRecord {
  readonly session: string
  /** The issuer's name for the person, by reference. */
  readonly subject: string
  readonly issuer: string
  readonly role: string
  readonly status: 'live' | 'ended' | 'expired'
  readonly created_at: string
  readonly expires_at: string
  readonly ended_at?: string
}

/** A session that has just begun. */
export interface BegunSession extends SessionRecord {
  /** `stint_os_…`, given this once. */
  readonly credential: string
}

/** Which sessions to list: those that fit all members given. */
export interface SessionQuery {
  readonly subject?: string | undefined
  readonly status?: string | undefined
  readonly limit?: number | undefined
  /** `next` of the page before. */
  readonly after?: string | undefined
}

/** The newest first; with `next` there are more. */
export interface SessionPage {
  readonly sessions: readonly SessionRecord[]
  readonly next?: string
}

/** What an operator may do. */
export type Role = 'admin' | 'approver' | 'auditor'
/** Only an active one is believed; a revoked one never is again. */
export type OperatorStatus = 'active' | 'expired' | 'revoked'

/** Until when a credential lasts: one of the two, or neither. */
export interface Lifetime {
  /** RFC 3339 date or date-time. */
  readonly expires_at?: string | undefined
  readonly valid_days?: number | undefined
}

/** An operator that is to be made; without a lifetime its credential does not expire. */
export interface NewOperator extends Lifetime {
  readonly name: string
  readonly role: Role
}

/** An operator as the API shows it; times are RFC 3339. */
export interface OperatorRecord {
  readonly name: string
  /** The public part of the credential, by which the log names the operator. */
  readonly id: string
  readonly role: Role
  readonly status: OperatorStatus
  readonly created_at: string
  /** Absent where the credential does not expire. */
  readonly expires_at?: string
  readonly revoked_at?: string
}

/** An operator with its new credential, which the broker shows this once. */
export interface IssuedOperator extends OperatorRecord {
  readonly credential: string
}

/** Whose credential this client acts with. */
export interface CallerRecord {
  readonly id: string
  readonly name: string
  readonly role: Role
  /** The sign-in, for a person who signed in. */
  readonly session?: string
  readonly expires_at?: string
}

/** Which operators to list: those that fit all members given. */
export interface OperatorQuery {
  readonly status?: string | undefined
  readonly role?: string | undefined
  readonly limit?: number | undefined
  /** `next` of the page before. */
  readonly after?: string | undefined
}

/** Sorted by name; with `next` there are more. */
export interface OperatorPage {
  readonly operators: readonly OperatorRecord[]
  readonly next?: string
}

/** A key that signs or verifies tokens; times are RFC 3339. */
export interface SigningKeyRecord {
  readonly kid: string
  readonly alg: string
  /** `next` is published and signs later; `verifying` signs no more, and its tokens are still good. */
  readonly status: 'next' | 'signing' | 'verifying' | 'ended'
  readonly created_at: string
  readonly signs_from: string
  /** Absent until a successor has taken over. */
  readonly verifies_until?: string
}

/** In the order of their lives. */
export interface SigningKeyList {
  readonly keys: readonly SigningKeyRecord[]
  readonly next_rotation_at: string
}

/** How the signing keys are to be replaced. */
export interface SigningKeyRotation {
  /** The new key signs at once, and no other is accepted any more. */
  readonly now?: boolean | undefined
  readonly reason?: string | undefined
}

/** What a rotation did. */
export interface SigningKeyRotated {
  readonly kid: string
  readonly signs_from: string
  /** The keys that it takes over from, and until when at the latest what they have signed is accepted. */
  readonly replaces: readonly { readonly kid: string; readonly verifies_until: string }[]
  /** The live tokens that ended with their keys, as far as they were counted; absent where none ended. */
  readonly ended_tokens?: { readonly count: number; readonly more: boolean; readonly effect: string; readonly cached_until: string }
  readonly audit_index: number
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
