import type { Kysely } from 'kysely'
import { formatTime } from '../kernel/clock.ts'
import type { Schema } from './schema.ts'

/** How many workloads have a status, and how their review dates stand. */
export interface WorkloadCount {
  readonly status: string
  readonly count: number
  /** Those of them whose review date is before the one time. */
  readonly overdue: number
  /** Those of them whose review date is not yet past then, but before the other time. */
  readonly due: number
}

/** In one pass over the table, for each status that occurs. */
export async function countWorkloads(db: Kysely<Schema>, nowMs: number, dueBeforeMs: number): Promise<WorkloadCount[]> {
  const now = formatTime(nowMs)
  const rows = await db
    .selectFrom('workload')
    .select((eb) => [
      'status',
      eb.fn.countAll<number>().as('count'),
      eb.fn.countAll<number>().filterWhere('review_at', '<=', now).as('overdue'),
      eb.fn.countAll<number>().filterWhere('review_at', '>', now).filterWhere('review_at', '<=', formatTime(dueBeforeMs)).as('due'),
    ])
    .groupBy('status')
    .execute()
  // PostgreSQL counts in 64 bits, which its driver gives as text.
  return rows.map(({ status, count, overdue, due }) => ({ status, count: Number(count), overdue: Number(overdue), due: Number(due) }))
}
