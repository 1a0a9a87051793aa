import type { Context } from 'hono'
import type { Broker } from '../broker/broker.ts'
import type { Operator } from '../storage/operators.ts'

/**
 * Who may call a route, stated once, here: `anyone` may; a `workload` proves itself by the body, which the handler hands
 * to the broker; an `admin` shows an operator credential, which is checked before the handler runs.
 */
export type Access = 'anyone' | 'workload' | 'admin'

export interface Route {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  readonly path: string
  readonly access: Access
  /** Larger than the ordinary limit only where the route needs it. */
  readonly bodyBytesMax?: number
  /** The handler reads the query; elsewhere on admin routes a query is refused (invariant 6). */
  readonly takesQuery?: true
  handle(c: RouteContext): Promise<Response>
}

export type RouteContext = Context<{
  Variables: {
    readonly broker: Broker
    readonly requestId: string
    /** The operator who called; set on `admin` routes alone. */
    readonly operator: Operator
  }
}>
