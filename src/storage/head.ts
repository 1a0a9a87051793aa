import type { Kysely } from 'kysely'
import { decodeFrontier, encodeFrontier, rootOf, type Frontier } from '../audit/merkle.ts'
import { formatTime } from '../kernel/clock.ts'
import type { HeadRow } from './engine.ts'
import type { Schema } from './schema.ts'
import { readTime } from './time.ts'

/** The newest state of the log and of everything that decisions read. */
export interface Head {
  /** Number of entries in the log; the next one's index. */
  readonly size: number
  /** Raised by every change of registry, keys or policy set (invariant 13). */
  readonly epoch: number
  /** The ledger's time (invariant 12). */
  readonly timeMs: number
  readonly frontier: Frontier
}

/** The head as committed by now. */
export async function readHead(db: Kysely<Schema>): Promise<Head> {
  return toHead(await db.selectFrom('log_head').selectAll().executeTakeFirstOrThrow())
}

/** A head's row as Stint works with it. */
export function toHead(row: Omit<HeadRow, 'root'>): Head {
  return { size: row.size, epoch: row.epoch, timeMs: readTime(row.time), frontier: decodeFrontier(row.frontier, row.size) }
}

/** A head as it is stored. */
export function toHeadRow({ size, epoch, timeMs, frontier }: Head): HeadRow {
  return { size, epoch, time: formatTime(timeMs), root: Buffer.from(rootOf(frontier)), frontier: encodeFrontier(frontier) }
}
