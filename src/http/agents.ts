import type { ClientCredentials } from '../broker/authenticate.ts'
import type { NamedOn } from '../broker/own-grant.ts'
import { BrokerError } from '../kernel/errors.ts'
import { bearerOf, showsOperator } from './guards.ts'
import type { Route, RouteContext } from './route.ts'

/** The header by which a workload proves itself where a request has no form: a client assertion as in RFC 7523 §2.2. */
export const assertionHeader = 'client-assertion'

const lengthMax = 16_384

/**
 * What a workload sent to prove who it is: a client assertion, or a token that Stint issued to it for itself (RFC 6750 §2.1).
 * Never both: what is sent and ignored may be what the sender relies on (invariant 6).
 */
export function agentCredentials(c: RouteContext): ClientCredentials {
  const assertion = c.req.header(assertionHeader)
  const token = bearerOf(c)
  if (assertion !== undefined && c.req.header('authorization') !== undefined) {
    throw new BrokerError({ code: 'invalid_client', publicMessage: 'The request proves itself twice: send a Client-Assertion or an Authorization header, not both.' })
  }
  const onProven = (workload: string): void => c.set('workload', workload)
  const fits = (text: string | undefined): string | undefined => (text === undefined || text.length > lengthMax ? undefined : text)
  const shown = fits(token)
  return { assertion: fits(assertion), ...(shown !== undefined && { token: shown }), onProven }
}

/** Whether a request shows anything that could prove a workload. */
export function showsAgent(c: RouteContext): boolean {
  return c.req.header(assertionHeader) !== undefined || (bearerOf(c) !== undefined && !showsOperator(c))
}

/** How the log names this request to a grant. */
export function namedOn({ method, path }: Pick<Route, 'method' | 'path'>, c: RouteContext): NamedOn {
  return { method, route: path, requestId: c.get('requestId') }
}

