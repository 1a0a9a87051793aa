import type { Context } from 'hono'
import { BrokerError } from '../kernel/errors.ts'
import { readForm, readJson, refuseBody } from './body.ts'
import { parseInput, readQuery, refuseQuery } from './query.ts'
import type { Input, Route } from './route.ts'

/**
 * The input of a request, by the schemas of its route. What the route does not declare and is sent all the same is refused
 * (invariant 6). Throws `not_found` for a path parameter that cannot name anything, `invalid_input`, on OAuth's form routes
 * `invalid_request`, `unsupported_media_type` and `payload_too_large`.
 */
export async function readInput(c: Context, route: Route): Promise<Input<unknown, unknown, unknown, unknown>> {
  const params = readParams(c, route)
  const headers = readHeaders(c, route)
  if (route.body?.type === 'form') return { params, query: undefined, headers, body: await readForm(c, route.body.schema, route.body.bytesMax) }
  const query = route.query === undefined ? refuseQuery(c) : readQuery(c, route.query)
  return { params, query, headers, body: await readBody(c, route) }
}

function readParams(c: Context, { params }: Route): unknown {
  if (params === undefined) return undefined
  const parsed = params.safeParse(c.req.param())
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  throw new BrokerError({ code: 'not_found', publicMessage: `There is nothing at this address: ${String(issue?.path[0])} ${issue?.message ?? ''}.` })
}

function readHeaders(c: Context, { headers }: Route): unknown {
  if (headers === undefined) return undefined
  return parseInput(headers, Object.fromEntries(Object.keys(headers.shape).map((name) => [name, c.req.header(name)])))
}

async function readBody(c: Context, { body }: Route): Promise<unknown> {
  if (body === undefined) return refuseBody(c)
  const json = await readJson(c, body)
  return body.parsed === 'by the verb' ? json : parseInput(body.schema, json)
}
