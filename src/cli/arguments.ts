import { formatTime, parseTime } from '../kernel/clock.ts'
import { parseDuration } from '../kernel/duration.ts'
import { UsageError } from './command.ts'

/** The one positional argument that a command takes. It is not repeated in messages: it may be a secret. */
export function readSingle(command: string, positionals: readonly string[], what: string): string {
  const [value, ...rest] = positionals
  if (value === undefined || value === '') throw new UsageError(`${what} is missing. See: stint ${command} --help`)
  if (rest.length > 0) throw new UsageError(`only one argument is taken, ${what}. See: stint ${command} --help`)
  return value
}

/** Refuses positional arguments where a command takes none. */
export function refusePositionals(command: string, positionals: readonly string[]): void {
  if (positionals.length > 0) throw new UsageError(`only options are taken here. See: stint ${command} --help`)
}

/** The value of an option that must be there. */
export function requireOption(command: string, values: Readonly<Record<string, unknown>>, name: string): string {
  const value = values[name]
  if (typeof value !== 'string' || value === '') throw new UsageError(`--${name} is needed. See: stint ${command} --help`)
  return value
}

/** An RFC 3339 date or date-time, as a date-time in UTC. */
export function readTime(text: string, name: string): string {
  const ms = parseTime(text)
  if (ms === undefined) throw new UsageError(`--${name} must be a date, YYYY-MM-DD, or a time in UTC, YYYY-MM-DDThh:mm:ssZ.`)
  return formatTime(ms)
}

/** The times of `--from` and `--to`, as in `readTime`. */
export function readPeriod(values: { readonly from?: string | undefined; readonly to?: string | undefined }) {
  const from = values.from === undefined ? undefined : readTime(values.from, 'from')
  const to = values.to === undefined ? undefined : readTime(values.to, 'to')
  // Of one length and in UTC, they sort as text.
  if (from !== undefined && to !== undefined && from > to) throw new UsageError('--from must not be after --to.')
  return { from, to }
}

/** A date or date-time as in `readTime`, or a duration from now on such as `90d`; as a date-time in UTC. */
export function readReviewTime(text: string, name: string, nowMs: number): string {
  const seconds = parseDuration(text)
  // Far beyond what any broker accepts, and within what a date can hold.
  if (seconds !== undefined && seconds <= 100 * 366 * 86_400) return formatTime(nowMs + seconds * 1000)
  if (parseTime(text) === undefined) throw new UsageError(`--${name} must be a duration from now, such as 90d, or a date, YYYY-MM-DD.`)
  return readTime(text, name)
}

/** Whole seconds of a duration such as `10m`. */
export function readDuration(text: string, name: string): number {
  const seconds = parseDuration(text)
  if (seconds === undefined) throw new UsageError(`--${name} must be a whole number and a unit: 45s, 10m, 1h.`)
  return seconds
}

/** A whole number of at least 1. */
export function readCount(text: string, name: string, max: number): number {
  const count = /^\d{1,9}$/.test(text) ? Number(text) : 0
  if (count < 1 || count > max) throw new UsageError(`--${name} must be a whole number, 1 to ${max}.`)
  return count
}
