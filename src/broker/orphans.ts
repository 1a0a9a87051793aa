import { ConnectorError, type Made } from '../connectors/connector.ts'
import { isOver } from '../grant/grant.ts'
import type { Tool } from '../policy/catalog.ts'
import { findCredential } from '../storage/credentials.ts'
import { causedBy, type Broker, type Caller } from './broker.ts'
import { commit } from './commit.ts'
import { requireOutsideTool } from './check-tool.ts'
import { createPlaces } from './places.ts'
import { toolError } from './tool-error.ts'

/** What was found in a tool without a live grant. */
export interface Orphan extends Made {
  readonly ended: boolean
  /** Why it was not ended. */
  readonly problem?: string
}

export interface OrphanReport {
  /** False for a tool that cannot say what was made in it. */
  readonly listed: boolean
  /** Everything that this broker has made there and that is still there. */
  readonly found: number
  readonly orphans: readonly Orphan[]
}

/** Together well below the time after which a connection without a word is taken for dead. */
const listMsMax = 20_000
const startEndsMsMax = 30_000
const workersMax = 4

/**
 * Looks through a tool for what this broker made there and no live grant stands for, as after the loss of a database, and ends
 * it unless `dryRun`. What is listed after its intent was committed, so that a grant which is not there is none. What there
 * was no time for is left, and said so: the next look goes on.
 */
export async function sweepOrphans(broker: Broker, caller: Caller, name: string, dryRun: boolean): Promise<OrphanReport> {
  const tool = await requireOutsideTool(broker, name)
  const untilMs = performance.now() + startEndsMsMax
  const made = await listMade(broker, tool)
  if (made === undefined) return { listed: false, found: 0, orphans: [] }
  const orphans: Made[] = []
  for (const one of made) {
    const credential = await findCredential(broker.database.read, one.grant)
    if (credential === undefined || isOver(credential.state)) orphans.push(one)
  }
  const places = createPlaces(workersMax, workersMax)
  const end = async (one: Made): Promise<Orphan> => {
    if (dryRun) return { ...one, ended: false }
    if (performance.now() > untilMs) return { ...one, ended: false, problem: 'There was no time left for it: sweep again.' }
    return endOrphan(broker, caller, tool, one)
  }
  return { listed: true, found: made.length, orphans: await Promise.all(orphans.map((one) => places.run(tool.name, () => end(one)))) }
}

async function listMade(broker: Broker, tool: Tool): Promise<Made[] | undefined> {
  try {
    return await broker.tools.call(
      tool,
      async (open, signal) => {
        if (open.list === undefined) return undefined
        const made: Made[] = []
        for await (const one of open.list(signal)) made.push(one)
        return made
      },
      listMsMax,
    )
  } catch (error) {
    throw toolError(error)
  }
}

async function endOrphan(broker: Broker, caller: Caller, tool: Tool, one: Made): Promise<Orphan> {
  try {
    const { status } = await broker.tools.call(tool, (open, signal) => open.revoke(one, signal))
    if (status !== 'ended') return { ...one, ended: false, problem: 'It cannot be ended before its own time.' }
  } catch (error) {
    if (!(error instanceof ConnectorError)) throw error
    return { ...one, ended: false, problem: error.publicMessage }
  }
  await commit<void>(broker, {
    async apply() {
      const event = { type: 'orphan.ended', ...causedBy(caller), tool: tool.name, grant: one.grant, reference: one.reference } as const
      return { result: undefined, raisesEpoch: false, events: [event] }
    },
  })
  return { ...one, ended: true }
}
