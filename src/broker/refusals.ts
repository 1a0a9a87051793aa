import { formatTime, type Clock } from '../kernel/clock.ts'
import type { Log } from '../kernel/log.ts'
import type { Realm } from '../audit/event.ts'
import type { RefusalReason } from '../identity/refusal.ts'
import type { Ledger } from '../storage/ledger.ts'

/**
 * Refusals of callers who have not proven who they are, counted and recorded as one event per reason and minute, so
 * that strangers can neither fill the log nor go unnoticed (invariant 10).
 */
export interface Refusals {
  note(realm: Realm, reason: RefusalReason, claimedWorkload?: string): void
  /** Records the minutes that are over, or with `all` also the one that is not. */
  flush(all?: boolean): Promise<void>
}

interface Tally {
  readonly realm: Realm
  readonly reason: RefusalReason
  readonly minute: number
  readonly sinceMs: number
  untilMs: number
  count: number
  readonly claimed: Map<string, number>
}

const minuteMs = 60_000
/** How many claimed names one event carries; only names of registered workloads are counted at all. */
const claimedMax = 20

export function createRefusals({ ledger, clock, log }: { ledger: Ledger; clock: Clock; log: Log }): Refusals {
  let tallies = new Map<string, Tally>()

  return {
    note(realm, reason, claimedWorkload) {
      const nowMs = clock.nowMs()
      const minute = Math.floor(nowMs / minuteMs)
      const key = `${minute} ${realm} ${reason}`
      let tally = tallies.get(key)
      if (tally === undefined) {
        tally = { realm, reason, minute, sinceMs: nowMs, untilMs: nowMs, count: 0, claimed: new Map() }
        tallies.set(key, tally)
      }
      tally.untilMs = nowMs
      tally.count++
      if (claimedWorkload !== undefined && (tally.claimed.has(claimedWorkload) || tally.claimed.size < claimedMax)) {
        tally.claimed.set(claimedWorkload, (tally.claimed.get(claimedWorkload) ?? 0) + 1)
      }
    },
    async flush(all = false) {
      const minute = Math.floor(clock.nowMs() / minuteMs)
      const due = [...tallies].filter(([, tally]) => all || tally.minute !== minute)
      const [first, ...rest] = due.map(([, tally]) => toEvent(tally))
      if (first === undefined) return
      tallies = new Map([...tallies].filter(([key]) => !due.some(([dueKey]) => dueKey === key)))
      try {
        await ledger.append({ events: [first, ...rest] })
      } catch (error) {
        // Kept for the next try: a count must not get lost because the log could not be written for a moment.
        for (const [key, tally] of due) tallies.set(`${key} since ${tally.sinceMs}`, tally)
        log.warn('refusals could not be recorded yet', { error })
      }
    },
  }
}

function toEvent(tally: Tally) {
  return {
    type: 'authentication.refused',
    actor: { kind: 'stranger' },
    realm: tally.realm,
    reason: tally.reason,
    count: tally.count,
    since: formatTime(tally.sinceMs),
    until: formatTime(tally.untilMs),
    ...(tally.claimed.size > 0 && { claimed: Object.fromEntries(tally.claimed) }),
  } as const
}
