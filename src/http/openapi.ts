import { readFileSync } from 'node:fs'
import { z } from 'zod'
import { roles } from '../identity/operator.ts'
import type { ErrorCode } from '../kernel/errors.ts'
import { oauthErrorAnswer, problemAnswer, statusOf, titleOf } from './problem.ts'
import { defineRoute, rolesOf, takesAgents, type Answer, type Route } from './route.ts'

type Json = Readonly<Record<string, unknown>>

const record = z.record(z.string(), z.unknown())
const documentAnswer = z.strictObject({
  openapi: z.literal('3.1.1'),
  info: record,
  servers: z.array(z.strictObject({ url: z.url() })),
  tags: z.array(z.strictObject({ name: z.string() })),
  paths: record,
  components: record,
})

/** The route that answers the document of all routes, itself among them: hence the function. */
export function openApiRoute(listRoutes: () => readonly Route[]): Route {
  // Made at the first request, for an issuer that stays the same as long as the process lives.
  let made: { readonly issuer: string; readonly text: string } | undefined
  return defineRoute({
    method: 'GET',
    path: '/openapi.json',
    access: 'anyone',
    summary: 'This document',
    answers: { 200: { description: 'OpenAPI 3.1', schema: documentAnswer } },
    async handle(c) {
      const { issuer } = c.get('broker')
      if (made?.issuer !== issuer) made = { issuer, text: JSON.stringify(describeApi(listRoutes(), issuer)) }
      return c.body(made.text, 200, { 'content-type': 'application/json' })
    },
  })
}

/**
 * The OpenAPI 3.1 document of these routes, made of the schemas by which requests are parsed. It names every status that a
 * route answers and leaves no `default`, so that a fuzzer can contradict it.
 */
export function describeApi(routes: readonly Route[], issuer: string): Json {
  const schemas: Record<string, unknown> = {}
  const convert = (schema: z.ZodType, io: 'input' | 'output') => convertSchema(schema, io, schemas)
  const responses: Record<string, Json> = {}
  const paths: Record<string, Record<string, Json>> = {}
  for (const route of routes) {
    const operations = (paths[templateOf(route)] ??= {})
    const errors = Map.groupBy(listErrors(route), statusOf)
    const failures = [...errors].map(([status, codes]) => {
      const name = `${speaksOAuth(route) ? 'OAuth' : ''}${codes.map((code) => toName(code.split('_'))).join('Or')}`
      responses[name] ??= describeError(route, codes, convert)
      return [status, { $ref: `#/components/responses/${name}` }] as const
    })
    operations[route.method.toLowerCase()] = {
      operationId: nameOperation(route),
      tags: [tagOf(route)],
      summary: route.summary,
      ...describeAccess(route),
      ...describeInput(route, convert),
      responses: {
        ...Object.fromEntries(failures),
        ...Object.fromEntries(Object.entries(route.answers).map(([status, answer]) => [status, describeAnswer(route, answer, convert)])),
      },
    }
  }
  const { version, license, description } = readPackage()
  return {
    openapi: '3.1.1',
    info: { title: 'Stint', version, summary: description, description: introduction, license: { name: license, identifier: license } },
    servers: [{ url: issuer }],
    tags: [...new Set(routes.map(tagOf))].map((name) => ({ name })),
    paths,
    components: { schemas, responses, headers, securitySchemes },
  }
}

type Convert = (schema: z.ZodType, io: 'input' | 'output') => Json

const introduction = `Operators authenticate by a bearer credential, workloads by private_key_jwt (RFC 7523): a fresh assertion, signed \
with a registered key, in the parameters client_assertion_type and client_assertion of the body. The addresses below /oauth2/ speak OAuth \
(form bodies, RFC 6749 errors), all others JSON with problem details (RFC 9457). What an address does not declare is refused when it is sent.`

const securitySchemes = {
  operator: { type: 'http', scheme: 'bearer', description: 'The credential of an operator, or of a person who signed in.' },
  assertion: { type: 'apiKey', in: 'header', name: 'Client-Assertion', description: 'A fresh JWT of at most five minutes, signed with a registered key (RFC 7523 §2.2).' },
  token: { type: 'http', scheme: 'bearer', description: 'A token that Stint issued for the audience urn:stint:broker.' },
}

const headers = {
  'Stint-Request-Id': { required: true, description: 'Names the request in the log.', schema: { type: 'string', pattern: '^req_[0-9a-z]{26}$' } },
  'Stint-Audit-Index': { description: 'The index of the log entry that records the change, where there was one.', schema: { type: 'integer', minimum: 0 } },
  'Retry-After': { required: true, description: 'Seconds after which it is worth another try.', schema: { type: 'integer', minimum: 1 } },
  'WWW-Authenticate': { required: true, description: 'RFC 6750 §3.', schema: { type: 'string' } },
}

function referToHeaders(...names: (keyof typeof headers)[]): Json {
  return Object.fromEntries(names.map((name) => [name, { $ref: `#/components/headers/${name}` }]))
}

/** As JSON Schema 2020-12; a schema that has an id becomes a component, once. */
function convertSchema(schema: z.ZodType, io: 'input' | 'output', schemas: Record<string, unknown>): Json {
  // What is checked by code shows as the schema's own metadata says.
  const { $schema: _, $defs = {}, ...own } = z.toJSONSchema(schema, { target: 'draft-2020-12', io, unrepresentable: 'any' })
  for (const [id, definition] of Object.entries($defs)) schemas[id] ??= moveReferences(definition)
  return moveReferences(own)
}

function moveReferences(schema: unknown): Json {
  // The same object with other references in it.
  return JSON.parse(JSON.stringify(schema).replaceAll('"#/$defs/', '"#/components/schemas/')) as Json
}

function describeAccess({ access }: Route): Json {
  if (access === 'anyone') return { description: 'Open to anyone.', security: [] }
  if (access === 'workload') return { description: 'A workload proves itself by a client assertion in the body.', security: [] }
  if (takesAgents(access)) {
    const roles = rolesOf(access)
    const orOperator = roles === undefined ? '' : ` Or an operator with the role ${roles.join(' or ')}.`
    return {
      description: `A workload proves itself by a client assertion in the header Client-Assertion, or by a token that Stint issued to it for itself.${orOperator}`,
      ...(roles && { 'x-stint-roles': roles }),
      security: [{ assertion: [] }, { token: [] }, ...(roles === undefined ? [] : [{ operator: [] }])],
    }
  }
  const allowed = rolesOf(access) ?? []
  return { description: `Needs the role ${allowed.join(' or ')}.`, 'x-stint-roles': allowed, security: [{ operator: [] }] }
}

function describeInput({ params, query, body, headers }: Route, convert: Convert): Json {
  const parameters = [...describeParameters('path', params, convert), ...describeParameters('query', query, convert), ...describeParameters('header', headers, convert)]
  const type = body?.type === 'form' ? 'application/x-www-form-urlencoded' : 'application/json'
  return {
    ...(parameters.length > 0 && { parameters }),
    ...(body && { requestBody: { required: true, content: { [type]: { schema: convert(body.schema, 'input') } } } }),
  }
}

function describeParameters(place: 'path' | 'query' | 'header', schema: z.ZodObject | undefined, convert: Convert): Json[] {
  return Object.entries(schema?.shape ?? {}).map(([name, field]) => {
    // A field of an object schema: Zod's core names the type more widely than its methods.
    const { description, ...own } = convert(field as z.ZodType, 'input')
    const required = place === 'path' || !z.safeParse(field, undefined).success
    return { name, in: place, required, ...(description !== undefined && { description }), schema: own }
  })
}

function describeAnswer({ method }: Route, { description, schema, type = 'application/json' }: Answer, convert: Convert): Json {
  return {
    description,
    headers: method === 'GET' ? referToHeaders('Stint-Request-Id') : referToHeaders('Stint-Request-Id', 'Stint-Audit-Index'),
    ...(schema && { content: Object.fromEntries([type].flat().map((each) => [each, { schema: convert(schema, 'output') }])) }),
  }
}

function describeError(route: Route, codes: readonly ErrorCode[], convert: Convert): Json {
  const oauth = speaksOAuth(route)
  const waits = codes.includes('rate_limited') || codes.includes('unavailable')
  return {
    description: codes.map(titleOf).join('; '),
    headers: referToHeaders(
      'Stint-Request-Id',
      ...(waits ? (['Retry-After'] as const) : []),
      ...(codes.includes('unauthenticated') || (!oauth && codes.includes('invalid_client')) ? (['WWW-Authenticate'] as const) : []),
    ),
    content: oauth
      ? { 'application/json': { schema: convert(oauthErrorAnswer, 'output') } }
      : { 'application/problem+json': { schema: convert(problemAnswer, 'output') } },
  }
}

/** What can go wrong on a route, as far as its own shape tells, and what it says itself. */
function listErrors(route: Route): ErrorCode[] {
  const { method, access, params, body, errors = [] } = route
  const oauth = speaksOAuth(route)
  const bad: ErrorCode = oauth ? 'invalid_request' : 'invalid_input'
  const unproven: ErrorCode[] = [
    ...(access === 'workload' || takesAgents(access) ? (['invalid_client'] as const) : []),
    ...(access === 'workload' || access === 'agent' ? [] : (['unauthenticated'] as const)),
  ]
  const proves = access !== 'anyone' || method !== 'GET'
  const allowed = rolesOf(access)
  const open = allowed === undefined || roles.every((role) => allowed.includes(role))
  return [
    bad,
    ...(proves ? [...unproven, 'rate_limited' as const] : []),
    ...(open ? [] : ['forbidden' as const]),
    ...(params === undefined ? [] : ['not_found' as const]),
    ...(method === 'GET' || oauth ? [] : ['conflict' as const]),
    ...(body === undefined ? [] : ['payload_too_large' as const]),
    ...(body?.type === 'json' ? ['unsupported_media_type' as const] : []),
    'internal',
    'unavailable',
    ...errors,
  ]
}

function speaksOAuth({ path }: Route): boolean {
  return path.startsWith('/oauth2/')
}

/** The path of a route as the document writes it: `/v1/workloads/{name}`. */
export function templateOf({ path }: Pick<Route, 'path'>): string {
  return path.replaceAll(/:(\w+)(?:\{[^/]+\})?/g, '{$1}')
}

/** The `operationId` of a route, as in `postWorkloadsByNameSuspend`. */
export function nameOperation({ method, path }: Route): string {
  const words = path.replace(/^\/v1\//, '/').replaceAll(/\/:(\w)/g, '/by-$1').split(/[^A-Za-z0-9]+/).filter((word) => word !== '')
  return method.toLowerCase() + toName(words)
}

function toName(words: readonly string[]): string {
  return words.map((word) => word.charAt(0).toUpperCase() + word.slice(1)).join('')
}

function tagOf({ path }: Route): string {
  const [first = '', second = ''] = path.slice(1).split('/')
  if (first === 'v1') return second
  if (first === 'log') return first
  return second === '' ? 'operating' : first === 'oauth2' ? 'oauth' : 'discovery'
}

function readPackage(): { version: string; license: string; description: string } {
  // The project's own file: it has these members.
  return JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as ReturnType<typeof readPackage>
}
