import type { Kysely } from 'kysely'
import { formatTime } from '../kernel/clock.ts'
import type { Place } from './change.ts'
import type { Schema } from './schema.ts'
import { readTime } from './time.ts'

/** A sealing key as stored: wrapped by the root key. */
export interface SealingKeyRow {
  readonly version: number
  /** Empty once it was erased. */
  readonly wrapped: string
  /** The root key that wrapped it; absent where that was before root keys had names, and once it was erased. */
  readonly root?: string
  readonly createdAtMs: number
  readonly sealsFromMs: number
  /** The size that the log had when it was made. */
  readonly createdIndex: number
  readonly erased: boolean
}

/** All that there ever were, the oldest first. */
export async function listSealingKeys(db: Kysely<Schema>): Promise<SealingKeyRow[]> {
  const rows = await db.selectFrom('sealing_key').selectAll().orderBy('version').execute()
  return rows.map((row) => ({
    version: row.version,
    wrapped: row.wrapped,
    ...(row.root !== null && { root: row.root }),
    createdAtMs: readTime(row.created_at),
    sealsFromMs: readTime(row.seals_from ?? row.created_at),
    createdIndex: row.created_index ?? 0,
    erased: row.wrapped === '',
  }))
}

/** A sealing key that was wrapped by the root key of this name. */
export interface WrappedKey extends Required<Pick<SealingKeyRow, 'version' | 'wrapped' | 'root'>> {}

export async function insertSealingKey(tx: Kysely<Schema>, { version, wrapped, root }: WrappedKey, { index, timeMs }: Place, sealsFromMs: number): Promise<void> {
  const row = { version, wrapped, root, created_at: formatTime(timeMs), created_index: index, seals_from: formatTime(sealsFromMs) }
  await tx.insertInto('sealing_key').values(row).execute()
}

/** Puts a key that was wrapped anew in the place of what was `seen`. Says whether that was still there. */
export async function replaceWrapped(tx: Kysely<Schema>, { version, wrapped, root }: WrappedKey, seen: string): Promise<boolean> {
  const change = tx.updateTable('sealing_key').set({ wrapped, root }).where('version', '=', version).where('wrapped', '=', seen).where('wrapped', '<>', '')
  return (await change.executeTakeFirstOrThrow()).numUpdatedRows === 1n
}

/** Takes the key out of its row. What it sealed opens no more, and the database takes nothing more that names it. */
export async function eraseSealingKey(tx: Kysely<Schema>, version: number): Promise<void> {
  await tx.updateTable('sealing_key').set({ wrapped: '', root: null }).where('version', '=', version).execute()
}
