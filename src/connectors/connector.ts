import type { Log } from '../kernel/log.ts'
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
  /** The team that answers for the workload. */
  readonly owner: string
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
  /** Environment variables that such a program would take before those, or mix with them: it must have none of these. */
  readonly conceals?: readonly string[]
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
  /** When the tool ends it by itself, where it does. */
  readonly diesAtMs?: number
}

/**
 * `ended`: it opens nothing any more, or not after the tool's own delay where the effect is `propagating`. `lives_until`: it
 * cannot be ended before that time. `waits`: its end is under way, for a reason in words, and is looked at again then.
 */
export type Ended =
  | { readonly status: 'ended' }
  | { readonly status: 'lives_until'; readonly untilMs: number }
  | { readonly status: 'waits'; readonly why: string; readonly nextAtMs: number }

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
  /** How long the tool takes to carry out what it has confirmed, at most, in seconds; with `propagating`, where it is known. */
  readonly delaySeconds?: number
  /** Where its credentials are denied once they are over, where the tool itself cannot end them. */
  readonly denying?: Denying
  /** The long-lived secret behind the tool, where Stint replaces it by schedule. */
  readonly rotation?: RotatableSecret
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

/** A version of a secret by its name, which tells nothing of its value. */
export interface SecretVersion {
  readonly version: string
  readonly sinceMs: number
}

/** What came of trying a new value out. `why` is one sentence for an admin. */
export type Tested = { readonly ok: true } | { readonly ok: false; readonly why: string }

/**
 * A secret that is replaced in four steps: `create` makes the new value and keeps it as the pending one, `set` has the system
 * behind it accept it, `test` tries it out there, `finish` makes it the current one. Each may be repeated, by another process
 * too, with the same result; `rotation` names the run that they belong to (a UUID). Throws `ConnectorError`.
 */
export interface RotatableSecret {
  /** How long a value is to be current. */
  readonly everySeconds: number
  /**
   * The version in force, and who else has begun to replace it, in words: that is left alone until it is over. `replaced`: what
   * was in force before and is not retired, where the store knows; it may have been replaced by hand.
   */
  look(signal: AbortSignal): Promise<{ readonly current?: SecretVersion; readonly foreign?: string; readonly replaced?: readonly string[] }>
  create(rotation: string, signal: AbortSignal): Promise<void>
  set(rotation: string, signal: AbortSignal): Promise<void>
  test(rotation: string, signal: AbortSignal): Promise<Tested>
  /** Returns the version that is in force from then on, and the one that was before. */
  finish(rotation: string, signal: AbortSignal): Promise<{ readonly version: string; readonly replaced?: string }>
  /** Gives up the pending value of that run: the current one stays in force. */
  abandon(rotation: string, signal: AbortSignal): Promise<void>
  /**
   * Has a version that was replaced open nothing any more. `cutOff`: whatever it holds open is cut off, too. Absent where the
   * system behind it does so by itself once there is another one.
   */
  retire?(version: string, options: { readonly cutOff: boolean }, signal: AbortSignal): Promise<void>
}

/** What has to be denied in one place of a tool. */
export interface Denials {
  /** The grants that are over while the tool would let their sessions go on, in the order of their ids. */
  readonly grants: readonly string[]
  /** Everything that was made before that time is to be denied, by the word of an admin; whole seconds. */
  readonly cutOffBeforeMs?: number
  /** Those of the grants that the cut-off denies too: they are named only while there is room. */
  readonly covered?: readonly string[]
}

/** A place of a tool in which sessions are denied that it cannot end. Tools may share one. */
export interface Denying {
  /** Names the place: the same for all tools that share it. */
  readonly list: string
  /** For how long after a mint has begun its session has to be denied, at most. */
  readonly secondsMax: number
  /** How many grants can be named there. */
  readonly grantsMax: number
  /**
   * Has the place say just what `judge` returns, once it has been read back: `judge` is told what it says now, and is asked
   * anew before each try. `left` did not fit; what stood there stays. `rewrite`: it is written also where it is right.
   * Throws `ConnectorError`.
   */
  write(judge: (found: Denials) => Promise<Denials>, options: { readonly rewrite: boolean }, signal: AbortSignal): Promise<Written>
}

/** What came of writing a list. `changed`: it did not say so before. `problem`: what of the place cannot be used, and why. */
export interface Written {
  readonly left: readonly string[]
  /** How many grants it names. */
  readonly named: number
  readonly problem?: string
  readonly changed: boolean
}

/** Lists of what a tool must deny: each is written whole from the broker's rows, by one process at a time. */
export interface DenyLists {
  /**
   * Has the list written with these grants in it; of several calls at once one may do it for all. Returns those for which
   * there is no room. Throws what `Denying.write` throws, and a `ConnectorError` where its turn does not come before the
   * signal does.
   */
  deny(list: string, grants: readonly string[], signal: AbortSignal): Promise<readonly string[]>
  /** Has a place written as it ought to be, also where it is so, for a check. Throws as `deny`. */
  rewrite(denying: Denying, signal: AbortSignal): Promise<Pick<Written, 'named' | 'problem'>>
  /** How many grants are to be denied there now that nothing else denies. */
  countNamed(list: string): Promise<number>
  /** What was made before then by the tool's clock is denied, also if it is made only now; `undefined` where nothing is cut off. */
  findCutOff(list: string): Promise<number | undefined>
}

/** A version of a sealed secret, opened. */
export interface OpenedVersion extends SecretVersion {
  readonly value: Secret
  /** The rotation that made it. */
  readonly rotation?: string
}

/** The versions of a secret that Stint keeps sealed. What changes them is on record when it returns. Throws `ConnectorError`. */
export interface SealedVersions {
  /** `older`: those that were replaced before the previous one, and are not retired either. */
  find(name: string): Promise<{ readonly current?: OpenedVersion; readonly pending?: OpenedVersion; readonly previous?: OpenedVersion; readonly older?: readonly OpenedVersion[] }>
  /** Keeps a value as the pending version of that rotation; the first one counts, however often it is repeated. */
  create(name: string, rotation: string, value: Secret): Promise<OpenedVersion>
  /** The pending version of that rotation is the current one from then on, and that one the previous one. */
  promote(name: string, rotation: string): Promise<{ readonly version: string; readonly replaced?: string }>
  /** Erases the pending version of that rotation. */
  abandon(name: string, rotation: string): Promise<void>
  /** Erases a version that is not the current one. */
  retire(name: string, version: string): Promise<void>
}

/** What a token for web identity federation says beside who it is from: OpenID Connect Core §2. */
export interface WebIdentity {
  readonly subject: string
  readonly audience: string
  readonly seconds: number
  readonly claims: Readonly<Record<string, unknown>>
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
  readonly denyLists: DenyLists
  readonly sealedVersions: SealedVersions
  /** Signs a JWT by which Stint itself proves who it is to a cloud that trusts its issuer. */
  signWebIdentity(identity: WebIdentity): Promise<Secret>
  /** The programs that a rotator may run on the broker's machine, by the names that its configuration gives them. */
  readonly commands: ReadonlyMap<string, AllowedCommand>
  /** The operator's log: for what programs say that is no business of a caller's. */
  readonly log: Log
}

/** A program on the broker's machine. */
export interface AllowedCommand {
  /** Absolute, without symbolic links. */
  readonly path: string
  /** What it is always called with. */
  readonly args: readonly string[]
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
