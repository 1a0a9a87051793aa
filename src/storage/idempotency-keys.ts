import type { Kysely } from 'kysely'
import { formatTime } from '../kernel/clock.ts'
import type { Schema } from './schema.ts'

/** What a workload asked for under a key of its own. */
export interface StoredRepeat {
  /** Hex SHA-256 of the request. */
  readonly bodyHash: string
  /** The grant that it was answered with last. */
  readonly grant: string
}

/** What the key stands for, unless it has expired by then. */
export async function findRepeat(db: Kysely<Schema>, workload: string, key: string, nowMs: number): Promise<StoredRepeat | undefined> {
  const row = await db
    .selectFrom('idempotency_key')
    .select(['body_hash', 'grant_id'])
    .where('workload', '=', workload)
    .where('id', '=', key)
    .where('expires_at', '>', formatTime(nowMs))
    .executeTakeFirst()
  return row && { bodyHash: row.body_hash, grant: row.grant_id }
}

/** Makes the key stand for this grant until it expires. */
export async function writeRepeat(tx: Kysely<Schema>, workload: string, key: string, repeat: StoredRepeat, expiresAtMs: number): Promise<void> {
  const row = { body_hash: repeat.bodyHash, grant_id: repeat.grant, expires_at: formatTime(expiresAtMs) }
  await tx
    .insertInto('idempotency_key')
    .values({ workload, id: key, ...row })
    .onConflict((conflict) => conflict.columns(['workload', 'id']).doUpdateSet(row))
    .execute()
}

/** Deletes keys that have expired; at most `max`. Returns how many. */
export async function deleteExpiredRepeats(tx: Kysely<Schema>, nowMs: number, max: number): Promise<number> {
  const expired = await tx.selectFrom('idempotency_key').select(['workload', 'id']).where('expires_at', '<=', formatTime(nowMs)).limit(max).execute()
  for (const { workload, id } of expired) await tx.deleteFrom('idempotency_key').where('workload', '=', workload).where('id', '=', id).execute()
  return expired.length
}
