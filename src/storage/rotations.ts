import type { Kysely, Selectable } from 'kysely'
import { formatTime } from '../kernel/clock.ts'
import type { RotationTable, Schema } from './schema.ts'
import { readTime } from './time.ts'

/** What is to be done next of a run: its steps, or after one that came to nothing the clean-up. */
export type RotationStep = 'order' | 'create' | 'set' | 'test' | 'finish' | 'abandon'
export type RotationReason = 'schedule' | 'revocation' | 'leak' | 'request'

/** A run that is ordered or under way. */
export interface RotationRun {
  readonly id: string
  readonly step: RotationStep
  readonly reason: RotationReason
}

/** How the rotation of one thing stands. */
export interface StoredRotation {
  readonly name: string
  /** Absent where the row only keeps what was announced of a rotation that goes without rows. */
  readonly tool?: string
  /** The secret that is rotated, as the catalog names it: by its name or its ARN. */
  readonly secret?: string
  /** How long a version is to be in force, by the policy set that says so; absent where nothing is rotated by schedule any more. */
  readonly scheduled?: { readonly everySeconds: number; readonly policySet: string }
  /** The set under which the last run began, and what it made is retired. */
  readonly policySet?: string
  readonly run?: RotationRun
  /** Whether the version before must open nothing any more as soon as there is a new one. */
  readonly leaked: boolean
  readonly again?: RotationReason
  readonly tries: number
  readonly failures: number
  readonly startedAtMs?: number
  readonly version?: string
  readonly replaced?: string
  readonly retireAtMs?: number
  readonly retireLeaked: boolean
  readonly finishedAtMs?: number
  readonly failedAtMs?: number
  readonly lastId?: string
  readonly nextAtMs?: number
  readonly dueAtMs?: number
  readonly owner?: string
  readonly leaseUntilMs?: number
  readonly problem?: string
  readonly overdueAnnouncedMs?: number
}

/** What changes; `undefined` and what is absent stays as it is, `null` is cleared. */
export type RotationChange = { readonly [M in Exclude<keyof StoredRotation, 'name' | 'tool'>]?: StoredRotation[M] | null }

export async function findRotation(db: Kysely<Schema>, name: string): Promise<StoredRotation | undefined> {
  const row = await db.selectFrom('rotation').selectAll().where('name', '=', name).executeTakeFirst()
  return row && toRotation(row)
}

/** All of them, by name: there are not more than tools. */
export async function listRotations(db: Kysely<Schema>): Promise<StoredRotation[]> {
  return (await db.selectFrom('rotation').selectAll().orderBy('name').execute()).map(toRotation)
}

/** The names of those with which somebody has to go on by now, and nobody does, the longest waiting first. */
export async function listDueRotations(db: Kysely<Schema>, nowMs: number): Promise<string[]> {
  const now = formatTime(nowMs)
  const rows = await db
    .selectFrom('rotation')
    .select('name')
    .where('due_at', '<=', now)
    .where((eb) => eb.or([eb('lease_until', 'is', null), eb('lease_until', '<=', now)]))
    .orderBy('due_at')
    .execute()
  return rows.map(({ name }) => name)
}

/** Those whose version was due before that time, and of which it was not yet announced. */
export async function listMissed(db: Kysely<Schema>, beforeMs: number): Promise<StoredRotation[]> {
  const rows = await db
    .selectFrom('rotation')
    .selectAll()
    .where('next_at', '<=', formatTime(beforeMs))
    .where((eb) => eb.or([eb('overdue_announced', 'is', null), eb('overdue_announced', '<>', eb.ref('next_at'))]))
    .execute()
  return rows.map(toRotation)
}

/** Begins to keep account of a rotation of which nothing is known yet. */
export async function insertRotation(tx: Kysely<Schema>, name: string, tool?: string): Promise<void> {
  await tx
    .insertInto('rotation')
    .values({ name, tool: tool ?? null, leaked: 0, tries: 0, failures: 0, retire_leaked: 0 })
    .onConflict((conflict) => conflict.column('name').doNothing())
    .execute()
}

export async function changeRotation(tx: Kysely<Schema>, name: string, change: RotationChange): Promise<void> {
  const columns = toColumns(change)
  if (Object.keys(columns).length > 0) await tx.updateTable('rotation').set(columns).where('name', '=', name).execute()
}

/** Has somebody look now at what is rotated, unless somebody is at it. */
export async function wakeRotation(tx: Kysely<Schema>, name: string, nowMs: number): Promise<void> {
  await tx.updateTable('rotation').set({ due_at: formatTime(nowMs) }).where('name', '=', name).where('owner', 'is', null).where('every_seconds', 'is not', null).execute()
}

/** A version that is lent is in force again, even if it was retired before: a revocation of it orders another one. */
export async function noteLent(tx: Kysely<Schema>, name: string, version: string): Promise<void> {
  await tx.updateTable('rotation').set({ replaced: null }).where('name', '=', name).where('replaced', '=', version).where('retire_at', 'is', null).execute()
}

/** Makes everything due now that a process had taken which is gone. Returns how many there were. */
export async function releaseRotations(tx: Kysely<Schema>, nowMs: number): Promise<number> {
  const { numUpdatedRows } = await tx
    .updateTable('rotation')
    .set({ owner: null, lease_until: null, due_at: formatTime(nowMs) })
    .where('owner', 'is not', null)
    .executeTakeFirstOrThrow()
  return Number(numUpdatedRows)
}

function toColumns(change: RotationChange): Partial<RotationTable> {
  const time = (ms: number | null | undefined) => (ms === undefined ? undefined : ms === null ? null : formatTime(ms))
  const bit = (flag: boolean | null | undefined) => (flag === undefined ? undefined : Number(flag === true))
  const { scheduled, run } = change
  const columns = {
    every_seconds: scheduled === null ? null : scheduled?.everySeconds,
    scheduled_by: scheduled === null ? null : scheduled?.policySet,
    secret: change.secret,
    policy_set: change.policySet,
    id: run === null ? null : run?.id,
    step: run === null ? null : run?.step,
    reason: run === null ? null : run?.reason,
    leaked: bit(change.leaked),
    again: change.again,
    tries: change.tries ?? undefined,
    failures: change.failures ?? undefined,
    started_at: time(change.startedAtMs),
    version: change.version,
    replaced: change.replaced,
    retire_at: time(change.retireAtMs),
    retire_leaked: bit(change.retireLeaked),
    finished_at: time(change.finishedAtMs),
    failed_at: time(change.failedAtMs),
    last_id: change.lastId,
    next_at: time(change.nextAtMs),
    due_at: time(change.dueAtMs),
    owner: change.owner,
    lease_until: time(change.leaseUntilMs),
    problem: change.problem,
    overdue_announced: time(change.overdueAnnouncedMs),
  }
  // The type of an update has no members that are there and undefined.
  return Object.fromEntries(Object.entries(columns).filter(([, value]) => value !== undefined)) as Partial<RotationTable>
}

function toRotation(row: Selectable<RotationTable>): StoredRotation {
  const times = {
    startedAtMs: row.started_at,
    retireAtMs: row.retire_at,
    finishedAtMs: row.finished_at,
    failedAtMs: row.failed_at,
    nextAtMs: row.next_at,
    dueAtMs: row.due_at,
    leaseUntilMs: row.lease_until,
    overdueAnnouncedMs: row.overdue_announced,
  }
  const texts = { tool: row.tool, secret: row.secret, policySet: row.policy_set, version: row.version, replaced: row.replaced, lastId: row.last_id, owner: row.owner, problem: row.problem }
  return {
    name: row.name,
    ...(Object.fromEntries(Object.entries(texts).filter(([, text]) => text !== null)) as { [M in keyof typeof texts]?: string }),
    ...(Object.fromEntries(Object.entries(times).flatMap(([member, text]) => (text === null ? [] : [[member, readTime(text)]]))) as { [M in keyof typeof times]?: number }),
    ...(row.every_seconds !== null && row.scheduled_by !== null && { scheduled: { everySeconds: row.every_seconds, policySet: row.scheduled_by } }),
    // Written by `changeRotation` alone, from values of these types.
    ...(row.id !== null && { run: { id: row.id, step: row.step as RotationStep, reason: row.reason as RotationReason } }),
    ...(row.again !== null && { again: row.again as RotationReason }),
    leaked: row.leaked === 1,
    retireLeaked: row.retire_leaked === 1,
    tries: row.tries,
    failures: row.failures,
  }
}
