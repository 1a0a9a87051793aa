import type { AuditEvent } from '../audit/event.ts'
import { formatTime } from '../kernel/clock.ts'
import { announceReviews, findReviewsDue, suspendOverdue, type DueReview } from '../storage/reviews.ts'
import { causedBy, type Broker, type Caller } from './broker.ts'
import { commit } from './commit.ts'

/** How long before its review date a workload is announced. */
export const announceAheadMs = 14 * 86_400_000

/** One commit changes no more than that: a large fleet with one review date is done in several runs, between requests. */
const workloadsPerCommit = 500

const schedule: Caller = { actor: { kind: 'stint', id: 'schedule' } }

/**
 * Suspends workloads whose review date has passed, and announces, once for each date, those whose date comes within 14 days.
 * Authentication refuses an overdue workload already: this makes it visible, and lasting until an admin resumes it. Decided
 * inside the transaction: of several processes one does it (invariant 11).
 */
export async function keepReviewDates(broker: Pick<Broker, 'ledger' | 'database' | 'log'>): Promise<void> {
  const { database, ledger, log } = broker
  const look = (db: typeof database.read, nowMs: number) => findReviewsDue(db, nowMs, announceAheadMs, workloadsPerCommit)
  if ((await look(database.read, ledger.nowMs())).length === 0) return
  const { result } = await commit(broker, {
    async apply(tx, { timeMs }) {
      const due = await look(tx, timeMs)
      const overdue = due.filter(({ reviewAtMs }) => reviewAtMs <= timeMs)
      const ahead = due.filter(({ reviewAtMs }) => reviewAtMs > timeMs)
      await suspendOverdue(tx, overdue.map(({ name }) => name), timeMs)
      await announceReviews(tx, ahead.map(({ name }) => name))
      const [first, ...rest] = [...overdue.map(describeSuspension), ...ahead.map(describeAnnouncement)]
      if (first === undefined) return { result: { overdue, ahead }, unrecorded: 'nothing changed' }
      // No decision reads what was announced.
      return { result: { overdue, ahead }, raisesEpoch: overdue.length > 0, events: [first, ...rest] }
    },
  })
  const { overdue, ahead } = result
  if (overdue.length > 0) log.warn('workloads were suspended, for their review date has passed', { count: overdue.length, first: overdue[0]?.name })
  if (ahead.length > 0) log.info('workloads are to be reviewed within 14 days', { count: ahead.length, first: ahead[0]?.name })
}

function describeSuspension({ name, reviewAtMs }: DueReview): AuditEvent {
  return { type: 'workload.suspended', ...causedBy(schedule), workload: name, reason: `its review date ${formatTime(reviewAtMs)} has passed` }
}

function describeAnnouncement({ name, reviewAtMs }: DueReview): AuditEvent {
  return { type: 'workload.review_due', ...causedBy(schedule), workload: name, review_at: formatTime(reviewAtMs) }
}
