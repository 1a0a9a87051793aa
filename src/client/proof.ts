import { createHash, randomUUID } from 'node:crypto'
import { SignJWT } from 'jose'
import type { AgentKey } from './key.ts'

const lifetimeSeconds = 60

/** What a proof of possession is for: a code that is to be redeemed, or the workload that is to have the key. */
export type ProofPurpose = { readonly code: string } | { readonly clientId: string }

/**
 * Signs a proof that its sender holds this new key: for one broker (`audience`, its issuer), within 60 seconds, and for
 * nothing but that code or workload.
 */
export async function signProof(key: AgentKey, purpose: ProofPurpose, audience: string, nowMs: number): Promise<string> {
  const nowSeconds = Math.floor(nowMs / 1000)
  const [typ, claims] =
    'code' in purpose
      ? ['stint-enrolment+jwt', { code_sha256: createHash('sha256').update(purpose.code).digest('base64url') }]
      : ['stint-key+jwt', { sub: purpose.clientId }]
  return new SignJWT(claims)
    .setProtectedHeader({ typ, alg: key.alg, jwk: key.publicJwk })
    .setAudience(audience)
    .setJti(randomUUID())
    .setIssuedAt(nowSeconds)
    .setExpirationTime(nowSeconds + lifetimeSeconds)
    .sign(key.privateKey)
}
