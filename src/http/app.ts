import { Hono } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import type { Broker } from '../broker/broker.ts'
import { recordRefusedChange } from '../broker/refused-change.ts'
import type { Role } from '../identity/operator.ts'
import { BrokerError } from '../kernel/errors.ts'
import { newId } from '../kernel/ids.ts'
import { auditRoutes } from './audit.ts'
import { bodyBytesMax } from './body.ts'
import { discoveryRoutes } from './discovery.ts'
import { operatorCaller, proveOperator, refuseForeignOrigin, requireRole } from './guards.ts'
import { healthRoutes } from './health.ts'
import { readInput } from './input.ts'
import { oauthRoutes } from './oauth.ts'
import { policyRoutes } from './policy.ts'
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
    const { access } = route
    // Before the limit, which reads a body of unknown length to count it: strangers must not fill the memory.
    if (typeof access !== 'string') {
      app.on(route.method, route.path, async (c, next) => {
        await admitOperator(route, access, c)
        await next()
      })
    }
    const limit = bodyLimit({ maxSize: route.body?.bytesMax ?? bodyBytesMax, onError: refuseLargeBody })
    app.on(route.method, route.path, limit, async (c) => {
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
      broker.log.error('a request failed', { request_id: requestId, method: c.req.method, path: c.req.path, error })
    }
    return c.req.path.startsWith('/oauth2/') ? answerOAuthError(c, error) : answerProblem(c, error, requestId)
  })
  return app
}

/** Lets an operator pass who has one of the roles; an attempt at a change by one who has not is recorded. */
async function admitOperator(route: Route, allowed: readonly Role[], c: RouteContext): Promise<void> {
  const operator = await proveOperator(c)
  c.set('operator', operator)
  try {
    requireRole(operator, allowed)
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

function refuseLargeBody(): never {
  throw new BrokerError({ code: 'payload_too_large', publicMessage: 'The body is larger than this address takes.' })
}
