import { createPublicKey, type KeyObject } from 'node:crypto'
import type { WorkloadKey } from './workload.ts'

/** Imports a workload's public key, or hands out the one imported before. */
export type ImportWorkloadKey = (key: WorkloadKey) => KeyObject

/**
 * Remembers the `keysMax` keys that were used last. A `kid` is its key's thumbprint, so what is remembered under it can
 * never become wrong; whether the key may still be used is not remembered here (invariant 13).
 */
export function createWorkloadKeyCache(keysMax: number): ImportWorkloadKey {
  const imported = new Map<string, KeyObject>()
  return ({ kid, jwk }) => {
    const known = imported.get(kid)
    const key = known ?? importPublicKey(jwk)
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
export function importPublicKey(jwk: Readonly<Record<string, string>>): KeyObject {
  return createPublicKey({ key: { ...jwk }, format: 'jwk' })
}
