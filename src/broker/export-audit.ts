import { setTimeout as sleep } from 'node:timers/promises'
import { formatTime } from '../kernel/clock.ts'
import { BrokerError } from '../kernel/errors.ts'
import { findIndexAt, readWindow, type EntryFilter, type IndexRange, type StoredEntry } from '../storage/audit-windows.ts'
import { readHead } from '../storage/head.ts'
import { causedBy, type Broker, type Caller } from './broker.ts'
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

/** An export that is recorded and may be given. */
export interface AuditExport extends ExportRange {
  /** The entry that records it. */
  readonly auditIndex: number
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

/**
 * The range of an export that begins now. It ends with the newest entry of this moment, so that it stays the same while
 * entries are added. Throws `invalid_input` for an index that the log does not have.
 */
export async function findExportRange({ database: { read } }: Pick<Broker, 'database'>, selection: ExportSelection): Promise<ExportRange> {
  const { fromMs, toMs, after, until } = selection
  const { size } = await readHead(read)
  for (const [name, index] of Object.entries({ after, until })) {
    if (index === undefined || index < size) continue
    throw new BrokerError({ code: 'invalid_input', publicMessage: `${name} is ${index}, and the log has only ${size} entries, counted from 0.` })
  }
  const first = Math.max((after ?? -1) + 1, fromMs === undefined ? 0 : await findIndexAt(read, fromMs, size))
  const last = Math.min(until ?? size - 1, toMs === undefined ? size - 1 : (await findIndexAt(read, toMs, size)) - 1)
  return { first, last: Math.max(last, first - 1) }
}

/**
 * Begins an export: records it, and hands over the entries once the record is durable. Throws `rate_limited` when too many
 * are running, and as `findExportRange` does.
 */
export async function exportAudit(broker: Broker, caller: Caller, selection: ExportSelection, format: ExportFormat): Promise<AuditExport> {
  const end = broker.exports.take(caller.actor.id ?? caller.actor.kind)
  try {
    const range = await findExportRange(broker, selection)
    const { fromMs, toMs, after: _, until: __, ...filter } = selection
    const selector = { ...filter, ...(fromMs !== undefined && { from: formatTime(fromMs) }), ...(toMs !== undefined && { to: formatTime(toMs) }) }
    const event = { type: 'audit.exported', ...causedBy(caller), format, selector, ...range } as const
    const { index } = await commit(broker, { apply: async () => ({ result: undefined, raisesEpoch: false, events: [event] }) })
    return { ...range, auditIndex: index, end, readPages: (signal) => readPages(broker, filter, range, signal) }
  } catch (error) {
    end()
    throw error
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
