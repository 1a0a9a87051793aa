import { createHash, generateKeyPairSync, randomUUID, sign, type KeyObject } from 'node:crypto'
import { siteIssuer, siteTrustDomain } from './site.ts'

/** A workload's side: its key, and what it signs. */
export interface Agent {
  readonly name: string
  readonly jwks: { readonly keys: readonly object[] }
  /** The parameters by which it proves itself, with a fresh assertion. */
  prove(nowMs: number, lifetimeSeconds: number): { readonly form: Readonly<Record<string, string>>; readonly expiresAtMs: number }
}

export function createAgent(name: string): Agent {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const { kty, crv, x, y } = publicKey.export({ format: 'jwk' })
  // RFC 7638 §3.1: these members in this order.
  const kid = createHash('sha256').update(JSON.stringify({ crv, kty, x, y })).digest('base64url')
  const clientId = `spiffe://${siteTrustDomain}/${name}`
  return {
    name,
    jwks: { keys: [{ kty, crv, x, y, kid, alg: 'ES256' }] },
    prove(nowMs, lifetimeSeconds) {
      const iat = Math.floor(nowMs / 1000)
      const exp = iat + lifetimeSeconds
      const claims = { iss: clientId, sub: clientId, aud: siteIssuer, jti: randomUUID(), iat, exp }
      return {
        form: {
          client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
          client_assertion: signJwt({ alg: 'ES256', kid }, claims, privateKey),
        },
        expiresAtMs: exp * 1000,
      }
    },
  }
}

function signJwt(header: object, claims: object, key: KeyObject): string {
  const input = [header, claims].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.')
  return `${input}.${sign('sha256', Buffer.from(input), { key, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`
}

/** The header and claims of a token, which is nobody's to judge here. */
export function readJwt(token: string): { readonly kid: string; readonly jti: string; readonly iat: number; readonly exp: number } {
  const [header = '', claims = ''] = token.split('.').map((part) => Buffer.from(part, 'base64url').toString())
  // The broker's own, of which each member is compared with the log.
  const { kid } = JSON.parse(header) as { kid: string }
  const { jti, iat, exp } = JSON.parse(claims) as { jti: string; iat: number; exp: number }
  return { kid, jti, iat, exp }
}
