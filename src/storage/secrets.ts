import { sql, type Kysely, type Selectable } from 'kysely'
import { formatTime } from '../kernel/clock.ts'
import type { Schema } from './schema.ts'
import { readTime } from './time.ts'

/** The newest version of a secret that an admin handed over. Earlier ones are erased. */
export interface StoredSecret {
  readonly name: string
  readonly version: number
  readonly sealed: { readonly version: number; readonly ciphertext: string }
  readonly createdAtMs: number
}

// In the statement's text: only so do the engines know that the index of what is not erased serves it.
const erased = sql.lit('')

/** The place that a version of a secret is sealed for. */
export function secretPlace(name: string, version: number): { readonly table: string; readonly row: string } {
  return { table: 'sealed_secret', row: `${name}/${version}` }
}

export async function findSecret(db: Kysely<Schema>, name: string): Promise<StoredSecret | undefined> {
  const row = await db.selectFrom('sealed_secret').selectAll().where('name', '=', name).where('sealed', '<>', erased).executeTakeFirst()
  return row && toSecret(row)
}

/** Stores a new version, and erases what the earlier ones sealed: there is one that opens, the last. */
export async function replaceSecret(tx: Kysely<Schema>, { name, version, sealed, createdAtMs }: StoredSecret): Promise<void> {
  await tx.updateTable('sealed_secret').set({ sealed: '' }).where('name', '=', name).where('sealed', '<>', erased).execute()
  const row = { name, version, sealed: sealed.ciphertext, sealed_version: sealed.version, created_at: formatTime(createdAtMs) }
  await tx.insertInto('sealed_secret').values(row).execute()
}

/** A secret as far as it may be shown. */
export interface ListedSecret {
  readonly name: string
  readonly version: number
  readonly createdAtMs: number
  /** Why it opens nothing any more, and which tool needs it. */
  readonly usedUp?: { readonly tool: string; readonly problem: string }
}

/** Secrets by name, from the one after `after` on. */
export async function listSecrets(db: Kysely<Schema>, { after, limit }: { readonly after?: string; readonly limit: number }): Promise<ListedSecret[]> {
  let query = db
    .selectFrom('sealed_secret')
    .leftJoin('custody', (join) => join.onRef('custody.name', '=', 'sealed_secret.name').on('custody.state', '=', 'used_up'))
    .select(['sealed_secret.name', 'version', 'created_at', 'tool', 'problem'])
    .where('sealed', '<>', erased)
  if (after !== undefined) query = query.where('sealed_secret.name', '>', after)
  const rows = await query.orderBy('sealed_secret.name').limit(limit).execute()
  return rows.map(({ name, version, created_at: createdAt, tool, problem }) => ({
    name,
    version,
    createdAtMs: readTime(createdAt),
    ...(tool !== null && { usedUp: { tool, problem: problem ?? '' } }),
  }))
}

/**
 * `ready`: whoever comes next may use it. `in_use`: its owner has it, until the lease runs out. `used_up`: it opens nothing
 * any more, or nobody knows whether it does.
 */
export type CustodyState = 'ready' | 'in_use' | 'used_up'

/** How a secret stands that may replace itself when it is used. */
export interface StoredCustody {
  /** The secret's name. */
  readonly name: string
  readonly tool: string
  readonly state: CustodyState
  /** The use that has it, or had it when it was found to be used up. */
  readonly owner?: string
  readonly leaseUntilMs?: number
  /** Why it is used up. */
  readonly problem?: string
}

export async function findCustody(db: Kysely<Schema>, name: string): Promise<StoredCustody | undefined> {
  const row = await db.selectFrom('custody').selectAll().where('name', '=', name).executeTakeFirst()
  return row && toCustody(row)
}

/** Secrets that are in use since longer than their lease allows. */
export async function findLostCustodies(db: Kysely<Schema>, nowMs: number): Promise<StoredCustody[]> {
  const rows = await db.selectFrom('custody').selectAll().where('state', '=', 'in_use').where('lease_until', '<=', formatTime(nowMs)).orderBy('name').execute()
  return rows.map(toCustody)
}

export async function putCustody(tx: Kysely<Schema>, custody: StoredCustody): Promise<void> {
  const { name, tool, state, owner = null, leaseUntilMs, problem = null } = custody
  const row = { tool, state, owner, lease_until: leaseUntilMs === undefined ? null : formatTime(leaseUntilMs), problem }
  await tx
    .insertInto('custody')
    .values({ name, ...row })
    .onConflict((conflict) => conflict.column('name').doUpdateSet(row))
    .execute()
}

function toSecret(row: Selectable<Schema['sealed_secret']>): StoredSecret {
  return {
    name: row.name,
    version: row.version,
    sealed: { version: row.sealed_version, ciphertext: row.sealed },
    createdAtMs: readTime(row.created_at),
  }
}

function toCustody(row: Selectable<Schema['custody']>): StoredCustody {
  return {
    name: row.name,
    tool: row.tool,
    // Written by `putCustody` alone.
    state: row.state as CustodyState,
    ...(row.owner !== null && { owner: row.owner }),
    ...(row.lease_until !== null && { leaseUntilMs: readTime(row.lease_until) }),
    ...(row.problem !== null && { problem: row.problem }),
  }
}
