import { createHash, createHmac, createPublicKey, generateKeyPairSync, sign, type KeyObject } from 'node:crypto'
import type { Workload, WorkloadKey } from '../../src/identity/workload.ts'

// Everything here is made with node:crypto and string concatenation, so that no library's own refusal hides ours.

export const issuer = 'https://stint.example.com'
export const trustDomain = 'agents.example.com'
export const nowMs = Date.parse('2026-11-21T12:00:00Z')
export const nowSeconds = nowMs / 1000

/** A key pair with its registered form. */
export interface HandMadeKey {
  readonly privateKey: KeyObject
  readonly publicKey: KeyObject
  readonly kid: string
  readonly jwk: Record<string, string>
  readonly registered: WorkloadKey
}

/** A new key pair, its thumbprint computed by hand (RFC 7638 §3). */
export function makeKey(alg: 'ES256' | 'Ed25519', extra: Partial<WorkloadKey> = {}): HandMadeKey {
  const pair = alg === 'ES256' ? generateKeyPairSync('ec', { namedCurve: 'P-256' }) : generateKeyPairSync('ed25519')
  const { kty = '', crv = '', x = '', y } = createPublicKey(pair.privateKey).export({ format: 'jwk' })
  const jwk: Record<string, string> = { crv, kty, x, ...(y !== undefined && { y }) }
  const kid = createHash('sha256').update(JSON.stringify(jwk)).digest('base64url')
  return { ...pair, kid, jwk, registered: { kid, alg, jwk, addedAtMs: nowMs - 1000, ...extra } }
}

/** A workload in good order that has these keys. */
export function makeWorkload(keys: readonly HandMadeKey[], extra: Partial<Workload> = {}): Workload {
  return {
    name: 'triage-bot',
    environment: 'prod',
    stage: 'pilot',
    owner: { team: 'support', contact: 'oncall:support' },
    purpose: 'labels tickets',
    tags: [],
    reviewAtMs: nowMs + 86_400_000,
    status: 'active',
    createdAtMs: nowMs - 1000,
    updatedAtMs: nowMs - 1000,
    keys: keys.map(({ registered }) => registered),
    ...extra,
  }
}

export const subject = `spiffe://${trustDomain}/triage-bot`

export const goodClaims = {
  iss: subject,
  sub: subject,
  aud: issuer,
  exp: nowSeconds + 60,
  iat: nowSeconds,
  jti: 'one-of-a-kind',
} as const

/** A part of a JWS: text goes in as it stands, anything else as its JSON. */
export function encodePart(value: unknown): string {
  return Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url')
}

/** A compact JWS whose header and payload are exactly what is given, signed as the key can. */
export function signCompact(key: HandMadeKey, header: unknown, payload: unknown): string {
  const input = `${encodePart(header)}.${encodePart(payload)}`
  return `${input}.${signBytes(key, input).toString('base64url')}`
}

/** The signature in the form of RFC 7518 §3.4 or RFC 8037 §3.1. */
export function signBytes(key: HandMadeKey, input: string): Buffer {
  const isEc = key.privateKey.asymmetricKeyType === 'ec'
  return sign(isEc ? 'sha256' : null, Buffer.from(input), { key: key.privateKey, dsaEncoding: 'ieee-p1363' })
}

/** A compact JWS with an HS256 tag under that secret: what an algorithm confusion sends (RFC 8725 §2.1). */
export function macCompact(secret: string | Buffer, header: unknown, payload: unknown): string {
  const input = `${encodePart(header)}.${encodePart(payload)}`
  return `${input}.${createHmac('sha256', secret).update(input).digest('base64url')}`
}
