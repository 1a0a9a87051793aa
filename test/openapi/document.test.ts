import { expect, test } from 'vitest'
import { rolesOf, takesAgents } from '../../src/http/route.ts'
import { routes } from '../../src/http/app.ts'
import { describeApi, templateOf } from '../../src/http/openapi.ts'
import { statusOf } from '../../src/http/problem.ts'
import { issuer, startBroker } from '../broker.ts'

type Json = Record<string, unknown>
interface Operation {
  readonly operationId: string
  readonly tags: readonly string[]
  readonly summary: string
  readonly description: string
  readonly security: readonly Json[]
  readonly parameters?: readonly { name: string; in: string; required: boolean; schema: Json }[]
  readonly requestBody?: { required: boolean; content: Record<string, { schema: Json }> }
  readonly responses: Record<string, Json>
  readonly 'x-stint-roles'?: readonly string[]
}
interface Document {
  readonly paths: Record<string, Record<string, Operation>>
  readonly components: Record<string, Record<string, Json>>
}

const document = JSON.parse(JSON.stringify(describeApi(routes, issuer))) as Document & Json

function operationOf(method: string, path: string): Operation {
  const operation = document.paths[templateOf({ path })]?.[method.toLowerCase()]
  if (operation === undefined) throw new Error(`${method} ${path} is not in the document`)
  return operation
}

/** Every object within, with its path. */
function walk(value: unknown, at = '#'): [string, Json][] {
  if (typeof value !== 'object' || value === null) return []
  const inner = Object.entries(value).flatMap(([name, member]) => walk(member, `${at}/${name}`))
  return Array.isArray(value) ? inner : [[at, value as Json], ...inner]
}

/** Everything that is a schema: below a member `schema`, or among the components. */
const schemas = walk(document).filter(([at]) => /\/schema(?:\/|$)|^#\/components\/schemas\/[^/]+/.test(at))

test('holds every route, and what the route says of itself', () => {
  const described = Object.entries(document.paths).flatMap(([path, operations]) => Object.keys(operations).map((method) => `${method.toUpperCase()} ${path}`))
  expect(described.toSorted()).toEqual(routes.map((route) => `${route.method} ${templateOf(route)}`).toSorted())
  for (const { method, path, access, summary, params, query, body, headers, answers, errors = [] } of routes) {
    const operation = operationOf(method, path)
    expect(operation).toMatchObject({ summary, operationId: expect.stringMatching(/^[a-z]+[A-Za-z0-9]+$/), tags: [expect.any(String)] })
    const named = rolesOf(access)
    const proofs = [...(takesAgents(access) ? [{ assertion: [] }, { token: [] }] : []), ...(named === undefined ? [] : [{ operator: [] }])]
    expect([operation['x-stint-roles'], operation.security]).toEqual([named, proofs])
    for (const role of named ?? []) expect(operation.description).toContain(role)
    const parameters = (operation.parameters ?? []).map(({ name, in: place }) => `${place} ${name}`)
    expect(parameters).toEqual([...Object.keys(params?.shape ?? {}).map((name) => `path ${name}`), ...Object.keys(query?.shape ?? {}).map((name) => `query ${name}`), ...Object.keys(headers?.shape ?? {}).map((name) => `header ${name}`)])
    expect(path.match(/:\w+/g)?.map((name) => `path ${name.slice(1)}`) ?? []).toEqual(parameters.filter((name) => name.startsWith('path ')))
    const types = { json: 'application/json', form: 'application/x-www-form-urlencoded' }
    expect(Object.keys(operation.requestBody?.content ?? {})).toEqual(body === undefined ? [] : [types[body.type]])
    expect(Object.keys(operation.responses)).toEqual(expect.arrayContaining([...Object.keys(answers), ...errors.map((code) => String(statusOf(code)))]))
    // Without a default, an answer that is not listed is one that a fuzzer can find.
    expect(Object.keys(operation.responses)).not.toContain('default')
  }
  const ids = routes.map(({ method, path }) => operationOf(method, path).operationId)
  expect(new Set(ids).size).toBe(ids.length)
})

test('names by status what can go wrong', () => {
  const statusesOf = (method: string, path: string) => Object.keys(operationOf(method, path).responses)
  expect(statusesOf('POST', '/oauth2/token')).toEqual(['200', '400', '401', '413', '429', '500', '503'])
  expect(statusesOf('PUT', '/v1/policy')).toEqual(['200', '400', '401', '403', '409', '413', '415', '422', '429', '500', '503'])
  expect(statusesOf('GET', '/v1/workloads')).toEqual(['200', '400', '401', '429', '500', '503'])
  expect(statusesOf('GET', '/healthz')).toEqual(['200', '400', '500', '503'])
  const of = (method: string, path: string, status: string) => JSON.stringify(operationOf(method, path).responses[status])
  expect(of('POST', '/oauth2/token', '401')).toContain('OAuthInvalidClient')
  expect(of('GET', '/v1/workloads', '401')).toContain('/Unauthenticated')
  const { responses = {} } = document.components
  expect(responses['Unauthenticated']).toMatchObject({ content: { 'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } } }, headers: { 'WWW-Authenticate': {} } })
  expect(responses['OAuthRateLimited']).toMatchObject({ content: { 'application/json': { schema: { $ref: '#/components/schemas/OAuthError' } } }, headers: { 'Retry-After': {} } })
})

test('refers to nothing that is not there, and keeps nothing that nobody refers to', () => {
  const references = new Set(walk(document).flatMap(([, { $ref: reference }]) => (typeof reference === 'string' ? [reference] : [])))
  const components = Object.entries(document.components).flatMap(([kind, members]) => (kind === 'securitySchemes' ? [] : Object.keys(members).map((name) => `#/components/${kind}/${name}`)))
  expect([...references].toSorted()).toEqual(components.toSorted())
  expect(walk(document).filter(([, value]) => '$defs' in value || '$schema' in value || '~standard' in value)).toEqual([])
})

test('has closed schemas alone: an object says what its members are, or of what kind', () => {
  const open = schemas.filter(([, { type, additionalProperties }]) => type === 'object' && additionalProperties === undefined)
  expect(open).toEqual([])
  // What has no form shows as `{}`: only where the log's events and this document itself are answered.
  const formless = walk(document).filter(([at, value]) => /\/(?:schema|items|additionalProperties|properties\/[^/]+)$/.test(at) && Object.keys(value).every((key) => key === 'description'))
  expect(formless.map(([at]) => at.replace(/^#\/paths\//, '').replace(/\/content.*\/schema\//, ' '))).toEqual([
    '/v1/audit/get/responses/200 properties/entries/items/properties/event/additionalProperties',
    '/openapi.json/get/responses/200 properties/info/additionalProperties',
    '/openapi.json/get/responses/200 properties/paths/additionalProperties',
    '/openapi.json/get/responses/200 properties/components/additionalProperties',
  ])
  // Patterns must mean the same to every reader of JSON Schema.
  for (const [at, { pattern }] of schemas) if (typeof pattern === 'string') expect(() => new RegExp(pattern, 'u'), at).not.toThrow()
})

test('says what is accepted where code judges it', () => {
  const bodyOf = (method: string, path: string) => Object.values(operationOf(method, path).requestBody?.content ?? {})[0]?.schema
  const parameterOf = (path: string, name: string) => operationOf('GET', path).parameters?.find((parameter) => parameter.name === name)
  expect(bodyOf('POST', '/oauth2/token')).toMatchObject({ required: ['grant_type', 'client_assertion_type', 'client_assertion'], oneOf: [{}, {}], additionalProperties: false })
  expect(bodyOf('POST', '/v1/workloads')).toMatchObject({ properties: { jwks: { properties: { keys: { maxItems: 8 } } }, review_at: { anyOf: [{ format: 'date' }, { format: 'date-time' }] } } })
  expect(bodyOf('PUT', '/v1/policy')).toMatchObject({ properties: { files: { type: 'object', additionalProperties: { type: 'string' } } } })
  expect(bodyOf('PATCH', '/v1/workloads/:name')).toMatchObject({ minProperties: 1 })
  expect(parameterOf('/v1/workloads', 'limit')).toMatchObject({ in: 'query', required: false, schema: { type: 'integer', minimum: 1, maximum: 500 } })
  expect(parameterOf('/v1/workloads/:name', 'name')).toMatchObject({ in: 'path', required: true, schema: { type: 'string', pattern: expect.any(String) } })
})

test('is answered to anyone, as it is, for the issuer of the broker', async () => {
  const broker = await startBroker('sqlite')
  const response = await broker.send('GET', '/openapi.json')
  expect([response.status, response.headers.get('content-type')]).toEqual([200, 'application/json'])
  expect(await response.json()).toEqual(document)
  expect(document).toMatchObject({ openapi: '3.1.1', servers: [{ url: issuer }], info: { title: 'Stint', version: expect.stringMatching(/^\d+\.\d+\.\d+$/) } })
})
