/** Reads times as the log writes them, RFC 3339 in UTC with three decimals, at a place in bytes: milliseconds since the epoch, or `undefined`. */
export type TimeReader = (bytes: Uint8Array, start: number) => number | undefined

/** How many bytes such a time has. */
export const timeBytes = 24

/** A reader that remembers the last day: to read a whole date anew takes longer than to hash an entry. */
export function createTimeReader(): TimeReader {
  const day = new Uint8Array(10)
  let dayMs: number | undefined

  return (bytes, start) => {
    if (dayMs === undefined || !day.every((byte, i) => byte === bytes[start + i])) {
      const found = Buffer.from(bytes.subarray(start, start + 10))
      const ms = Date.parse(`${found.toString('latin1')}T00:00:00.000Z`)
      if (Number.isNaN(ms) || new Date(ms).toISOString().slice(0, 10) !== found.toString('latin1')) return undefined
      day.set(found)
      dayMs = ms
    }
    const hours = readDigits(bytes, start + 10, 0x54, 2)
    const minutes = readDigits(bytes, start + 13, 0x3a, 2)
    const seconds = readDigits(bytes, start + 16, 0x3a, 2)
    const milliseconds = readDigits(bytes, start + 19, 0x2e, 3)
    if (!(hours < 24 && minutes < 60 && seconds < 60 && milliseconds < 1000) || bytes[start + 23] !== 0x5a) return undefined
    return dayMs + ((hours * 60 + minutes) * 60 + seconds) * 1000 + milliseconds
  }
}

/** The number behind a sign; NaN where there is another sign, or where not all of them are digits. */
function readDigits(bytes: Uint8Array, start: number, sign: number, count: number): number {
  if (bytes[start] !== sign) return NaN
  let value = 0
  for (let at = start + 1; at <= start + count; at++) {
    const digit = (bytes[at] ?? 0) - 0x30
    if (digit < 0 || digit > 9) return NaN
    value = 10 * value + digit
  }
  return value
}
