/** Reads times as the log writes them, RFC 3339 in UTC with three decimals: milliseconds since the epoch, or `undefined`. */
export type TimeReader = (text: string) => number | undefined

/** A reader that remembers the last day: to read a whole date anew takes longer than to hash an entry. */
export function createTimeReader(): TimeReader {
  let day = ''
  let dayMs = 0

  return (text) => {
    if (text.length !== 24 || text.charCodeAt(10) !== 0x54 || text.charCodeAt(23) !== 0x5a) return undefined
    if (!text.startsWith(day) || day === '') {
      const found = text.slice(0, 10)
      const ms = Date.parse(`${found}T00:00:00.000Z`)
      if (Number.isNaN(ms) || new Date(ms).toISOString().slice(0, 10) !== found) return undefined
      day = found
      dayMs = ms
    }
    if (text.charCodeAt(13) !== 0x3a || text.charCodeAt(16) !== 0x3a || text.charCodeAt(19) !== 0x2e) return undefined
    const hours = readDigits(text, 11, 13)
    const minutes = readDigits(text, 14, 16)
    const seconds = readDigits(text, 17, 19)
    const milliseconds = readDigits(text, 20, 23)
    if (!(hours < 24 && minutes < 60 && seconds < 60 && milliseconds < 1000)) return undefined
    return dayMs + ((hours * 60 + minutes) * 60 + seconds) * 1000 + milliseconds
  }
}

/** NaN where they are not all digits. */
function readDigits(text: string, start: number, end: number): number {
  let value = 0
  for (let at = start; at < end; at++) {
    const digit = text.charCodeAt(at) - 0x30
    if (digit < 0 || digit > 9) return NaN
    value = 10 * value + digit
  }
  return value
}
