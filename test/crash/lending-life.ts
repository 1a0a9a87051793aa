import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import type { Engine } from '../../src/storage/engine.ts'
import type { Server } from '../template.ts'
import { report } from './book.ts'
import type { Child } from './child.ts'
import type { Death } from './hooks.ts'
import { createKeptLog } from './kept-log.ts'
import type { LedgerTool } from './ledger-tool.ts'
import { cutRoles, wieldRoles } from './ledger-use.ts'
import { findUnfinished, readStoredGrants } from './lending-state.ts'
import { checkEmpty, checkEnded, compareLending, createRules, followLog, settleLent } from './lending-verify.ts'
import { createLendingLoad, type LendingLoad } from './lending.ts'
import type { LentBook } from './lent.ts'
import type { Random } from './random.ts'
import { createSite, describeEnd, openSite, order, untilAnswered, type Site } from './site.ts'

/** One database with its clients, and what was recomputed of its log. */
export interface BrokerLife {
  readonly site: Site
  readonly load: LendingLoad
  readonly book: LentBook
  readonly log: ReturnType<typeof createKeptLog>
  readonly rules: ReturnType<typeof createRules>
  broker: Child
  /** Loaded while the broker works, to take its place. */
  next: Child
}

/** The same with its tool. */
export interface LendingLife extends BrokerLife {
  readonly tool: LedgerTool
  readonly tracesBefore: number
}

interface LifeOptions {
  readonly engine: Engine
  readonly folder: string
  readonly server: Server
  readonly tool: LedgerTool
  readonly random: Random
  readonly book: LentBook
}

/** Makes a site, starts a first broker, and puts in force and registers what the load works with. Returns with that broker running. */
export async function beginLife({ engine, folder, server, tool, random, book }: LifeOptions): Promise<LendingLife> {
  const site = await createSite(join(folder, 'site'), engine, server)
  const adminCredential = await openSite(site)
  const load = createLendingLoad({
    port: site.port,
    book,
    random,
    adminCredential,
    policies: tool.policies,
    wield: wieldRoles,
    others: (lending) => [() => cutRoles(lending, tool)],
  })
  const tracesBefore = await tool.countTraces()
  const life: LendingLife = { site, tool, load, book, log: createKeptLog(), rules: createRules(book), tracesBefore, broker: site.serveWithHooks([]), next: site.load() }
  try {
    await untilAnswered(life.broker, site.port)
    await load.prepare()
  } catch (error) {
    await Promise.all([life.broker.stop('SIGKILL'), life.next.stop('SIGKILL')])
    throw error
  }
  return life
}

/** Starts the next broker, with its clock where the last one's was, and has another loaded. Returns once it answers, or where it ends before. */
export async function startNext(life: BrokerLife, death?: Death): Promise<void> {
  const { site, load } = life
  const broker = site.serveWithHooks([{ offMs: load.offMs }, ...(death === undefined ? [] : [{ death }])], life.next)
  life.broker = broker
  try {
    await untilAnswered(broker, site.port)
  } catch (error) {
    // As it was told to.
    if (death === undefined || !broker.hasEnded()) throw error
  } finally {
    life.next = site.load()
  }
}

/** Longer than a process has for what it mints or ends (`leaseMs`). */
export const leaseOverMs = 61_000
const sweepMsMax = 60_000
/** What was put off may be put off again, while connections that were cut are found out. */
const sweepsMoreMax = 3

/** Lets the leases of the dead run out, sweeps once, and compares. */
export async function sweepAndCompare(life: LendingLife): Promise<void> {
  const { site, tool, load, book, log, rules } = life
  const sweptMs = await sweepAll(life)
  const before = await readStoredGrants(site)
  const roles = await tool.readRoles()
  const after = await readStoredGrants(site)
  await followLog(site, log, rules, book)
  compareLending(load, { before, roles, after, sweptMs }, log)
  checkEnded(load, roles, 'after the sweep')
  settleLent(book, after, load.nowMs())
}

/** Sweeps until nothing is under way; what was put off is waited for by the clock alone. Returns the time by which all that was due has been looked at. */
async function sweepAll(life: LendingLife): Promise<number> {
  const { site, load, book } = life
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
    book.counts.sweepsMore++
    sweptMs = await sweepAfter(life, Math.max(...unfinished.map(({ dueAtMs = 0 }) => dueAtMs)) - load.nowMs() + 1_000)
  }
  return sweptMs
}

/** Returns the time by which everything that was due has been looked at, unless it takes long. */
export async function sweepAfter({ load, broker }: Pick<BrokerLife, 'load' | 'broker'>, aheadMs: number): Promise<number> {
  const offMs = load.offMs + aheadMs
  await load.moveClock(offMs, () => order(broker, { offMs }))
  const sweptMs = load.nowMs()
  await order(broker, 'tick')
  return sweptMs
}

/** Lets everything expire and looks at what is left; then at the log as a whole, and stops the broker as one does in earnest. */
export async function endLife(life: LendingLife): Promise<void> {
  const { load, tool, book, broker, tracesBefore } = life
  const offMs = load.offMs + 3 * 3_600_000
  await load.moveClock(offMs, () => order(broker, { offMs }))
  await sweepAndCompare(life)
  await checkEmpty(tool, book, tracesBefore)
  await stopInEarnest(life)
}

/** Reads the log as a whole, and stops the broker as one does in earnest. */
export async function stopInEarnest({ site, book, broker, log }: Pick<BrokerLife, 'site' | 'book' | 'broker' | 'log'>): Promise<void> {
  const afresh = createKeptLog()
  await followLog(site, afresh, createRules(book), book)
  if (afresh.size !== log.size) report(book, `the log has ${afresh.size} entries as a whole, and ${log.size} as it was followed`)
  const ended = await broker.stop('SIGTERM')
  if (ended.code !== 0) report(book, `a broker that was told to stop did not end well: ${describeEnd(ended)}`)
}
