/** The one source of time, passed in so that tests can move it (invariant 12). */
export interface Clock {
  /** Milliseconds since the epoch, UTC. */
  nowMs(): number
}

export const systemClock: Clock = { nowMs: () => Date.now() }

/** RFC 3339 in UTC with exactly three decimals: text that sorts as time does. Range: years 0000 to 9999. */
export function formatTime(ms: number): string {
  return new Date(ms).toISOString()
}

// `2026-11-21`, or a full date-time with `Z` or a numeric offset (RFC 3339 §5.6).
const rfc3339 = /^(\d{4}-\d{2}-\d{2})(?:T(\d{2}:\d{2}:\d{2})(\.\d{1,9})?(Z|[+-]\d{2}:\d{2}))?$/

/** Milliseconds since the epoch of an RFC 3339 date or date-time; a bare date is its midnight in UTC. `undefined` if it is neither. */
export function parseTime(text: string): number | undefined {
  const match = rfc3339.exec(text)
  if (match === null) return undefined
  const ms = Date.parse(match[2] === undefined ? `${text}T00:00:00Z` : text)
  if (Number.isNaN(ms)) return undefined
  // Date.parse takes 2026-02-30 for 2 March: refuse a day that the month does not have.
  const day = Date.parse(`${match[1]}T00:00:00Z`)
  return Number.isNaN(day) || formatTime(day).slice(0, 10) !== match[1] ? undefined : ms
}
