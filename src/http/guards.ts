import { actAsOperator, authenticateOperator } from '../broker/authenticate.ts'
import type { Broker, Caller } from '../broker/broker.ts'
import { recordRefusedChange } from '../broker/refused-change.ts'
import { BrokerError } from '../kernel/errors.ts'
import type { Operator, Role } from '../identity/operator.ts'
import type { RateLimit } from '../kernel/rate-limit.ts'
import { groupAddress } from './address.ts'
import type { Route, RouteContext } from './route.ts'

/** The credential of an `Authorization: Bearer …` header (RFC 6750 §2.1), or `undefined`. */
export function bearerOf(c: RouteContext): string | undefined {
  return /^bearer +([\w.~+/=-]+)$/i.exec(c.req.header('authorization') ?? '')?.[1]
}

/** Whether a request shows what has the form of an operator's credential, and so is none of a workload's. */
export function showsOperator(c: RouteContext): boolean {
  return bearerOf(c)?.startsWith('stint_') ?? false
}

/** The operator who sent this request. Throws `unauthenticated`. */
export async function proveOperator(c: RouteContext): Promise<Operator> {
  const operator = await authenticateOperator(c.get('broker'), bearerOf(c) ?? '')
  c.set('operator', operator)
  return operator
}

/**
 * Lets an operator pass who has one of the roles, and lets the request act as that operator from then on; an attempt at a
 * change by one who has not is recorded. Throws `unauthenticated` or `forbidden`.
 */
export async function admitOperator(route: Pick<Route, 'method' | 'path'>, allowed: readonly Role[], c: RouteContext): Promise<void> {
  const operator = await proveOperator(c)
  try {
    requireRole(operator, allowed)
  } catch (error) {
    await recordAttempt(route, c, error)
    throw error
  }
  c.set('broker', actAsOperator(c.get('broker'), bearerOf(c) ?? ''))
}

/**
 * A change that was asked for rightly, but that the operator's role or the state of things refuses, is recorded before it
 * is answered: taking a key that is another's, resuming what was retired. A request that is wrong in itself is only answered.
 */
export async function recordAttempt({ method, path }: Pick<Route, 'method' | 'path'>, c: RouteContext, error: unknown): Promise<void> {
  if (method === 'GET' || !(error instanceof BrokerError) || !['conflict', 'not_found', 'forbidden'].includes(error.code)) return
  const { ledger, log } = c.get('broker')
  if (ledger.held !== undefined) {
    // Nothing can be recorded, and nothing has changed: who is to end the hold is told what is wrong.
    log.warn('a change was refused while the log is held', { method, route: path, operator: c.get('operator')?.id, code: error.code })
    return
  }
  await recordRefusedChange(c.get('broker'), operatorCaller(c), { method, route: path }, error)
}

/**
 * Throws `rate_limited` for an address that was refused too often. Where workloads prove themselves, that is asked before
 * anything is verified: to let right proofs through would take the very work that is to be spared. An operator costs one
 * look-up to recognise, and is never kept waiting for what others at the address do: there it is asked of strangers alone.
 */
export function refuseLimitedAddress({ refusals, meter }: Pick<Broker, 'refusals' | 'meter'>, address: string, limit: RateLimit): void {
  const retryAfterSeconds = limit.waitSeconds(groupAddress(address))
  if (retryAfterSeconds === undefined) return
  refusals.note('address', 'address_limited')
  meter.count('requests_limited', { scope: 'address' })
  const publicMessage = `This address has failed too often to prove who it is. Try again in ${retryAfterSeconds} s.`
  throw new BrokerError({ code: 'rate_limited', publicMessage, retryAfterSeconds })
}

/** Throws `forbidden`, which names the roles that may, unless the operator has one of them. */
export function requireRole({ role }: Operator, allowed: readonly Role[]): void {
  if (allowed.includes(role)) return
  const publicMessage = `This needs the role ${allowed.join(' or ')}, and this credential has the role ${role}.`
  throw new BrokerError({ code: 'forbidden', publicMessage })
}

/** On whose behalf a route that names roles acts. */
export function operatorCaller(c: RouteContext, { id, session }: Operator = c.get('operator')): Caller {
  return { actor: { kind: 'operator', id, ...(session !== undefined && { session }) }, requestId: c.get('requestId') }
}

/**
 * In development Stint listens on loopback without TLS: a page in the developer's browser must not reach it by a name
 * that it made resolve to 127.0.0.1 (DNS rebinding), nor by a request from its own origin.
 */
export function refuseForeignOrigin({ host: asked = '', origin }: { readonly host?: string | undefined; readonly origin?: string | undefined }, issuer: string): void {
  const { host, protocol } = new URL(issuer)
  const port = host.includes(':') ? host.slice(host.lastIndexOf(':')) : ''
  const hosts = [host, `localhost${port}`, `127.0.0.1${port}`, `[::1]${port}`]
  if (!hosts.includes(asked)) {
    throw new BrokerError({ code: 'invalid_input', publicMessage: `In development Stint answers only as ${issuer}: use that address.` })
  }
  if (origin !== undefined && !hosts.some((known) => origin === `${protocol}//${known}`)) {
    throw new BrokerError({ code: 'invalid_input', publicMessage: 'In development Stint answers no pages of other origins.' })
  }
}

/**
 * Whether an error counts against somebody who has proven nothing: a wrong proof does, and a request that is wrong in itself
 * and cost its reading. What the broker itself is to blame for counts against nobody.
 */
export function countsAgainst({ code }: BrokerError): boolean {
  return !['rate_limited', 'unavailable', 'internal'].includes(code)
}

/** Makes the function that counts a refusal for an address, and tells once where it may be the proxy's own. */
export function createRefusalCount({ broker, proxies, refusalLimit }: {
  readonly broker: Pick<Broker, 'log'>
  readonly proxies: readonly string[]
  readonly refusalLimit: RateLimit
}): (address: string) => void {
  let told = false
  return (address) => {
    refusalLimit.spend(groupAddress(address))
    if (told || !proxies.includes(address)) return
    told = true
    broker.log.warn('a refused request came from the address of the proxy itself: if the proxy does not send X-Forwarded-For, all callers share one limit')
  }
}
