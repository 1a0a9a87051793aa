import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
import { randomUUID } from 'node:crypto'
import { exportJWK, generateKeyPair, SignJWT, type CryptoKey } from 'jose'
import { onTestFinished } from 'vitest'
import type { SignInSettings } from '../src/broker/sign-in.ts'
import type { Clock } from '../src/kernel/clock.ts'

export const clientId = 'stint-cli'

/** A company issuer as far as Stint asks it: its two documents by HTTP, and ID tokens that it signs as a test wants them. */
export interface CompanyIssuer {
  readonly url: string
  /** The paths that were asked for so far. */
  readonly asked: readonly string[]
  readonly settings: SignInSettings
  /** An ID token for the clock's time, with single claims or header members replaced (`undefined` leaves one out). */
  sign(claims?: Record<string, unknown>, header?: Record<string, unknown>, key?: CryptoKey): Promise<string>
  /** Replaces its keys by a new one. */
  rotate(alg?: string): Promise<void>
  /** From now on answers requests for this path in another way; without one, as usual again. */
  answer(path: string, respond?: (response: ServerResponse) => void): void
  stop(): Promise<void>
}

export const discoveryPath = '/.well-known/openid-configuration'

interface Key {
  readonly alg: string
  readonly kid: string
  readonly privateKey: CryptoKey
  readonly jwk: Record<string, unknown>
}

export async function startCompanyIssuer(clock: Clock): Promise<CompanyIssuer> {
  let key = await makeKey('RS256')
  const asked: string[] = []
  const others = new Map<string, (response: ServerResponse) => void>()
  const server = createServer(({ url: path = '' }, response) => {
    asked.push(path)
    const other = others.get(path)
    if (other !== undefined) return other(response)
    if (path === discoveryPath) return sendJson(response, { issuer: url, jwks_uri: `${url}/keys` })
    if (path === '/keys') return sendJson(response, { keys: [key.jwk] })
    response.writeHead(404).end()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (typeof address !== 'object' || address === null) throw new Error('no port')
  const url = `http://127.0.0.1:${address.port}`
  async function stop(): Promise<void> {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  }
  onTestFinished(stop)

  return {
    url,
    asked,
    settings: {
      issuer: url,
      clientId,
      scopes: ['openid', 'groups'],
      groupsClaim: 'groups',
      groupsByRole: { admin: ['platform-admins'], approver: ['leads'], auditor: ['audit', 'security'] },
      sessionMinutes: 60,
    },
    async sign(claims = {}, header = {}, signer = key.privateKey) {
      const nowSeconds = Math.floor(clock.nowMs() / 1000)
      const usual = { iss: url, sub: 'ada-1815', aud: clientId, iat: nowSeconds, exp: nowSeconds + 3600, groups: ['platform-admins'], jti: randomUUID() }
      // Members that are `undefined` vanish with JSON.
      return new SignJWT({ ...usual, ...claims }).setProtectedHeader({ alg: key.alg, kid: key.kid, ...header }).sign(signer)
    },
    async rotate(alg = 'RS256') {
      key = await makeKey(alg)
    },
    answer(path, respond) {
      if (respond === undefined) others.delete(path)
      else others.set(path, respond)
    },
    stop,
  }
}

export function sendJson(response: ServerResponse, value: unknown): void {
  response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(value))
}

async function makeKey(alg: string): Promise<Key> {
  const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true })
  const kid = randomUUID()
  return { alg, kid, privateKey, jwk: { ...(await exportJWK(publicKey)), kid, alg, use: 'sig' } }
}
