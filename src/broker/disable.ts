import { setImmediate } from 'node:timers/promises'
import { isOver } from '../grant/grant.ts'
import { outboundMsMax } from '../grant/lifetime.ts'
import type { Ending } from '../connectors/connector.ts'
import { findTouched, type TouchedGrant } from '../storage/revoked.ts'
import type { Broker } from './broker.ts'
import { openHandle } from './end.ts'

/** Some milliseconds' worth. */
const looksAtOnce = 20

/**
 * Takes away at once what many grants that are over can be used for, where their tools can do that: their ends, one by one,
 * may have to wait for what an agent has left behind. Nothing is claimed and nothing recorded: whatever fails here is left to
 * the ends. Never throws, and takes no longer than so many milliseconds.
 */
export async function disableMany(broker: Broker, grants: readonly string[], msMax = outboundMsMax): Promise<void> {
  const touched: TouchedGrant[] = []
  for (const [i, id] of grants.entries()) {
    // SQLite answers at once: new grants would wait for all of them otherwise.
    if (i % looksAtOnce === 0) await setImmediate()
    const one = await findTouched(broker.database.read, id, broker.ledger.nowMs())
    if (one?.credential !== undefined && one.state !== 'active' && one.state !== 'minting' && !isOver(one.state)) touched.push(one)
  }
  const places = Map.groupBy(touched, ({ grant, credential }) => JSON.stringify([credential?.policySet, grant.tool]))
  await Promise.all([...places.values()].map((ofPlace) => disablePlace(broker, ofPlace, msMax)))
}

/** Of one tool as one policy set describes it. */
async function disablePlace(broker: Broker, touched: readonly TouchedGrant[], msMax: number): Promise<void> {
  const [first] = touched
  if (first?.credential === undefined) return
  try {
    const tool = await broker.tools.find(first.credential.policySet, first.grant.tool)
    if (tool === undefined) return
    const endings = touched.map((one) => describeEnding(broker, one))
    await broker.tools.call(tool, (open, signal) => open.disable?.(endings, signal) ?? Promise.resolve(), msMax)
  } catch (error) {
    broker.log.warn('credentials that are over were not disabled together: they are ended one by one', { tool: first.grant.tool, count: touched.length, error })
  }
}

function describeEnding(broker: Broker, { grant: { id }, credential }: TouchedGrant): Ending {
  const { handle, reference } = credential ?? {}
  return { grant: id, ...(handle && { handle: openHandle(broker, id, handle) }), ...(reference !== undefined && { reference }) }
}
