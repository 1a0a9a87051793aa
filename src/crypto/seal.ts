import { createCipheriv, createDecipheriv, createSecretKey, type KeyObject } from 'node:crypto'
import { decodeBase64url, encodeBase64url } from '../identity/base64url.ts'
import { BrokerError } from '../kernel/errors.ts'
import { systemRandom, type RandomBytes } from '../kernel/ids.ts'

/** A sealed value: the version of its key, and base64url of nonce (12 bytes), ciphertext and tag (16 bytes). */
export interface Sealed {
  readonly version: number
  readonly ciphertext: string
}

/** The row that a sealed value belongs to. It opens nowhere else. */
export interface SealedPlace {
  readonly table: string
  readonly row: string
}

/** Seals under the current key, and opens under any key that it was given. */
export interface Sealer {
  /** Text is sealed as UTF-8. */
  seal(plaintext: Uint8Array | string, place: SealedPlace): Sealed
  /** The plaintext, or `internal` for a value that is not exactly what was sealed for this row. */
  open(sealed: Sealed, place: SealedPlace): Uint8Array
}

const algorithm = 'aes-256-gcm'
const keyBytes = 32
const nonceBytes = 12
const tagBytes = 16

/**
 * Seals with AES-256-GCM (NIST SP 800-38D) under the sealing key of version `current`; the associated data names table,
 * row and version. Nonces are random, so one key must seal at most 2^32 values (§8.3 there): rotate it long before.
 */
export function createSealer(
  keys: ReadonlyMap<number, Uint8Array>,
  current: number,
  random: RandomBytes = systemRandom,
): Sealer {
  const imported = new Map<number, KeyObject>()
  for (const [version, key] of keys) imported.set(checkVersion(version), importKey(key))
  const sealingKey = imported.get(current)
  if (sealingKey === undefined) throw refuse(`there is no sealing key of the current version ${current}`)
  return {
    seal(plaintext, place) {
      const bytes = typeof plaintext === 'string' ? Buffer.from(plaintext, 'utf8') : plaintext
      return { version: current, ciphertext: encrypt(sealingKey, bytes, nameRow(place, current), random) }
    },
    open(sealed, place) {
      const key = imported.get(sealed.version)
      const plaintext = key && decrypt(key, sealed.ciphertext, nameRow(place, sealed.version))
      if (plaintext === undefined) throw refuse()
      return plaintext
    },
  }
}

/** Wraps a sealing key of 32 bytes under the root key of 32 bytes, for storage. It opens as this version only. */
export function wrapSealingKey(
  rootKey: Uint8Array,
  sealingKey: Uint8Array,
  version: number,
  random: RandomBytes = systemRandom,
): Sealed {
  if (sealingKey.length !== keyBytes) throw refuse('a sealing key is not 32 bytes')
  const data = nameSealingKey(checkVersion(version))
  return { version, ciphertext: encrypt(importKey(rootKey), sealingKey, data, random) }
}

/** Unwraps a sealing key; throws `config_invalid` when this root key did not wrap it, a mistake an operator can mend. */
export function unwrapSealingKey(rootKey: Uint8Array, wrapped: Sealed): Uint8Array {
  const sealingKey = decrypt(importKey(rootKey), wrapped.ciphertext, nameSealingKey(wrapped.version))
  if (sealingKey?.length !== keyBytes) {
    throw new BrokerError({
      code: 'config_invalid',
      publicMessage: "The root key does not open the database's sealing keys. Give the one it was set up with.",
      detail: `sealing key version ${wrapped.version}`,
    })
  }
  return sealingKey
}

// Associated data is a JSON array: its quotes keep table, row and version apart whatever they contain, and its first
// members keep a row's value from ever being taken for a wrapped key.
function nameRow({ table, row }: SealedPlace, version: number): Buffer {
  return Buffer.from(JSON.stringify(['stint', 'row', table, row, version]))
}

function nameSealingKey(version: number): Buffer {
  return Buffer.from(JSON.stringify(['stint', 'sealing-key', version]))
}

function encrypt(key: KeyObject, plaintext: Uint8Array, data: Buffer, random: RandomBytes): string {
  const nonce = random(nonceBytes)
  // A shorter nonce would be accepted by the cipher, and be another construction.
  if (nonce.length !== nonceBytes) throw refuse('the random source gave a nonce of the wrong length')
  const cipher = createCipheriv(algorithm, key, nonce, { authTagLength: tagBytes }).setAAD(data)
  return encodeBase64url(Buffer.concat([nonce, cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]))
}

function decrypt(key: KeyObject, ciphertext: string, data: Buffer): Uint8Array | undefined {
  const bytes = decodeBase64url(ciphertext)
  if (bytes === undefined || bytes.length < nonceBytes + tagBytes) return undefined
  const decipher = createDecipheriv(algorithm, key, bytes.subarray(0, nonceBytes), { authTagLength: tagBytes })
  decipher.setAAD(data).setAuthTag(bytes.subarray(-tagBytes))
  const plaintext = decipher.update(bytes.subarray(nonceBytes, -tagBytes))
  try {
    decipher.final()
  } catch {
    return undefined
  }
  return plaintext
}

function importKey(key: Uint8Array): KeyObject {
  if (key.length !== keyBytes) throw refuse('a key for sealing is not 32 bytes')
  return createSecretKey(key)
}

function checkVersion(version: number): number {
  if (Number.isSafeInteger(version) && version >= 1) return version
  throw refuse('the version of a sealing key is not a whole number from 1')
}

function refuse(detail?: string): BrokerError {
  const publicMessage = 'A sealed value could not be handled.'
  return new BrokerError({ code: 'internal', publicMessage, ...(detail !== undefined && { detail }) })
}
