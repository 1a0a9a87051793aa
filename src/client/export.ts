import { setTimeout as sleep } from 'node:timers/promises'
import { isObject } from './answer.ts'
import { clientError, StintError } from './errors.ts'
import type { ApiStream, Sender } from './http.ts'
import type { AuditExport, AuditExportQuery, ExportedLines } from './log-records.ts'

/** How an export is taken up again when its connection is lost. */
export interface ExportOptions {
  /** How many times in a row without a new entry; 5 by default. */
  readonly retriesMax?: number | undefined
  /** The first pause, doubled each time; 500 by default. */
  readonly pauseMs?: number | undefined
}

/** A search for entries of which few fit says nothing until it has found one. */
export const silenceMsMax = 60_000
// Far more than an entry of the largest size takes as CSV.
const lineBytesMax = 1024 * 1024
const newline = 0x0a

/**
 * Begins an export, of which `lines` yields whole lines as they arrive. A lost connection is taken up again behind the
 * last entry that came, and ends where the first one would have. Throws `StintError` when that does not help.
 */
export async function openExport(sender: Sender, bearer: string, query: AuditExportQuery, options: ExportOptions = {}): Promise<AuditExport> {
  const open = (more: AuditExportQuery): Promise<ApiStream> =>
    sender.open({ method: 'GET', path: '/v1/audit/export', query: { ...query, ...more }, bearer, timeoutMsDefault: silenceMsMax })
  const stream = await open({})
  const [first, last] = [readIndex(stream, 'stint-export-first'), readIndex(stream, 'stint-export-last')]
  // What is empty has no last entry.
  const until = last >= first ? last : undefined
  const auditIndex = stream.headers.has('stint-audit-index') ? { audit_index: readIndex(stream, 'stint-audit-index') } : {}
  const goOn = (after: number | undefined) => open({ after, ...(until !== undefined && { until }) })
  return { first, last, ...auditIndex, lines: readLines(stream, goOn, { ...query, until }, options) }
}

async function* readLines(
  stream: ApiStream,
  goOn: (after: number | undefined) => Promise<ApiStream>,
  query: AuditExportQuery,
  options: ExportOptions,
): AsyncGenerator<ExportedLines, void> {
  let reached = query.after
  let current: ApiStream | undefined = stream
  for (let failures = 0; ; ) {
    try {
      current ??= await goOn(reached)
      for await (const lines of splitLines(current, query.format ?? 'jsonl')) {
        if (lines.last_index !== undefined && reached !== undefined && lines.last_index <= reached) {
          throw clientError('bad_answer', `the broker sent entry ${lines.last_index} after entry ${reached}: the export cannot be used.`)
        }
        reached = lines.last_index ?? reached
        failures = 0
        yield lines
      }
      if (isWhole(query) && reached !== query.until) throw cutOff(`the export ended before its last entry, ${query.until}`)
      return
    } catch (error) {
      await waitToRetry(error, ++failures, options)
      current = undefined
    }
  }
}

/** Whether every entry is asked for, so that the last one must come: behind a proxy, what was cut off may look complete. */
function isWhole({ type, workload, tool, grant, task, until }: AuditExportQuery): boolean {
  return until !== undefined && [type, workload, tool, grant, task].every((member) => member === undefined)
}

/** What ended too early, and where. */
export function cutOff(what: string): StintError {
  return clientError('connection_failed', `${what}.`)
}

/** Waits for the next try, longer each time. Throws the error where it was one too many, or would come again. */
export async function waitToRetry(error: unknown, failures: number, { retriesMax = 5, pauseMs = 500 }: ExportOptions): Promise<void> {
  if (!(error instanceof StintError) || !passesBy(error) || failures > retriesMax) throw error
  await sleep(Math.max(pauseMs * 2 ** (failures - 1), (error.retryAfterSeconds ?? 0) * 1000))
}

function passesBy({ code, status = 0 }: StintError): boolean {
  return ['connection_failed', 'timed_out', 'rate_limited'].includes(code) || status >= 500
}

/** Cuts what arrives behind the last whole entry of each piece. A CSV header waits for the entry that follows it. */
async function* splitLines({ pieces }: ApiStream, format: 'jsonl' | 'csv'): AsyncGenerator<ExportedLines, void> {
  let rest: Buffer = Buffer.alloc(0)
  for await (const piece of pieces) {
    const bytes = Buffer.concat([rest, piece])
    const whole = bytes.subarray(0, bytes.lastIndexOf(newline) + 1)
    const lastIndex = indexOfLast(whole, format)
    rest = lastIndex === undefined ? bytes : bytes.subarray(whole.length)
    if (rest.length > lineBytesMax) throw clientError('bad_answer', 'the export has a line without an end: it cannot be used.')
    if (lastIndex !== undefined) yield { bytes: whole, entries: countEntries(whole), last_index: lastIndex }
  }
  if (rest.length === 0) return
  if (rest.at(-1) !== newline || format === 'jsonl') throw cutOff('the export ended in the middle of a line')
  yield { bytes: rest, entries: 0 }
}

/** The index of the entry in the last of these lines; `undefined` where there is none, or none but a header. */
export function indexOfLast(lines: Buffer, format: 'jsonl' | 'csv'): number | undefined {
  if (lines.length === 0) return undefined
  const line = lines.subarray(lines.lastIndexOf(newline, -2) + 1).toString()
  if (format === 'csv') {
    if (line.startsWith('index,')) return undefined
    const [, digits] = /^(\d{1,15}),/.exec(line) ?? []
    if (digits !== undefined) return Number(digits)
  } else {
    const entry = parse(line)
    if (isObject(entry) && typeof entry['index'] === 'number') return entry['index']
  }
  throw clientError('bad_answer', 'the export has a line that is no entry: it cannot be used.')
}

function parse(line: string): unknown {
  try {
    return JSON.parse(line)
  } catch {
    return undefined
  }
}

function countEntries(lines: Buffer): number {
  let count = lines.subarray(0, 6).toString() === 'index,' ? -1 : 0
  for (let at = lines.indexOf(newline); at !== -1; at = lines.indexOf(newline, at + 1)) count++
  return count
}

function readIndex({ headers }: ApiStream, name: string): number {
  const value = headers.get(name) ?? ''
  if (/^(?:\d{1,15}|-1)$/.test(value)) return Number(value)
  throw clientError('bad_answer', `the broker's answer is no export: it has no ${name}. Is the URL a Stint broker's?`)
}
