import { z } from 'zod'
import { introspectToken } from '../broker/introspect.ts'
import { issueToken } from '../broker/issue.ts'
import { releaseToken, revokeToken } from '../broker/release.ts'
import type { ClientCredentials } from '../broker/authenticate.ts'
import type { Broker } from '../broker/broker.ts'
import { parseStrictJson } from '../identity/strict-json.ts'
import { BrokerError } from '../kernel/errors.ts'
import { admitOperator, bearerOf, operatorCaller } from './guards.ts'
import { defineRoute, type Route, type RouteContext } from './route.ts'

/** RFC 7523 §2.2. */
const assertionType = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer'

const proof = ['client_assertion_type', 'client_assertion']
const clientParameters = {
  client_id: z.string().optional().meta({ minLength: 1 }).describe('The SPIFFE ID of the workload; the assertion says it as well.'),
  client_assertion_type: z.string().optional().meta({ const: assertionType }),
  client_assertion: z.string().optional().meta({ minLength: 1 }).describe('A fresh JWT of at most five minutes, signed with a registered key (RFC 7523 §2.2).'),
}

// What is missing or wrong is answered by the handlers, which say what to do about it; the metadata are for the API document.
export const tokenForm = z.strictObject({
  grant_type: z.string().optional().meta({ const: 'client_credentials' }),
  scope: z.string().optional().meta({ minLength: 1 }).describe('Actions, apart by spaces, as in tickets:read tickets:comment.'),
  authorization_details: z.string().optional().meta({ minLength: 1 }).describe('Instead of scope: JSON, [{"type":"stint","actions":[…],"target":…,"task":…,"ttl_seconds":…}] (RFC 9396).'),
  resource: z.string().optional().meta({ minLength: 1 }).describe('The audience of the tool, where the actions should not say it alone (RFC 8707).'),
  ...clientParameters,
}).meta({
  required: ['grant_type', ...proof],
  oneOf: [{ required: ['scope'] }, { required: ['authorization_details'] }],
})
const heldForm = z.strictObject({
  token: z.string().optional().meta({ minLength: 1 }).describe('The token that this is about.'),
  token_type_hint: z.string().optional().meta({ enum: ['access_token', 'refresh_token'] }),
  ...clientParameters,
})

const details = z.array(
  z.strictObject({
    type: z.literal('stint'),
    actions: z.array(z.string()),
    target: z.string().optional(),
    task: z.string().optional(),
    ttl_seconds: z.int(),
  }),
)
const tokenAnswer = z.strictObject({
  access_token: z.string(),
  token_type: z.literal('Bearer'),
  expires_in: z.int(),
  scope: z.string(),
  authorization_details: details.optional(),
})
const introspectionAnswer = z.union([
  z.strictObject({ active: z.literal(false) }),
  z.strictObject({
    active: z.literal(true),
    iss: z.string(),
    sub: z.string(),
    aud: z.string(),
    client_id: z.string(),
    jti: z.string(),
    iat: z.int(),
    exp: z.int(),
    scope: z.string(),
    token_type: z.literal('Bearer'),
    authorization_details: details.optional(),
  }),
])

export const oauthRoutes: readonly Route[] = [
  defineRoute({
    method: 'POST',
    path: '/oauth2/token',
    access: 'workload',
    summary: 'Get a token for some actions on a tool',
    body: { type: 'form', schema: tokenForm },
    answers: { 200: { description: 'RFC 6749 §5.1', schema: tokenAnswer } },
    handle: (c, { body }) => answerToken(c, body),
  }),
  defineRoute({
    method: 'POST',
    path: '/oauth2/introspect',
    access: 'workload',
    summary: 'Ask whether a token is active, as its holder or as a tool that the catalog names',
    body: { type: 'form', schema: heldForm.meta({ required: ['token', ...proof] }) },
    answers: { 200: { description: 'RFC 7662 §2.2', schema: introspectionAnswer } },
    handle: (c, { body }) => answerIntrospection(c, body),
  }),
  defineRoute({
    method: 'POST',
    path: '/oauth2/revoke',
    access: 'workload',
    summary: 'End a token, as its holder, or as an admin by the Authorization header',
    errors: ['forbidden'],
    body: { type: 'form', schema: heldForm.meta({ required: ['token'] }) },
    answers: { 200: { description: 'RFC 7009 §2.2: it is ended, or was nothing to end' } },
    handle: (c, { body }) => answerRevocation(c, body),
  }),
]

async function answerToken(c: RouteContext, form: z.output<typeof tokenForm>): Promise<Response> {
  const { headers, body } = await grantToken(c.get('broker'), form, clientOf(c), c.get('requestId'))
  return c.json(body, 200, headers)
}

/** Who sends a form, as far as the request's head says it. */
interface FormClient {
  readonly authorization: string | undefined
  onProven(workload: string): void
}

function clientOf(c: RouteContext): FormClient {
  return { authorization: c.req.header('authorization'), onProven: (workload) => c.set('workload', workload) }
}

/** RFC 6749 §4.4 with RFC 7523 §2.2, 8707 and 9396: what is answered to a form of the token endpoint. */
export async function grantToken(broker: Broker, form: z.output<typeof tokenForm>, client: FormClient, requestId: string) {
  if (form.grant_type === undefined) throw refuse('invalid_request', 'grant_type is missing: send grant_type=client_credentials.')
  if (form.grant_type !== 'client_credentials') throw refuse('unsupported_grant_type', 'Only grant_type=client_credentials is supported.')
  const { scope, resource } = form
  const details = form.authorization_details
  const token = await issueToken(
    broker,
    readClient(client, form),
    {
      ...(scope !== undefined && { scope }),
      ...(resource !== undefined && { resource }),
      // What is no strict JSON counts as `null`, so that it is refused, on record, like any other that has the wrong form.
      ...(details !== undefined && { authorizationDetails: parseStrictJson(new TextEncoder().encode(details)) ?? null }),
    },
    requestId,
  )
  return {
    // RFC 6749 §5.1 asks for `no-cache` beside `no-store`.
    headers: { 'stint-audit-index': String(token.auditIndex), pragma: 'no-cache' },
    body: {
      access_token: token.accessToken,
      token_type: 'Bearer',
      expires_in: token.expiresInSeconds,
      scope: token.scope,
      authorization_details: token.authorizationDetails,
    },
  }
}

/** RFC 7662. */
async function answerIntrospection(c: RouteContext, form: z.output<typeof heldForm>): Promise<Response> {
  const token = readToken(form)
  const claims = await introspectToken(c.get('broker'), readClient(clientOf(c), form), token, c.get('requestId'))
  if (claims === undefined) return c.json({ active: false })
  return c.json({
    active: true,
    iss: claims.iss,
    sub: claims.sub,
    aud: claims.aud,
    client_id: claims.clientId,
    jti: claims.jti,
    iat: claims.iatSeconds,
    exp: claims.expSeconds,
    scope: claims.scope,
    token_type: 'Bearer',
    authorization_details: claims.authorizationDetails,
  })
}

/** RFC 7009: the holder by a client assertion, or an admin by an operator credential. */
async function answerRevocation(c: RouteContext, form: z.output<typeof heldForm>): Promise<Response> {
  const token = readToken(form)
  if (form.client_assertion === undefined && bearerOf(c) !== undefined) {
    if (form.client_id !== undefined || form.client_assertion_type !== undefined) {
      throw refuse('invalid_request', 'An admin authenticates by the Authorization header alone: leave the client parameters out.')
    }
    await admitOperator({ method: 'POST', path: '/oauth2/revoke' }, ['admin'], c)
    await revokeToken(c.get('broker'), operatorCaller(c), token)
  } else {
    await releaseToken(c.get('broker'), readClient(clientOf(c), form), token, c.get('requestId'))
  }
  return c.body(null, 200)
}

/** The one client authentication that a request may carry (RFC 6749 §2.3: never more than one). */
function readClient({ authorization, onProven }: FormClient, form: Partial<Record<keyof typeof clientParameters, string | undefined>>): ClientCredentials {
  if (authorization !== undefined) {
    if (form.client_assertion !== undefined) {
      throw refuse('invalid_request', 'The request authenticates twice: send a client assertion and no Authorization header.')
    }
    return { assertion: undefined }
  }
  const { client_assertion: assertion, client_assertion_type: type, client_id: clientId } = form
  if (assertion !== undefined && type !== assertionType) {
    throw refuse('invalid_request', `client_assertion_type must be ${assertionType}.`)
  }
  if (assertion === undefined && type !== undefined) throw refuse('invalid_request', 'client_assertion is missing.')
  return { assertion, ...(clientId !== undefined && { clientId }), onProven }
}

function readToken(form: z.output<typeof heldForm>): string {
  if (form.token === undefined) throw refuse('invalid_request', 'token is missing.')
  // RFC 7662 §2.1 and RFC 7009 §2.1: a hint may be wrong, but not unknown.
  if (form.token_type_hint !== undefined && !['access_token', 'refresh_token'].includes(form.token_type_hint)) {
    throw refuse('invalid_request', 'token_type_hint must be access_token or refresh_token; it may be left out.')
  }
  return form.token
}

function refuse(code: 'invalid_request' | 'unsupported_grant_type', publicMessage: string): BrokerError {
  return new BrokerError({ code, publicMessage })
}
