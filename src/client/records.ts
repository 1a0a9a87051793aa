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
