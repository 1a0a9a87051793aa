import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { waypoints, type Waypoint } from '../../src/broker/waypoints.ts'
import type { Engine } from '../../src/storage/engine.ts'
import type { Server } from '../template.ts'
import { report } from './book.ts'
import type { Child } from './child.ts'
import { lastWords, type Death } from './hooks.ts'
import { createKeptLog } from './kept-log.ts'
import { startKiller, type Killer } from './killer.ts'
import { createLedgerTool, type LedgerTool } from './ledger-tool.ts'
import { createLendingCounts, createLentBook, type LendingCounts, type LentBook } from './lent.ts'
import { createLendingLoad, type LendingLoad } from './lending.ts'
import { findUnfinished, readStoredGrants } from './lending-state.ts'
import { checkEmpty, checkEnded, compareLending, createRules, findOrphans, followLog, settleLent, tryLent } from './lending-verify.ts'
import { startPostgres } from './postgres.ts'
import { createRandom, type Random } from './random.ts'
import { createSite, describeEnd, openSite, order, untilAnswered, type Site } from './site.ts'
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
  /** Sweeps beyond the first one, for what a tool that did not answer had put off. */
  sweepsMore: number
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
    sweepsMore: 0,
    slowestStartMs: 0,
    counts: createLendingCounts(),
    seconds: 0,
    problems: [],
  }
  mkdirSync(folder, { recursive: true, mode: 0o711 })
  const run: Run = { ...options, result, random: createRandom(seed), killer: await startKiller(), beganMs: performance.now(), plans, left: [] }
  const own = options.server === undefined ? await startPostgres(folder) : undefined
  try {
    const server = options.server ?? own
    if (server === undefined) throw new Error('no server was started')
    while (mayGoOn(run)) await runDatabase(run, server)
  } finally {
    await run.killer.end()
    await own?.end()
    result.seconds = (performance.now() - run.beganMs) / 1000
  }
  return result
}

interface Run extends LendingOptions {
  readonly result: LendingReport
  readonly random: Random
  readonly killer: Killer
  readonly beganMs: number
  readonly plans: readonly Plan[]
  /** What is left of the present turn of all plans. */
  left: Plan[]
}

/** How the next broker is killed: at a point, a little after it while the tool is at work, at a point of many grants, or at random. */
export type Plan = { readonly point: Waypoint; readonly later?: boolean; readonly ofMany?: boolean } | 'at random'

/** At every point between the steps. */
export const pointPlans: readonly Exclude<Plan, string>[] = waypoints.map((point) => ({ point }))

const allPlans: readonly Plan[] = [
  ...pointPlans,
  { point: 'outside_called', later: true },
  { point: 'end_called', later: true },
  { point: 'end_ordered', ofMany: true },
  ...Array.from({ length: 3 }, () => 'at random' as const),
]

function namePlan(plan: Plan): string {
  if (plan === 'at random') return plan
  const { point, later = false, ofMany = false } = plan
  return `${later ? 'after ' : ''}${point}${ofMany ? ' of many' : ''}`
}

/** Each as often as any other, in an order of chance. */
function takePlan(run: Run): Plan {
  if (run.left.length === 0) run.left = [...run.plans]
  const [plan = 'at random'] = run.left.splice(run.random.below(run.left.length), 1)
  return plan
}

function mayGoOn({ result, rounds, seconds, signal, beganMs }: Run): boolean {
  return result.problems.length === 0 && result.rounds < rounds && performance.now() - beganMs < seconds * 1000 && signal?.aborted !== true
}

/** One database with its clients, its tool, and what was recomputed of its log. */
interface Life {
  readonly site: Site
  readonly tool: LedgerTool
  readonly load: LendingLoad
  readonly book: LentBook
  readonly log: ReturnType<typeof createKeptLog>
  readonly rules: ReturnType<typeof createRules>
  readonly tracesBefore: number
  broker: Child
  /** Loaded while the broker works, to take its place. */
  next: Child
}

async function runDatabase(run: Run, server: Server): Promise<void> {
  const { engine, result, roundsPerDatabase = 40, onRound } = run
  const folder = join(run.folder, `lending-${engine}-${++result.databases}`)
  mkdirSync(folder, { mode: 0o700 })
  let life: Life | undefined
  let tool: LedgerTool | undefined
  try {
    tool = await createLedgerTool(server, folder)
    life = await beginLife(run, folder, server, tool)
    const last = result.rounds + roundsPerDatabase
    do {
      await playRound(run, life)
      result.rounds++
      onRound?.(result)
    } while (result.rounds < last && mayGoOn(run))
    if (result.problems.length === 0) await endLife(run, life)
  } catch (error) {
    report(result, error instanceof Error ? (error.stack ?? error.message) : String(error))
  } finally {
    await Promise.all([life?.load.end(), life?.broker.stop('SIGKILL'), life?.next.stop('SIGKILL')])
    if (result.problems.length === 0) await tool?.close()
    else if (life !== undefined) writeFileSync(join(folder, 'broker.log'), life.broker.said())
  }
  if (result.problems.length === 0) rmSync(folder, { recursive: true })
}

async function beginLife(run: Run, folder: string, server: Server, tool: LedgerTool): Promise<Life> {
  const { engine, result, seed } = run
  const site = await createSite(join(folder, 'site'), engine, server)
  const adminCredential = await openSite(site)
  const book = createLentBook(result)
  const random = createRandom(seed + result.databases)
  const load = createLendingLoad({ port: site.port, book, random, adminCredential, tool })
  const tracesBefore = await tool.countTraces()
  const life: Life = { site, tool, load, book, log: createKeptLog(), rules: createRules(book), tracesBefore, broker: site.serveWithHooks([]), next: site.load() }
  try {
    await untilAnswered(life.broker, site.port)
    await load.prepare()
  } catch (error) {
    await Promise.all([life.broker.stop('SIGKILL'), life.next.stop('SIGKILL')])
    throw error
  }
  return life
}

async function playRound(run: Run, life: Life): Promise<void> {
  const { random, result } = run
  const { site, tool, load, book } = life
  await killUnderLoad(run, life)
  const killedMs = load.nowMs()
  const entries = life.log.size
  // What the dead one has sent the server still does; mostly it is done by then, and sometimes not.
  if (random.chance(0.8)) await tool.untilRootIsGone(1_000)
  const left = await tool.readRoles()
  checkEnded(load, left, 'after the kill')
  if (random.chance(0.2)) await killRecovery(run, life)
  await startAgain(run, life)
  checkEnded(load, await tool.readRoles(), 'after the start')
  await sweepAndCompare(run, life)
  result.entries += life.log.size - entries
  const orphans = findOrphans(left, await readStoredGrants(site), life.log, killedMs)
  const roles = await tool.readRoles()
  result.orphans.found += orphans.length
  result.orphans.cleared += orphans.filter((grant) => !roles.has(grant)).length
  if (book.problems.length === 0) await tryLent(load)
}

const pointMsMax = 10_000

async function killUnderLoad(run: Run, life: Life): Promise<void> {
  const { random, killer, result } = run
  const { load, broker } = life
  const plan = takePlan(run)
  if (plan !== 'at random') await order(broker, { death: makeDeath(random, plan) })
  load.resume(random.chance(0.3))
  const moving = random.chance(0.25) ? moveAhead(run, life) : undefined
  if (plan === 'at random') killer.killAfter(broker.pid, random.between(20, 900))
  const isDead = await Promise.race([broker.ended.then(() => true), setTimeout(pointMsMax, false)])
  if (!isDead) {
    await broker.stop('SIGKILL')
    result.missed++
  }
  await moving
  await noteKill(run, life, plan)
  await load.pause()
}

function makeDeath(random: Random, { point, later = false, ofMany = false }: Exclude<Plan, string>): Death {
  // Orders to end many are few.
  return { point, times: 1 + random.below(ofMany ? 2 : 6), ...(ofMany && { ofMany }), ...(later && { afterMs: random.between(0.5, 40) }) }
}

/** So that some of what is lent expires while it is in use. */
async function moveAhead({ random, result }: Run, { load, broker }: Life): Promise<void> {
  await setTimeout(random.below(150))
  const offMs = load.offMs + 2_000 + random.below(28_000)
  await load.moveClock(offMs, () => order(broker, { offMs }))
  result.clockMoves++
}

async function noteKill({ result }: Run, { broker, book }: Life, plan: Plan): Promise<void> {
  const ended = await broker.ended
  if (ended.signal !== 'SIGKILL') report(book, `a broker that was not told to ended: ${describeEnd(ended)}`)
  const name = ended.err.includes(lastWords) ? namePlan(plan) : 'at random'
  result.kills[name] = (result.kills[name] ?? 0) + 1
}

const sweepPoints = ['end_claimed', 'end_called', 'end_answered', 'end_stored'] as const
/** Longer than a process has for what it mints or ends (`leaseMs`). */
const leaseOverMs = 61_000

/** Kills a broker that clears what the one before has left. */
async function killRecovery(run: Run, life: Life): Promise<void> {
  const { random, result } = run
  const { site, load } = life
  const point = random.pick(sweepPoints) ?? 'end_claimed'
  const offMs = load.offMs + leaseOverMs
  load.setClock(offMs)
  life.broker = site.serveWithHooks([{ offMs }, { death: { point, times: 1 + random.below(2) } }], life.next)
  life.next = site.load()
  await untilAnswered(life.broker, site.port).catch((error: unknown) => {
    if (!life.broker.hasEnded()) throw error
  })
  await Promise.race([order(life.broker, 'tick'), life.broker.ended])
  await life.broker.stop('SIGKILL')
  await noteKill(run, life, { point })
  result.killsWhileRecovering++
}

async function startAgain({ result }: Run, life: Life): Promise<void> {
  const { site, load } = life
  const startedMs = Date.now()
  life.broker = site.serveWithHooks([{ offMs: load.offMs }], life.next)
  await untilAnswered(life.broker, site.port)
  life.next = site.load()
  // Of the one that is gone.
  await untilSettled(site, startedMs)
  result.slowestStartMs = Math.max(result.slowestStartMs, Date.now() - startedMs)
}

const sweepMsMax = 60_000
/** What was put off may be put off again, while connections that were cut are found out. */
const sweepsMoreMax = 3

/** Lets the leases of the dead run out, sweeps once, and compares. */
async function sweepAndCompare(run: Run, life: Life): Promise<void> {
  const { site, tool, load, book, log, rules } = life
  const sweptMs = await sweepAll(run, life)
  const before = await readStoredGrants(site)
  const roles = await tool.readRoles()
  const after = await readStoredGrants(site)
  await followLog(site, log, rules, book)
  compareLending(load, { before, roles, after, sweptMs }, log)
  checkEnded(load, roles, 'after the sweep')
  settleLent(book, after, load.nowMs())
}

/** Sweeps until nothing is under way; what was put off is waited for by the clock alone. Returns the time by which all that was due has been looked at. */
async function sweepAll({ result }: Run, life: Life): Promise<number> {
  const { site, load } = life
  const giveUpMs = performance.now() + sweepMsMax
  let sweptMs = await sweepAfter(life, leaseOverMs)
  for (let more = 0; performance.now() < giveUpMs; ) {
    const unfinished = findUnfinished(await readStoredGrants(site), sweptMs)
    if (unfinished.length === 0) break
    const isUnderWay = unfinished.some(({ dueAtMs = 0, leaseUntilMs = 0 }) => Math.min(dueAtMs, leaseUntilMs) > load.nowMs() || dueAtMs <= load.nowMs())
    if (isUnderWay) {
      await setTimeout(50)
      continue
    }
    if (more++ === sweepsMoreMax) break
    result.sweepsMore++
    sweptMs = await sweepAfter(life, Math.max(...unfinished.map(({ dueAtMs = 0 }) => dueAtMs)) - load.nowMs() + 1_000)
  }
  return sweptMs
}

/** Returns the time by which everything that was due has been looked at, unless it takes long. */
async function sweepAfter({ load, broker }: Life, aheadMs: number): Promise<number> {
  const offMs = load.offMs + aheadMs
  await load.moveClock(offMs, () => order(broker, { offMs }))
  const sweptMs = load.nowMs()
  await order(broker, 'tick')
  return sweptMs
}

/** Lets everything expire and looks at what is left; then at the log as a whole, and stops the broker as one does in earnest. */
async function endLife(run: Run, life: Life): Promise<void> {
  const { site, load, tool, book, broker, log, tracesBefore } = life
  const offMs = load.offMs + 3 * 3_600_000
  await load.moveClock(offMs, () => order(broker, { offMs }))
  await sweepAndCompare(run, life)
  await checkEmpty(tool, book, tracesBefore)
  const afresh = createKeptLog()
  await followLog(site, afresh, createRules(book), book)
  if (afresh.size !== log.size) report(book, `the log has ${afresh.size} entries as a whole, and ${log.size} as it was followed`)
  const ended = await broker.stop('SIGTERM')
  if (ended.code !== 0) report(book, `a broker that was told to stop did not end well: ${describeEnd(ended)}`)
}
