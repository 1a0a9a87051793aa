import { introspectToken } from '../broker/introspect.ts'
import { issueToken } from '../broker/issue.ts'
import { releaseToken, revokeToken } from '../broker/release.ts'
import type { ClientCredentials } from '../broker/authenticate.ts'
import { parseStrictJson } from '../identity/strict-json.ts'
import { BrokerError } from '../kernel/errors.ts'
import { readForm } from './body.ts'
import { authenticateAdmin, bearerOf } from './guards.ts'
import type { Route, RouteContext } from './route.ts'

/** RFC 7523 §2.2. */
const assertionType = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer'
const clientParameters = ['client_id', 'client_assertion_type', 'client_assertion'] as const

export const oauthRoutes: readonly Route[] = [
  { method: 'POST', path: '/oauth2/token', access: 'workload', handle: answerToken },
  { method: 'POST', path: '/oauth2/introspect', access: 'workload', handle: answerIntrospection },
  { method: 'POST', path: '/oauth2/revoke', access: 'workload', handle: answerRevocation },
]

/** RFC 6749 §4.4 with RFC 7523 §2.2, 8707 and 9396. */
async function answerToken(c: RouteContext): Promise<Response> {
  const form = await readForm(c, ['grant_type', 'scope', 'authorization_details', 'resource', ...clientParameters])
  if (form.grant_type === undefined) throw refuse('invalid_request', 'grant_type is missing: send grant_type=client_credentials.')
  if (form.grant_type !== 'client_credentials') throw refuse('unsupported_grant_type', 'Only grant_type=client_credentials is supported.')
  const credentials = readClient(c, form)
  const { scope, resource } = form
  const details = form.authorization_details
  const token = await issueToken(
    c.get('broker'),
    credentials,
    {
      ...(scope !== undefined && { scope }),
      ...(resource !== undefined && { resource }),
      // What is no strict JSON counts as `null`, so that it is refused, on record, like any other that has the wrong form.
      ...(details !== undefined && { authorizationDetails: parseStrictJson(new TextEncoder().encode(details)) ?? null }),
    },
    c.get('requestId'),
  )
  c.header('stint-audit-index', String(token.auditIndex))
  // RFC 6749 §5.1 asks for it beside `no-store`.
  c.header('pragma', 'no-cache')
  return c.json({
    access_token: token.accessToken,
    token_type: 'Bearer',
    expires_in: token.expiresInSeconds,
    scope: token.scope,
    authorization_details: token.authorizationDetails,
  })
}

/** RFC 7662. */
async function answerIntrospection(c: RouteContext): Promise<Response> {
  const form = await readForm(c, ['token', 'token_type_hint', ...clientParameters])
  const token = readToken(form)
  const claims = await introspectToken(c.get('broker'), readClient(c, form), token, c.get('requestId'))
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
async function answerRevocation(c: RouteContext): Promise<Response> {
  const form = await readForm(c, ['token', 'token_type_hint', ...clientParameters])
  const token = readToken(form)
  const broker = c.get('broker')
  if (form.client_assertion === undefined && bearerOf(c) !== undefined) {
    if (form.client_id !== undefined || form.client_assertion_type !== undefined) {
      throw refuse('invalid_request', 'An admin authenticates by the Authorization header alone: leave the client parameters out.')
    }
    const { id } = await authenticateAdmin(c)
    await revokeToken(broker, { actor: { kind: 'operator', id }, requestId: c.get('requestId') }, token)
  } else {
    await releaseToken(broker, readClient(c, form), token, c.get('requestId'))
  }
  return c.body(null, 200)
}

type Form = Partial<Record<(typeof clientParameters)[number] | 'token' | 'token_type_hint', string>>

/** The one client authentication that a request may carry (RFC 6749 §2.3: never more than one). */
function readClient(c: RouteContext, form: Form): ClientCredentials {
  if (c.req.header('authorization') !== undefined) {
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
  return { assertion, ...(clientId !== undefined && { clientId }) }
}

function readToken(form: Form): string {
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
