import { parseTime } from '../kernel/clock.ts'

/** Milliseconds of a time column. Throws if the row was damaged. */
export function readTime(text: string): number {
  const ms = parseTime(text)
  if (ms === undefined) throw new Error(`the database holds ${JSON.stringify(text)} where a time should be`)
  return ms
}
