/** How a grant ends before its time, as the API says it; others than these are shown as they are. */
export type Effect = 'immediate' | 'propagating' | 'introspection' | 'expiry'

/** How a grant ends, and the same in words. */
export interface Ends {
  readonly effect: Effect
  /** How long the tool takes until that is carried out everywhere, at most, where it is known. */
  readonly delay_seconds?: number
  /** RFC 3339. Until then the tool by itself lets it live, past the grant's own time. */
  readonly tool_ends_at?: string
  readonly meaning: string
}

/** What an agent asks for. */
export interface GrantRequest {
  readonly tool: string
  /** Full names, `tool:verb`, or the verbs alone. */
  readonly actions: readonly string[]
  /** The one object within the tool that the work is about. */
  readonly target?: string | undefined
  /** Whole seconds; the tool's default where absent. */
  readonly ttlSeconds?: number | undefined
  /** The caller's own name for the piece of work. */
  readonly task?: string | undefined
  /** Why, for whoever reads the log. */
  readonly reason?: string | undefined
  /**
   * Names the request, so that it can be sent again within 24 hours: what it gave before is ended first. 1 to 255 printable
   * characters; a fresh UUID where absent.
   */
  readonly idempotencyKey?: string | undefined
}

/** What was granted, with its credential, which is answered this once. */
export interface LentGrant {
  readonly grant: string
  readonly tool: string
  /** Full names. */
  readonly actions: readonly string[]
  readonly target?: string
  readonly task?: string
  readonly issuedAt: Date
  /** By the broker's clock. */
  readonly expiresAt: Date
  /** The first grant, where this one goes on from it. */
  readonly renews?: string
  readonly ends: Ends
  /** In the form that the tool's own clients take, members named as they name them. */
  readonly credential: Readonly<Record<string, string | number>>
  /** Environment variables by which the tool's own programs take it. */
  readonly environment: Readonly<Record<string, string>>
  /** Those that such a program must not have beside them: it would take them before those, or mix them. */
  readonly conceals?: readonly string[]
  /** Index of the audit entry that records the grant. */
  readonly auditIndex: number
}

/** The same credential for longer. */
export interface ProlongedGrant {
  readonly grant: string
  readonly expiresAt: Date
  /** The end of the longest life that the tool gives, counted from the first grant. */
  readonly renewableUntil: Date
  readonly auditIndex: number
}

/** What can become of a grant that is to end. */
export type Outcome = 'revoked' | 'already_ended' | 'retrying' | 'lives_until' | 'stuck' | 'written_off'

/**
 * What became of one grant that was to end, as the API shows it. `revoked`: it has ended by this, with `effect`.
 * `already_ended`: before. `retrying`: the tool has not confirmed it yet and is asked again. `lives_until`: nobody can end it
 * before `until`. `stuck`: the tool has refused so often that an admin has to look. `written_off`: one has, and it may live.
 */
export interface EndedGrant {
  readonly grant: string
  readonly workload: string
  readonly tool: string
  readonly outcome: Outcome
  readonly effect: Effect
  /** RFC 3339. */
  readonly until?: string
  /** RFC 3339: the tool was told, and takes until then to carry it out everywhere. */
  readonly effective_by?: string
  readonly problem?: string
  readonly audit_index?: number
}

/** What completing a task ended; without an entry nothing of it was alive. */
export interface CompletedTask {
  readonly grants: readonly EndedGrant[]
  readonly audit_index?: number
}

/** How far the life of a grant has come. */
export type GrantState = 'minting' | 'active' | 'ending' | 'unknown' | 'stuck' | 'failed' | 'revoked' | 'expired' | 'written_off'

/** A grant as the API shows it, without its credential; times are RFC 3339. */
export interface GrantRecord {
  readonly grant: string
  readonly workload: string
  readonly tool: string
  readonly actions: readonly string[]
  readonly target?: string
  readonly task?: string
  readonly state: GrantState
  readonly issued_at: string
  readonly expires_at: string
  readonly ends: Ends
  /** What the tool calls it. */
  readonly reference?: string
  /** Until then it may live whatever is done. */
  readonly may_live_until?: string
  /** How often its end was tried. */
  readonly tries?: number
  readonly next_try_at?: string
  /** What went wrong last. */
  readonly problem?: string
  readonly ended_at?: string
  /** The tool has confirmed its end, and takes until then to carry it out everywhere. */
  readonly effective_by?: string
}

/** Which grants to list: those that fit all members given. */
export interface GrantQuery {
  readonly state?: string | undefined
  readonly tool?: string | undefined
  readonly workload?: string | undefined
  readonly limit?: number | undefined
  /** `next` of the page before. */
  readonly after?: string | undefined
}

/** By id, which is by time; with `next` there are more. */
export interface GrantPage {
  readonly grants: readonly GrantRecord[]
  readonly next?: string
}

/** What to end: everything that matches all that is given; `grant` stands alone. */
export interface Revocation {
  readonly grant?: string | undefined
  readonly workload?: string | undefined
  /** A team: all of its workloads. */
  readonly owner?: string | undefined
  readonly tool?: string | undefined
  readonly task?: string | undefined
  /** RFC 3339: what was granted before. */
  readonly before?: string | undefined
  /** With `workload` alone: it is suspended as well, in the same step. */
  readonly suspend?: true | undefined
  readonly reason?: string | undefined
}

/** What a revocation did. */
export interface RevocationResult {
  /** Number of live grants that were ended or whose end was ordered, as far as they were counted. */
  readonly revoked: number
  /** There are more than were counted or are listed; the revocation covers them too. */
  readonly more: boolean
  readonly already_ended: number
  /** What became of each, the newest first; a thousand at most. */
  readonly grants: readonly EndedGrant[]
  readonly audit_index?: number
}

/** A tool of the catalog in force. */
export interface ToolRecord {
  readonly tool: string
  readonly connector: string
  readonly description?: string
  readonly audience?: string
  /** What a target of this tool is. */
  readonly target?: string
  readonly ttl_seconds_max: number
  readonly actions: readonly string[]
  /** Whether its credentials live in another system. */
  readonly outside: boolean
}

/** Whether a tool is reachable and its root credential has the rights that it needs and no others. */
export interface ToolCheck {
  readonly tool: string
  readonly ok: boolean
  readonly findings: readonly { readonly ok: boolean; readonly sentence: string }[]
}

/** What cutting off a tool ended, or would end: then it has no `before`. */
export interface ToolCutOff {
  readonly tool: string
  /** All that share its role: every grant of theirs ends. */
  readonly tools: readonly string[]
  /** Grants that lived and that nobody had ordered to end. */
  readonly bystanders: number
  /** What it ends beside them, in words. */
  readonly meaning: string
  /** RFC 3339: whatever was made before then is denied. */
  readonly before?: string
  /** Whether the tool has confirmed it. */
  readonly confirmed?: boolean
  /** Why it has not yet. */
  readonly problem?: string
  readonly audit_index?: number
}

/** What a look through a tool found that no live grant stands for. */
export interface OrphanSweep {
  readonly tool: string
  /** False for a tool that cannot say what was made in it. */
  readonly listed: boolean
  /** Everything that this broker has made there and that was there. */
  readonly found: number
  readonly orphans: readonly { readonly grant: string; readonly reference: string; readonly ended: boolean; readonly problem?: string }[]
}
