import type { Kysely, Selectable } from 'kysely'
import { roles, type Role } from '../identity/operator.ts'
import { formatTime } from '../kernel/clock.ts'
import type { Schema } from './schema.ts'
import { readTime } from './time.ts'

/** A sign-in of a person, as stored. */
export interface StoredSession {
  readonly id: string
  readonly issuer: string
  /** As `referToSubject` gives it. */
  readonly subject: string
  readonly role: Role
  readonly secretHash: string
  readonly createdAtMs: number
  readonly expiresAtMs: number
  readonly endedAtMs?: number
}

export const sessionStatuses = ['live', 'ended', 'expired'] as const
export type SessionStatus = (typeof sessionStatuses)[number]

export interface SessionFilter {
  readonly subject?: string
  readonly status?: SessionStatus
  /** Only sessions that began before this one, by the order of the list. */
  readonly after?: string
  readonly limit: number
}

export async function findSession(db: Kysely<Schema>, id: string): Promise<StoredSession | undefined> {
  const row = await db.selectFrom('operator_session').selectAll().where('id', '=', id).executeTakeFirst()
  return row === undefined ? undefined : toSession(row)
}

/** Sessions, the newest first; their status is judged at `nowMs`. An `after` that is not there gives none. */
export async function listSessions(db: Kysely<Schema>, filter: SessionFilter, nowMs: number): Promise<StoredSession[]> {
  const { subject, status, after, limit } = filter
  const now = formatTime(nowMs)
  let query = db.selectFrom('operator_session').selectAll()
  if (subject !== undefined) query = query.where('subject', '=', subject)
  if (status !== undefined) query = query.where('ended_at', status === 'ended' ? 'is not' : 'is', null)
  if (status === 'live') query = query.where('expires_at', '>', now)
  if (status === 'expired') query = query.where('expires_at', '<=', now)
  if (after !== undefined) {
    const last = db.selectFrom('operator_session').select('created_at').where('id', '=', after)
    query = query.where(({ or, and, eb }) => or([eb('created_at', '<', last), and([eb('created_at', '=', last), eb('id', '<', after)])]))
  }
  const rows = await query.orderBy('created_at', 'desc').orderBy('id', 'desc').limit(limit).execute()
  return rows.map(toSession)
}

export async function insertSession(tx: Kysely<Schema>, session: StoredSession): Promise<void> {
  const { id, issuer, subject, role, secretHash, createdAtMs, expiresAtMs } = session
  const times = { created_at: formatTime(createdAtMs), expires_at: formatTime(expiresAtMs), ended_at: null }
  await tx.insertInto('operator_session').values({ id, issuer, subject, role, secret_hash: secretHash, ...times }).execute()
}

export async function markSessionsEnded(tx: Kysely<Schema>, ids: readonly string[], timeMs: number): Promise<void> {
  // An empty list is no SQL on PostgreSQL.
  if (ids.length === 0) return
  await tx.updateTable('operator_session').set({ ended_at: formatTime(timeMs) }).where('id', 'in', ids).where('ended_at', 'is', null).execute()
}

/** Ends all sessions that are live at that time, and returns them. */
export async function endLiveSessions(tx: Kysely<Schema>, timeMs: number): Promise<StoredSession[]> {
  const live = await tx.selectFrom('operator_session').selectAll().where('ended_at', 'is', null).where('expires_at', '>', formatTime(timeMs)).orderBy('id').execute()
  await tx.updateTable('operator_session').set({ ended_at: formatTime(timeMs) }).where('ended_at', 'is', null).where('expires_at', '>', formatTime(timeMs)).execute()
  return live.map(toSession)
}

/** Deletes sessions that expired before that instant; returns how many. At most `max`. */
export async function deleteExpiredSessions(tx: Kysely<Schema>, beforeMs: number, max: number): Promise<number> {
  const expired = tx.selectFrom('operator_session').select('id').where('expires_at', '<', formatTime(beforeMs)).limit(max)
  const { numDeletedRows } = await tx.deleteFrom('operator_session').where('id', 'in', expired).executeTakeFirstOrThrow()
  return Number(numDeletedRows)
}

function toSession(row: Selectable<Schema['operator_session']>): StoredSession {
  const role = roles.find((known) => known === row.role)
  // A role of a later version must not pass for one of these.
  if (role === undefined) throw new Error(`the database holds a session of the unknown role ${row.role}`)
  return {
    id: row.id,
    issuer: row.issuer,
    subject: row.subject,
    role,
    secretHash: row.secret_hash,
    createdAtMs: readTime(row.created_at),
    expiresAtMs: readTime(row.expires_at),
    ...(row.ended_at !== null && { endedAtMs: readTime(row.ended_at) }),
  }
}
