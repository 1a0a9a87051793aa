import type { Context } from 'hono'
import type { z } from 'zod'
import type { Broker } from '../broker/broker.ts'
import type { Operator, Role } from '../identity/operator.ts'
import type { ErrorCode } from '../kernel/errors.ts'

/**
 * Who may call a route, stated once, here: `anyone` may; a `workload` proves itself by the body, which the handler hands
 * to the broker; an `agent` is a workload that proves itself by a header, which the handler hands over likewise; an operator
 * who has one of the named roles shows a credential, before anything else is looked at.
 */
export type Access = 'anyone' | 'workload' | 'agent' | readonly Role[] | { readonly agentOr: readonly Role[] }

/** The roles of which an operator needs one, if he shows a credential: which he must where no workload may call. */
export function rolesOf(access: Access): readonly Role[] | undefined {
  if (typeof access === 'string') return undefined
  return 'agentOr' in access ? access.agentOr : access
}

/** Whether a workload may call, which proves itself by a header. */
export function takesAgents(access: Access): boolean {
  return access === 'agent' || (typeof access === 'object' && 'agentOr' in access)
}

/** What a route answers with one status: for the API document, and for the tests that hold the answers against it. */
export interface Answer {
  readonly description: string
  /** Absent where the answer has no body. */
  readonly schema?: z.ZodType
  /** `application/json` unless it says otherwise; several where the request picks one. */
  readonly type?: string | readonly string[]
}

/** A request's parts as parsed by the route's own schemas; what a route does not declare is refused when it is sent. */
export interface Input<P, Q, H, B> {
  readonly params: P
  readonly query: Q
  readonly headers: H
  readonly body: B
}

type Schema = z.ZodObject
type Output<S> = S extends Schema ? z.output<S> : undefined

export interface Route {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  /** As in `/v1/workloads/:name`. A last parameter as in `:index{.+}` is all that is left of the path, slashes too. */
  readonly path: string
  readonly access: Access
  /** One line of the API document. */
  readonly summary: string
  /** The path's parameters. One that does not fit is not found. */
  readonly params?: Schema
  readonly query?: Schema
  readonly body?: Body
  /** Headers that it reads beside those of the proof, by their names in small letters. Others may be sent, and are not looked at. */
  readonly headers?: Schema
  /** By status. What goes wrong is a problem or an OAuth error on every route. */
  readonly answers: Readonly<Record<number, Answer>>
  /** What may go wrong here and cannot be told from the rest of the route, for the API document. */
  readonly errors?: readonly ErrorCode[]
  handle(c: RouteContext, input: Input<unknown, unknown, unknown, unknown>): Promise<Response>
}

export interface Body {
  readonly type: 'json' | 'form'
  readonly schema: Schema
  /** The verb parses the whole body itself, with messages of its own: the handler gets the JSON as it was sent. */
  readonly parsed?: 'by the verb'
  /** Larger than the ordinary limit only where the route needs it. */
  readonly bytesMax?: number
  /** More members of JSON than the ordinary limit likewise. */
  readonly membersMax?: number
}

interface RouteOf<P, Q, H, B extends Body | undefined> extends Omit<Route, 'params' | 'query' | 'headers' | 'body' | 'handle'> {
  readonly params?: P
  readonly query?: Q
  readonly headers?: H
  readonly body?: B
  handle(c: RouteContext, input: Input<Output<P>, Output<Q>, Output<H>, ParsedBody<B>>): Promise<Response>
}

type ParsedBody<B> = B extends { readonly parsed: 'by the verb' } ? unknown : B extends { readonly schema: infer S } ? Output<S> : undefined

/** A route whose handler gets its input in the types of the schemas that the route declares. */
export function defineRoute<
  P extends Schema | undefined = undefined,
  Q extends Schema | undefined = undefined,
  H extends Schema | undefined = undefined,
  B extends Body | undefined = undefined,
>(route: RouteOf<P, Q, H, B>): Route {
  // The app parses by these very schemas before it calls the handler.
  return route as unknown as Route
}

export type RouteContext = Context<{
  Variables: {
    readonly broker: Broker
    readonly requestId: string
    /** Where the request comes from: an IP address, or `unknown`. */
    readonly address: string
    /** Set on requests by which somebody is to prove who they are. */
    readonly wantsProof?: true
    /** The operator who called; set on routes that name roles. */
    readonly operator: Operator
    /** The workload that called, once its proof was accepted and spent; for what is told of the request alone. */
    readonly workload?: string
  }
}>
