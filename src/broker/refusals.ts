import { formatTime, type Clock } from '../kernel/clock.ts'
import type { Log } from '../kernel/log.ts'
import type { Meter } from '../kernel/meter.ts'
import type { AuditEvent, Realm } from '../audit/event.ts'
import type { RefusalReason } from '../identity/refusal.ts'
import type { Ledger } from '../storage/ledger.ts'

/**
 * What is too much to be recorded one by one, counted and recorded as one event per minute: refusals of callers who have
 * not proven who they are, by reason, so that strangers can neither fill the log nor go unnoticed (invariant 10), and
 * requests of workloads that were told to wait, by workload.
 */
export interface Refusals {
  note(realm: Realm, reason: RefusalReason, claimedWorkload?: string): void
  noteLimited(workload: string): void
  /** Records the minutes that are over, or with `all` also the one that is not. */
  flush(all?: boolean): Promise<void>
}

interface Tally {
  readonly minute: number
  readonly sinceMs: number
  untilMs: number
  count: number
  readonly claimed: Map<string, number>
  readonly toEvent: (tally: Tally) => AuditEvent
}

const minuteMs = 60_000
/** How many claimed names one event carries; only names of registered workloads are counted at all. */
const claimedMax = 20
/** So that issuance is never held up for long, however many workloads were told to wait. */
const eventsPerCommit = 100

export function createRefusals({ ledger, clock, log, meter }: { ledger: Ledger; clock: Clock; log: Log; meter: Meter }): Refusals {
  const tallies = new Map<string, Tally>()

  function count(what: string, toEvent: Tally['toEvent']): Tally {
    const nowMs = clock.nowMs()
    const minute = Math.floor(nowMs / minuteMs)
    const key = `${minute} ${what}`
    let tally = tallies.get(key)
    if (tally === undefined) {
      tally = { minute, sinceMs: nowMs, untilMs: nowMs, count: 0, claimed: new Map(), toEvent }
      tallies.set(key, tally)
    }
    tally.untilMs = nowMs
    tally.count++
    return tally
  }

  async function record(due: readonly (readonly [string, Tally])[]): Promise<void> {
    const [first, ...rest] = due.map(([, tally]) => tally.toEvent(tally))
    if (first === undefined) return
    try {
      await ledger.append({ events: [first, ...rest] })
    } catch (error) {
      // Kept for the next try: a count must not get lost because the log could not be written for a moment.
      for (const [key, tally] of due) tallies.set(`${key} since ${tally.sinceMs}`, tally)
      log.warn('refusals could not be recorded yet', { error })
    }
  }

  return {
    note(realm, reason, claimedWorkload) {
      meter.count('refusals', { realm, reason })
      const { claimed } = count(`${realm} ${reason}`, (tally) => describeRefusals(realm, reason, tally))
      if (claimedWorkload !== undefined && (claimed.has(claimedWorkload) || claimed.size < claimedMax)) {
        claimed.set(claimedWorkload, (claimed.get(claimedWorkload) ?? 0) + 1)
      }
    },
    noteLimited(workload) {
      meter.count('requests_limited', { scope: 'workload' })
      count(`limited ${workload}`, (tally) => ({ type: 'requests.limited', actor: { kind: 'workload', id: workload }, workload, ...describeCount(tally) }))
    },
    async flush(all = false) {
      const minute = Math.floor(clock.nowMs() / minuteMs)
      const due = [...tallies].filter(([, tally]) => all || tally.minute !== minute)
      for (const [key] of due) tallies.delete(key)
      for (let at = 0; at < due.length; at += eventsPerCommit) await record(due.slice(at, at + eventsPerCommit))
    },
  }
}

function describeRefusals(realm: Realm, reason: RefusalReason, tally: Tally): AuditEvent {
  return {
    type: 'authentication.refused',
    actor: { kind: 'stranger' },
    realm,
    reason,
    ...describeCount(tally),
    ...(tally.claimed.size > 0 && { claimed: Object.fromEntries(tally.claimed) }),
  }
}

function describeCount({ count, sinceMs, untilMs }: Tally) {
  return { count, since: formatTime(sinceMs), until: formatTime(untilMs) }
}
