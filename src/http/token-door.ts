import type { IncomingMessage, ServerResponse } from 'node:http'
import type { BrokerError } from '../kernel/errors.ts'
import { newId } from '../kernel/ids.ts'
import { groupAddress, readAddress } from './address.ts'
import type { AppOptions } from './app.ts'
import { bodyBytesMax, cutOff, parseForm } from './body.ts'
import { countsAgainst, createRefusalCount, refuseForeignOrigin } from './guards.ts'
import { headersOfAll } from './headers.ts'
import { refuseOddHead } from './limits.ts'
import { grantToken, tokenForm } from './oauth.ts'
import { describeOAuthError, errorHeaders, toBrokerError } from './problem.ts'
import { createTeller } from './request-log.ts'

/** Answers a request, or says that it does not, having read nothing of its body. */
export type Door = (request: IncomingMessage, response: ServerResponse) => boolean

const path = '/oauth2/token'
const label = { method: 'POST', route: path }

/**
 * The short way to the token endpoint, for the request that every client sends: what a framework does for a request costs a
 * third of what a token costs. It takes only what is plain; whatever is odd about a head, or refused for it, is the app's,
 * which gives the same answers.
 */
export function createTokenDoor({ broker, development, proxies, refusalLimit }: AppOptions): Door {
  const common = Object.entries(headersOfAll(broker.issuer)).flat()
  const countRefusal = createRefusalCount({ broker, proxies, refusalLimit })
  const tell = createTeller(broker, development)

  /** The address from which a plain request comes; `undefined` for one that the app is to answer. */
  function admit(request: IncomingMessage): string | undefined {
    if (!isPlain(request)) return undefined
    try {
      refuseOddHead(request)
      const address = readAddress(request, proxies)
      if (development) refuseForeignOrigin(request.headers, broker.issuer)
      return refusalLimit.waitSeconds(groupAddress(address)) === undefined ? address : undefined
    } catch {
      return undefined
    }
  }

  async function answer(request: IncomingMessage, response: ServerResponse, address: string): Promise<void> {
    const beganMs = performance.now()
    const requestId = newId('req', broker.clock.nowMs(), broker.random)
    let caller: string | undefined
    let error: BrokerError | undefined
    let auditIndex: number | undefined
    let status = 200
    let headers: Readonly<Record<string, string>>
    let body: unknown
    try {
      const form = parseForm(await readBody(request), tokenForm)
      const onProven = (workload: string) => void (caller = workload)
      ;({ headers, body } = await grantToken(broker, form, { authorization: undefined, onProven }, requestId))
      auditIndex = Number(headers['stint-audit-index'])
    } catch (thrown) {
      error = toBrokerError(thrown, broker.database)
      if (error.code === 'internal' || error.code === 'unavailable') {
        broker.log.error('a request failed', { request_id: requestId, ...label, error })
      }
      if (caller === undefined && countsAgainst(error)) countRefusal(address)
      headers = errorHeaders(error, undefined)
      ;({ status, body } = describeOAuthError(error))
    }
    const text = JSON.stringify(body)
    const own = ['stint-request-id', requestId, 'content-type', 'application/json', 'content-length', String(Buffer.byteLength(text))]
    response.writeHead(status, [...own, ...common, ...Object.entries(headers).flat()])
    response.end(text)
    tell({
      beganMs,
      label,
      quiet: false,
      status,
      line: { request_id: requestId, ...label, status, ...(error && { code: error.code }) },
      rest: { caller, address, audit_index: auditIndex },
    })
  }

  return (request, response) => {
    // Traces follow a request through the app.
    const address = broker.tracer === undefined ? admit(request) : undefined
    if (address === undefined) return false
    void answer(request, response, address)
    return true
  }
}

const plainHost = /^[\w.-]+(?::\d{1,5})?$|^\[[\da-f:.]+\](?::\d{1,5})?$/i

function isPlain({ method, url, headers, rawHeaders, httpVersionMinor }: IncomingMessage): boolean {
  if (method !== 'POST' || url !== path || httpVersionMinor !== 1 || !plainHost.test(headers.host ?? '')) return false
  if (headers['content-type'] !== 'application/x-www-form-urlencoded' || countHeaders(rawHeaders, 'content-type') > 1) return false
  const { 'content-length': length, 'transfer-encoding': transfer, 'content-encoding': encoding, authorization, expect } = headers
  if (length === undefined || Number(length) > bodyBytesMax) return false
  return [transfer, encoding, authorization, expect].every((header) => header === undefined)
}

/** How often a header was sent: of some, Node shows only the first. */
function countHeaders(rawHeaders: readonly string[], name: string): number {
  let count = 0
  for (let i = 0; i < rawHeaders.length; i += 2) if (rawHeaders[i]?.length === name.length && rawHeaders[i]?.toLowerCase() === name) count++
  return count
}

/** All of the body, which the server lets be no longer than its head says. */
function readBody(request: IncomingMessage): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const pieces: Buffer[] = []
    request.on('data', (piece: Buffer) => pieces.push(piece))
    request.once('end', () => resolve(pieces.length === 1 && pieces[0] !== undefined ? pieces[0] : Buffer.concat(pieces)))
    request.once('error', (error) => reject(cutOff(error)))
    request.once('close', () => reject(cutOff()))
  })
}
