import { generateKeyPair } from 'node:crypto'
import { promisify } from 'node:util'
import { calculateJwkThumbprint } from 'jose'
import { spiffeId } from '../../src/identity/workload.ts'
import type { Signer } from './bodies.ts'

export const trustDomain = 'stint.bench'

const generate = promisify(generateKeyPair)

/** Makes workloads of these names, each with an ES256 key of its own. */
export async function createSigners(names: readonly string[]): Promise<Signer[]> {
  const signers: Signer[] = []
  for (const name of names) {
    const { privateKey } = await generate('ec', { namedCurve: 'P-256' })
    const jwk = privateKey.export({ format: 'jwk' })
    signers.push({ clientId: spiffeId(trustDomain, name), kid: await calculateJwkThumbprint(publicPartOf(jwk)), jwk })
  }
  return signers
}

/** The members that everybody may know. */
export function publicPartOf({ kty = '', crv = '', x = '', y = '' }: Signer['jwk']): { kty: string; crv: string; x: string; y: string } {
  return { kty, crv, x, y }
}
