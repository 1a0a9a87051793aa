/** The one source of time, passed in so that tests can move it (invariant 12). */
export interface Clock {
  /** Milliseconds since the epoch, UTC. */
  nowMs(): number
}

export const systemClock: Clock = { nowMs: () => Date.now() }

// The years that RFC 3339 can write: before and after them, text no longer sorts as time does.
const firstMs = Date.parse('0000-01-01T00:00:00Z')
const lastMs = Date.parse('9999-12-31T23:59:59.999Z')

/**
 * RFC 3339 in UTC with exactly three decimals: text that sorts as time does. Throws `RangeError` outside of the years 0000
 * to 9999.
 */
export function formatTime(ms: number): string {
  if (!(ms >= firstMs && ms <= lastMs)) throw new RangeError(`no RFC 3339 time for ${ms} ms since the epoch`)
  return new Date(ms).toISOString()
}

// `2026-11-21`, or a full date-time with `Z` or a numeric offset (RFC 3339 §5.6). `24:00:00` is ISO 8601's, not RFC 3339's.
const rfc3339 = /^(\d{4}-\d{2}-\d{2})(?:T((?!24)\d{2}:\d{2}:\d{2})(\.\d{1,9})?(Z|[+-]\d{2}:\d{2}))?$/

/** The form of what `parseTime` takes, as JSON Schema: for the API document. */
export const timeForm = { type: 'string', pattern: rfc3339.source, anyOf: [{ format: 'date' }, { format: 'date-time' }] } as const

/** Milliseconds since the epoch of an RFC 3339 date or date-time; a bare date is its midnight in UTC. `undefined` if it is neither. */
export function parseTime(text: string): number | undefined {
  const match = rfc3339.exec(text)
  if (match === null) return undefined
  const ms = Date.parse(match[2] === undefined ? `${text}T00:00:00Z` : text)
  // An offset can carry the last day of 9999 over into a year that cannot be written.
  if (Number.isNaN(ms) || ms < firstMs || ms > lastMs) return undefined
  // Date.parse takes 2026-02-30 for 2 March: refuse a day that the month does not have.
  const day = Date.parse(`${match[1]}T00:00:00Z`)
  return Number.isNaN(day) || formatTime(day).slice(0, 10) !== match[1] ? undefined : ms
}
