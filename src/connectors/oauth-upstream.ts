import * as oauth from 'oauth4webapi'
import type { OauthClientConfig } from '../policy/kinds/oauth-client.ts'
import { ConnectorError, type ToolContext } from './connector.ts'
import { readClientKey } from './oauth-key.ts'
import { readRetryAfter, type Outbound } from './outbound.ts'

export type Metadata = oauth.AuthorizationServer

/** What the token endpoint said: the JSON of a success, or the code of its refusal (RFC 6749 §5.2), if it named one. */
export type TokenAnswer =
  | { readonly body: Readonly<Record<string, unknown>> }
  | { readonly refusal: string; readonly status: number; readonly retryAfterSeconds?: number }

/** `unsupported`: the upstream revokes no such tokens (RFC 7009 §2.2.1), or none at all. */
export type Revoked = 'revoked' | 'unsupported'

/** An authorization server, and this broker as its client. */
export interface Upstream {
  /** RFC 8414, or OpenID Connect Discovery. Nothing is done by asking. */
  readMetadata(signal: AbortSignal): Promise<Metadata>
  /** From now on they are read anew, whatever is known. */
  forgetMetadata(): void
  /** Without a signal the answer is waited for as long as a call may take at all. Throws `ConnectorError`; `unknown` where a token may have been issued. */
  requestToken(metadata: Metadata, parameters: Readonly<Record<string, string>>, signal?: AbortSignal): Promise<TokenAnswer>
  /** RFC 7009. Throws `ConnectorError` where the token may live on. */
  revokeToken(metadata: Metadata, token: string, signal: AbortSignal): Promise<Revoked>
}

interface Sent extends Omit<RequestInit, 'body'> {
  readonly body: URLSearchParams | undefined
}

const metadataMs = 600_000

export function createUpstream(config: OauthClientConfig, context: ToolContext, outbound: Outbound): Upstream {
  const { issuer, client_id: clientId } = config
  const host = new URL(issuer).host
  const client: oauth.Client = { client_id: clientId }
  const http = {
    [oauth.customFetch]: (url: string, { body, ...init }: Sent) => outbound.fetch(url, { ...init, body: body ?? null }),
    // `Outbound` judges which hosts may be asked so.
    [oauth.allowInsecureRequests]: new URL(issuer).protocol === 'http:',
  }
  let known: { readonly metadata: Metadata; readonly untilMs: number } | undefined
  let asking: Promise<Metadata> | undefined

  async function discover(): Promise<Metadata> {
    let problem = 'it does not publish them'
    for (const algorithm of ['oauth2', 'oidc'] as const) {
      const response = await oauth.discoveryRequest(new URL(issuer), { algorithm, ...http })
      const body = parseObject(await response.text())
      if (response.status !== 200 || body === undefined) {
        problem = `it answers ${response.status}${response.status === 200 ? ' without a JSON object' : ''}`
        continue
      }
      // RFC 8414 §3.3: metadata that call themselves otherwise are somebody else's.
      // The library judges each member when it uses it.
      if (body['issuer'] === issuer) return { ...body, issuer }
      problem = 'they name another issuer, where it must be the same to the letter'
    }
    throw refuse(`The metadata of ${issuer} cannot be used: ${problem}. An admin looks at the issuer in the catalog.`)
  }

  async function refresh(): Promise<Metadata> {
    try {
      const metadata = await discover()
      known = { metadata, untilMs: performance.now() + metadataMs }
      return metadata
    } catch (error) {
      // What was known serves on: an ending must not fail for want of a document.
      if (known !== undefined) return known.metadata
      throw error
    }
  }

  async function authenticate(metadata: Metadata): Promise<oauth.ClientAuth> {
    if (config.private_key !== undefined) {
      const { key, kid, alg } = readClientKey((await context.readSecret(config.private_key.from, "the client's private key")).reveal())
      return oauth.PrivateKeyJwt(kid === undefined ? { key } : { key, kid }, {
        [oauth.modifyAssertion](header, payload) {
          const nowSeconds = Math.floor(context.nowMs() / 1000)
          Object.assign(payload, { iat: nowSeconds, exp: nowSeconds + 60 })
          // Where the upstream's clock is behind, it would make the assertion worthless.
          delete payload['nbf']
          if (alg === 'EdDSA') header['alg'] = nameEd25519(metadata)
        },
      })
    }
    const secret = (await context.readSecret(config.client_secret?.from ?? '', "the client's secret")).reveal()
    return choosesBasic(metadata) ? oauth.ClientSecretBasic(secret) : oauth.ClientSecretPost(secret)
  }

  return {
    async readMetadata(signal) {
      if (known !== undefined && performance.now() < known.untilMs) return known.metadata
      asking ??= refresh().finally(() => (asking = undefined))
      return untilAborted(asking, signal, () => refuse(`The metadata of ${issuer} did not come in time.`))
    },
    forgetMetadata() {
      known = undefined
    },

    async requestToken(metadata, { grant_type: grantType = '', ...parameters }, signal) {
      const options = { ...http, ...(signal && { signal }) }
      const authentication = await authenticate(metadata)
      const response = await send('token_endpoint', () => oauth.genericTokenEndpointRequest(metadata, client, authentication, grantType, parameters, options))
      const body = parseObject(await response.text())
      if (response.status === 200 && body !== undefined) return { body }
      if (response.status === 200) throw lost(`${host} has answered a request for a token with something that cannot be read.`)
      // Only what says that it refuses has refused: anything else may be said by somebody who waited in vain for the answer.
      if (response.status < 400 || response.status >= 500) throw lost(`${host} failed (${response.status}) when it was asked for a token.`)
      const retryAfterSeconds = response.status === 429 ? readRetryAfter(response.headers, context.nowMs()) : undefined
      return { refusal: readCode(body), status: response.status, ...(retryAfterSeconds !== undefined && { retryAfterSeconds }) }
    },

    async revokeToken(metadata, token, signal) {
      if (metadata.revocation_endpoint === undefined) return 'unsupported'
      const options = { ...http, additionalParameters: { token_type_hint: 'access_token' }, signal }
      const authentication = await authenticate(metadata)
      const response = await send('revocation_endpoint', () => oauth.revocationRequest(metadata, client, authentication, token, options))
      // Also for a token that is not there any more (§2.2).
      if (response.status === 200) return 'revoked'
      const code = readCode(parseObject(await response.text()))
      if (code === 'unsupported_token_type') return 'unsupported'
      const retryAfterSeconds = [429, 503].includes(response.status) ? readRetryAfter(response.headers, context.nowMs()) : undefined
      throw new ConnectorError({
        outcome: 'unknown',
        publicMessage: `${host} did not revoke a token: it answered ${describeRefusal(code, response.status)}.`,
        ...(retryAfterSeconds !== undefined && { retryAfterSeconds }),
      })
    },
  }

  /** What the library refuses, it refuses before anything is sent: an endpoint that is missing or is no https URL. */
  async function send(endpoint: string, request: () => Promise<Response>): Promise<Response> {
    try {
      return await request()
    } catch (error) {
      if (error instanceof ConnectorError) throw error
      throw refuse(`The ${endpoint} in the metadata of ${issuer} is missing or cannot be used.`, error)
    }
  }
}

/** A refusal in words that follow "answered". The upstream's own words are left out, for nobody knows what they quote. */
export function describeRefusal(code: string, status: number): string {
  return code === '' ? String(status) : `${code} (${status})`
}

/** Whether a client's secret goes by HTTP Basic, which is what counts where the metadata say nothing (RFC 8414 §2). */
export function choosesBasic(metadata: Metadata): boolean {
  const methods = metadata.token_endpoint_auth_methods_supported
  return !Array.isArray(methods) || methods.includes('client_secret_basic') || !methods.includes('client_secret_post')
}

/** RFC 9864 gives it a name of its own; most upstreams know the old one. */
function nameEd25519(metadata: Metadata): string {
  const names = metadata.token_endpoint_auth_signing_alg_values_supported
  return Array.isArray(names) && names.includes('Ed25519') && !names.includes('EdDSA') ? 'Ed25519' : 'EdDSA'
}

/** The promise's own outcome, unless the signal comes first. */
export async function untilAborted<T>(promise: Promise<T>, signal: AbortSignal, explain: () => ConnectorError): Promise<T> {
  const { promise: aborted, reject } = Promise.withResolvers<never>()
  const abort = () => reject(explain())
  signal.addEventListener('abort', abort)
  if (signal.aborted) abort()
  try {
    return await Promise.race([promise, aborted])
  } finally {
    signal.removeEventListener('abort', abort)
  }
}

function parseObject(text: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? { ...value } : undefined
  } catch {
    return undefined
  }
}

/** The code of an OAuth error, where it is one of the form that all codes have. */
function readCode(body: Readonly<Record<string, unknown>> | undefined): string {
  const code = body?.['error']
  return typeof code === 'string' && /^[a-z][a-z_]{0,63}$/.test(code) ? code : ''
}

function refuse(publicMessage: string, cause?: unknown): ConnectorError {
  return new ConnectorError({ outcome: 'nothing_done', publicMessage, ...(cause !== undefined && { cause }) })
}

function lost(publicMessage: string): ConnectorError {
  return new ConnectorError({ outcome: 'unknown', publicMessage })
}
