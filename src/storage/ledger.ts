import type { Entry } from '../audit/entry.ts'
import { formatTime, type Clock } from '../kernel/clock.ts'
import { BrokerError } from '../kernel/errors.ts'
import type { RandomBytes } from '../kernel/ids.ts'
import type { Log } from '../kernel/log.ts'
import { silentMeter, type Meter } from '../kernel/meter.ts'
import type { CallbackChange, Conditions, Recorded, RowsChange } from './change.ts'
import { CommitLost, CommitUnsettled, findCommitted } from './commit-outcome.ts'
import { CommitUnknown, type Database } from './engine.ts'
import { toHead, type Head } from './head.ts'
import { CallbackHung, createBatch, type Pending, type Settlement } from './ledger-batch.ts'

export interface Ledger {
  append(change: RowsChange): Promise<Recorded<undefined>>
  transact<R>(change: CallbackChange<R>): Promise<Recorded<R>>
  /** Spends an assertion that authenticates a request which changes nothing, such as an introspection. */
  spend(conditions: Conditions): Promise<Recorded<undefined>>
  /** Deletes replay marks whose assertions the ledger's time refuses anyway; returns how many. At most `max`. */
  forgetExpiredMarks(max: number): Promise<number>
  /** Takes note of a head that was read outside: from then on a head behind it stops issuance. */
  observe(head: Head): void
  /** The ledger's time as far as this process knows: the later of the clock and the head's (invariant 12). */
  nowMs(): number
  /**
   * Commits nothing from now on but changes that are made `whileHeld`, until `release`: what this database says is not to be
   * acted on before an admin has looked.
   */
  hold(reason: string): void
  release(): void
  /** Why nothing is committed any more, or `undefined` while all is well. */
  readonly halted: string | undefined
  /** Why nothing is committed until `release`, or `undefined`. */
  readonly held: string | undefined
  /** Whether the last transaction came to nothing as a whole, as on a full disk. */
  readonly failing: boolean
  /** Waits for what was begun; refuses what comes after. */
  close(): Promise<void>
}

export interface LedgerOptions {
  readonly database: Database
  readonly clock: Clock
  readonly random: RandomBytes
  readonly log: Log
  readonly meter?: Meter
  readonly batchMax?: number
  /** How long a batch waits at most for more of what is under way. */
  readonly gatherMsMax?: number
  readonly queueMax?: number
  /** How long one callback may take. */
  readonly callbackMsMax?: number
  /** How long to look for the outcome of a COMMIT whose answer was lost. */
  readonly settleMsMax?: number
}

/**
 * The one place that commits a change together with its audit events (invariants 1, 3 and 13). Requests that arrive
 * together share a transaction under the head's lock: each change's conditions are checked against the head, it is
 * applied, its events get their indexes without a gap, the head advances, and after the commit everyone is answered.
 */
export function createLedger(options: LedgerOptions): Ledger {
  const { database, clock, random, log, meter = silentMeter } = options
  const { batchMax = 128, gatherMsMax = 2, queueMax = 10_000, callbackMsMax = 2_000, settleMsMax = 10_000 } = options
  let queue: Pending[] = []
  let running: Promise<void> | undefined
  let closed = false
  let halted: string | undefined
  let held: string | undefined
  let failing = false
  /** The size and time of the newest head that this process saw committed. */
  let seenSize = 0
  let seenTimeMs = 0

  function observe(head: Head): void {
    seenSize = Math.max(seenSize, head.size)
    seenTimeMs = Math.max(seenTimeMs, head.timeMs)
  }

  function enqueue<R>(pending: Omit<Pending, 'queuedMs' | 'resolve' | 'reject'>, whileHeld = false): Promise<Recorded<R>> {
    if (held !== undefined && !whileHeld) return Promise.reject(unavailable('the audit log is held', held))
    if (closed) return Promise.reject(unavailable('the broker is shutting down'))
    if (halted !== undefined) return Promise.reject(unavailable('the audit log cannot be written', halted))
    if (queue.length >= queueMax) return Promise.reject(unavailable('too many requests are waiting', 'ledger queue full'))
    return new Promise((resolve, reject) => {
      // The caller's own type of result goes in with `apply` and comes back out here.
      queue.push({ ...pending, queuedMs: performance.now(), resolve: resolve as Pending['resolve'], reject })
      running ??= drain()
    })
  }

  async function drain(): Promise<void> {
    while (queue.length > 0) {
      await gather()
      const batch = queue.slice(0, batchMax)
      queue = queue.slice(batchMax)
      const beganMs = performance.now()
      const settlements = await commitBatch(batch)
      measure(batch, beganMs)
      for (const { pending, outcome, error } of settlements) {
        if (outcome === undefined) pending.reject(error)
        else pending.resolve(outcome)
      }
    }
    running = undefined
  }

  /** Lets the batch grow for as long as each turn of the event loop brings more to it: a commit costs as much as many changes. */
  async function gather(): Promise<void> {
    const untilMs = performance.now() + gatherMsMax
    for (let had = -1; queue.length !== had && queue.length < batchMax && performance.now() < untilMs; ) {
      had = queue.length
      await new Promise((resolve) => setImmediate(resolve))
    }
  }

  function measure(batch: readonly Pending[], beganMs: number): void {
    meter.observe('ledger_commit_seconds', (performance.now() - beganMs) / 1000, {})
    meter.observe('ledger_batch_changes', batch.length, {})
    for (const { queuedMs } of batch) meter.observe('ledger_wait_seconds', (beganMs - queuedMs) / 1000, {})
  }

  /** Commits as much of a batch as can be; never throws. */
  async function commitBatch(batch: readonly Pending[]): Promise<Settlement[]> {
    if (halted !== undefined) return failAll(batch, unavailable('the audit log cannot be written', halted))
    const hung = new Set<Pending>()
    // First all plain values at once; if a statement fails, again with a savepoint each, to find the culprit.
    for (let apart = false; ; ) {
      const rest = batch.filter((pending) => !hung.has(pending))
      try {
        const settled = await runTransaction(rest, apart)
        failing = false
        return [...settled, ...failAll([...hung], unavailable('the change took too long', 'a ledger callback hung'))]
      } catch (error) {
        if (error instanceof CallbackHung) {
          hung.add(error.pending)
        } else if (!apart && !isFinal(error) && !database.isTransactionError(error)) {
          apart = true
        } else {
          return failBatch(batch, error)
        }
      }
    }
  }

  function failBatch(batch: readonly Pending[], error: unknown): Settlement[] {
    if (error instanceof HeadRegressed) halted = error.message
    failing = true
    meter.count('ledger_failures', {})
    log.error('the audit log could not be written; nothing of this batch was given out', { changes: batch.length, error })
    return failAll(batch, error instanceof CommitUnsettled ? error : unavailable('the audit log cannot be written', halted, error))
  }

  async function runTransaction(batch: readonly Pending[], apart: boolean): Promise<Settlement[]> {
    let head: Head | undefined
    let first: Entry | undefined
    let settlements: Settlement[] = []
    try {
      await database.write(async (transaction) => {
        const locked = toHead(await transaction.lockHead())
        if (locked.size < seenSize) throw new HeadRegressed(locked.size, seenSize)
        // What this process has seen counts too: a batch without events, such as one introspection, does not move the head.
        const start = { ...locked, timeMs: Math.max(locked.timeMs, seenTimeMs, clock.nowMs()) }
        const work = createBatch({ transaction, start, random, callbackMsMax, isTransactionError: database.isTransactionError })
        settlements = await work.applyAll(batch, apart)
        first = work.firstEntry()
        head = work.head()
      })
    } catch (error) {
      if (!(error instanceof CommitUnknown)) throw error
      log.warn('the answer to a COMMIT was lost: looking for its entries', { error: error.cause })
      if (!(await findCommitted(database, first, error, settleMsMax))) throw new CommitLost(error.cause)
    }
    if (head !== undefined) observe(head)
    return settlements
  }

  return {
    append: ({ grant, events, stillHolds, also, ...conditions }) =>
      enqueue({ conditions, rows: { events, ...(grant && { grant }), ...(stillHolds && { stillHolds }), ...(also && { also }) } }),
    transact: ({ apply, whileHeld, ...conditions }) => enqueue({ conditions, apply }, whileHeld),
    spend: (conditions) => enqueue({ conditions }),
    async forgetExpiredMarks(max) {
      const outcome = await enqueue<number>({
        conditions: {},
        apply: async (tx, place) => {
          const expired = tx.selectFrom('replay_mark').select('id').where('expires_at', '<=', formatTime(place.timeMs)).limit(max)
          // The head's time first: a mark may go only once no later batch, here or elsewhere, can have an earlier time.
          await tx.updateTable('log_head').set({ time: formatTime(place.timeMs) }).where('id', '=', 1).execute()
          const { numDeletedRows } = await tx.deleteFrom('replay_mark').where('id', 'in', expired).executeTakeFirstOrThrow()
          return { result: Number(numDeletedRows), unrecorded: 'housekeeping' }
        },
      })
      return outcome.status === 'recorded' ? outcome.result : 0
    },
    observe,
    nowMs: () => Math.max(clock.nowMs(), seenTimeMs),
    hold(reason) {
      held = reason
    },
    release() {
      held = undefined
    },
    get halted() {
      return halted ?? held
    },
    get held() {
      return held
    },
    get failing() {
      return failing
    },
    async close() {
      closed = true
      await running
    },
  }
}

/** The head is behind one that this process has seen: an older database was put in its place. Issuance stops for good. */
class HeadRegressed extends Error {
  constructor(size: number, seen: number) {
    super(`the log has ${size} entries, but had ${seen}: this looks like a restored backup; restart after checking it`)
    this.name = 'HeadRegressed'
  }
}

/** Errors after which a batch must not be tried again: the log is not to be touched, or COMMIT was sent already. */
function isFinal(error: unknown): boolean {
  return error instanceof HeadRegressed || error instanceof CommitLost || error instanceof CommitUnsettled
}

function failAll(batch: readonly Pending[], error: unknown): Settlement[] {
  return batch.map((pending) => ({ pending, error }))
}

function unavailable(reason: string, detail?: string, cause?: unknown): BrokerError {
  return new BrokerError({
    code: 'unavailable',
    publicMessage: `${reason}; nothing was issued or changed: try again shortly`,
    ...(detail !== undefined && { detail }),
    ...(cause !== undefined && { cause }),
  })
}
