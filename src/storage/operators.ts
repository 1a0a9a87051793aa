import type { Kysely } from 'kysely'
import { roles, type Role } from '../identity/operator.ts'
import { formatTime } from '../kernel/clock.ts'
import type { Schema } from './schema.ts'

/** An operator with a credential of its own, as stored. */
export interface StoredOperator {
  readonly id: string
  readonly name: string
  readonly role: Role
  readonly secretHash: string
}

export async function findOperator(db: Kysely<Schema>, id: string): Promise<StoredOperator | undefined> {
  const row = await db.selectFrom('operator').selectAll().where('id', '=', id).executeTakeFirst()
  if (row === undefined) return undefined
  const role = roles.find((known) => known === row.role)
  // A role of a later version must not pass for one of these.
  if (role === undefined) throw new Error(`the database holds an operator of the unknown role ${row.role}`)
  return { id: row.id, name: row.name, role, secretHash: row.secret_hash }
}

export async function countOperators(db: Kysely<Schema>): Promise<number> {
  const { count } = await db.selectFrom('operator').select((eb) => eb.fn.countAll<number>().as('count')).executeTakeFirstOrThrow()
  return Number(count)
}

/** Throws the engine's unique violation when the name is taken. */
export async function insertOperator(tx: Kysely<Schema>, operator: StoredOperator, timeMs: number): Promise<void> {
  const { id, name, role, secretHash } = operator
  await tx.insertInto('operator').values({ id, name, role, secret_hash: secretHash, created_at: formatTime(timeMs), expires_at: null, revoked_at: null }).execute()
}
