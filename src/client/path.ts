import { clientError } from './errors.ts'

/** One segment of a path. A dot segment would vanish from the URL and ask for something else: `invalid_option`. */
export function encodeSegment(text: string, what: string): string {
  if (text === '' || text === '.' || text === '..') throw clientError('invalid_option', `${what} is missing or malformed.`)
  return encodeURIComponent(text)
}
