import { Hono } from 'hono'
import { refuseUnproven } from '../broker/authenticate.ts'
import type { Broker } from '../broker/broker.ts'
import { BrokerError } from '../kernel/errors.ts'
import { newId } from '../kernel/ids.ts'
import type { RateLimit } from '../kernel/rate-limit.ts'
import { readAddress, type Arrival } from './address.ts'
import { auditRoutes } from './audit.ts'
import { discoveryRoutes } from './discovery.ts'
import { exportRoutes } from './export.ts'
import { enrolmentRoutes } from './enrolments.ts'
import { showsAgent } from './agents.ts'
import { admitOperator, countsAgainst, createRefusalCount, recordAttempt, refuseForeignOrigin, refuseLimitedAddress, showsOperator } from './guards.ts'
import { headersOfAll } from './headers.ts'
import { healthRoutes } from './health.ts'
import { logRoutes } from './log.ts'
import { logAcceptRoutes } from './log-accept.ts'
import { metricsRoutes } from './metrics.ts'
import { readInput } from './input.ts'
import { grantRoutes } from './grants.ts'
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
import { rotationRoutes } from './rotations.ts'
import { rolesOf, takesAgents, type Route, type RouteContext } from './route.ts'
import { sealingKeyRoutes } from './sealing-keys.ts'
import { secretRoutes } from './secrets.ts'
import { sessionRoutes } from './sessions.ts'
import { signingKeyRoutes } from './signing-keys.ts'
import { toolRoutes } from './tools.ts'
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
  ...grantRoutes,
  ...revocationRoutes,
  ...toolRoutes,
  ...operatorRoutes,
  ...sessionRoutes,
  ...policyRoutes,
  ...signingKeyRoutes,
  ...sealingKeyRoutes,
  ...secretRoutes,
  ...rotationRoutes,
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
  const headers = Object.entries(headersOfAll(broker.issuer))
  const countRefusal = createRefusalCount({ broker, proxies, refusalLimit })

  app.use(tellOfRequests(broker, development))
  app.use(async (c, next) => {
    const requestId = newId('req', broker.clock.nowMs(), broker.random)
    c.set('broker', broker)
    c.set('requestId', requestId)
    c.header('stint-request-id', requestId)
    for (const [name, value] of headers) c.header(name, value)
    // What the server hands over; nothing where a request comes by no server.
    const { incoming } = (c.env ?? {}) as Arrived
    refuseOddHead(incoming ?? headOf(c.req.url))
    c.set('address', readAddress(incoming, proxies))
    if (development) refuseForeignOrigin({ host: c.req.header('host'), origin: c.req.header('origin') }, broker.issuer)
    await next()
  })

  for (const route of routes) {
    const { access } = route
    const roles = rolesOf(access)
    const agents = takesAgents(access)
    if (roles !== undefined) {
      // Before anything of the body is read: strangers must not fill the memory.
      app.on(route.method, route.path, async (c, next) => {
        c.set('wantsProof', true)
        if (agents && !showsOperator(c)) {
          refuseLimitedAddress(broker, c.get('address'), refusalLimit)
          return next()
        }
        try {
          await admitOperator(route, roles, c)
        } catch (error) {
          if (c.get('operator') === undefined) refuseLimitedAddress(broker, c.get('address'), refusalLimit)
          throw error
        }
        return next()
      })
    } else if (agents || access === 'workload' || route.method !== 'GET') {
      // What is open to anyone and takes something is where something in it proves who sent it.
      app.on(route.method, route.path, async (c, next) => {
        c.set('wantsProof', true)
        refuseLimitedAddress(broker, c.get('address'), refusalLimit)
        if (agents && !showsAgent(c)) await refuseUnproven(broker)
        await next()
      })
    }
    app.on(route.method, route.path, async (c) => {
      if (c.get('operator') !== undefined && roles !== undefined) return handleAsOperator(route, c)
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
    const proven = c.get('operator') !== undefined || c.get('workload') !== undefined
    if (c.get('wantsProof') === true && !proven && countsAgainst(error)) countRefusal(c.get('address'))
    return c.req.path.startsWith('/oauth2/') ? answerOAuthError(c, error) : answerProblem(c, error, requestId)
  })
  return app
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
