import type { Clock } from './clock.ts'

/** How often each of many callers may do something: one token bucket a caller, in bounded memory, of this process alone. */
export interface RateLimit {
  /** After how many seconds this caller may go on; `undefined` while it may now. */
  waitSeconds(caller: string): number | undefined
  /** Counts one for this caller. Where nothing is left, it has to wait the longer. */
  spend(caller: string): void
  /** Takes back what was counted for something that turned out not to be the caller's own doing. */
  giveBack(caller: string): void
}

export interface RateLimitOptions {
  readonly clock: Clock
  /** How many a bucket regains in a second. */
  readonly perSecond: number
  /** How many a full bucket holds. */
  readonly burst: number
  /** Of how many callers that have not regained everything at least is known how much they have left. */
  readonly callersMin: number
}

interface Bucket {
  /** How long it takes until the bucket is full again, as of `atMs`. */
  owedMs: number
  atMs: number
}

export function createRateLimit({ clock, perSecond, burst, callersMin }: RateLimitOptions): RateLimit {
  const intervalMs = 1000 / perSecond
  const capacityMs = burst * intervalMs
  // A bucket that is not here is full. One that was not touched while `callersMin` others were is forgotten with its whole
  // generation: to have one forgotten that is empty takes as many addresses, each with a bucket of its own.
  let young = new Map<string, Bucket>()
  let old = new Map<string, Bucket>()

  function find(caller: string): Bucket | undefined {
    const bucket = young.get(caller) ?? old.get(caller)
    if (bucket === undefined) return undefined
    const nowMs = clock.nowMs()
    // A clock that is set back gives nothing back and takes nothing away.
    bucket.owedMs = Math.max(0, bucket.owedMs - Math.max(0, nowMs - bucket.atMs))
    bucket.atMs = nowMs
    return bucket
  }

  function owe(caller: string, addMs: number): void {
    const bucket = find(caller) ?? { owedMs: 0, atMs: clock.nowMs() }
    // Whoever went on all the same owes at most a second bucket, so that no debt lasts for ever.
    bucket.owedMs = Math.min(Math.max(0, bucket.owedMs + addMs), 2 * capacityMs)
    young.set(caller, bucket)
    if (young.size < callersMin) return
    old = young
    young = new Map()
  }

  return {
    waitSeconds(caller) {
      const overMs = (find(caller)?.owedMs ?? 0) + intervalMs - capacityMs
      // Sums of fractions may miss a whole by the last bits.
      return overMs > 1e-6 * intervalMs ? Math.ceil(overMs / 1000) : undefined
    },
    spend: (caller) => owe(caller, intervalMs),
    giveBack: (caller) => owe(caller, -intervalMs),
  }
}
