import type { Kysely, Selectable } from 'kysely'
import type { Enrolment } from '../identity/enrolment.ts'
import { formatTime } from '../kernel/clock.ts'
import type { EnrolmentTable, Schema } from './schema.ts'
import { readTime } from './time.ts'

/** An enrolment as stored. */
export interface StoredEnrolment extends Enrolment {
  /** Hex SHA-256 of the code's secret part. */
  readonly codeHash: string
}

export async function insertEnrolment(tx: Kysely<Schema>, enrolment: StoredEnrolment): Promise<void> {
  const { id, workload, codeHash, createdAtMs, expiresAtMs } = enrolment
  const row = {
    id,
    workload,
    code_hash: codeHash,
    created_at: formatTime(createdAtMs),
    expires_at: formatTime(expiresAtMs),
    ended_at: null,
    kid: null,
  }
  await tx.insertInto('enrolment').values(row).execute()
}

export async function findEnrolment(db: Kysely<Schema>, id: string): Promise<StoredEnrolment | undefined> {
  const row = await db.selectFrom('enrolment').selectAll().where('id', '=', id).executeTakeFirst()
  return row === undefined ? undefined : toEnrolment(row)
}

/** The workload's enrolments that can still be redeemed at that time. */
export async function findOpenEnrolments(db: Kysely<Schema>, workload: string, timeMs: number): Promise<StoredEnrolment[]> {
  const rows = await db
    .selectFrom('enrolment')
    .selectAll()
    .where('workload', '=', workload)
    .where('ended_at', 'is', null)
    .where('expires_at', '>', formatTime(timeMs))
    .orderBy('id')
    .execute()
  return rows.map(toEnrolment)
}

/** A page of a workload's enrolments, the newest first; `after` is the last one of the page before. */
export async function listEnrolments(
  db: Kysely<Schema>,
  workload: string,
  { after, limit }: { readonly after?: Enrolment; readonly limit: number },
): Promise<StoredEnrolment[]> {
  let query = db
    .selectFrom('enrolment')
    .selectAll()
    .where('workload', '=', workload)
    .orderBy('created_at', 'desc')
    .orderBy('id', 'desc')
    .limit(limit)
  if (after !== undefined) {
    const createdAt = formatTime(after.createdAtMs)
    query = query.where((eb) =>
      eb.or([eb('created_at', '<', createdAt), eb.and([eb('created_at', '=', createdAt), eb('id', '<', after.id)])]),
    )
  }
  return (await query.execute()).map(toEnrolment)
}

/** Ends an enrolment: as redeemed with the key that was registered by it, else as cancelled. */
export async function endEnrolment(tx: Kysely<Schema>, id: string, timeMs: number, kid?: string): Promise<void> {
  await tx.updateTable('enrolment').set({ ended_at: formatTime(timeMs), kid: kid ?? null }).where('id', '=', id).execute()
}

/** Ends all enrolments that can still be redeemed at that time, as cancelled, and returns them. */
export async function endOpenEnrolments(tx: Kysely<Schema>, timeMs: number): Promise<StoredEnrolment[]> {
  const open = await tx.selectFrom('enrolment').selectAll().where('ended_at', 'is', null).where('expires_at', '>', formatTime(timeMs)).orderBy('id').execute()
  await tx.updateTable('enrolment').set({ ended_at: formatTime(timeMs) }).where('ended_at', 'is', null).where('expires_at', '>', formatTime(timeMs)).execute()
  return open.map(toEnrolment)
}

function toEnrolment(row: Selectable<EnrolmentTable>): StoredEnrolment {
  return {
    id: row.id,
    workload: row.workload,
    codeHash: row.code_hash,
    createdAtMs: readTime(row.created_at),
    expiresAtMs: readTime(row.expires_at),
    ...(row.ended_at !== null && { endedAtMs: readTime(row.ended_at) }),
    ...(row.kid !== null && { kid: row.kid }),
  }
}
