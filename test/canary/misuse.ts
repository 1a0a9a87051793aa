import type { z } from 'zod'
import type { Route } from '../../src/http/route.ts'
import { assertionType, type SendOptions, type TestAgent } from '../broker.ts'
import type { makeMarked } from './secrets.ts'

type Marked = ReturnType<typeof makeMarked>

/** A request that carries secrets where they do not belong. */
export interface Misuse extends SendOptions {
  readonly method: string
  readonly path: string
}

/** Whose request it is: a stranger's, or one of somebody who is believed, whose texts and names are kept where they fit. */
export type Sender = { readonly kind: 'stranger'; readonly authorization?: string } | { readonly kind: 'operator'; readonly authorization: string } | { readonly kind: 'workload'; readonly agent: TestAgent }

/** Every way to send a secret to a route in a wrong place: path, query, body, and on each of them in the headers. */
export function listMisuses(route: Route, sender: Sender, marked: Marked): Misuse[] {
  const base = { method: route.method, headers: wrongHeaders(sender, marked) }
  const path = fill(route.path, (name) => (name === 'kid' ? 'A'.repeat(43) : name === 'id' ? '0'.repeat(16) : 'no-such'))
  const secrets = Object.values(marked.texts)
  const body = route.body === undefined ? {} : route.body.type === 'json' ? { json: { unknown: marked.password } } : { form: { unknown: marked.password } }
  const paths = secrets.flatMap((secret) => {
    const filled = fill(route.path, () => encodeURIComponent(secret))
    return filled === path ? [] : [filled]
  })
  const queries = secrets.flatMap((secret) => [
    `access_token=${encodeURIComponent(secret)}`,
    `${encodeURIComponent(secret)}=1`,
    `${encodeURIComponent(secret)}`,
    ...Object.entries(route.query?.shape ?? {}).flatMap(([name, field]) => (isTaken(field, secret, sender) ? [] : [`${name}=${encodeURIComponent(secret)}`])),
  ])
  return [
    ...paths.map((filled) => ({ ...base, ...body, path: filled })),
    ...queries.map((query) => ({ ...base, ...body, path: `${path}?${query}` })),
    ...(route.method === 'GET' ? [] : [{ ...base, path, headers: { ...base.headers, ...wrongType(marked) }, form: marked.password }]),
    ...(route.body?.type === 'json' ? listWrongJson(route.body.schema, sender, marked) : route.body ? listWrongForms(route.body.schema, sender, marked) : []).map((wrong) => ({ ...base, path, ...wrong, headers: { ...base.headers, ...wrong.headers } })),
  ]
}

/** A body of its own kind. Without a server, only the header tells a route that takes none that there is one. */
function wrongType({ password }: Marked): Record<string, string> {
  return { 'content-type': `application/${password}`, 'content-length': String(password.length) }
}

function fill(path: string, value: (name: string) => string): string {
  return path.replaceAll(/:(\w+)/g, (_, name: string) => value(name))
}

function wrongHeaders(sender: Sender, { texts, password }: Marked): Record<string, string> {
  return {
    ...(sender.kind !== 'workload' && sender.authorization !== undefined && { authorization: sender.authorization }),
    cookie: `session=${texts.session}; password=${password}`,
    'x-api-key': password,
    'user-agent': `curl ${texts.operator}`,
    referer: `https://console.example/?token=${texts.jwt}`,
    tracestate: `stint=${password}`,
    'x-http-method-override': texts.code,
    'x-request-id': texts.session,
    dpop: texts.jwt,
  }
}

/** What an operator sends and the schema takes is a name or a text that is kept, whatever it looks like. */
function isTaken(field: unknown, secret: string, sender: Sender): boolean {
  // A field of an object schema.
  return sender.kind === 'operator' && (field as z.ZodType).safeParse(secret).success
}

function listWrongJson(schema: z.ZodObject, sender: Sender, { texts, password, jwk }: Marked): SendOptions[] {
  const members = Object.entries(schema.shape)
  const jwks = { keys: [jwk] }
  return [
    ...Object.values(texts).flatMap((secret) => [
      { json: { [secret]: 1 } },
      { json: { unknown: secret } },
      { json: { unknown: { deep: [secret, password] } } },
      { json: [secret] },
      { json: secret },
      { form: `{"unknown": ${secret}`, headers: { 'content-type': 'application/json' } },
      ...members.flatMap(([name, field]) => (isTaken(field, secret, sender) ? [] : [{ json: { [name]: secret } }, { json: { [name]: { [secret]: secret } } }, { json: { [name]: [secret] } }])),
    ]),
    { json: { unknown: password } },
    { json: { jwks } },
    { json: { jwks: jwk } },
    { json: { jwk, ...jwk } },
    { json: { files: { 'rules.cedar': texts.pem, 'tools/x.yaml': `tool: x\nconnector: jwt\nconfig: { private_key: "${password}", ${password}: "${texts.jwt}" }\n` } } },
    { json: { files: { 'rules.cedar': `permit (principal == Workload::"${texts.operator}", action, resource);`, [`tools/${texts.code}.yaml`]: texts.jwt } } },
    { json: { files: { 'tools/x.yaml': `private_key: |\n  ${texts.pem.replaceAll('\n', '\n  ')}` } } },
  ]
}

function listWrongForms(schema: z.ZodObject, sender: Sender, { texts, password }: Marked): SendOptions[] {
  const proof = () => (sender.kind === 'workload' ? { grant_type: 'client_credentials', client_assertion_type: assertionType, client_assertion: sender.agent.assert() } : {})
  const names = Object.keys(schema.shape)
  return [
    ...Object.values(texts).flatMap((secret) => [
      ...names.map((name) => ({ form: { ...proof(), ...(name === 'scope' ? {} : { scope: 'tickets:read' }), [name]: secret } })),
      { form: { ...proof(), [secret]: '1' } },
      { form: { ...proof(), scope: `tickets:read ${secret}` } },
      { form: { ...proof(), authorization_details: JSON.stringify([{ type: secret }]) } },
      { form: { ...proof(), authorization_details: JSON.stringify([{ type: 'stint', actions: [secret], [secret]: secret }]) } },
      { form: { ...proof(), authorization_details: JSON.stringify([{ type: 'stint', actions: ['payments:read'], target: secret }]) } },
      { form: secret },
      { form: `${encodeURIComponent(secret)}=%ff&client_secret=${password}` },
    ]),
    { form: { client_assertion_type: assertionType, client_assertion: password, token: password } },
    { form: { grant_type: 'password', username: 'bot', password } },
    { form: { ...proof(), client_secret: password } },
    { form: { ...proof(), token: password } },
  ]
}
