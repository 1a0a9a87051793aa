import type { Denials } from '../connectors/connector.ts'
import { clockMsMax, leaseMs } from '../grant/lifetime.ts'
import { readIdTime } from '../kernel/ids.ts'
import { findDenied, findDenyList, findDenyTimes } from '../storage/deny-lists.ts'
import type { Broker } from './broker.ts'

/** The longest that a session lives which is denied by a list: AWS gives no role's session more (AssumeRole, DurationSeconds). */
const sessionMsMax = 12 * 3_600_000

/** What a list ought to say, and how it got there. */
export interface Judged {
  readonly denials: Denials
  /** Grants that it denied already and did not name any more: somebody else has written it. */
  readonly missing: number
}

/**
 * What a list has to deny: all that the rows say is over and may live, with what is `asked` for now, whatever its row says.
 * What is `found` there and may live stays, also where no row says that it is over: after a restored backup the list knows
 * more than the rows do, and nothing that was denied is ever let loose. What a cut-off denies too keeps its name while there
 * is room for it.
 */
export async function judgeDenials({ database, ledger }: Pick<Broker, 'database' | 'ledger'>, list: string, asked: Iterable<string>, found: Denials): Promise<Judged> {
  const nowMs = ledger.nowMs()
  const cutOffBeforeMs = latestCutOff([(await findDenyList(database.read, list))?.cutOffBeforeMs, found.cutOffBeforeMs], nowMs)
  const denied = await findDenied(database.read, list, nowMs)
  const grants = new Set([...asked, ...denied.map(({ grant }) => grant)].filter((grant) => readIdTime(grant) !== undefined))
  const others = found.grants.filter((grant) => !grants.has(grant))
  const times = await findDenyTimes(database.read, others)
  for (const grant of others) if (nowMs < (times.get(grant) ?? latestDeathMs(grant))) grants.add(grant)
  const named = [...grants].toSorted()
  const covered = named.filter((grant) => isCutOff(grant, cutOffBeforeMs))
  const present = new Set(found.grants)
  const missing = denied.filter(({ grant, confirmed }) => confirmed && !present.has(grant) && !isCutOff(grant, found.cutOffBeforeMs)).length
  return { denials: { grants: named, covered, ...(cutOffBeforeMs !== undefined && { cutOffBeforeMs }) }, missing }
}

/** Whether the cut-off denies whatever that grant was given: also where its mint took its time, and by a clock that is ahead of ours. */
function isCutOff(grant: string, cutOffBeforeMs = 0): boolean {
  return (readIdTime(grant) ?? Infinity) + leaseMs + clockMsMax < cutOffBeforeMs
}

/** The later one of those that still deny anybody; one that lies ahead of what this broker orders is none of its own. */
export function latestCutOff(times: readonly (number | undefined)[], nowMs: number): number | undefined {
  const live = times.filter((ms) => ms !== undefined && nowMs < ms + sessionMsMax + clockMsMax && ms <= nowMs + 3 * clockMsMax)
  return live.length === 0 ? undefined : Math.max(...live.map((ms) => ms ?? 0))
}

/** How many grants a list has to name now: all that it denies but what the cut-off denies too. */
export async function countNamed({ database, ledger }: Pick<Broker, 'database' | 'ledger'>, list: string): Promise<number> {
  const nowMs = ledger.nowMs()
  const cutOffBeforeMs = latestCutOff([(await findDenyList(database.read, list))?.cutOffBeforeMs], nowMs)
  return (await findDenied(database.read, list, nowMs)).filter(({ grant }) => !isCutOff(grant, cutOffBeforeMs)).length
}

/** When the session of a grant is dead of which there is no row, by the time in its id. */
function latestDeathMs(grant: string): number {
  return (readIdTime(grant) ?? -Infinity) + sessionMsMax + 15 * 60_000
}
