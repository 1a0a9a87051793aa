import { mkdirSync } from 'node:fs'
import { rotationWaypoints } from '../../src/broker/waypoints.ts'
import { startEmulator, type Aws } from '../aws/emulator.ts'
import type { Server } from '../template.ts'
import { beginAwsLife, checkAfterKill, endAwsLife, settleAndCompare, type AwsLife } from './aws-life.ts'
import { rotatedEveryDays } from './aws-policies.ts'
import type { RotationCounts } from './aws-wield.ts'
import { playDatabases, type Run as DatabasesRun } from './databases.ts'
import { killUnderLoad, noteKill } from './kill-under-load.ts'
import { startKiller, type Killer } from './killer.ts'
import type { Logins } from './aws-logins.ts'
import { leaseOverMs, startNext } from './lending-life.ts'
import { allAwsPlans, createPlanner, namePlan, type Plan } from './lending-plans.ts'
import type { LendingOptions, LendingReport } from './lending-rounds.ts'
import { tryLent } from './lending-verify.ts'
import { createLendingCounts, createLentBook } from './lent.ts'
import { startPostgres } from './postgres.ts'
import { createRandom, type Random } from './random.ts'
import { order } from './site.ts'
import { untilSettled } from './snapshot.ts'

/** The same with AWS in place of roles. */
export interface AwsOptions extends Omit<LendingOptions, 'onRound'> {
  readonly onRound?: (report: AwsReport) => void
}

export interface AwsReport extends Omit<LendingReport, 'orphans'> {
  readonly rotations: RotationCounts
  /** Sessions of the role that were opened, how many of them nobody was given, and denials found after the sweeps. */
  readonly sessions: { opened: number; lost: number; denied: number }
}

/**
 * Kills brokers that lend sessions of a role, deny them, and replace secrets, at random moments and at every point between the
 * steps, and compares after each start what clients hold, what the log says, and what AWS and PostgreSQL have. Ends after the
 * first round in which something was wrong.
 */
export async function runAwsRounds(options: AwsOptions): Promise<AwsReport> {
  const { engine, seed, folder, plans = allAwsPlans } = options
  const result: AwsReport = {
    engine,
    seed,
    rounds: 0,
    databases: 0,
    kills: Object.fromEntries(plans.map((plan) => [namePlan(plan), 0])),
    killsWhileRecovering: 0,
    missed: 0,
    clockMoves: 0,
    entries: 0,
    rotations: { ordered: 0, begun: 0, finished: 0, failed: 0, retired: 0, resumed: 0 },
    sessions: { opened: 0, lost: 0, denied: 0 },
    slowestStartMs: 0,
    counts: createLendingCounts(),
    seconds: 0,
    problems: [],
  }
  mkdirSync(folder, { recursive: true, mode: 0o711 })
  const random = createRandom(seed)
  const run: Run = { ...options, result, random, takePlan: createPlanner(random, plans), killer: await startKiller(), beganMs: performance.now() }
  const aws = await startEmulator({ folder })
  const own = options.server === undefined ? await startPostgres(folder) : undefined
  try {
    const server = options.server ?? own
    if (server === undefined) throw new Error('no server was started')
    await playDatabases(run, `aws-${engine}`, () => ({ ...openDatabase(run, server, aws), play: (life: AwsLife) => playRound(run, life) }))
  } finally {
    await run.killer.end()
    await own?.end()
    await aws.close()
    result.seconds = (performance.now() - run.beganMs) / 1000
  }
  return result
}

interface Run extends AwsOptions, DatabasesRun<AwsReport> {
  readonly random: Random
  readonly killer: Killer
  takePlan(): Plan
}

function openDatabase({ engine, result, seed }: Run, server: Server, aws: Aws) {
  let logins: Logins | undefined
  return {
    async begin(folder: string) {
      // A stream of its own: how often the load draws depends on how fast it gets on.
      const life = await beginAwsLife({ engine, folder, server, aws, random: createRandom(seed + result.databases), book: createLentBook(result), rotations: result.rotations })
      logins = life.logins
      return life
    },
    async end(life: AwsLife) {
      await endAwsLife(life)
      for (const what of ['begun', 'finished', 'failed', 'retired'] as const) result.rotations[what] += life.log.types.get(`rotation.${what}`) ?? 0
    },
    clear: async () => logins?.close(),
  }
}

async function playRound(run: Run, life: AwsLife): Promise<void> {
  const { random, result } = run
  const { site, load, book } = life
  if (random.chance(0.12)) await moveOn(run, life)
  await killUnderLoad(run, life, run.takePlan())
  const entries = life.log.size
  result.rotations.resumed += await checkAfterKill(life)
  if (random.chance(0.2)) await killRecovery(run, life)
  const startedMs = Date.now()
  await startNext(life)
  result.slowestStartMs = Math.max(result.slowestStartMs, Date.now() - startedMs)
  // Sessions of those that are gone.
  await untilSettled(site, startedMs)
  result.sessions.denied += await settleAndCompare(life)
  result.entries += life.log.size - entries
  countSessions(run, life)
  if (book.problems.length === 0) await tryLent(load)
}

/** So that every secret is replaced by schedule, while it is being lent. */
async function moveOn({ result }: Run, { load, broker }: AwsLife): Promise<void> {
  const offMs = load.offMs + rotatedEveryDays * 86_400_000
  await load.moveClock(offMs, () => order(broker, { offMs }))
  result.clockMoves++
}

function countSessions({ result }: Run, life: AwsLife): void {
  const { cloud, log, sessionsBefore } = life
  const fresh = [...cloud.sessions].slice(sessionsBefore)
  life.sessionsBefore = cloud.sessions.size
  result.sessions.opened += fresh.length
  result.sessions.lost += fresh.filter(([grant]) => !log.activated.has(grant)).length
}

const recoveryPoints = ['end_claimed', 'end_called', 'end_answered', 'end_stored', ...rotationWaypoints] as const

/** Kills a broker that clears what the one before has left. */
async function killRecovery(run: Run, life: AwsLife): Promise<void> {
  const { random, result } = run
  const point = random.pick(recoveryPoints) ?? 'end_claimed'
  life.load.setClock(life.load.offMs + leaseOverMs)
  await startNext(life, { point, times: 1 + random.below(2) })
  await order(life.broker, 'tick')
  await life.broker.stop('SIGKILL')
  await noteKill(result, life, { point })
  result.killsWhileRecovering++
  await checkAfterKill(life)
}
