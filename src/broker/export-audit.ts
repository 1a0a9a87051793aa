import { setTimeout as sleep } from 'node:timers/promises'
import type { AuditEvent } from '../audit/event.ts'
import { formatTime } from '../kernel/clock.ts'
import { BrokerError } from '../kernel/errors.ts'
import { findIndexAt, readWindow, type EntryFilter, type IndexRange, type StoredEntry } from '../storage/audit-windows.ts'
import { findNewestCheckpoint, type StoredCheckpoint } from '../storage/checkpoints.ts'
import { readHead } from '../storage/head.ts'
import { causedBy, type Broker, type Caller } from './broker.ts'
import { requireCheckpoint } from './checkpoints.ts'
import { commit } from './commit.ts'

export type ExportFormat = 'jsonl' | 'csv'

/** What an export is to hold: entries that fit every member given. */
export interface ExportSelection extends EntryFilter {
  readonly fromMs?: number
  /** Only entries before this instant. */
  readonly toMs?: number
  /** Only entries with a greater index: where an export that was cut off goes on. */
  readonly after?: number
  /** The last index, so that what goes on ends where it would have. */
  readonly until?: number
}

/** The indexes among which an export looks, both included; nothing where `last` is before `first`. */
export interface ExportRange {
  readonly first: number
  readonly last: number
}

/** An export that may be given. */
export interface AuditExport extends ExportRange {
  /** The entry that records it; `undefined` where the ledger is held, so that nothing can be recorded. */
  readonly auditIndex: number | undefined
  /** The entries, oldest first, page by page until the signal ends it. Between pages nothing is held open. */
  readPages(signal: AbortSignal): AsyncGenerator<readonly StoredEntry[], void>
  /** Makes room for another export; to be called once this one is over, however it ended. */
  end(): void
}

/** How many exports this process gives at once, and one operator may have of them. */
export interface ExportPlaces {
  /** Takes a place and returns what gives it back. Throws `rate_limited` when there is none for this operator. */
  take(operator: string): () => void
}

const retryAfterSeconds = 10

export function createExportPlaces({ atOnceMax = 4, perOperatorMax = 2 } = {}): ExportPlaces {
  const taken = new Map<symbol, string>()
  return {
    take(operator) {
      const own = [...taken.values()].filter((holder) => holder === operator).length
      if (taken.size >= atOnceMax || own >= perOperatorMax) {
        const publicMessage = `${own >= perOperatorMax ? `${own} exports of yours` : `${taken.size} exports`} are running already: wait for one to end.`
        throw new BrokerError({ code: 'rate_limited', publicMessage, retryAfterSeconds })
      }
      const place = Symbol('export')
      taken.set(place, operator)
      return () => void taken.delete(place)
    },
  }
}

/** A place among the exports for whoever calls. Throws `rate_limited`. */
export function takePlace({ exports }: Broker, { actor }: Caller): () => void {
  return exports.take(actor.id ?? actor.kind)
}

type Signing = Pick<Broker, 'database' | 'ledger' | 'checkpointKey' | 'seenCheckpoint'>

/**
 * The newest checkpoint, of at least that many entries, which the log must have. While the ledger is held it may be of
 * fewer, and there may be none: a log that was tampered with can be taken away to be looked into.
 */
export async function reachCheckpoint(broker: Signing, size: number): Promise<StoredCheckpoint | undefined> {
  try {
    return await requireCheckpoint(broker, size)
  } catch (error) {
    if (broker.ledger.halted === undefined) throw error
    return findNewestCheckpoint(broker.database.read)
  }
}

/**
 * The range of an export that begins now. It ends with the newest checkpoint, which is made of the entries of this moment:
 * so it stays the same while entries are added, and is proven to its end. Throws `invalid_input` for an index that the log
 * does not have.
 */
export async function findExportRange(broker: Signing, selection: ExportSelection): Promise<ExportRange> {
  const { read } = broker.database
  const { fromMs, toMs, after, until } = selection
  const { size: there } = await readHead(read)
  const signed = (await reachCheckpoint(broker, there))?.size ?? 0
  // A checkpoint of more entries than there are tells that the end of the log is gone.
  const size = Math.max(there, Math.min(signed, (await readHead(read)).size))
  for (const [name, index] of Object.entries({ after, until })) {
    if (index === undefined || index < size) continue
    throw new BrokerError({ code: 'invalid_input', publicMessage: `${name} is ${index}, and the log has only ${size} entries, counted from 0.` })
  }
  const first = Math.max((after ?? -1) + 1, fromMs === undefined ? 0 : await findIndexAt(read, fromMs, size))
  const last = Math.min(until ?? size - 1, toMs === undefined ? size - 1 : (await findIndexAt(read, toMs, size)) - 1)
  return { first, last: Math.max(last, first - 1) }
}

/**
 * Begins an export: records it, and hands over the entries once the record is durable. While the ledger is held it is given
 * all the same, for whoever finds out why needs it, and the operator's log tells. Throws `rate_limited` when too many are
 * running, and as `findExportRange` does.
 */
export async function exportAudit(broker: Broker, caller: Caller, selection: ExportSelection, format: ExportFormat): Promise<AuditExport> {
  const end = takePlace(broker, caller)
  try {
    const range = await findExportRange(broker, selection)
    const { fromMs, toMs, after: _, until: __, ...filter } = selection
    const selector = { ...filter, ...(fromMs !== undefined && { from: formatTime(fromMs) }), ...(toMs !== undefined && { to: formatTime(toMs) }) }
    const auditIndex = await record(broker, { type: 'audit.exported', ...causedBy(caller), format, selector, ...range })
    return { ...range, auditIndex, end, readPages: (signal) => readPages(broker, filter, range, signal) }
  } catch (error) {
    end()
    throw error
  }
}

async function record(broker: Broker, event: AuditEvent): Promise<number | undefined> {
  try {
    return (await commit(broker, { apply: async () => ({ result: undefined, raisesEpoch: false, events: [event] }) })).index
  } catch (error) {
    const refused = error instanceof BrokerError && error.code === 'unavailable'
    if (!refused || broker.ledger.halted === undefined) throw error
    broker.log.warn('an export is given that the log cannot record', { reason: broker.ledger.halted, event })
    return undefined
  }
}

// Entries that are looked at, and made into lines, in one go; more of them while none fits, for those only are looked at.
const lookedMin = 64
const lookedMax = 512
const restMsMax = 5

async function* readPages(
  { database: { read } }: Broker,
  filter: EntryFilter,
  { first, last }: ExportRange,
  signal: AbortSignal,
): AsyncGenerator<readonly StoredEntry[], void> {
  let rest: IndexRange | undefined = { after: first - 1, before: last + 1 }
  let looked = lookedMin
  while (rest !== undefined && !signal.aborted) {
    const begunAt = performance.now()
    const window: Awaited<ReturnType<typeof readWindow>> = await readWindow(read, filter, rest, 'asc', looked)
    if (window.entries.length > 0) yield window.entries
    rest = window.rest
    looked = window.entries.length > 0 ? lookedMin : Math.min(looked * 2, lookedMax)
    // However fast the reader is, the export takes no more than half of the thread that issues tokens.
    if (rest !== undefined) await sleep(Math.min(performance.now() - begunAt, restMsMax))
  }
}
