import { importJWK, type CryptoKey } from 'jose'
import type { WorkloadKey } from './workload.ts'

/** Imports a workload's public key, or hands out the one imported before. */
export type ImportWorkloadKey = (key: WorkloadKey) => Promise<CryptoKey>

/**
 * Remembers the `keysMax` keys that were used last. A `kid` is its key's thumbprint, so what is remembered under it can
 * never become wrong; whether the key may still be used is not remembered here (invariant 13).
 */
export function createWorkloadKeyCache(keysMax: number): ImportWorkloadKey {
  const imported = new Map<string, CryptoKey>()
  return async ({ kid, alg, jwk }) => {
    const known = imported.get(kid)
    const key = known ?? (await importPublicKey(jwk, alg))
    // Inserted anew, so that the first in the map is the one that was not used for longest.
    imported.delete(kid)
    imported.set(kid, key)
    if (imported.size > keysMax) {
      const oldest = imported.keys().next()
      if (oldest.done === false) imported.delete(oldest.value)
    }
    return key
  }
}

/** A public key that was parsed, ready to verify with. */
export async function importPublicKey(jwk: Readonly<Record<string, string>>, alg: string): Promise<CryptoKey> {
  const key = await importJWK({ ...jwk }, alg)
  if (key instanceof Uint8Array) throw new TypeError('a registered key is symmetric')
  return key
}
