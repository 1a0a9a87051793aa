import { randomUUID } from 'node:crypto'
import { SignJWT } from 'jose'
import type { AgentKey } from './key.ts'

/** RFC 7521 §4.2. */
export const clientAssertionType = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer'

const lifetimeSeconds = 60

/**
 * Signs a client assertion (RFC 7523 §3) that proves the workload to this one broker, once, within 60 seconds:
 * `audience` is the broker's issuer, `clientId` the workload's SPIFFE ID.
 */
export async function signAssertion(key: AgentKey, clientId: string, audience: string, nowMs: number): Promise<string> {
  const nowSeconds = Math.floor(nowMs / 1000)
  return new SignJWT({})
    .setProtectedHeader({ alg: key.alg, kid: key.kid })
    .setIssuer(clientId)
    .setSubject(clientId)
    .setAudience(audience)
    .setJti(randomUUID())
    .setIssuedAt(nowSeconds)
    .setExpirationTime(nowSeconds + lifetimeSeconds)
    .sign(key.privateKey)
}
