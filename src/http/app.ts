import { Hono } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import type { Broker } from '../broker/broker.ts'
import { recordRefusedChange } from '../broker/refused-change.ts'
import { BrokerError } from '../kernel/errors.ts'
import { newId } from '../kernel/ids.ts'
import { auditRoutes } from './audit.ts'
import { bodyBytesMax } from './body.ts'
import { discoveryRoutes } from './discovery.ts'
import { authenticateAdmin, operatorCaller, refuseForeignOrigin } from './guards.ts'
import { healthRoutes } from './health.ts'
import { oauthRoutes } from './oauth.ts'
import { policyRoutes } from './policy.ts'
import { refuseQuery } from './query.ts'
import { answerOAuthError, answerProblem, toBrokerError } from './problem.ts'
import { revocationRoutes } from './revocations.ts'
import type { Route, RouteContext } from './route.ts'
import { workloadRoutes } from './workloads.ts'

/** Every route that Stint answers. */
export const routes: readonly Route[] = [
  ...oauthRoutes,
  ...discoveryRoutes,
  ...workloadRoutes,
  ...revocationRoutes,
  ...policyRoutes,
  ...auditRoutes,
  ...healthRoutes,
]

export interface AppOptions {
  readonly broker: Broker
  /** In development the Host and Origin of each request are checked. */
  readonly development: boolean
}

/** The HTTP application: `app.request()` in tests, `app.fetch` behind a server. */
export function createApp({ broker, development }: AppOptions) {
  const app = new Hono<{ Variables: RouteContext['var'] }>()

  app.use(async (c, next) => {
    const requestId = newId('req', broker.clock.nowMs(), broker.random)
    c.set('broker', broker)
    c.set('requestId', requestId)
    c.header('stint-request-id', requestId)
    c.header('x-content-type-options', 'nosniff')
    // A route whose answer may be kept says so.
    c.header('cache-control', 'no-store')
    if (development) refuseForeignOrigin(c, broker.issuer)
    await next()
  })

  for (const route of routes) {
    if (route.access === 'admin') {
      // Before the limit, which reads a body of unknown length to count it: strangers must not fill the memory.
      app.on(route.method, route.path, async (c, next) => {
        c.set('operator', await authenticateAdmin(c))
        if (route.takesQuery !== true) refuseQuery(c)
        await next()
      })
    }
    const limit = bodyLimit({ maxSize: route.bodyBytesMax ?? bodyBytesMax, onError: refuseBody })
    app.on(route.method, route.path, limit, (c) => (route.access === 'admin' ? handleAsAdmin(route, c) : route.handle(c)))
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
      broker.log.error('a request failed', { request_id: requestId, method: c.req.method, path: c.req.path, error })
    }
    return c.req.path.startsWith('/oauth2/') ? answerOAuthError(c, error) : answerProblem(c, error, requestId)
  })
  return app
}

/**
 * A change that was asked for rightly, but that the state of things refuses, is recorded before it is answered: taking a
 * key that is another's, resuming what was retired. A request that is wrong in itself is only answered.
 */
async function handleAsAdmin(route: Route, c: RouteContext): Promise<Response> {
  try {
    return await route.handle(c)
  } catch (error) {
    if (route.method !== 'GET' && error instanceof BrokerError && ['conflict', 'not_found'].includes(error.code)) {
      await recordRefusedChange(c.get('broker'), operatorCaller(c), { method: route.method, route: route.path }, error)
    }
    throw error
  }
}

function refuseBody(): never {
  throw new BrokerError({ code: 'payload_too_large', publicMessage: 'The body is larger than this address takes.' })
}
