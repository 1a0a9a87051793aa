import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { report } from './book.ts'
import type { BrokerLife } from './lending-life.ts'

/** A run of rounds on one database after another. */
export interface Run<R extends RoundCounts> {
  readonly rounds: number
  /** No round begins after that time. */
  readonly seconds: number
  readonly folder: string
  readonly roundsPerDatabase?: number
  readonly onRound?: (report: R) => void
  readonly signal?: AbortSignal
  readonly beganMs: number
  readonly result: R
}

interface RoundCounts {
  rounds: number
  databases: number
  readonly problems: string[]
}

/** What is done with one database. */
interface Database<L extends BrokerLife> {
  /** In a folder of its own. */
  begin(folder: string): Promise<L>
  play(life: L): Promise<void>
  end(life: L): Promise<void>
  /** Where nothing was wrong: otherwise all stays, for whoever looks into it. */
  clear(): Promise<void>
}

/** Plays rounds until there are enough, or something was wrong. */
export async function playDatabases<L extends BrokerLife, R extends RoundCounts>(run: Run<R>, name: string, openDatabase: () => Database<L>): Promise<void> {
  while (mayGoOn(run)) await playDatabase(run, name, openDatabase())
}

function mayGoOn<R extends RoundCounts>({ result, rounds, seconds, signal, beganMs }: Run<R>): boolean {
  return result.problems.length === 0 && result.rounds < rounds && performance.now() - beganMs < seconds * 1000 && signal?.aborted !== true
}

async function playDatabase<L extends BrokerLife, R extends RoundCounts>(run: Run<R>, name: string, { begin, play, end, clear }: Database<L>): Promise<void> {
  const { result, roundsPerDatabase = 40, onRound } = run
  const folder = join(run.folder, `${name}-${++result.databases}`)
  mkdirSync(folder, { mode: 0o700 })
  let life: L | undefined
  try {
    life = await begin(folder)
    const last = result.rounds + roundsPerDatabase
    do {
      await play(life)
      result.rounds++
      onRound?.(result)
    } while (result.rounds < last && mayGoOn(run))
    if (result.problems.length === 0) await end(life)
  } catch (error) {
    report(result, error instanceof Error ? (error.stack ?? error.message) : String(error))
  } finally {
    await Promise.all([life?.load.end(), life?.broker.stop('SIGKILL'), life?.next.stop('SIGKILL')])
    if (result.problems.length === 0) await clear()
    else if (life !== undefined) writeFileSync(join(folder, 'broker.log'), life.broker.said())
  }
  if (result.problems.length === 0) rmSync(folder, { recursive: true })
}
