import type { Kysely } from 'kysely'
import { formatTime } from '../kernel/clock.ts'
import type { Schema } from './schema.ts'

/** A person or a program that administers Stint. For now there is one role. */
export interface Operator {
  readonly id: string
  readonly name: string
  readonly role: 'admin'
  readonly secretHash: string
}

export async function findOperator(db: Kysely<Schema>, id: string): Promise<Operator | undefined> {
  const row = await db.selectFrom('operator').selectAll().where('id', '=', id).executeTakeFirst()
  if (row === undefined) return undefined
  // A role of a later version must not pass for the one that may do everything.
  if (row.role !== 'admin') throw new Error(`the database holds an operator of the unknown role ${row.role}`)
  return { id: row.id, name: row.name, role: row.role, secretHash: row.secret_hash }
}

export async function countOperators(db: Kysely<Schema>): Promise<number> {
  const { count } = await db.selectFrom('operator').select((eb) => eb.fn.countAll<number>().as('count')).executeTakeFirstOrThrow()
  return Number(count)
}

/** Throws the engine's unique violation when the name is taken. */
export async function insertOperator(tx: Kysely<Schema>, operator: Operator, timeMs: number): Promise<void> {
  const { id, name, role, secretHash } = operator
  await tx.insertInto('operator').values({ id, name, role, secret_hash: secretHash, created_at: formatTime(timeMs) }).execute()
}
