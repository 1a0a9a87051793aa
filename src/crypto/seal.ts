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

/** A sealing key, opened. */
export interface SealingKey {
  readonly version: number
  readonly key: KeyObject
  /** From then on it seals in place of the versions before it. */
  readonly sealsFromMs: number
}

/** The keys that a sealer works with, which come and go while it is in use. */
export interface SealingRing extends Sealer {
  find(version: number): SealingKey | undefined
  add(key: SealingKey): void
  /** What was sealed under this version opens no more. */
  forget(version: number): void
}

const algorithm = 'aes-256-gcm'
const keyBytes = 32
const nonceBytes = 12
const tagBytes = 16

/**
 * Seals with AES-256-GCM (NIST SP 800-38D) under the newest key whose time has come; the associated data names table,
 * row and version. Nonces are random, so one key must seal at most 2^32 values (§8.3 there): rotate it long before.
 */
export function createSealingRing(nowMs: () => number, random: RandomBytes = systemRandom): SealingRing {
  const keys = new Map<number, SealingKey>()
  return {
    find: (version) => keys.get(version),
    add(key) {
      keys.set(checkVersion(key.version), key)
    },
    forget(version) {
      keys.delete(version)
    },
    seal(plaintext, place) {
      const begun = [...keys.values()].filter(({ sealsFromMs }) => sealsFromMs <= nowMs())
      const current = begun.find(({ version }) => version === Math.max(...begun.map((key) => key.version)))
      if (current === undefined) throw refuse('no sealing key has its time to seal now')
      const bytes = typeof plaintext === 'string' ? Buffer.from(plaintext, 'utf8') : plaintext
      return { version: current.version, ciphertext: encrypt(current.key, bytes, nameRow(place, current.version), random) }
    },
    open(sealed, place) {
      const key = keys.get(sealed.version)?.key
      const plaintext = key && decrypt(key, sealed.ciphertext, nameRow(place, sealed.version))
      if (plaintext === undefined) throw refuse(key === undefined ? `this process has no sealing key of version ${sealed.version}` : undefined)
      return plaintext
    },
  }
}

/** The 32 bytes of a key, in the form in which they are kept in memory: it shows nothing of them when it is printed. */
export function importKey(key: Uint8Array): KeyObject {
  if (key.length !== keyBytes) throw refuse('a key for sealing is not 32 bytes')
  return createSecretKey(key)
}

/** Wraps a sealing key under the root key, for storage. It opens as this version only. */
export function wrapSealingKey(rootKey: KeyObject, sealingKey: KeyObject, version: number, random: RandomBytes = systemRandom): string {
  return encrypt(rootKey, sealingKey.export(), nameSealingKey(checkVersion(version)), random)
}

/** The sealing key, or `undefined` where this root key did not wrap it as this version. */
export function unwrapSealingKey(rootKey: KeyObject, wrapped: string, version: number): KeyObject | undefined {
  const sealingKey = decrypt(rootKey, wrapped, nameSealingKey(version))
  return sealingKey?.length === keyBytes ? importKey(sealingKey) : undefined
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

function checkVersion(version: number): number {
  if (Number.isSafeInteger(version) && version >= 1) return version
  throw refuse('the version of a sealing key is not a whole number from 1')
}

function refuse(detail?: string): BrokerError {
  const publicMessage = 'A sealed value could not be handled.'
  return new BrokerError({ code: 'internal', publicMessage, ...(detail !== undefined && { detail }) })
}
