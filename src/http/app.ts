import { Hono } from 'hono'
import type { Broker } from '../broker/broker.ts'
import { BrokerError } from '../kernel/errors.ts'
import { newId } from '../kernel/ids.ts'
import type { RateLimit } from '../kernel/rate-limit.ts'
import { groupAddress, readAddress, type Arrival } from './address.ts'
import { auditRoutes } from './audit.ts'
import { discoveryRoutes } from './discovery.ts'
import { exportRoutes } from './export.ts'
import { enrolmentRoutes } from './enrolments.ts'
import { admitOperator, recordAttempt, refuseForeignOrigin, refuseLimitedAddress } from './guards.ts'
import { healthRoutes } from './health.ts'
import { logRoutes } from './log.ts'
import { logAcceptRoutes } from './log-accept.ts'
import { metricsRoutes } from './metrics.ts'
import { readInput } from './input.ts'
import { refuseOddHead, type Head } from './limits.ts'
import { oauthRoutes } from './oauth.ts'
import { openApiRoute } from './openapi.ts'
import { operatorRoutes } from './operators.ts'
import { policyRoutes } from './policy.ts'
import { proofRoutes } from './proof.ts'
import { answerOAuthError, answerProblem, toBrokerError } from './problem.ts'
import { describeAddress, tellOfRequests } from './request-log.ts'
import { receiptRoutes } from './receipts.ts'
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
  ...logRoutes,
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
  ...proofRoutes,
  ...receiptRoutes,
  ...logAcceptRoutes,
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
    if (typeof access !== 'string') {
      // Before anything of the body is read: strangers must not fill the memory.
      app.on(route.method, route.path, async (c, next) => {
        c.set('wantsProof', true)
        try {
          await admitOperator(route, access, c)
        } catch (error) {
          if (c.get('operator') === undefined) refuseLimitedAddress(c, refusalLimit)
          throw error
        }
        await next()
      })
    } else if (access === 'workload' || route.method !== 'GET') {
      // What is open to anyone and takes something is where something in it proves who sent it.
      app.on(route.method, route.path, async (c, next) => {
        c.set('wantsProof', true)
        refuseLimitedAddress(c, refusalLimit)
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
    if (isRefusal(c, error)) countRefusal(c.get('address'))
    return c.req.path.startsWith('/oauth2/') ? answerOAuthError(c, error) : answerProblem(c, error, requestId)
  })
  return app
}

/**
 * Whether somebody failed who has proven nothing: with a wrong proof, or with a request that is wrong in itself and cost its
 * reading. What the broker itself is to blame for counts against nobody.
 */
function isRefusal(c: RouteContext, { code }: BrokerError): boolean {
  const proven = c.get('operator') !== undefined || c.get('workload') !== undefined
  return c.get('wantsProof') === true && !proven && !['rate_limited', 'unavailable', 'internal'].includes(code)
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

/** The head of a request that came by no server, as far as it is known. */
function headOf(url: string): Head {
  return { url: url.slice(new URL(url).origin.length), rawHeaders: [] }
}
