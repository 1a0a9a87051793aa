import type { Kysely } from 'kysely'
import { formatTime } from '../kernel/clock.ts'
import type { Schema } from './schema.ts'
import { readTime } from './time.ts'

export interface PolicyInForce {
  readonly hash: string
  readonly sinceMs: number
  /** The entry that records its coming into force. */
  readonly eventIndex: number
}

/** Which set decides, or `undefined` before the first one. */
export async function readPolicyInForce(db: Kysely<Schema>): Promise<PolicyInForce | undefined> {
  const row = await db.selectFrom('policy_in_force').selectAll().executeTakeFirst()
  return row === undefined ? undefined : { hash: row.hash, sinceMs: readTime(row.since), eventIndex: row.event_index }
}

/** The files of a set that is or was in force, by relative path. */
export async function readPolicyFiles(db: Kysely<Schema>, hash: string): Promise<Map<string, string> | undefined> {
  const row = await db.selectFrom('policy_set').select('files').where('hash', '=', hash).executeTakeFirst()
  // Written by `putPolicyInForce` alone.
  return row === undefined ? undefined : new Map(Object.entries(JSON.parse(row.files) as Record<string, string>))
}

/** The same as the JSON text that is kept: an object of text by path. */
export async function readPolicyText(db: Kysely<Schema>, hash: string): Promise<string | undefined> {
  return (await db.selectFrom('policy_set').select('files').where('hash', '=', hash).executeTakeFirst())?.files
}

export interface NewPolicySet {
  readonly hash: string
  readonly files: ReadonlyMap<string, string>
  readonly cedarVersion: string
}

/** Keeps the set for ever and lets it decide from this commit on. */
export async function putPolicyInForce(
  tx: Kysely<Schema>,
  set: NewPolicySet,
  place: { readonly index: number; readonly timeMs: number },
): Promise<void> {
  const since = formatTime(place.timeMs)
  const kept = await tx.selectFrom('policy_set').select('hash').where('hash', '=', set.hash).executeTakeFirst()
  if (kept === undefined) {
    const files = JSON.stringify(Object.fromEntries(set.files))
    await tx.insertInto('policy_set').values({ hash: set.hash, files, cedar_version: set.cedarVersion, created_at: since }).execute()
  }
  const row = { hash: set.hash, since, event_index: place.index }
  await tx
    .insertInto('policy_in_force')
    .values({ id: 1, ...row })
    .onConflict((conflict) => conflict.column('id').doUpdateSet(row))
    .execute()
}
