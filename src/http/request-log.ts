import type { MiddlewareHandler } from 'hono'
import { matchedRoutes } from 'hono/route'
import type { Broker } from '../broker/broker.ts'
import { BrokerError } from '../kernel/errors.ts'
import type { RouteContext } from './route.ts'

/** Asked again and again by machines: their lines would drown the others. */
const quietRoutes = ['/healthz', '/readyz', '/metrics']

/**
 * Tells what became of each request: a line in the operator's log, a measurement, and a span where traces are wanted.
 * Never a header, a query or a body, and of the path only its pattern: names are in the log, but so may be what somebody
 * sent in a wrong place.
 */
export function tellOfRequests(broker: Pick<Broker, 'log' | 'meter' | 'tracer'>, development: boolean): MiddlewareHandler<Env> {
  const { tracer } = broker
  const tell = createTeller(broker, development)
  return async (c, next) => {
    const beganMs = performance.now()
    if (tracer === undefined) await next()
    else {
      const method = nameMethod(c.req.method)
      await tracer.traceRequest(method, c.req.header('traceparent'), async (span) => {
        await next()
        const { route, status, caller } = describeRequest(c)
        // The names are those of OpenTelemetry's conventions for HTTP servers.
        span.note({ 'http.request.method': method, 'http.response.status_code': status, 'stint.request_id': c.get('requestId') })
        span.note({ 'http.route': route, 'stint.caller': caller, 'stint.audit_index': readAuditIndex(c) })
        if (route !== undefined) span.rename(`${method} ${route}`)
        if (status >= 500) span.fail(String(status))
      })
    }
    const { route, label, status, caller } = describeRequest(c)
    tell({
      beganMs,
      label,
      quiet: quietRoutes.includes(route ?? ''),
      status,
      line: {
        request_id: c.get('requestId'),
        method: nameMethod(c.req.method),
        ...describeAddress(c),
        status,
        ...(c.error instanceof BrokerError && { code: c.error.code }),
      },
      rest: { caller, address: c.get('address'), audit_index: readAuditIndex(c) },
    })
  }
}

/** What is told of one request, once it is answered. */
export interface Answered {
  /** By `performance.now()`. */
  readonly beganMs: number
  readonly label: { readonly method: string; readonly route: string }
  readonly quiet: boolean
  readonly status: number
  /** What stands before the duration, and what behind it. */
  readonly line: Readonly<Record<string, unknown>>
  readonly rest: Readonly<Record<string, unknown>>
}

/** Makes the function that writes the line and takes the measurement. */
export function createTeller({ log, meter }: Pick<Broker, 'log' | 'meter'>, development: boolean): (answered: Answered) => void {
  return ({ beganMs, label, quiet, status, line, rest }) => {
    const ms = performance.now() - beganMs
    meter.observe('http_request_seconds', ms / 1000, { ...label, status: String(status) })
    log[development || quiet ? 'debug' : 'info']('request', { ...line, duration_ms: Math.round(ms * 100) / 100, ...rest })
  }
}

type Env = { Variables: RouteContext['var'] }

interface Described {
  /** The pattern of the route, where the path fits one. */
  readonly route: string | undefined
  /** The same for the metrics: what strangers make up has one label in all. */
  readonly label: { readonly method: string; readonly route: string }
  readonly status: number
  readonly caller: string | undefined
}

function describeRequest(c: RouteContext): Described {
  const matched = findRoute(c)
  return {
    route: matched?.path,
    label: matched === undefined || matched.method === 'ALL' ? { method: '_OTHER', route: matched?.path ?? 'unknown' } : { method: nameMethod(c.req.method), route: matched.path },
    status: c.res.status,
    // Routes that name roles know their operator, the others the workload that proved itself.
    caller: c.get('operator')?.id ?? c.get('workload'),
  }
}

/** The first route of this path: what stands before it runs for every path, and what comes after only for other methods. */
function findRoute(c: RouteContext) {
  return matchedRoutes(c).find(({ path }) => path !== '/*')
}

const methods = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']

function nameMethod(method: string): string {
  return methods.includes(method) ? method : '_OTHER'
}

/** Which address a request was for, as a line of the log may tell it: the route's pattern, or what of the path is plain. */
export function describeAddress(c: RouteContext): { readonly route: string } | { readonly path: string } {
  const route = findRoute(c)?.path
  return route === undefined ? { path: showPath(c.req.path) } : { route }
}

const segmentsShownMax = 4

/**
 * What a path that fits no route shows of itself: up to four segments that can be words of an address. Anything longer or
 * other may be a credential that somebody put in the wrong place, or an attempt on the reader's terminal.
 */
function showPath(path: string): string {
  const segments = path.split('/', segmentsShownMax + 2).slice(1)
  const shown = segments.slice(0, segmentsShownMax).map((segment) => (/^[\w.~-]{0,32}$/.test(segment) ? segment : '…'))
  return `/${shown.join('/')}${segments.length > segmentsShownMax ? '/…' : ''}`
}

function readAuditIndex(c: RouteContext): number | undefined {
  const index = c.res.headers.get('stint-audit-index')
  return index === null ? undefined : Number(index)
}
