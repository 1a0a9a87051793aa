import { Hono } from 'hono'
import { actAsOperator } from '../broker/authenticate.ts'
import type { Broker } from '../broker/broker.ts'
import { recordRefusedChange } from '../broker/refused-change.ts'
import type { Role } from '../identity/operator.ts'
import { BrokerError } from '../kernel/errors.ts'
import { newId } from '../kernel/ids.ts'
import type { RateLimit } from '../kernel/rate-limit.ts'
import { groupAddress, readAddress, type Arrival } from './address.ts'
import { auditRoutes } from './audit.ts'
import { discoveryRoutes } from './discovery.ts'
import { exportRoutes } from './export.ts'
import { enrolmentRoutes } from './enrolments.ts'
import { bearerOf, operatorCaller, proveOperator, refuseForeignOrigin, refuseLimitedAddress, requireRole } from './guards.ts'
import { healthRoutes } from './health.ts'
import { metricsRoutes } from './metrics.ts'
import { readInput } from './input.ts'
import { refuseOddHead, type Head } from './limits.ts'
import { oauthRoutes } from './oauth.ts'
import { openApiRoute } from './openapi.ts'
import { operatorRoutes } from './operators.ts'
import { policyRoutes } from './policy.ts'
import { answerOAuthError, answerProblem, toBrokerError } from './problem.ts'
import { describeAddress, tellOfRequests } from './request-log.ts'
import { revocationRoutes } from './revocations.ts'
import type { Route, RouteContext } from './route.ts'
import { sessionRoutes } from './sessions.ts'
import { signingKeyRoutes } from './signing-keys.ts'
import { workloadKeyRoutes } from './workload-keys.ts'
import { workloadRoutes } from './workloads.ts'

/** Every route that Stint answers. */
export const routes: readonly Route[] = [
  ...oauthRoutes,
  ...discoveryRoutes,
  ...workloadRoutes,
  ...enrolmentRoutes,
  ...workloadKeyRoutes,
  ...revocationRoutes,
  ...operatorRoutes,
  ...sessionRoutes,
  ...policyRoutes,
  ...signingKeyRoutes,
  ...auditRoutes,
  ...exportRoutes,
  ...healthRoutes,
  ...metricsRoutes,
  openApiRoute(() => routes),
]

export interface AppOptions {
  readonly broker: Broker
  /** In development the Host and Origin of each request are checked. */
  readonly development: boolean
  /** Whose word for where a request comes from is taken. */
  readonly proxies: readonly string[]
  /** How often an address may fail to prove who it is, by `groupAddress`. */
  readonly refusalLimit: RateLimit
}

/** What the server hands over beside the request. */
interface Arrived {
  readonly incoming?: Arrival & Head
}

/** The HTTP application: `app.request()` in tests, `app.fetch` behind a server. */
export function createApp({ broker, development, proxies, refusalLimit }: AppOptions) {
  const app = new Hono<{ Variables: RouteContext['var'] }>()
  const secure = broker.issuer.startsWith('https:')
  let proxyIsSilent = false

  function countRefusal(address: string): void {
    refusalLimit.spend(groupAddress(address))
    if (proxyIsSilent || !proxies.includes(address)) return
    proxyIsSilent = true
    broker.log.warn('a refused request came from the address of the proxy itself: if the proxy does not send X-Forwarded-For, all callers share one limit')
  }

  app.use(tellOfRequests(broker, development))
  app.use(async (c, next) => {
    const requestId = newId('req', broker.clock.nowMs(), broker.random)
    c.set('broker', broker)
    c.set('requestId', requestId)
    c.header('stint-request-id', requestId)
    c.header('x-content-type-options', 'nosniff')
    // A route whose answer may be kept says so.
    c.header('cache-control', 'no-store')
    // Nothing here is a page, whatever a browser takes it for.
    c.header('content-security-policy', "default-src 'none'; frame-ancestors 'none'")
    if (secure) c.header('strict-transport-security', 'max-age=31536000')
    // What the server hands over; nothing where a request comes by no server.
    const { incoming } = (c.env ?? {}) as Arrived
    refuseOddHead(incoming ?? headOf(c.req.url))
    c.set('address', readAddress(incoming, proxies))
    if (development) refuseForeignOrigin(c, broker.issuer)
    await next()
  })

  for (const route of routes) {
    const { access } = route
    // What is open to anyone and takes something is where something in it proves who sent it.
    if (access !== 'anyone' || route.method !== 'GET') {
      app.on(route.method, route.path, async (c, next) => {
        refuseLimitedAddress(c, refusalLimit)
        await next()
      })
    }
    // Before anything of the body is read: strangers must not fill the memory.
    if (typeof access !== 'string') {
      app.on(route.method, route.path, async (c, next) => {
        await admitOperator(route, access, c)
        await next()
      })
    }
    app.on(route.method, route.path, async (c) => {
      if (typeof access !== 'string') return handleAsOperator(route, c)
      return route.handle(c, await readInput(c, route))
    })
  }
  for (const [path, ofPath] of Map.groupBy(routes, (route) => route.path)) {
    app.all(path, (c) => {
      const methods = ofPath.flatMap(({ method }) => (method === 'GET' ? ['GET', 'HEAD'] : [method])).join(', ')
      c.header('allow', methods)
      throw new BrokerError({ code: 'method_not_allowed', publicMessage: `This address takes ${methods}.` })
    })
  }

  app.notFound((c) => {
    throw new BrokerError({ code: 'not_found', publicMessage: `There is nothing at this address: ${c.req.path.slice(0, 200)}` })
  })
  app.onError((thrown, c) => {
    const error = toBrokerError(thrown, broker.database)
    const requestId = c.get('requestId')
    if (error.code === 'internal' || error.code === 'unavailable') {
      broker.log.error('a request failed', { request_id: requestId, method: c.req.method, ...describeAddress(c), error })
    }
    if (error.code === 'unauthenticated' || error.code === 'invalid_client') countRefusal(c.get('address'))
    return c.req.path.startsWith('/oauth2/') ? answerOAuthError(c, error) : answerProblem(c, error, requestId)
  })
  return app
}

/** Lets an operator pass who has one of the roles; an attempt at a change by one who has not is recorded. */
async function admitOperator(route: Route, allowed: readonly Role[], c: RouteContext): Promise<void> {
  const operator = await proveOperator(c)
  try {
    requireRole(operator, allowed)
    c.set('broker', actAsOperator(c.get('broker'), bearerOf(c) ?? ''))
  } catch (error) {
    await recordAttempt(route, c, error)
    throw error
  }
}

async function handleAsOperator(route: Route, c: RouteContext): Promise<Response> {
  const input = await readInput(c, route)
  try {
    return await route.handle(c, input)
  } catch (error) {
    await recordAttempt(route, c, error)
    throw error
  }
}

/**
 * A change that was asked for rightly, but that the operator's role or the state of things refuses, is recorded before it
 * is answered: taking a key that is another's, resuming what was retired. A request that is wrong in itself is only answered.
 */
async function recordAttempt({ method, path }: Route, c: RouteContext, error: unknown): Promise<void> {
  if (method === 'GET' || !(error instanceof BrokerError) || !['conflict', 'not_found', 'forbidden'].includes(error.code)) return
  await recordRefusedChange(c.get('broker'), operatorCaller(c), { method, route: path }, error)
}

/** The head of a request that came by no server, as far as it is known. */
function headOf(url: string): Head {
  return { url: url.slice(new URL(url).origin.length), rawHeaders: [] }
}
