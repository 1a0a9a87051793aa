import { sql, type Kysely, type Selectable } from 'kysely'
import { formatTime } from '../kernel/clock.ts'
import type { Schema } from './schema.ts'
import { readTime } from './time.ts'

/** `current`: in use. `pending`: to be the next. `previous`: may still open something. A version without a stage is erased. */
export type SecretStage = 'current' | 'pending' | 'previous'

/** A version of a secret that Stint keeps. */
export interface StoredSecret {
  readonly name: string
  readonly version: number
  readonly sealed: { readonly version: number; readonly ciphertext: string }
  readonly createdAtMs: number
  /** The rotation that made it; none where it was put. */
  readonly rotation?: string
}

// In the statement's text: only so do the engines know that the index of what is not erased serves it.
const inUse = sql.lit('current')

/** The place that a version of a secret is sealed for. */
export function secretPlace(name: string, version: number): { readonly table: string; readonly row: string } {
  return { table: 'sealed_secret', row: `${name}/${version}` }
}

/** The version that is in use. */
export async function findSecret(db: Kysely<Schema>, name: string): Promise<StoredSecret | undefined> {
  const row = await db.selectFrom('sealed_secret').selectAll().where('name', '=', name).where('stage', '=', inUse).executeTakeFirst()
  return row && toSecret(row)
}

/** Every version that is not erased, by its stage, as of one moment; of those that were replaced the newest, and those before it. */
export async function findStages(db: Kysely<Schema>, name: string): Promise<{ readonly [S in SecretStage]?: StoredSecret } & { readonly older: readonly StoredSecret[] }> {
  const rows = await db.selectFrom('sealed_secret').selectAll().where('name', '=', name).where('stage', 'is not', null).orderBy('version').execute()
  const older = rows.filter(({ stage }) => stage === 'previous').slice(0, -1).map(toSecret)
  return { ...Object.fromEntries(rows.map((row) => [row.stage, toSecret(row)])), older }
}

/** The number of the version that comes next: erased ones keep theirs. */
export async function nextVersion(tx: Kysely<Schema>, name: string): Promise<number> {
  const { last } = await tx.selectFrom('sealed_secret').select((eb) => eb.fn.max('version').as('last')).where('name', '=', name).executeTakeFirstOrThrow()
  return Number(last ?? 0) + 1
}

/** Stores a new version in a stage that no other one is in. */
export async function insertVersion(tx: Kysely<Schema>, { name, version, sealed, createdAtMs, rotation }: StoredSecret, stage: SecretStage): Promise<void> {
  const row = { name, version, sealed: sealed.ciphertext, sealed_version: sealed.version, created_at: formatTime(createdAtMs), stage, rotation: rotation ?? null }
  await tx.insertInto('sealed_secret').values(row).execute()
}

/** Moves a version from one stage to another; only of those that were replaced there may be several. */
export async function moveVersion(tx: Kysely<Schema>, { name, version }: Pick<StoredSecret, 'name' | 'version'>, stage: SecretStage): Promise<void> {
  await tx.updateTable('sealed_secret').set({ stage }).where('name', '=', name).where('version', '=', version).execute()
}

/** Of an erased version only the fact is kept that it was there. */
export async function eraseVersion(tx: Kysely<Schema>, { name, version }: Pick<StoredSecret, 'name' | 'version'>): Promise<void> {
  await tx.updateTable('sealed_secret').set({ sealed: '', stage: null }).where('name', '=', name).where('version', '=', version).execute()
}

/** A version of a secret as far as it may be shown. */
export interface ListedVersion extends Omit<StoredSecret, 'name' | 'sealed'> {
  /** Absent once it is erased. */
  readonly stage?: SecretStage
}

/** The versions of a secret, the newest first, or those before an earlier look. */
export async function listVersions(db: Kysely<Schema>, name: string, { before, limit }: { readonly before?: number | undefined; readonly limit: number }): Promise<ListedVersion[]> {
  let query = db.selectFrom('sealed_secret').select(['version', 'stage', 'created_at', 'rotation']).where('name', '=', name)
  if (before !== undefined) query = query.where('version', '<', before)
  const rows = await query.orderBy('version', 'desc').limit(limit).execute()
  return rows.map(({ version, stage, created_at: createdAt, rotation }) => ({
    version,
    createdAtMs: readTime(createdAt),
    // Written by `insertVersion` and `moveVersion` alone.
    ...(stage !== null && { stage: stage as SecretStage }),
    ...(rotation !== null && { rotation }),
  }))
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
    .where('stage', '=', inUse)
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
    ...(row.rotation !== null && { rotation: row.rotation }),
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
