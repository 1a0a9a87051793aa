import type { Kysely } from 'kysely'
import type { Schema } from './schema.ts'
import { readTime } from './time.ts'

/** One acceptance that the log goes on without what it once had: an entry `log.restored`. */
export interface Restoration {
  readonly index: number
  /** Proofs that were signed before are refused. */
  readonly proofsFromMs: number
  /** The checkpoints that are not of this log; of those that a witness has signed, the root is not known. */
  readonly abandoned: readonly { readonly anchor: string; readonly size: number; readonly root?: string }[]
}

/** All of them, the newest first: few, and found by the type of their entries. */
export async function listRestorations(db: Kysely<Schema>): Promise<Restoration[]> {
  const rows = await db.selectFrom('audit_event').select(['idx', 'body']).where('type', '=', 'log.restored').orderBy('idx', 'desc').execute()
  return rows.map(({ idx, body }) => {
    // Written by `acceptRestored` alone.
    const { proofs_from: proofsFrom, abandoned } = JSON.parse(body) as { proofs_from: string; abandoned: Restoration['abandoned'] }
    return { index: idx, proofsFromMs: readTime(proofsFrom), abandoned }
  })
}

/** When the log was last restored, by the ledger's time; what is stored here from before may be older than what was used since. */
export async function findRestoredMs(db: Kysely<Schema>): Promise<number | undefined> {
  const row = await db.selectFrom('audit_event').select('time').where('type', '=', 'log.restored').orderBy('idx', 'desc').limit(1).executeTakeFirst()
  return row && readTime(row.time)
}
