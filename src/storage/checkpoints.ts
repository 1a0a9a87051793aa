import type { Kysely } from 'kysely'
import { formatTime } from '../kernel/clock.ts'
import type { Schema } from './schema.ts'

/** A checkpoint as stored. */
export interface StoredCheckpoint {
  readonly size: number
  readonly root: Uint8Array
  /** The note as Stint signed it. */
  readonly note: string
}

const columns = ['size', 'root', 'note'] as const

/** The newest checkpoint, if there is one. */
export async function findNewestCheckpoint(db: Kysely<Schema>): Promise<StoredCheckpoint | undefined> {
  return db.selectFrom('checkpoint').select(columns).orderBy('size', 'desc').limit(1).executeTakeFirst()
}

/** Checkpoints of more than `size` entries, the smallest first. */
export async function listCheckpointsAfter(db: Kysely<Schema>, size: number, limit: number): Promise<StoredCheckpoint[]> {
  return db.selectFrom('checkpoint').select(columns).where('size', '>', size).orderBy('size').limit(limit).execute()
}

export async function insertCheckpoint(tx: Kysely<Schema>, { size, root, note }: StoredCheckpoint, timeMs: number): Promise<void> {
  await tx.insertInto('checkpoint').values({ size, root: Buffer.from(root), note, created_at: formatTime(timeMs) }).execute()
}

/** The signature lines of witnesses to a checkpoint, to go behind its note. */
export async function listCosignatures(db: Kysely<Schema>, size: number): Promise<string[]> {
  const rows = await db.selectFrom('cosignature').select('line').where('size', '=', size).orderBy('witness').execute()
  return rows.map(({ line }) => line)
}

/** The size of the largest checkpoint that a witness has signed, as far as is stored. */
export async function findCosignedSize(db: Kysely<Schema>, witness: string): Promise<number | undefined> {
  const row = await db.selectFrom('cosignature').select('size').where('witness', '=', witness).orderBy('size', 'desc').limit(1).executeTakeFirst()
  return row?.size
}

/** Keeps what a witness said; the first word of each to a checkpoint stays. */
export async function insertCosignature(tx: Kysely<Schema>, size: number, witness: string, line: string, timeMs: number): Promise<void> {
  const there = await tx.selectFrom('cosignature').select('size').where('size', '=', size).where('witness', '=', witness).executeTakeFirst()
  if (there !== undefined) return
  await tx.insertInto('cosignature').values({ size, witness, line, created_at: formatTime(timeMs) }).execute()
}
