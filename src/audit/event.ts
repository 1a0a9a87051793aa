import type { JsonObject } from './encode.ts'

/**
 * Who caused an event: an operator by id, a person who signed in by the issuer's subject (`oidc:…`), a workload by name, or
 * Stint itself (`start`, `schedule`, `migrate`, `reload`, `custody`).
 */
export interface Actor extends JsonObject {
  readonly kind: 'operator' | 'workload' | 'stranger' | 'stint'
  readonly id?: string
  /** The sign-in under which a person acted. */
  readonly session?: string
}

/** What the policy was asked and what it said (invariant 5). `input` is everything that the policy saw. */
export interface DecisionRecord extends JsonObject {
  readonly verdict: 'allow' | 'deny' | 'needs_approval'
  readonly approvals_needed?: number
  readonly reasons: readonly string[]
  /** How many more deciding policies there were than an entry can name. */
  readonly reasons_more?: number
  readonly errors: readonly string[]
  readonly policy_set: string
  readonly cedar_version: string
  readonly input: JsonObject
}

interface Common {
  readonly actor: Actor
  /** The HTTP request that caused it, as answered in `Stint-Request-Id`. */
  readonly request_id?: string
}

interface OfWorkload extends Common {
  readonly workload: string
}

/** What an agent asked for. `target`, `task` and `ttl_seconds` are its own assertions (invariant 9). */
interface OfRequest extends OfWorkload, Proven {
  readonly tool: string
  readonly actions: readonly string[]
  readonly target?: string
  readonly task?: string
  readonly ttl_seconds: number
  /** Why, in the caller's words. */
  readonly reason?: string
}

/** How the workload proved itself: by the key of this `kid`, or by a token that Stint had issued to it under that grant. */
interface Proven {
  readonly proof_kid?: string
  readonly proof_grant?: string
}

/** What happened to a grant, of which the log tells already what it is for. */
interface OfGrant extends OfWorkload {
  readonly grant: string
  readonly tool: string
  readonly task?: string
}

/** What somebody tried to prove when they were not believed. */
export type Realm = 'workload' | 'operator' | 'enrolment' | 'sign_in' | 'address'

/** The facts that the log can hold: a closed union. People appear in it by reference, secrets never. */
export type AuditEvent =
  | (Common & { type: 'log.opened'; trust_domain: string; issuer: string })
  /** An admin accepted that the log goes on from an older state than checkpoints that were kept outside: what came between is lost. */
  | (Common & {
      type: 'log.restored'
      /** The checkpoints that this log does not contain; of one that a witness has signed, only the size is known. */
      abandoned: readonly { readonly anchor: string; readonly size: number; readonly root?: string }[]
      /** Proofs that were signed before are refused from then on: whether they were used is not known any more. */
      proofs_from: string
      reason: string
    })
  | (Common & { type: 'operator.created'; operator: string; name: string; role: string; expires_at?: string })
  | (Common & { type: 'operator.rotated'; operator: string; name: string; expires_at?: string })
  | (Common & { type: 'operator.revoked'; operator: string; name: string; reason?: string })
  | (Common & { type: 'operator.signed_in'; session: string; issuer: string; subject: string; role: string; expires_at: string })
  | (Common & { type: 'operator.signed_out'; session: string; subject: string; reason?: string })
  | (OfWorkload & {
      type: 'workload.registered'
      environment: string
      stage: string
      owner: { readonly team: string; readonly contact: string }
      purpose: string
      tags: readonly string[]
      review_at: string
      kids: readonly string[]
    })
  | (OfWorkload & { type: 'workload.updated'; before: JsonObject; after: JsonObject })
  | (OfWorkload & { type: 'workload.suspended' | 'workload.resumed' | 'workload.retired'; reason?: string })
  | (OfWorkload & { type: 'workload.key_added' | 'workload.key_removed'; kid: string; alg: string })
  /** A workload signed in a key of its own, in place of `replaces`, which proves it until `until`. */
  | (OfWorkload & { type: 'workload.key_rotated'; kid: string; alg: string; replaces: string; until: string })
  | (OfWorkload & { type: 'workload.review_due'; review_at: string })
  | (OfWorkload & { type: 'enrolment.created'; enrolment: string; expires_at: string })
  | (OfWorkload & { type: 'enrolment.redeemed'; enrolment: string; kid: string; alg: string })
  | (OfWorkload & { type: 'enrolment.cancelled'; enrolment: string })
  | (Common & {
      type: 'policy.applied'
      policy_set: string
      previous?: string
      policies: number
      tools: number
      cedar_version: string
    })
  /** An operator's change, or with `workload` one that a workload wanted to make of itself. */
  | (Common & { type: 'change.refused'; method: string; route: string; code: string; detail: string; workload?: string })
  | (Common & { type: 'policy.rejected'; problems: number; first_problem: string })
  | (Common & { type: 'key.created'; use: 'token' | 'seal' | 'checkpoint'; alg: string; kid?: string; version?: number; signs_from?: string; seals_from?: string; reason?: string })
  /** From `verify_until` on nothing that the key has signed is accepted any more. */
  | (Common & { type: 'key.replaced'; use: 'token'; kid: string; successor: string; verify_until: string })
  | (Common & { type: 'key.erased'; use: 'token' | 'seal'; kid?: string; version?: number })
  /** The root key named `root` wraps the sealing keys of these versions from now on. */
  | (Common & { type: 'key.rewrapped'; root: string; versions: readonly number[] })
  /** An operator wants a long-lived secret replaced now: by this run, which begins as soon as nothing is in its way. */
  | (Common & { type: 'rotation.ordered'; rotation: string; id: string; reason: 'leak' | 'request'; detail?: string })
  /** The replacement of a long-lived secret was begun: `id` names this run of it. */
  | (Common & { type: 'rotation.begun'; rotation: string; id: string; reason: 'schedule' | 'revocation' | 'leak' | 'request'; detail?: string })
  /** `version` is in force, in place of `replaced`. */
  | (Common & { type: 'rotation.finished'; rotation: string; id: string; version: string; replaced?: string })
  /** It came to nothing, and what was in force still is. */
  | (Common & { type: 'rotation.failed'; rotation: string; id: string; step: string; detail: string })
  /** A version that was replaced opens nothing any more. */
  | (Common & { type: 'rotation.retired'; rotation: string; version: string })
  | (Common & { type: 'rotation.overdue'; rotation: string; due_at: string })
  /** An admin had everything denied that was made before that time on the role behind the tool. */
  | (Common & { type: 'tool.cut_off'; tool: string; before: string; bystanders: number; reason?: string })
  | (Common & {
      type: 'audit.exported'
      format: 'jsonl' | 'csv'
      /** Only entries that fit all members given here, and none of another index than `first` to `last`, are in it. */
      selector: JsonObject
      first: number
      last: number
    })
  | (OfRequest & {
      type: 'grant.issued'
      grant: string
      audience: string
      expires_at: string
      /** How the grant ends before its time (invariant 8). */
      ends: 'introspection'
      token_kid: string
      /** The first grant of which this one is a renewal. */
      renews?: string
      decision: DecisionRecord
    })
  /** The intent: from here on something may live in the tool (invariant 2). */
  | (OfRequest & {
      type: 'grant.minting'
      grant: string
      connector: string
      expires_at: string
      ends: 'immediate' | 'propagating' | 'introspection' | 'expiry'
      renews?: string
      decision: DecisionRecord
    })
  /** It was made, and is given out. `reference` is what the tool calls it. */
  | (OfGrant & { type: 'grant.activated'; reference?: string; dies_at?: string })
  /** Nothing was made. */
  | (OfGrant & { type: 'grant.failed'; detail: string })
  /** Whether anything was made is not known, nor can it be found; until then it may live. */
  | (OfGrant & { type: 'grant.unknown'; detail: string; may_live_until: string })
  /** The same credential for longer. */
  | (OfRequest & { type: 'grant.renewed'; grant: string; expires_at: string; decision: DecisionRecord })
  /** It opens nothing any more, or from `effective_by` on: the tool has confirmed it, or its own time is over. */
  | (OfGrant & { type: 'grant.ended'; cause: 'revoked' | 'expired' | 'undone'; effect: 'immediate' | 'propagating' | 'introspection' | 'expiry'; effective_by?: string })
  /** It cannot be ended before that time, whatever is done. */
  | (OfGrant & { type: 'grant.outlives'; may_live_until: string })
  /** The tool has refused to end it so often that nobody tries any more: somebody has to look. */
  | (OfGrant & { type: 'grant.stuck'; tries: number; detail: string })
  | (OfGrant & { type: 'grant.retried' | 'grant.written_off'; reason: string })
  | (OfRequest & { type: 'grant.denied'; grant?: string; decision: DecisionRecord })
  | (OfWorkload & Proven & { type: 'grant.refused'; code: string; detail: string })
  | (OfGrant & { type: 'grant.revoked'; reason?: string })
  /** What was found in a tool without a live grant, and ended. */
  | (Common & { type: 'orphan.ended'; tool: string; grant: string; reference: string })
  /** The refresh token of a tool is used up, or may be: nothing is lent there until an admin gives another. */
  | (Common & { type: 'tool.needs_reconnection'; tool: string; detail: string })
  /** `stage`: `current` from now on, or `pending` until the rotation that made it is finished. The versions `erases` open no more. */
  | (Common & { type: 'secret.stored'; secret: string; version: number; stage?: 'current' | 'pending'; rotation?: string; erases?: readonly number[] })
  /** A rotation put its version in force in place of `replaced`, which is kept as the previous one. */
  | (Common & { type: 'secret.promoted'; secret: string; version: number; rotation: string; replaced?: number; erases?: readonly number[] })
  | (Common & { type: 'secret.erased'; secret: string; version: number; rotation?: string })
  | (Common & {
      type: 'grants.revoked'
      /** Every grant that fits all members given here, and that stands before this entry, is revoked by it. */
      selector: { readonly workload?: string; readonly tool?: string; readonly task?: string; readonly before?: string }
      /** The team that was named, where the workloads followed from it: one entry for each of them. */
      owner?: string
      tool?: string
      workload?: string
      task?: string
      reason?: string
    })
  | (Common & {
      type: 'authentication.refused'
      realm: Realm
      reason: string
      count: number
      since: string
      until: string
      /** The registered workloads that the strangers claimed to be, with how often; the most claimed ones. */
      claimed?: JsonObject
    })
  /** Requests of a workload that was over its own limit and was told to wait. */
  | (OfWorkload & { type: 'requests.limited'; count: number; since: string; until: string })
  | (OfWorkload & Proven & { type: 'introspection.refused' | 'revocation.refused'; grant: string })
  /** A workload named a grant that is another's. */
  | (OfWorkload & Proven & { type: 'access.refused'; grant: string; method: string; route: string })

export type AuditEventType = AuditEvent['type']

// Distributes over the union, so that a member which stands for several types is found under each of them.
type EventOf<T, E = AuditEvent> = E extends { type: infer U } ? (T extends U ? E : never) : never
type FieldsOf<T extends AuditEventType> = Exclude<keyof EventOf<T>, 'type' | 'actor' | 'request_id'>

const proven = ['proof_kid', 'proof_grant'] as const
const ofRequest = ['workload', 'tool', 'actions', 'target', 'task', 'ttl_seconds', 'reason', ...proven] as const
const ofGrant = ['workload', 'grant', 'tool', 'task'] as const
const ofKey = ['workload', 'kid', 'alg'] as const
const ofStatus = ['workload', 'reason'] as const
const ofForeignGrant = ['workload', 'grant', ...proven] as const

/** The allow-list: which fields an event of a type may carry, and no others (checked when it is written). */
export const eventFields: { readonly [T in AuditEventType]: readonly FieldsOf<T>[] } = {
  'log.opened': ['trust_domain', 'issuer'],
  'log.restored': ['abandoned', 'proofs_from', 'reason'],
  'operator.created': ['operator', 'name', 'role', 'expires_at'],
  'operator.rotated': ['operator', 'name', 'expires_at'],
  'operator.revoked': ['operator', 'name', 'reason'],
  'operator.signed_in': ['session', 'issuer', 'subject', 'role', 'expires_at'],
  'operator.signed_out': ['session', 'subject', 'reason'],
  'workload.registered': ['workload', 'environment', 'stage', 'owner', 'purpose', 'tags', 'review_at', 'kids'],
  'workload.updated': ['workload', 'before', 'after'],
  'workload.suspended': ofStatus,
  'workload.resumed': ofStatus,
  'workload.retired': ofStatus,
  'workload.key_added': ofKey,
  'workload.key_removed': ofKey,
  'workload.key_rotated': [...ofKey, 'replaces', 'until'],
  'workload.review_due': ['workload', 'review_at'],
  'enrolment.created': ['workload', 'enrolment', 'expires_at'],
  'enrolment.redeemed': [...ofKey, 'enrolment'],
  'enrolment.cancelled': ['workload', 'enrolment'],
  'policy.applied': ['policy_set', 'previous', 'policies', 'tools', 'cedar_version'],
  'change.refused': ['method', 'route', 'code', 'detail', 'workload'],
  'policy.rejected': ['problems', 'first_problem'],
  'key.created': ['use', 'alg', 'kid', 'version', 'signs_from', 'seals_from', 'reason'],
  'key.replaced': ['use', 'kid', 'successor', 'verify_until'],
  'key.erased': ['use', 'kid', 'version'],
  'key.rewrapped': ['root', 'versions'],
  'rotation.ordered': ['rotation', 'id', 'reason', 'detail'],
  'rotation.begun': ['rotation', 'id', 'reason', 'detail'],
  'rotation.finished': ['rotation', 'id', 'version', 'replaced'],
  'rotation.failed': ['rotation', 'id', 'step', 'detail'],
  'rotation.retired': ['rotation', 'version'],
  'rotation.overdue': ['rotation', 'due_at'],
  'tool.cut_off': ['tool', 'before', 'bystanders', 'reason'],
  'audit.exported': ['format', 'selector', 'first', 'last'],
  'grant.issued': [...ofRequest, 'grant', 'audience', 'expires_at', 'ends', 'token_kid', 'renews', 'decision'],
  'grant.minting': [...ofRequest, 'grant', 'connector', 'expires_at', 'ends', 'renews', 'decision'],
  'grant.activated': [...ofGrant, 'reference', 'dies_at'],
  'grant.failed': [...ofGrant, 'detail'],
  'grant.unknown': [...ofGrant, 'detail', 'may_live_until'],
  'grant.renewed': [...ofRequest, 'grant', 'expires_at', 'decision'],
  'grant.ended': [...ofGrant, 'cause', 'effect', 'effective_by'],
  'grant.outlives': [...ofGrant, 'may_live_until'],
  'grant.stuck': [...ofGrant, 'tries', 'detail'],
  'grant.retried': [...ofGrant, 'reason'],
  'grant.written_off': [...ofGrant, 'reason'],
  'grant.denied': [...ofRequest, 'grant', 'decision'],
  'grant.refused': ['workload', 'code', 'detail', ...proven],
  'grant.revoked': [...ofGrant, 'reason'],
  'grants.revoked': ['selector', 'owner', 'workload', 'tool', 'task', 'reason'],
  'orphan.ended': ['tool', 'grant', 'reference'],
  'tool.needs_reconnection': ['tool', 'detail'],
  'secret.stored': ['secret', 'version', 'stage', 'rotation', 'erases'],
  'secret.promoted': ['secret', 'version', 'rotation', 'replaced', 'erases'],
  'secret.erased': ['secret', 'version', 'rotation'],
  'access.refused': ['workload', 'grant', 'method', 'route', ...proven],
  'authentication.refused': ['realm', 'reason', 'count', 'since', 'until', 'claimed'],
  'requests.limited': ['workload', 'count', 'since', 'until'],
  'introspection.refused': ofForeignGrant,
  'revocation.refused': ofForeignGrant,
}
