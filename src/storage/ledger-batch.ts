import { CompiledQuery, type Kysely } from 'kysely'
import { makeEntry, type Entry } from '../audit/entry.ts'
import type { AuditEvent } from '../audit/event.ts'
import { appendLeaf } from '../audit/merkle.ts'
import { formatTime } from '../kernel/clock.ts'
import type { RandomBytes } from '../kernel/ids.ts'
import type { GrantRow, ReplayMark, WriteTransaction } from './engine.ts'
import { guardTransaction } from './guard.ts'
import { toHeadRow, type Head } from './head.ts'
import type { CallbackChange, Conditions, NotRecorded, Place, Recorded, RowsChange } from './change.ts'
import type { Schema } from './schema.ts'

/** A change in the queue, with whoever waits for it. */
export interface Pending {
  readonly conditions: Conditions
  /** When it came, by `performance.now()`. */
  readonly queuedMs: number
  readonly rows?: Pick<RowsChange, 'grant' | 'events' | 'stillHolds' | 'also'>
  readonly apply?: CallbackChange<unknown>['apply']
  resolve(outcome: Recorded<unknown>): void
  reject(error: unknown): void
}

/** A change's outcome, held back until the batch is committed (invariant 1). */
export type Settlement = { readonly pending: Pending; readonly outcome?: Recorded<unknown>; readonly error?: unknown }

/** A callback that did not come back in time: the transaction is given up, and the others start again without it. */
export class CallbackHung extends Error {
  readonly pending: Pending

  constructor(pending: Pending) {
    super('a ledger callback did not come back in time')
    this.name = 'CallbackHung'
    this.pending = pending
  }
}

const savepoint = {
  begin: CompiledQuery.raw('savepoint change'),
  release: CompiledQuery.raw('release savepoint change'),
  rollback: CompiledQuery.raw('rollback to savepoint change'),
}

interface BatchContext {
  readonly transaction: WriteTransaction
  /** The locked head, its time already that of this batch. */
  readonly start: Head
  readonly random: RandomBytes
  readonly callbackMsMax: number
  isTransactionError(error: unknown): boolean
}

/** The work inside one transaction: checks each change's conditions, applies it and moves the head along. */
export function createBatch({ transaction, start, random, callbackMsMax, isTransactionError }: BatchContext) {
  let head = start
  let firstEntry: Entry | undefined

  async function applyAll(batch: readonly Pending[], apart: boolean): Promise<Settlement[]> {
    const isHot = ({ apply, rows }: Pending) => apply === undefined && rows?.stillHolds === undefined && rows?.also === undefined
    const hot = batch.filter(isHot)
    const settlements: Settlement[] = []
    // Plain values go first: a callback that raises the epoch would only make them be decided again.
    if (hot.length > 0 && !apart) settlements.push(...(await applyRows(hot)))
    else for (const pending of hot) settlements.push(await inSavepoint(pending, async () => (await applyRows([pending]))[0]))
    for (const pending of batch) {
      if (!isHot(pending)) settlements.push(await inSavepoint(pending, () => applyAlone(pending)))
    }
    return settlements
  }

  /** Why a change may not be committed under this head, if so. */
  function refusal({ conditions: { epoch, mark } }: Pending): NotRecorded | undefined {
    if (epoch !== undefined && epoch !== head.epoch) return { status: 'epoch_moved' }
    if (mark !== undefined && mark.expiresAtMs <= head.timeMs) return { status: 'late' }
    return undefined
  }

  async function applyRows(group: readonly Pending[]): Promise<Settlement[]> {
    const settlements: Settlement[] = []
    const marks = new Map<string, ReplayMark>()
    const candidates: Pending[] = []
    for (const pending of group) {
      const { mark } = pending.conditions
      const outcome = refusal(pending) ?? (mark !== undefined && marks.has(mark.id) ? { status: 'replayed' as const } : undefined)
      if (outcome !== undefined) settlements.push({ pending, outcome })
      else {
        candidates.push(pending)
        if (mark !== undefined) marks.set(mark.id, mark)
      }
    }
    const fresh = marks.size === 0 ? marks : await transaction.insertReplayMarks([...marks.values()])
    const grants: GrantRow[] = []
    const events: AuditEvent[] = []
    const issuedAt = formatTime(head.timeMs)
    for (const pending of candidates) {
      const { mark } = pending.conditions
      if (mark !== undefined && !fresh.has(mark.id)) {
        settlements.push({ pending, outcome: { status: 'replayed' } })
        continue
      }
      const index = head.size + events.length
      const { grant, events: own = [] } = pending.rows ?? {}
      if (grant !== undefined) grants.push({ ...grant, issued_index: index, issued_at: issuedAt, revoked_index: null })
      events.push(...own)
      settlements.push({ pending, outcome: { status: 'recorded', result: undefined, index, timeMs: head.timeMs } })
    }
    if (grants.length > 0) await transaction.insertGrants(grants)
    await record(events, false)
    return settlements
  }

  /** Applies one change that runs code of its caller: a callback, or plain values with a condition of their own. */
  async function applyAlone(pending: Pending): Promise<Settlement> {
    const { conditions, rows, apply } = pending
    const outcome = refusal(pending)
    if (outcome !== undefined) return { pending, outcome }
    if (apply === undefined) {
      const place: Place = { index: head.size, timeMs: head.timeMs }
      const stillHolds = await runGuarded(pending, (tx) => rows?.stillHolds?.(tx, place) ?? Promise.resolve(true))
      const [settlement] = stillHolds ? await applyRows([pending]) : []
      if (rows?.also !== undefined && settlement?.outcome?.status === 'recorded') {
        const { also } = rows
        await runGuarded(pending, (tx) => also(tx, place))
      }
      return settlement ?? { pending, outcome: { status: 'epoch_moved' } }
    }
    if (conditions.mark !== undefined && (await transaction.insertReplayMarks([conditions.mark])).size === 0) {
      return { pending, outcome: { status: 'replayed' } }
    }
    const place: Place = { index: head.size, timeMs: head.timeMs }
    const done = await runGuarded(pending, (tx) => apply(tx, place))
    if ('events' in done) await record(done.events, done.raisesEpoch)
    return { pending, outcome: { status: 'recorded', result: done.result, ...place } }
  }

  /** Lends the transaction to a callback for a limited time, and takes it back however that ends. */
  async function runGuarded<T>(pending: Pending, callback: (tx: Kysely<Schema>) => Promise<T>): Promise<T> {
    const { tx, revoke } = guardTransaction(transaction.db)
    let timer: NodeJS.Timeout | undefined
    const limit = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new CallbackHung(pending)), callbackMsMax)
    })
    // In an async function, so that one which throws before its first promise is handled like the others.
    const work = (async () => callback(tx))()
    // What the callback does after its time cannot reach the transaction, and is nobody's to handle.
    work.catch(() => undefined)
    try {
      return await Promise.race([work, limit])
    } finally {
      clearTimeout(timer)
      revoke()
    }
  }

  /** Runs one change so that its own failure undoes only itself. */
  async function inSavepoint(pending: Pending, body: () => Promise<Settlement | undefined>): Promise<Settlement> {
    const [headBefore, firstBefore] = [head, firstEntry]
    await transaction.execute(savepoint.begin)
    try {
      const settlement = await body()
      await transaction.execute(savepoint.release)
      return settlement ?? { pending, error: new Error('a change left no outcome') }
    } catch (error) {
      if (error instanceof CallbackHung || isTransactionError(error)) throw error
      await transaction.execute(savepoint.rollback)
      await transaction.execute(savepoint.release)
      head = headBefore
      firstEntry = firstBefore
      return { pending, error }
    }
  }

  /** Appends events at the head and moves it: index, salt, bytes, leaf hash, frontier, root. */
  async function record(events: readonly AuditEvent[], raisesEpoch: boolean): Promise<void> {
    if (events.length === 0) return
    const entries = events.map((event, i) => makeEntry(event, head.size + i, head.timeMs, random))
    await transaction.insertEntries(entries)
    let { frontier } = head
    for (const entry of entries) frontier = appendLeaf(frontier, entry.index, entry.leafHash)
    head = { ...head, frontier, size: head.size + entries.length, epoch: head.epoch + (raisesEpoch ? 1 : 0) }
    firstEntry ??= entries[0]
    await transaction.moveHead(toHeadRow(head))
  }

  return { applyAll, head: () => head, firstEntry: () => firstEntry }
}
