import type { AuditEvent } from '../audit/event.ts'
import { ConnectorError } from '../connectors/connector.ts'
import { clockMsMax, outboundMsMax } from '../grant/lifetime.ts'
import { formatTime } from '../kernel/clock.ts'
import { BrokerError } from '../kernel/errors.ts'
import { countAlive, findDenyList, findPlacesOf, findToolsOn, putDenyList, type DenyPlace } from '../storage/deny-lists.ts'
import { insertRevocation } from '../storage/grants.ts'
import { causedBy, type Broker, type Caller } from './broker.ts'
import { requireOutsideTool } from './check-tool.ts'
import { commit } from './commit.ts'
import type { Tx } from './ending.ts'
import { describeRevocation } from './revoke.ts'
import { carryRevocations } from './sweep.ts'

export interface CutOff {
  /** The tools that share the role, by name: all their grants end. */
  readonly tools: readonly string[]
  /** Grants that lived and that nobody had ordered to end. */
  readonly bystanders: number
  /** What was done; absent where it was only looked at. */
  readonly done?: {
    /** What was made before then opens nothing any more, once it is confirmed; until then nothing is lent. */
    readonly beforeMs: number
    readonly auditIndex: number
    /** Why the tool has not confirmed it: it is asked again by itself. */
    readonly problem?: string
  }
}

/**
 * Has everything denied that was made on the role behind a tool before a time shortly ahead, for when there is no room to deny
 * one session after another: all grants of all tools that share the role are revoked in one transaction, and so are sessions
 * that others than Stint have opened. Also of a tool that has left the catalog, while anything of it may live. Throws
 * `not_found`, and `conflict` for a tool whose sessions are not denied.
 */
export async function cutOffTool(broker: Broker, caller: Caller, name: string, reason: string): Promise<CutOff> {
  const { places, tools } = await findExtent(broker, name)
  const { result, index } = await commit(broker, {
    async apply(tx, place) {
      const bystanders = await countAlive(tx, tools)
      // Also what was opened until now by a clock that is ahead of ours; it is whole seconds that are compared.
      const beforeMs = Math.ceil((place.timeMs + clockMsMax + 1_000) / 1_000) * 1_000
      for (const one of places) await orderCutOff(tx, one, beforeMs, place.timeMs)
      for (const [i, tool] of tools.entries()) await insertRevocation(tx, place.index + i, { tool })
      const revoked = tools.map((tool) => describeRevocation(caller, { tool }, undefined, reason))
      const cutOff: AuditEvent = { type: 'tool.cut_off', ...causedBy(caller), tool: name, before: formatTime(beforeMs), bystanders, reason }
      const [first = cutOff, ...rest] = [...revoked, cutOff]
      return { result: { bystanders, beforeMs }, raisesEpoch: false, events: [first, ...rest] }
    },
  })
  const auditIndex = index + tools.length
  const problem = await writeNow(broker, places)
  await carryRevocations(broker).catch((error: unknown) => broker.log.warn('what a cut-off ends is ended by the next sweep', { tool: name, error }))
  return { tools, bystanders: result.bystanders, done: { beforeMs: result.beforeMs, auditIndex, ...(problem !== undefined && { problem }) } }
}

/** What a cut-off would end, with nothing done. Throws as it. */
export async function lookAtCutOff(broker: Broker, name: string): Promise<CutOff> {
  const { tools } = await findExtent(broker, name)
  return { tools, bystanders: await countAlive(broker.database.read, tools) }
}

interface Extent {
  readonly places: readonly DenyPlace[]
  readonly tools: readonly string[]
}

/** The lists on which something of this tool is denied, or would be, and all tools that share one of them. */
async function findExtent(broker: Broker, name: string): Promise<Extent> {
  const { policySet } = await broker.knowledge.refresh()
  const nowMs = broker.ledger.nowMs()
  const tool = policySet?.catalog.get(name)
  const own = tool && broker.tools.isOutside(tool) ? broker.tools.findDenying(tool)?.list : undefined
  const former = (await findPlacesOf(broker.database.read, name, nowMs)).filter(({ list }) => list !== own)
  const places = [...(own === undefined || policySet === undefined ? [] : [{ list: own, tool: name, policySet: policySet.hash }]), ...former]
  const lists = places.map(({ list }) => list)
  if (lists.length === 0) await requireOutsideTool(broker, name)
  if (lists.length === 0) throw new BrokerError({ code: 'conflict', publicMessage: `The tool ${name} has no kill switch: what it gives is denied nowhere, and ends by a revocation or by itself.` })
  const sharing = [...(policySet?.catalog.values() ?? [])].filter((one) => broker.tools.isOutside(one) && lists.includes(broker.tools.findDenying(one)?.list ?? ''))
  return { places, tools: [...new Set([name, ...sharing.map((one) => one.name), ...(await findToolsOn(broker.database.read, lists, nowMs))])].toSorted() }
}

async function orderCutOff(tx: Tx, { list, ...at }: DenyPlace, beforeMs: number, timeMs: number): Promise<void> {
  const known = await findDenyList(tx, list)
  await putDenyList(tx, { ...at, ...known, id: list, cutOffBeforeMs: Math.max(beforeMs, known?.cutOffBeforeMs ?? 0), lookAtMs: timeMs })
}

/** As long as somebody waits for it; what fails is tried again by itself. */
async function writeNow(broker: Broker, places: readonly DenyPlace[]): Promise<string | undefined> {
  try {
    const signal = AbortSignal.timeout(outboundMsMax)
    await Promise.all(places.map(({ list }) => broker.denyLists.write(list, signal)))
    return undefined
  } catch (error) {
    broker.log.warn('a cut-off was not written yet: it is tried again', { error })
    return error instanceof ConnectorError ? error.adminMessage : 'It was not written yet.'
  }
}
