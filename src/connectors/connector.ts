import type { Secret } from '../kernel/secret.ts'
import type { Tool, ToolAction } from '../policy/catalog.ts'

/**
 * How a grant ends before its time (invariant 8): the outside system is told and has confirmed; it is told and needs its own
 * delay; whoever asks Stint is told; or not at all before it expires.
 */
export type Effect = 'immediate' | 'propagating' | 'introspection' | 'expiry'

/** What a connector is asked to make. All of it has been allowed by the policy. */
export interface MintRequest {
  /** The grant's id: 32 characters of `[a-z0-9_]`, unique for ever. What is made carries it, where the tool has a place for it. */
  readonly grant: string
  readonly workload: string
  readonly task?: string
  /** At least one, each with the settings that the connector's kind parsed. */
  readonly actions: readonly ToolAction[]
  readonly target?: string
  readonly nowMs: number
  /** When Stint ends it, if nothing ends it before. */
  readonly expiresAtMs: number
}

/** What was made, in the form that the tool's own clients take. */
export interface Minted {
  /** Members named as the tool's clients name them. What is secret is a `Secret`. */
  readonly credential: Readonly<Record<string, string | number | Secret>>
  /** Environment variables by which the tool's own programs take it. */
  readonly environment: Readonly<Record<string, string | Secret>>
  /** The bearer token, where the credential is one: what the OAuth token endpoint answers. */
  readonly token?: Secret
  /** What the tool calls it, for people who look there: never secret. */
  readonly reference?: string
  /** What ending it needs beside the grant's id. It is sealed, and erased once the grant has ended. */
  readonly handle?: Secret
  /** When the tool ends it by itself, where that is before or after the grant's own time. */
  readonly diesAtMs?: number
}

/** What is to be ended: as much of it as is known. */
export interface Ending {
  readonly grant: string
  readonly handle?: Secret
  readonly reference?: string
}

/** `ended`: it opens nothing any more. `lives_until`: it cannot be ended before that time. */
export type Ended = { readonly status: 'ended' } | { readonly status: 'lives_until'; readonly untilMs: number }

/** Something that a connector made and found again in its tool. */
export interface Made {
  readonly grant: string
  readonly reference: string
}

/** One thing that a check looked at, in words. */
export interface Finding {
  readonly ok: boolean
  readonly sentence: string
}

/** A tool of the catalog, opened with its root credential. Every call ends when the signal does, with a `ConnectorError`. */
export interface OpenTool {
  readonly effect: Effect
  /**
   * How a mint is undone whose answer was lost: by `revoke` with the grant's id alone, or not at all, so that what was made
   * lives for as long as the tool lets it: at most this many seconds.
   */
  readonly undo: 'by_grant' | { readonly livesSecondsMax: number }
  /** Makes a credential that can do what the actions allow on the target, and nothing else. Throws `ConnectorError`. */
  mint(request: MintRequest, signal: AbortSignal): Promise<Minted>
  /** Ends it for good, open connections too; again and again with the same result, also where it is not there any more. */
  revoke(ending: Ending, signal: AbortSignal): Promise<Ended>
  /**
   * Takes away at once what they can be used for, as far as that needs no waiting; `revoke` does the rest. For grants that are
   * over. What fails is left to `revoke`.
   */
  disable?(endings: readonly Ending[], signal: AbortSignal): Promise<void>
  /** Whether the tool is reachable, and the root credential has the rights that it needs and no others, in sentences. Does not throw. */
  check(signal: AbortSignal): Promise<readonly Finding[]>
  /** All that this broker made and that is still there; with `undo: 'by_grant'`. */
  list?(signal: AbortSignal): AsyncIterable<Made>
  /** Makes a grant that lives last longer in the tool; absent where the tool need not know. */
  renew?(ending: Ending, expiresAtMs: number, signal: AbortSignal): Promise<void>
  /** Gives back what it holds open. */
  close(): Promise<void>
}

/** What a connector may use of the broker. */
export interface ToolContext {
  /**
   * Tells this broker's traces in a tool from those of another one: 8 characters of `[a-z0-9]`, the same for as long as its
   * log goes on.
   */
  readonly instance: string
  /** Stint's clock, in milliseconds. */
  nowMs(): number
  /** The root credential of a source `env:NAME`, `file:/path` or `sealed:name`, as it is now. Throws `ConnectorError`. */
  readSecret(source: string, what: string): Promise<Secret>
  /** Uses a sealed secret that each use may replace, one use at a time over all processes; see `Custody`. */
  readonly custody: Custody
}

/** What a single use of a secret that replaces itself came to. */
export type Used<T> =
  | {
      readonly result: T
      /** The secret in place of the one that was used up; absent where it stays as it is. */
      readonly replacement?: Secret
    }
  /** The tool has said that the secret opens nothing any more; why, in words. */
  | { readonly usedUp: string }

export interface Custody {
  /**
   * Lends the secret of a source `sealed:name` to `use`, which no other process can have meanwhile, and stores its
   * replacement before this returns. Where `use` throws anything but a `ConnectorError` with the outcome `nothing_done`, or
   * the process dies in between, the secret counts as used up: the tool is marked as needing reconnection, and nobody tries
   * the old one again. Waits for its turn until the signal ends it, and not for long. Throws `ConnectorError`; it may do so
   * although `use` has returned, where the replacement could not be stored in time.
   */
  lend<T>(source: string, tool: string, use: (secret: Secret) => Promise<Used<T>>, signal: AbortSignal): Promise<T>
}

/** Opens tools of one kind. `open` connects nowhere: it throws only for settings that cannot work. */
export interface Connector {
  readonly kind: string
  open(tool: Tool, context: ToolContext): OpenTool
}

/**
 * A tool did not do what it was asked. `nothing_done`: it refused, or was never reached, and what was asked has no effect.
 * `unknown`: the answer was lost, and what was asked may have been done (invariant 2).
 */
export class ConnectorError extends Error {
  readonly outcome: 'nothing_done' | 'unknown'
  /** One sentence for the caller: what is wrong with the tool and, if anybody can, who mends it how. Never a secret. */
  readonly publicMessage: string
  /** The same for an admin, with what is no business of a caller's, such as where the broker keeps things. */
  readonly adminMessage: string
  /** After how many seconds it is worth another try, where the tool said so. */
  readonly retryAfterSeconds: number | undefined

  constructor(init: {
    readonly outcome: 'nothing_done' | 'unknown'
    readonly publicMessage: string
    readonly adminMessage?: string
    readonly retryAfterSeconds?: number
    readonly cause?: unknown
  }) {
    super(init.adminMessage ?? init.publicMessage, { cause: init.cause })
    this.name = 'ConnectorError'
    this.outcome = init.outcome
    this.publicMessage = init.publicMessage
    this.adminMessage = init.adminMessage ?? init.publicMessage
    this.retryAfterSeconds = init.retryAfterSeconds
  }
}
