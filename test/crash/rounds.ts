import { existsSync, mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import type { Engine } from '../../src/storage/engine.ts'
import { createCounts, report, type Counts } from './book.ts'
import type { Child } from './child.ts'
import { startKiller, type Killer } from './killer.ts'
import { beginLifetime, createTried, type Lifetime, type Tried } from './lifetime.ts'
import { startPostgres, type OwnPostgres } from './postgres.ts'
import { createRandom, type Random } from './random.ts'
import { describeEnd, order, type Site } from './site.ts'
import { hasSession } from './snapshot.ts'

export interface CrashOptions {
  readonly engine: Engine
  /** How often a broker is killed under load, started again and looked at. */
  readonly rounds: number
  /** No round begins after that time. */
  readonly seconds: number
  readonly seed: number
  /** Where databases are kept: the one in which something was wrong, for whoever looks into it. */
  readonly folder: string
  readonly roundsPerDatabase?: number
  /** Told after each round. */
  readonly onRound?: (report: CrashReport) => void
  /** Ends the run after the round that is under way. */
  readonly signal?: AbortSignal
}

/** What was done, and what was found. */
export interface CrashReport {
  readonly engine: Engine
  readonly seed: number
  rounds: number
  databases: number
  /** SIGKILLs, by what the process was doing. */
  readonly kills: Record<'serving' | 'justStarted' | 'starting' | 'migrating', number>
  clockMoves: number
  readonly counts: Counts
  readonly tried: Tried
  /** From the start of a process to its first answer: the longest that it took, and the last one. */
  slowestStartMs: number
  lastStartMs: number
  seconds: number
  readonly problems: string[]
}

/**
 * Kills brokers under load, again and again, and compares after each start what clients were told with what is there. Ends
 * after the first round in which something was wrong.
 */
export async function runCrashRounds(options: CrashOptions): Promise<CrashReport> {
  const { engine, folder, seed } = options
  const result: CrashReport = {
    engine,
    seed,
    rounds: 0,
    databases: 0,
    kills: { serving: 0, justStarted: 0, starting: 0, migrating: 0 },
    clockMoves: 0,
    counts: createCounts(),
    tried: createTried(),
    slowestStartMs: 0,
    lastStartMs: 500,
    seconds: 0,
    problems: [],
  }
  const run: Run = { ...options, result, random: createRandom(seed), killer: await startKiller(), beganMs: performance.now() }
  mkdirSync(folder, { recursive: true, mode: 0o711 })
  const server = engine === 'postgres' ? await startPostgres(folder) : undefined
  try {
    while (mayGoOn(run)) await runDatabase(run, server)
  } finally {
    await run.killer.end()
    await server?.end()
    result.seconds = (performance.now() - run.beganMs) / 1000
  }
  return result
}

interface Run extends CrashOptions {
  readonly result: CrashReport
  readonly random: Random
  readonly killer: Killer
  readonly beganMs: number
}

function mayGoOn({ result, rounds, seconds, signal, beganMs }: Run): boolean {
  const elapsed = (performance.now() - beganMs) / 1000
  return result.problems.length === 0 && result.rounds < rounds && elapsed < seconds && signal?.aborted !== true
}

/** So many rounds on a fresh database, which stays small enough to be looked at as a whole at the end. */
async function runDatabase(run: Run, server: OwnPostgres | undefined): Promise<void> {
  const { engine, result, roundsPerDatabase = 50, onRound } = run
  const folder = join(run.folder, `${engine}-${++result.databases}`)
  mkdirSync(folder, { mode: 0o700 })
  let life: Lifetime | undefined
  let serving: Serving | undefined
  try {
    const begun = await beginLifetime({
      folder,
      engine,
      // A stream of its own: how often the load draws depends on how fast it gets on.
      random: createRandom(run.seed + result.databases),
      ...(server && { server }),
      beforeOpening: (site) => killMigrations(run, site),
      book: { counts: result.counts, problems: result.problems },
      tried: result.tried,
      // PostgreSQL on a machine that is busy enough may not answer in time. Whoever is told so was given nothing, which is checked.
      load: { mayFail: true },
    })
    life = begun
    serving = { broker: begun.broker, hasClock: false, clockMoved: false }
    const last = result.rounds + roundsPerDatabase
    do {
      await killUnderLoad(run, life, serving)
      await startAgain(run, life, serving)
      result.rounds++
      onRound?.(result)
    } while (result.rounds < last && mayGoOn(run))
    if (result.problems.length === 0) await endDatabase(run, life, serving)
  } catch (error) {
    report(result, error instanceof Error ? error.message : String(error))
  } finally {
    await Promise.all([life?.load.end(), serving?.broker.stop('SIGKILL')])
  }
  if (result.problems.length === 0) rmSync(folder, { recursive: true })
}

/** The broker that runs, and what is particular about it. */
interface Serving {
  broker: Child
  /** Whether its clock can be moved. */
  hasClock: boolean
  /** Whether it was, so that the next one's is set back. */
  clockMoved: boolean
}

/** From 5 ms after the first answer to 2 s, and short times as often as long ones. */
async function killUnderLoad({ random, killer, result }: Run, { load, book }: Lifetime, serving: Serving): Promise<void> {
  const { broker } = serving
  await load.resume()
  if (serving.hasClock) {
    await setTimeout(random.below(200))
    const offMs = 60_000 * (5 + random.below(10))
    await load.moveClock(offMs, () => order(broker, { offMs }))
    serving.clockMoved = true
    result.clockMoves++
    // By then its jobs have run, of which one forgets the replay marks of assertions that look expired.
    if (random.chance(0.7)) await setTimeout(500)
  }
  killer.killAfter(broker.pid, random.between(5, 2_000))
  await expectKilled(broker, book)
  result.kills.serving++
  await load.pause()
}

/** Starts a broker that is looked at; before it, maybe some that are killed before their time. */
async function startAgain(run: Run, life: Lifetime, serving: Serving): Promise<void> {
  const { random, result } = run
  const { site } = life
  const clockMoved = serving.clockMoved
  while (random.chance(0.3)) await killEarly(run, life, clockMoved)
  const startedAtMs = Date.now()
  const hasClock = random.chance(0.12)
  const broker = hasClock ? site.serveWithHooks([]) : site.serve()
  Object.assign(serving, { broker, hasClock, clockMoved: false } satisfies Serving)
  await life.open(broker)
  result.lastStartMs = Date.now() - startedAtMs
  result.slowestStartMs = Math.max(result.slowestStartMs, result.lastStartMs)
  await life.verify(startedAtMs)
}

/** Kills a broker while it starts, or just when it has: clients try to reach it all the while. */
async function killEarly({ random, killer, result }: Run, { site, load, book }: Lifetime, clockMoved: boolean): Promise<void> {
  const broker = site.serve()
  // Clients learn how far the log is ahead of the clock only from a start that is looked at.
  const answered = clockMoved ? undefined : load.resume()
  if (answered !== undefined && random.chance(0.5)) {
    await Promise.race([answered, broker.ended])
    killer.killAfter(broker.pid, random.between(0.5, 60))
    result.kills.justStarted++
  } else {
    killer.killAfter(broker.pid, random.next() * result.lastStartMs)
    result.kills.starting++
  }
  await expectKilled(broker, book)
  await load.pause()
}

async function expectKilled(broker: Child, book: Lifetime['book']): Promise<void> {
  const ended = await broker.ended
  if (ended.signal !== 'SIGKILL') report(book, `a broker that was not told to ended: ${describeEnd(ended)}`)
}

/** Kills migrations of a fresh database at whatever they are doing. */
async function killMigrations({ random, killer, result }: Run, site: Site): Promise<void> {
  let beginsAfterMs: number | undefined
  for (let i = 0; i < 4; i++) {
    const migration = site.migrate(`early-${i}`)
    beginsAfterMs = await untilBegun(migration, site, beginsAfterMs)
    killer.killAfter(migration.pid, random.between(0.5, 100))
    const ended = await migration.ended
    if (ended.signal === 'SIGKILL') result.kills.migrating++
    else if (ended.code !== 0) report(result, `a migration failed after others were killed: ${describeEnd(ended)}`)
  }
}

/** So that it is the work that is cut short, and not what comes before. Returns how long that took, for the next one: its files are there. */
async function untilBegun(migration: Child, { engine, database }: Site, beginsAfterMs: number | undefined): Promise<number> {
  const beganMs = performance.now()
  const elapsedMs = (): number => performance.now() - beganMs
  const hasBegun = engine === 'sqlite' ? async () => existsSync(`${database}-wal`) : () => hasSession(database)
  while (!migration.hasEnded() && !(beginsAfterMs === undefined ? await hasBegun() : elapsedMs() > beginsAfterMs)) await setTimeout(1)
  return beginsAfterMs ?? elapsedMs()
}

/** Stops the broker under load as one does in earnest, and looks at the log as a whole. */
async function endDatabase({ random, result }: Run, life: Lifetime, serving: Serving): Promise<void> {
  const { load, site, book } = life
  await load.resume()
  await setTimeout(random.below(300))
  const ended = await serving.broker.stop('SIGTERM')
  if (ended.code !== 0) report(book, `a broker that was told to stop did not end well: ${describeEnd(ended)}`)
  await load.pause()
  if (result.problems.length > 0) return
  const startedAtMs = Date.now()
  serving.broker = site.serve()
  await life.open(serving.broker)
  await life.verify(startedAtMs)
  await life.verifyWhole()
}
