import { sql, type Kysely } from 'kysely'
import { formatTime } from '../kernel/clock.ts'
import type { Schema } from './schema.ts'
import { readTime } from './time.ts'

/** An active workload whose review date has passed, or comes soon and was not announced yet. */
export interface DueReview {
  readonly name: string
  readonly reviewAtMs: number
}

const isUnannounced = sql<boolean>`(review_announced is null or review_announced <> review_at)`

/** At most `max` of them, the earliest date first. */
export async function findReviewsDue(db: Kysely<Schema>, nowMs: number, aheadMs: number, max: number): Promise<DueReview[]> {
  const rows = await db
    .selectFrom('workload')
    .select(['name', 'review_at'])
    .where('status', '=', 'active')
    .where('review_at', '<=', formatTime(nowMs + aheadMs))
    .where((eb) => eb.or([eb('review_at', '<=', formatTime(nowMs)), isUnannounced]))
    .orderBy('review_at')
    .orderBy('name')
    .limit(max)
    .execute()
  return rows.map((row) => ({ name: row.name, reviewAtMs: readTime(row.review_at) }))
}

/** Suspends these workloads. */
export async function suspendOverdue(tx: Kysely<Schema>, names: readonly string[], timeMs: number): Promise<void> {
  // An empty list is no SQL on PostgreSQL.
  if (names.length === 0) return
  await tx.updateTable('workload').set({ status: 'suspended', updated_at: formatTime(timeMs) }).where('name', 'in', names).execute()
}

/** Remembers that the review dates of these workloads were announced, as they are now. */
export async function announceReviews(tx: Kysely<Schema>, names: readonly string[]): Promise<void> {
  if (names.length === 0) return
  await tx
    .updateTable('workload')
    .set((eb) => ({ review_announced: eb.ref('review_at') }))
    .where('name', 'in', names)
    .execute()
}
