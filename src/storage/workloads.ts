import type { Kysely, Selectable } from 'kysely'
import type { Stage, Workload, WorkloadKey, WorkloadKeyAlgorithm, WorkloadStatus } from '../identity/workload.ts'
import { formatTime } from '../kernel/clock.ts'
import type { Schema, WorkloadKeyTable, WorkloadTable } from './schema.ts'
import { readTime } from './time.ts'

/** The workload with all keys it ever had, or `undefined`. */
export async function findWorkload(db: Kysely<Schema>, name: string): Promise<Workload | undefined> {
  // One statement, so that a name which exists costs no more trips to the database than one which does not.
  const rows = await db
    .selectFrom('workload')
    .leftJoin('workload_key', 'workload_key.workload', 'workload.name')
    .selectAll('workload')
    .select(['kid', 'alg', 'jwk', 'added_at', 'removed_at'])
    .where('name', '=', name)
    .orderBy('added_at')
    .orderBy('kid')
    .execute()
  const [row] = rows
  if (row === undefined) return undefined
  const keys = rows.flatMap(({ kid, alg, jwk, added_at, removed_at }) =>
    kid === null || alg === null || jwk === null || added_at === null ? [] : [{ kid, workload: name, alg, jwk, added_at, removed_at }],
  )
  return toWorkload(row, keys)
}

export interface WorkloadFilter {
  readonly status?: WorkloadStatus
  readonly stage?: Stage
  readonly team?: string
  /** Only names after this one: the last name of the page before. */
  readonly after?: string
  readonly limit: number
}

/** A page of workloads by name. */
export async function listWorkloads(db: Kysely<Schema>, filter: WorkloadFilter): Promise<Workload[]> {
  let query = db.selectFrom('workload').selectAll().orderBy('name').limit(filter.limit)
  if (filter.status !== undefined) query = query.where('status', '=', filter.status)
  if (filter.stage !== undefined) query = query.where('stage', '=', filter.stage)
  if (filter.team !== undefined) query = query.where('team', '=', filter.team)
  if (filter.after !== undefined) query = query.where('name', '>', filter.after)
  const rows = await query.execute()
  if (rows.length === 0) return []
  const names = rows.map((row) => row.name)
  const keys = await db.selectFrom('workload_key').selectAll().where('workload', 'in', names).orderBy('added_at').orderBy('kid').execute()
  const keysByWorkload = Map.groupBy(keys, (key) => key.workload)
  return rows.map((row) => toWorkload(row, keysByWorkload.get(row.name) ?? []))
}

/** Throws the engine's unique violation when the name was ever used. */
/** The names of a team's workloads, retired ones too: what they were given may still live. */
export async function listWorkloadNames(db: Kysely<Schema>, team: string): Promise<string[]> {
  return (await db.selectFrom('workload').select('name').where('team', '=', team).orderBy('name').execute()).map(({ name }) => name)
}

export async function insertWorkload(tx: Kysely<Schema>, workload: Workload): Promise<void> {
  await tx.insertInto('workload').values(toRow(workload)).execute()
  await insertWorkloadKeys(tx, workload.name, workload.keys)
}

export async function updateWorkload(tx: Kysely<Schema>, workload: Workload): Promise<void> {
  const { name, ...row } = toRow(workload)
  await tx.updateTable('workload').set(row).where('name', '=', name).execute()
}

/** Throws the engine's unique violation when a key was ever registered, by whichever workload. */
export async function insertWorkloadKeys(tx: Kysely<Schema>, workload: string, keys: readonly WorkloadKey[]): Promise<void> {
  if (keys.length === 0) return
  const rows = keys.map((key) => ({
    kid: key.kid,
    workload,
    alg: key.alg,
    jwk: JSON.stringify(key.jwk),
    added_at: formatTime(key.addedAtMs),
    removed_at: key.removedAtMs === undefined ? null : formatTime(key.removedAtMs),
  }))
  await tx.insertInto('workload_key').values(rows).execute()
}

/** From that time on, which may lie ahead, the key proves nothing. */
export async function markKeyRemoved(tx: Kysely<Schema>, kid: string, timeMs: number): Promise<void> {
  await tx.updateTable('workload_key').set({ removed_at: formatTime(timeMs) }).where('kid', '=', kid).execute()
}

/** Which of these keys have been registered before, and by whom. */
export async function findKeyOwners(db: Kysely<Schema>, kids: readonly string[]): Promise<{ kid: string; workload: string }[]> {
  // An empty list is no SQL on PostgreSQL.
  if (kids.length === 0) return []
  return db.selectFrom('workload_key').select(['kid', 'workload']).where('kid', 'in', kids).execute()
}

function toRow(workload: Workload): Omit<WorkloadTable, 'review_announced'> {
  return {
    name: workload.name,
    environment: workload.environment,
    stage: workload.stage,
    team: workload.owner.team,
    contact: workload.owner.contact,
    purpose: workload.purpose,
    tags: JSON.stringify(workload.tags),
    review_at: formatTime(workload.reviewAtMs),
    status: workload.status,
    created_at: formatTime(workload.createdAtMs),
    updated_at: formatTime(workload.updatedAtMs),
  }
}

function toWorkload(row: Selectable<WorkloadTable>, keys: readonly Selectable<WorkloadKeyTable>[]): Workload {
  return {
    name: row.name,
    environment: row.environment,
    // Written by `toRow` alone, from values of these types; a check constraint holds the status.
    stage: row.stage as Stage,
    owner: { team: row.team, contact: row.contact },
    purpose: row.purpose,
    tags: JSON.parse(row.tags) as string[],
    reviewAtMs: readTime(row.review_at),
    status: row.status as WorkloadStatus,
    createdAtMs: readTime(row.created_at),
    updatedAtMs: readTime(row.updated_at),
    keys: keys.map(toKey),
  }
}

function toKey(row: Selectable<WorkloadKeyTable>): WorkloadKey {
  return {
    kid: row.kid,
    alg: row.alg as WorkloadKeyAlgorithm,
    jwk: JSON.parse(row.jwk) as Record<string, string>,
    addedAtMs: readTime(row.added_at),
    ...(row.removed_at !== null && { removedAtMs: readTime(row.removed_at) }),
  }
}
