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
  readonly jwks: unknown
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

/** A public key of a workload; a removed one stays listed. */
export interface WorkloadKeyRecord {
  readonly kid: string
  readonly alg: string
  readonly jwk: PublicJwk
  readonly status: string
  readonly added_at: string
  readonly removed_at?: string
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
