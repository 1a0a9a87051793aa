import type { Kysely } from 'kysely'
import { decodeFrontier, type Frontier } from '../audit/merkle.ts'
import type { Engine } from './engine.ts'
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

/** The head under its lock, which the transaction keeps to its end. On SQLite `BEGIN IMMEDIATE` has locked it already. */
export async function lockHead(db: Kysely<Schema>, engine: Engine): Promise<Head> {
  const query = db.selectFrom('log_head').selectAll()
  return toHead(await (engine === 'postgres' ? query.forUpdate() : query).executeTakeFirstOrThrow())
}

function toHead(row: { size: number; epoch: number; time: string; frontier: Uint8Array }): Head {
  return { size: row.size, epoch: row.epoch, timeMs: readTime(row.time), frontier: decodeFrontier(row.frontier, row.size) }
}
