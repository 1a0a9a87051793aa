import type { Kysely, Selectable } from 'kysely'
import { roles, type OperatorStatus, type Role } from '../identity/operator.ts'
import { formatTime } from '../kernel/clock.ts'
import type { OperatorTable, Schema } from './schema.ts'
import { readTime } from './time.ts'

/** An operator with a credential of its own, as stored. */
export interface StoredOperator {
  readonly id: string
  readonly name: string
  readonly role: Role
  readonly secretHash: string
  readonly createdAtMs: number
  /** Absent where the credential does not expire. */
  readonly expiresAtMs?: number
  readonly revokedAtMs?: number
}

export async function findOperator(db: Kysely<Schema>, id: string): Promise<StoredOperator | undefined> {
  const row = await db.selectFrom('operator').selectAll().where('id', '=', id).executeTakeFirst()
  return row && toOperator(row)
}

export async function findOperatorByName(db: Kysely<Schema>, name: string): Promise<StoredOperator | undefined> {
  const row = await db.selectFrom('operator').selectAll().where('name', '=', name).executeTakeFirst()
  return row && toOperator(row)
}

export interface OperatorFilter {
  readonly status?: OperatorStatus
  readonly role?: Role
  /** Only names after this one: the last name of the page before. */
  readonly after?: string
  readonly limit: number
}

/** A page of operators by name, with the status that they have at that time. */
export async function listOperators(db: Kysely<Schema>, filter: OperatorFilter, nowMs: number): Promise<StoredOperator[]> {
  const now = formatTime(nowMs)
  let query = db.selectFrom('operator').selectAll().orderBy('name').limit(filter.limit)
  if (filter.role !== undefined) query = query.where('role', '=', filter.role)
  if (filter.after !== undefined) query = query.where('name', '>', filter.after)
  if (filter.status !== undefined) query = query.where('revoked_at', filter.status === 'revoked' ? 'is not' : 'is', null)
  if (filter.status === 'expired') query = query.where('expires_at', '<=', now)
  if (filter.status === 'active') query = query.where((eb) => eb.or([eb('expires_at', 'is', null), eb('expires_at', '>', now)]))
  return (await query.execute()).map(toOperator)
}

export async function countOperators(db: Kysely<Schema>): Promise<number> {
  const { count } = await db.selectFrom('operator').select((eb) => eb.fn.countAll<number>().as('count')).executeTakeFirstOrThrow()
  return Number(count)
}

/** How many admins have a credential that neither was revoked nor will expire. */
export async function countLastingAdmins(db: Kysely<Schema>): Promise<number> {
  const { count } = await db
    .selectFrom('operator')
    .select((eb) => eb.fn.countAll<number>().as('count'))
    .where('role', '=', 'admin')
    .where('expires_at', 'is', null)
    .where('revoked_at', 'is', null)
    .executeTakeFirstOrThrow()
  return Number(count)
}

export interface OperatorCount {
  readonly active: number
  /** Those of the active ones that expire before the other time. */
  readonly expiring: number
}

/** For each role, how many operators are active at `nowMs`, and how many of them expire before `beforeMs`. */
export async function countActiveOperators(db: Kysely<Schema>, nowMs: number, beforeMs: number): Promise<Record<Role, OperatorCount>> {
  const before = formatTime(beforeMs)
  const rows = await db
    .selectFrom('operator')
    .select((eb) => ['role', eb.fn.countAll<number>().as('active'), eb.fn.countAll<number>().filterWhere('expires_at', '<', before).as('expiring')])
    .where('revoked_at', 'is', null)
    .where((eb) => eb.or([eb('expires_at', 'is', null), eb('expires_at', '>', formatTime(nowMs))]))
    .groupBy('role')
    .execute()
  const of = (role: Role): OperatorCount => {
    const row = rows.find((counted) => counted.role === role)
    return { active: Number(row?.active ?? 0), expiring: Number(row?.expiring ?? 0) }
  }
  return { admin: of('admin'), approver: of('approver'), auditor: of('auditor') }
}

/** Throws the engine's unique violation when the name was ever used. */
export async function insertOperator(tx: Kysely<Schema>, operator: StoredOperator): Promise<void> {
  const { id, name, role, createdAtMs } = operator
  await tx.insertInto('operator').values({ id, name, role, created_at: formatTime(createdAtMs), ...toChangeable(operator) }).execute()
}

/** Stores what may change of an operator: the secret's hash, and how its credential ends. */
export async function updateOperator(tx: Kysely<Schema>, operator: StoredOperator): Promise<void> {
  await tx.updateTable('operator').set(toChangeable(operator)).where('id', '=', operator.id).execute()
}

function toChangeable({ secretHash, expiresAtMs, revokedAtMs }: StoredOperator) {
  return {
    secret_hash: secretHash,
    expires_at: expiresAtMs === undefined ? null : formatTime(expiresAtMs),
    revoked_at: revokedAtMs === undefined ? null : formatTime(revokedAtMs),
  }
}

function toOperator(row: Selectable<OperatorTable>): StoredOperator {
  const role = roles.find((known) => known === row.role)
  // A role of a later version must not pass for one of these.
  if (role === undefined) throw new Error(`the database holds an operator of the unknown role ${row.role}`)
  return {
    id: row.id,
    name: row.name,
    role,
    secretHash: row.secret_hash,
    createdAtMs: readTime(row.created_at),
    ...(row.expires_at !== null && { expiresAtMs: readTime(row.expires_at) }),
    ...(row.revoked_at !== null && { revokedAtMs: readTime(row.revoked_at) }),
  }
}
