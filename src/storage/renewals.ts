import type { Kysely } from 'kysely'
import { formatTime } from '../kernel/clock.ts'
import type { Schema } from './schema.ts'
import { readTime } from './time.ts'

/** The first grant that this one goes on from, and since when that was; `undefined` for one that is a first one itself. */
export async function findRenewed(db: Kysely<Schema>, grant: string): Promise<{ readonly first: string; readonly firstIssuedAtMs: number } | undefined> {
  const row = await db.selectFrom('renewal').select(['renews', 'first_issued_at']).where('grant_id', '=', grant).executeTakeFirst()
  return row && { first: row.renews, firstIssuedAtMs: readTime(row.first_issued_at) }
}

/** The grants that go on from the same first one as this, itself among them, the first one first. */
export async function findChain(db: Kysely<Schema>, grant: string): Promise<string[]> {
  const first = (await findRenewed(db, grant))?.first ?? grant
  const rows = await db.selectFrom('renewal').select('grant_id').where('renews', '=', first).orderBy('grant_id').execute()
  return [first, ...rows.map((row) => row.grant_id)]
}

export async function insertRenewal(tx: Kysely<Schema>, grant: string, first: string, firstIssuedAtMs: number): Promise<void> {
  await tx.insertInto('renewal').values({ grant_id: grant, renews: first, first_issued_at: formatTime(firstIssuedAtMs) }).execute()
}

/** Moves the end of a grant that has not ended. */
export async function moveExpiry(tx: Kysely<Schema>, grant: string, expiresAtMs: number): Promise<void> {
  await tx.updateTable('grants').set({ expires_at: formatTime(expiresAtMs) }).where('id', '=', grant).where('revoked_index', 'is', null).execute()
  await tx.updateTable('credential').set({ due_at: formatTime(expiresAtMs) }).where('grant_id', '=', grant).where('state', '=', 'active').execute()
}
