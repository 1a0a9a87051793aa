import type { IncomingMessage } from 'node:http'
import { BrokerError } from '../kernel/errors.ts'

/** Of how many bytes a request's line and headers together may be; the server answers 431 to more. */
export const headBytesMax = 16 * 1024
/** How many headers a request may have. */
export const headersMax = 100

/** What of a request's head is judged before anything else; absent in requests that came by no server. */
export type Head = Pick<IncomingMessage, 'url' | 'rawHeaders'>

/**
 * Refuses a request of which two readers might make two different things: one without an address in its one normal
 * spelling, with more headers than are read, or for two hosts (RFC 9112 §3.2). Throws `not_found` or `invalid_input`.
 */
export function refuseOddHead({ url = '', rawHeaders }: Head): void {
  const [path = ''] = url.split('?', 1)
  if (!isNormalPath(path)) {
    throw new BrokerError({ code: 'not_found', publicMessage: 'There is nothing at this address: write it as the documentation does, without dots, doubled slashes or needless escapes.' })
  }
  if (rawHeaders.length > headersMax * 2) {
    throw new BrokerError({ code: 'invalid_input', publicMessage: `The request has more than ${headersMax} headers.` })
  }
  let hosts = 0
  for (let i = 0; i < rawHeaders.length; i += 2) if (rawHeaders[i]?.length === 4 && rawHeaders[i]?.toLowerCase() === 'host') hosts++
  if (hosts > 1) throw new BrokerError({ code: 'invalid_input', publicMessage: 'The request names its host twice.' })
}

/**
 * Whether a path is in the one spelling that everybody reads alike: absolute, no empty segments, no `.` and `..`, nothing
 * escaped that need not be, and nothing, escaped or not, that somebody on the way might take for a separator.
 */
export function isNormalPath(path: string): boolean {
  // Nearly every path is plain.
  if (/^(?:\/[a-z0-9_-]+)+$/i.test(path) || path === '/') return true
  return path.startsWith('/') && path.slice(1).split('/').every(isNormalSegment)
}

function isNormalSegment(segment: string): boolean {
  if (segment === '' || segment === '.' || segment === '..') return false
  let text: string
  try {
    text = decodeURIComponent(segment)
  } catch {
    return false
  }
  // Two spellings are usual, as browsers and programs escape a little more or less. A `#` that is escaped stays so on the
  // way, for no path has one: names of tasks do.
  return (encodeURI(text) === segment || encodeURIComponent(text) === segment) && !segment.includes('#') && !/[/\\;?\p{Cc}]/u.test(text)
}
