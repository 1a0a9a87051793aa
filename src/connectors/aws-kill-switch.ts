import { setTimeout } from 'node:timers/promises'
import type { KillSwitchConfig } from '../policy/kinds/aws-kill-switch.ts'
import type { AwsAccess, AwsKey } from './aws-client.ts'
import { grantsMaxOf, markOf, packDenials, readDenyDocument, renderDenyDocument, sayTheSame, type FoundDocument } from './aws-deny-policy.ts'
import { checkKillSwitch } from './aws-kill-switch-check.ts'
import { nameOf, openManagedPolicies, type ManagedPolicies } from './aws-managed-policy.ts'
import { ConnectorError, type Denials, type Denying, type Ended, type Finding, type ToolContext, type Written } from './connector.ts'

export interface KillSwitchOptions {
  /** The tool's name. */
  readonly tool: string
  /** The ARN of the role that agents are given sessions of: the list is its own, whichever tools share it. */
  readonly role: string
  readonly config: KillSwitchConfig
  /** The way to AWS; open to `iam`. */
  readonly aws: AwsAccess
  readonly context: Pick<ToolContext, 'denyLists' | 'instance' | 'nowMs'>
  /** For how long after its intent a session may live, at most, in seconds. */
  readonly secondsMax: number
  /** The key that may write the policies, read anew for each use. Throws `ConnectorError`. */
  readKey(signal: AbortSignal): Promise<AwsKey>
}

/**
 * Denies sessions of a role, which AWS cannot end: each by its source identity, in managed policies of the account that are
 * attached to the role and that this broker alone writes.
 */
export interface KillSwitch {
  readonly denying: Denying
  /** How long AWS takes to carry out everywhere what a policy says, at most. */
  readonly delaySeconds: number
  /** `ended` once the policies say so; `waits` where they have no room for all of these grants. Throws `ConnectorError`. */
  deny(grants: readonly string[], signal: AbortSignal): Promise<Ended>
  /** What an admin ought to know of it. Writes the policies anew, with what they ought to say. Does not throw. */
  check(signal: AbortSignal): Promise<readonly Finding[]>
}

/** How often a policy is written that does not say afterwards what was written. */
const writesMax = 3
/** How long it is waited before it is read again: IAM may show a change a moment later. */
const readAgainMs = [0, 300, 1_000] as const
/** How long a grant waits for another's place. */
const lookAgainMs = 60_000

export function openKillSwitch({ tool, role, config, aws, context, secondsMax, readKey }: KillSwitchOptions): KillSwitch {
  const mark = markOf(context.instance, role)
  const { policies: arns } = config
  const grantsMaxOfOne = grantsMaxOf(mark)

  /** Those that can be used: one that cannot takes none of the others with it, and is kept with the reason in `unusable`. */
  async function read(policies: ManagedPolicies, unusable: Unusable, signal: AbortSignal): Promise<readonly Ours[]> {
    const usable = arns.filter((arn) => !unusable.has(arn))
    const settled = await Promise.allSettled(usable.map(async (arn) => requireOurs(arn, readDenyDocument(mark, await policies.read(arn, signal)))))
    for (const [i, one] of settled.entries()) if (one.status === 'rejected') putAside(unusable, usable[i], one.reason, signal)
    const found = settled.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []))
    const [first] = unusable.values()
    if (found.length === 0 && first !== undefined) throw first
    return found
  }

  /** Reads until the policies say so, or it is time to write them anew. */
  async function readBack(policies: ManagedPolicies, documents: Documents, unusable: Unusable, signal: AbortSignal): Promise<readonly Ours[]> {
    let found: readonly Ours[] = []
    for (const ms of readAgainMs) {
      await setTimeout(ms, undefined, { signal })
      found = await read(policies, unusable, signal)
      if (listWrong(documents, found).length === 0) break
    }
    return found
  }

  async function write(judge: (found: Denials) => Promise<Denials>, { rewrite }: { readonly rewrite: boolean }, signal: AbortSignal): Promise<Written> {
    const policies = await openManagedPolicies(aws, await readKey(signal))
    const unusable: Unusable = new Map()
    let found = await read(policies, unusable, signal)
    for (let writes = 0; ; writes++) {
      const packed = packDenials(await judge(unite(found)), found.map(({ says }) => says), grantsMaxOfOne)
      const documents: Documents = new Map(found.map(({ arn }, i) => [arn, packed.documents[i] ?? { grants: [] }]))
      const named = packed.documents.reduce((sum, { grants }) => sum + grants.length, 0)
      const written = (changed: boolean): Written => ({ left: packed.left, named, changed, ...(unusable.size > 0 && { problem: describeUnusable(unusable) }) })
      const wrong = rewrite && writes === 0 ? [...documents.keys()] : listWrong(documents, found)
      if (wrong.length === 0) return written(writes > 0)
      if (writes === writesMax) throw differs(wrong)
      const lost = await writeAll(policies, documents, wrong, unusable, signal)
      found = await readBack(policies, documents, unusable, signal)
      if (listWrong(documents, found).length === 0) return written(true)
      if (lost !== undefined) throw lost
    }
  }

  /** Returns the error of a write whose answer was lost: what came of it is read back. */
  async function writeAll(policies: ManagedPolicies, documents: Documents, wrong: readonly string[], unusable: Unusable, signal: AbortSignal): Promise<ConnectorError | undefined> {
    const written = await Promise.allSettled(wrong.map((arn) => policies.write(arn, renderDenyDocument(mark, documents.get(arn) ?? { grants: [] }), signal)))
    let lost: ConnectorError | undefined
    for (const [i, one] of written.entries()) {
      if (one.status === 'fulfilled') continue
      if (!signal.aborted && one.reason instanceof ConnectorError && one.reason.outcome === 'unknown') lost ??= one.reason
      else putAside(unusable, wrong[i], one.reason, signal)
    }
    return lost
  }

  const denying: Denying = { list: role, secondsMax, grantsMax: arns.length * grantsMaxOfOne, write: (judge, options, signal) => write(judge, options, signal).catch((error: unknown) => { throw toConnectorError(error) }) }
  return {
    denying,
    delaySeconds: config.propagation_seconds,
    async deny(grants, signal) {
      const left = await context.denyLists.deny(role, grants, signal)
      return left.length === 0 ? { status: 'ended' } : { status: 'waits', why: describeFull(tool, denying.grantsMax), nextAtMs: context.nowMs() + lookAgainMs }
    },
    check: (signal) => checkKillSwitch({ tool, role, policies: arns, denying, denyLists: context.denyLists, open: async () => openManagedPolicies(aws, await readKey(signal)) }, signal),
  }
}

type Ours = Extract<FoundDocument, { readonly owner: 'ours' }> & { readonly arn: string }

/** What each policy is to say, by its ARN. */
type Documents = ReadonlyMap<string, Denials>

/** Policies that cannot be read, or written, or are somebody else's, by their ARN. */
type Unusable = Map<string, ConnectorError>

/** Throws what is not to be laid to this policy: what passes, and what nobody knows the outcome of. */
function putAside(unusable: Unusable, arn: string | undefined, error: unknown, signal: AbortSignal): void {
  if (arn === undefined || signal.aborted || !(error instanceof ConnectorError) || error.outcome !== 'nothing_done' || error.retryAfterSeconds !== undefined) throw error
  unusable.set(arn, error)
}

function describeUnusable(unusable: Unusable): string {
  return [...new Set([...unusable.values()].map(({ adminMessage }) => adminMessage))].join(' ')
}

function requireOurs(arn: string, found: FoundDocument): Ours {
  if (found.owner === 'ours') return { ...found, arn }
  const publicMessage = `The policy ${nameOf(arn)} ${found.why}, and is not touched: an admin names a policy in the catalog file that is for this role alone.`
  throw new ConnectorError({ outcome: 'nothing_done', publicMessage, adminMessage: publicMessage.replace(nameOf(arn), arn) })
}

/** Those that say something else than they ought to. */
function listWrong(documents: Documents, found: readonly Ours[]): string[] {
  return [...documents].flatMap(([arn, document]) => {
    const one = found.find((other) => other.arn === arn)
    return one !== undefined && one.exact && sayTheSame(document, one.says) ? [] : [arn]
  })
}

function unite(found: readonly Ours[]): Denials {
  const times = found.flatMap(({ says: { cutOffBeforeMs } }) => cutOffBeforeMs ?? [])
  return { grants: found.flatMap(({ says }) => says.grants), ...(times.length > 0 && { cutOffBeforeMs: Math.max(...times) }) }
}

function differs(arns: readonly string[]): ConnectorError {
  const names = arns.map(nameOf).join(', ')
  return new ConnectorError({ outcome: 'unknown', publicMessage: `The policy ${names} does not say what Stint has written: somebody else writes it, or AWS shows it late. It is written again.`, retryAfterSeconds: 5 })
}

function toConnectorError(error: unknown): unknown {
  if (!(error instanceof Error) || !/^(?:AbortError|TimeoutError)$/.test(error.name)) return error
  return new ConnectorError({ outcome: 'unknown', publicMessage: 'AWS did not answer in time while the deny policies were being written.', cause: error })
}

function describeFull(tool: string, max: number): string {
  return `All ${max} places are taken in which sessions of the role can be denied: this one is as soon as another has died. An admin who cannot wait gives the role one more deny policy, or ends every session of it: stint tool cut-off ${tool}`
}
