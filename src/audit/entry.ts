import { formatTime } from '../kernel/clock.ts'
import type { RandomBytes } from '../kernel/ids.ts'
import { canonicalJson, leafHash, type JsonObject } from './encode.ts'
import { eventFields, type AuditEvent } from './event.ts'

/** The largest entry: a tlog-tiles entry bundle gives each one a 16-bit length. */
export const entryBytesMax = 60 * 1024

/** One event with its place in the log: what is stored, hashed and exported, byte for byte. */
export interface Entry {
  readonly index: number
  readonly time: string
  readonly type: AuditEvent['type']
  /** RFC 8785 canonical JSON. */
  readonly body: string
  /** RFC 6962 leaf hash of the body's UTF-8 bytes. */
  readonly leafHash: Buffer
  /** The columns by which entries are found. */
  readonly workload: string | undefined
  readonly tool: string | undefined
  readonly grant: string | undefined
  readonly task: string | undefined
}

/**
 * Gives an event its final index, the ledger's time and 128 bits of salt, so that nobody can guess an entry from its
 * public hash. Throws if the event has a field that its type does not list, or is larger than `entryBytesMax`.
 */
export function makeEntry(event: AuditEvent, index: number, timeMs: number, random: RandomBytes): Entry {
  const allowed: readonly string[] = eventFields[event.type]
  for (const key of Object.keys(event)) {
    if (key !== 'type' && key !== 'actor' && key !== 'request_id' && !allowed.includes(key)) {
      throw new TypeError(`an event of type ${event.type} has no field ${key}`)
    }
  }
  const time = formatTime(timeMs)
  const salt = Buffer.from(random(16)).toString('base64url')
  // The union's members are JSON by construction; the compiler cannot see an interface as an index signature.
  const fields = event as unknown as JsonObject
  const body = canonicalJson({ ...fields, index, salt, time, v: 1 })
  const bytes = Buffer.from(body)
  if (bytes.length > entryBytesMax) {
    throw new RangeError(`an event of type ${event.type} has ${bytes.length} bytes, at most ${entryBytesMax} fit`)
  }
  return {
    index,
    time,
    type: event.type,
    body,
    leafHash: leafHash(bytes),
    workload: 'workload' in event ? event.workload : undefined,
    tool: 'tool' in event ? event.tool : undefined,
    grant: 'grant' in event ? event.grant : undefined,
    task: 'task' in event ? event.task : undefined,
  }
}
