import { once } from 'node:events'
import { request as sendRequest, type IncomingHttpHeaders, type IncomingMessage, type RequestListener } from 'node:http'
import { buffer } from 'node:stream/consumers'
import { exportJWK, generateKeyPair, type JWK } from 'jose'
import type { Provider } from 'oidc-provider'
import { onTestFinished, vi } from 'vitest'
import { listen } from './listen.ts'

/** A request as it arrived. */
export interface UpstreamRequest {
  readonly method: string
  readonly path: string
  readonly form: Readonly<Record<string, string>>
  readonly headers: IncomingHttpHeaders
}

export interface UpstreamAnswer {
  readonly status: number
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string | Buffer
}

/** What happens to a request on its way: `cut` closes the connection, where an answer would have come. */
export type Intercept = (request: UpstreamRequest, forward: () => Promise<UpstreamAnswer>) => Promise<UpstreamAnswer | 'cut'>

/** A real authorization server (node-oidc-provider) behind a proxy that the test can tell to fail. Gone after the test. */
export interface Upstream {
  readonly issuer: string
  readonly provider: Provider
  /** All that was asked, in order. */
  readonly requests: UpstreamRequest[]
  /** From now on requests of this path go this way; `undefined`: straight on. */
  intercept(path: string, by: Intercept | undefined): void
  /** What the token endpoint was asked with that grant type. */
  asked(grantType: string): UpstreamRequest[]
  /** The private keys of the client `by-key`. */
  readonly keys: Readonly<Record<KeyAlg, JWK>>
  readonly clientSecret: string
  /** A refresh token as somebody would have got who connected that client, for these scopes. */
  connect(client: string, scope: string): Promise<string>
  /** Whether the server calls the token active, when its own client asks. */
  isActive(token: string): Promise<boolean>
}

export const keyAlgs = ['ES256', 'RS256', 'PS256', 'EdDSA'] as const
export type KeyAlg = (typeof keyAlgs)[number]

export interface UpstreamOptions {
  readonly accessTokenSeconds?: number
  /** Whether each use of a refresh token replaces it. */
  readonly rotates?: boolean
}

// Made once for all tests of a file, since RSA keys take their time.
const pairs = await Promise.all(keyAlgs.map(makePair))
const keys = Object.fromEntries(pairs.map(({ alg, privateJwk }) => [alg, privateJwk])) as Record<KeyAlg, JWK>
const publicKeys = pairs.map(({ publicJwk }) => publicJwk)

async function makePair(alg: KeyAlg) {
  const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true })
  return { alg, privateJwk: { ...(await exportJWK(privateKey)), alg, kid: alg }, publicJwk: { ...(await exportJWK(publicKey)), alg, kid: alg, use: 'sig' } }
}

const clientSecret = 'a secret of: the client+%&='
const scope = 'contacts.read contacts.write deals.read'

export async function startUpstream({ accessTokenSeconds = 600, rotates = true }: UpstreamOptions = {}): Promise<Upstream> {
  const requests: UpstreamRequest[] = []
  const intercepts = new Map<string, Intercept>()
  let handle: RequestListener | undefined
  const inner = await listen((request, response) => handle?.(request, response))
  const issuer = await listen((request, response) => {
    void (async () => {
      const body = await buffer(request)
      const path = request.url?.split('?')[0] ?? ''
      const asked = { method: request.method ?? '', path, form: Object.fromEntries(new URLSearchParams(body.toString())), headers: request.headers }
      requests.push(asked)
      const forward = () => forwardTo(inner, { method: asked.method, url: request.url ?? '', headers: request.headers, body })
      const answer = await (intercepts.get(path)?.(asked, forward) ?? forward())
      if (answer === 'cut') return response.destroy()
      return response.writeHead(answer.status, answer.headers).end(answer.body)
    })().catch(() => response.destroy())
  })

  const common = { redirect_uris: ['https://stint.test/callback'], grant_types: ['authorization_code', 'refresh_token', 'client_credentials'], scope: `${scope} offline_access openid` }
  // It says on the console what is not meant for production: nothing of this is.
  const quiet = [vi.spyOn(console, 'warn'), vi.spyOn(console, 'info')].map((spy) => spy.mockImplementation(() => undefined))
  onTestFinished(() => quiet.forEach((spy) => spy.mockRestore()))
  const { Provider } = await import('oidc-provider')
  const provider = new Provider(issuer, {
    clients: [
      { ...common, client_id: 'by-key', token_endpoint_auth_method: 'private_key_jwt', jwks: { keys: publicKeys } },
      { ...common, client_id: 'by-basic', client_secret: clientSecret, token_endpoint_auth_method: 'client_secret_basic' },
      { ...common, client_id: 'by-post', client_secret: clientSecret, token_endpoint_auth_method: 'client_secret_post' },
      { ...common, client_id: 'no-machine', client_secret: clientSecret, token_endpoint_auth_method: 'client_secret_basic', grant_types: ['authorization_code'] },
    ],
    cookies: { keys: ['of a test'] },
    scopes: ['openid', 'offline_access', ...scope.split(' ')],
    rotateRefreshToken: rotates,
    features: { clientCredentials: { enabled: true }, introspection: { enabled: true, allowedPolicy: () => true }, revocation: { enabled: true }, devInteractions: { enabled: false } },
    ttl: { AccessToken: accessTokenSeconds, ClientCredentials: accessTokenSeconds, RefreshToken: 86_400, Grant: 86_400 },
    findAccount: (_: unknown, accountId: string) => ({ accountId, claims: async () => ({ sub: accountId }) }),
  })
  handle = provider.callback()

  return {
    issuer,
    provider,
    requests,
    intercept(path, by) {
      if (by === undefined) intercepts.delete(path)
      else intercepts.set(path, by)
    },
    asked: (grantType) => requests.filter(({ form }) => form['grant_type'] === grantType),
    keys,
    clientSecret,
    async connect(clientId, scopes) {
      const grant = new provider.Grant({ clientId, accountId: 'ada' })
      grant.addOIDCScope(`${scopes} offline_access`)
      const grantId = await grant.save()
      const client = await provider.Client.find(clientId)
      return new provider.RefreshToken({ client, accountId: 'ada', grantId, gty: 'authorization_code', scope: `${scopes} offline_access` }).save()
    },
    async isActive(token) {
      const encode = (text: string) => new URLSearchParams({ '': text }).toString().slice(1)
      const response = await fetch(`${inner}/token/introspection`, {
        method: 'POST',
        headers: { authorization: `Basic ${Buffer.from(`by-basic:${encode(clientSecret)}`).toString('base64')}` },
        body: new URLSearchParams({ token }),
      })
      const { active } = (await response.json()) as { active?: boolean }
      if (active === undefined) throw new Error(`the upstream did not introspect: ${response.status}`)
      return active
    },
  }
}

interface Forwarded {
  readonly method: string
  readonly url: string
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
}

/** As it came, with its own Host: the server names its endpoints by that. */
async function forwardTo(origin: string, { method, url, headers, body }: Forwarded): Promise<UpstreamAnswer> {
  const request = sendRequest(`${origin}${url}`, { method, headers })
  request.end(body)
  // The event's one argument, for which the overloads of `once` have no type.
  const [response] = (await once(request, 'response')) as [IncomingMessage]
  const answer = await buffer(response)
  const type = response.headers['content-type']
  return { status: response.statusCode ?? 0, headers: type === undefined ? {} : { 'content-type': type }, body: answer }
}
