import { mkdirSync } from 'node:fs'
import type { Engine } from '../../src/storage/engine.ts'
import type { Server } from '../template.ts'
import { playDatabases, type Run as DatabasesRun } from './databases.ts'
import { killUnderLoad, noteKill } from './kill-under-load.ts'
import { startKiller, type Killer } from './killer.ts'
import { createLedgerTool, type LedgerTool } from './ledger-tool.ts'
import { beginLife, endLife, leaseOverMs, startNext, sweepAndCompare, type LendingLife } from './lending-life.ts'
import { allPlans, createPlanner, namePlan, type Plan } from './lending-plans.ts'
import { readStoredGrants } from './lending-state.ts'
import { checkEnded, findOrphans, tryLent } from './lending-verify.ts'
import { createLendingCounts, createLentBook, type LendingCounts } from './lent.ts'
import { startPostgres } from './postgres.ts'
import { createRandom, type Random } from './random.ts'
import { order } from './site.ts'
import { untilSettled } from './snapshot.ts'

export interface LendingOptions {
  /** Of Stint's own database; the tool is a PostgreSQL always. */
  readonly engine: Engine
  readonly rounds: number
  /** No round begins after that time. */
  readonly seconds: number
  readonly seed: number
  /** Where databases are kept: the one in which something was wrong, for whoever looks into it. */
  readonly folder: string
  /** One of its own unless it says otherwise. */
  readonly server?: Server
  readonly roundsPerDatabase?: number
  /** How brokers are killed, each as often as the next; `allPlans` unless it says otherwise. */
  readonly plans?: readonly Plan[]
  readonly onRound?: (report: LendingReport) => void
  readonly signal?: AbortSignal
}

/** What was done, and what was found. */
export interface LendingReport {
  readonly engine: Engine
  readonly seed: number
  rounds: number
  databases: number
  /** SIGKILLs, by what the process was doing. */
  readonly kills: Record<string, number>
  /** Of those, how many were of a process that had just begun to clear what the one before had left. */
  killsWhileRecovering: number
  /** Points that were not reached in time; killed all the same, at random. */
  missed: number
  clockMoves: number
  entries: number
  /** Roles that a killed broker left without a live grant, and how many of them were gone after one sweep. */
  readonly orphans: { found: number; cleared: number }
  slowestStartMs: number
  readonly counts: LendingCounts
  seconds: number
  readonly problems: string[]
}

/**
 * Kills brokers that lend and end roles of a real PostgreSQL, at random moments and at every point between the steps, and
 * compares after each start and one sweep what clients hold, what the log says and what the server has. Ends after the first
 * round in which something was wrong.
 */
export async function runLendingRounds(options: LendingOptions): Promise<LendingReport> {
  const { engine, seed, folder, plans = allPlans } = options
  const result: LendingReport = {
    engine,
    seed,
    rounds: 0,
    databases: 0,
    kills: Object.fromEntries(plans.map((plan) => [namePlan(plan), 0])),
    killsWhileRecovering: 0,
    missed: 0,
    clockMoves: 0,
    entries: 0,
    orphans: { found: 0, cleared: 0 },
    slowestStartMs: 0,
    counts: createLendingCounts(),
    seconds: 0,
    problems: [],
  }
  mkdirSync(folder, { recursive: true, mode: 0o711 })
  const random = createRandom(seed)
  const run: Run = { ...options, result, random, takePlan: createPlanner(random, plans), killer: await startKiller(), beganMs: performance.now() }
  const own = options.server === undefined ? await startPostgres(folder) : undefined
  try {
    const server = options.server ?? own
    if (server === undefined) throw new Error('no server was started')
    await playDatabases(run, `lending-${engine}`, () => ({ ...openDatabase(run, server), play: (life: LendingLife) => playRound(run, life) }))
  } finally {
    await run.killer.end()
    await own?.end()
    result.seconds = (performance.now() - run.beganMs) / 1000
  }
  return result
}

interface Run extends LendingOptions, DatabasesRun<LendingReport> {
  readonly random: Random
  readonly killer: Killer
  takePlan(): Plan
}

function openDatabase({ engine, result, seed }: Run, server: Server) {
  let tool: LedgerTool | undefined
  return {
    async begin(folder: string) {
      tool = await createLedgerTool(server, folder)
      // A stream of its own: how often the load draws depends on how fast it gets on.
      return beginLife({ engine, folder, server, tool, random: createRandom(seed + result.databases), book: createLentBook(result) })
    },
    end: endLife,
    clear: async () => tool?.close(),
  }
}

async function playRound(run: Run, life: LendingLife): Promise<void> {
  const { random, result } = run
  const { site, tool, load, book } = life
  await killUnderLoad(run, life, run.takePlan())
  const killedMs = load.nowMs()
  const entries = life.log.size
  // What the dead one has sent the server still does; mostly it is done by then, and sometimes not.
  if (random.chance(0.8)) await tool.untilRootIsGone(1_000)
  const left = await tool.readRoles()
  checkEnded(load, left, 'after the kill')
  if (random.chance(0.2)) await killRecovery(run, life)
  const startedMs = Date.now()
  await startNext(life)
  result.slowestStartMs = Math.max(result.slowestStartMs, Date.now() - startedMs)
  // Sessions of those that are gone.
  await untilSettled(site, startedMs)
  checkEnded(load, await tool.readRoles(), 'after the start')
  await sweepAndCompare(life)
  result.entries += life.log.size - entries
  const orphans = findOrphans(left, await readStoredGrants(site), life.log, killedMs)
  const roles = await tool.readRoles()
  result.orphans.found += orphans.length
  result.orphans.cleared += orphans.filter((grant) => !roles.has(grant)).length
  if (book.problems.length === 0) await tryLent(load)
}

const sweepPoints = ['end_claimed', 'end_called', 'end_answered', 'end_stored'] as const

/** Kills a broker that clears what the one before has left. */
async function killRecovery(run: Run, life: LendingLife): Promise<void> {
  const { random, result } = run
  const point = random.pick(sweepPoints) ?? 'end_claimed'
  life.load.setClock(life.load.offMs + leaseOverMs)
  await startNext(life, { point, times: 1 + random.below(2) })
  await order(life.broker, 'tick')
  await life.broker.stop('SIGKILL')
  await noteKill(run.result, life, { point })
  result.killsWhileRecovering++
}

