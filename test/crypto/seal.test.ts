import { randomBytes } from 'node:crypto'
import { inspect } from 'node:util'
import { describe, expect, test } from 'vitest'
import { createSealingRing, importKey, unwrapSealingKey, wrapSealingKey, type Sealed, type SealingRing } from '../../src/crypto/seal.ts'
import { BrokerError } from '../../src/kernel/errors.ts'
import type { RandomBytes } from '../../src/kernel/ids.ts'

const key1 = randomBytes(32)
const key2 = randomBytes(32)

/** A ring of keys that seal since ever. */
function createSealer(keys: Readonly<Record<number, Uint8Array>>, random?: RandomBytes): SealingRing {
  const ring = createSealingRing(() => 0, random)
  for (const [version, key] of Object.entries(keys)) ring.add({ version: Number(version), key: importKey(key), sealsFromMs: 0 })
  return ring
}

const sealer = createSealer({ 1: key1, 2: key2 })
const place = { table: 'signing_keys', row: 'abc' }

function failureOf(run: () => unknown): string {
  try {
    run()
  } catch (error) {
    if (error instanceof BrokerError) return `${error.code}: ${error.message}`
    throw error
  }
  return 'opened'
}

const closed = 'internal: A sealed value could not be handled.'

describe('a sealed value', () => {
  const texts: [string, string | Uint8Array][] = [
    ['text', 'a secret ✓'],
    ['bytes', randomBytes(100)],
    ['nothing', ''],
    ['much', randomBytes(100_000)],
  ]
  test.each(texts)('opens to what was sealed: %s', (_name, plaintext) => {
    const sealed = sealer.seal(plaintext, place)
    expect(sealed.version).toBe(2)
    expect(Buffer.from(sealer.open(sealed, place))).toEqual(Buffer.from(plaintext))
  })

  test('is nonce, ciphertext and tag, and shows nothing of the plaintext', () => {
    const { ciphertext } = sealer.seal('plaintext', place)
    const bytes = Buffer.from(ciphertext, 'base64url')
    expect(bytes.length).toBe(12 + 9 + 16)
    expect(bytes.toString('latin1')).not.toContain('plaintext')
  })

  test('has a fresh nonce each time', () => {
    const nonces = Array.from({ length: 50 }, () => sealer.seal('x', place).ciphertext.slice(0, 16))
    expect(new Set(nonces).size).toBe(50)
  })

  test('takes its nonce from the random source', () => {
    const fixed = createSealer({ 1: key1 }, (bytes) => new Uint8Array(bytes).fill(7))
    expect(Buffer.from(fixed.seal('x', place).ciphertext, 'base64url').subarray(0, 12)).toEqual(Buffer.alloc(12, 7))
    const short = createSealer({ 1: key1 }, () => new Uint8Array(8))
    expect(() => short.seal('x', place)).toThrow(BrokerError)
  })

  test('opens under an older key as long as it is there', () => {
    const old = createSealer({ 1: key1 }).seal('x', place)
    const ring = createSealer({ 1: key1, 2: key2 })
    expect(Buffer.from(ring.open(old, place)).toString()).toBe('x')
    ring.forget(1)
    expect([ring.find(1), ring.find(2)?.version]).toEqual([undefined, 2])
    expect(failureOf(() => ring.open(old, place))).toBe('internal: A sealed value could not be handled. (this process has no sealing key of version 1)')
  })

  test('is sealed under the newest key whose time has come', () => {
    let nowMs = 100
    const ring = createSealingRing(() => nowMs)
    for (const [version, sealsFromMs] of [[3, 300], [1, 100], [2, 200]] as const) ring.add({ version, sealsFromMs, key: importKey(key1) })
    const versions = [99, 100, 199, 200, 299, 300, 250].map((ms) => {
      nowMs = ms
      return ms < 100 ? failureOf(() => ring.seal('x', place)) : ring.seal('x', place).version
    })
    expect(versions).toEqual([expect.stringContaining('no sealing key has its time'), 1, 1, 2, 2, 3, 2])
  })
})

describe('a sealed value does not open', () => {
  const sealed = sealer.seal('a secret', place)
  const bytes = Buffer.from(sealed.ciphertext, 'base64url')
  const encode = (changed: Buffer): Sealed => ({ version: 2, ciphertext: changed.toString('base64url') })
  const cases: [string, Sealed, typeof place][] = [
    ['in another row', sealed, { ...place, row: 'abd' }],
    ['in another table', sealed, { ...place, table: 'grants' }],
    ['where table and row join to the same text', sealed, { table: 'signing_keysa', row: 'bc' }],
    ['where a quote moves the border', sealed, { table: 'signing_keys","abc', row: '' }],
    ['as another version', { ...sealed, version: 1 }, place],
        ['without its last byte', encode(bytes.subarray(0, -1)), place],
    ['without its tag', encode(bytes.subarray(0, -16)), place],
    ['without its first byte', encode(bytes.subarray(1)), place],
    ['with a byte more', encode(Buffer.concat([bytes, Buffer.from([0])])), place],
    ['as nonce and tag alone', encode(Buffer.alloc(28)), place],
    ['as too little for a tag', encode(bytes.subarray(0, 27)), place],
    ['as too little for a nonce', encode(bytes.subarray(0, 5)), place],
    ['as nothing', encode(Buffer.alloc(0)), place],
    ['with padding', { version: 2, ciphertext: `${sealed.ciphertext}=` }, place],
    ['with white space', { version: 2, ciphertext: `${sealed.ciphertext}\n` }, place],
  ]
  test.each(cases)('%s', (_name, value, where) => {
    expect(failureOf(() => sealer.open(value, where))).toBe(closed)
  })

  test('with any one bit flipped', () => {
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const flipped = Buffer.from(bytes)
      flipped.writeUInt8(flipped.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3)
      expect(failureOf(() => sealer.open(encode(flipped), place))).toBe(closed)
    }
  })

  test('under the same version of another key', () => {
    const other = createSealer({ 2: key1 })
    expect(failureOf(() => other.open(sealed, place))).toBe(closed)
  })
})

describe('the sealing key', () => {
  const rootKey = importKey(randomBytes(32))
  const sealingKey = importKey(key1)

  test('unwraps under the root key that wrapped it, as the version that it was wrapped as', () => {
    const wrapped = wrapSealingKey(rootKey, sealingKey, 1)
    expect(unwrapSealingKey(rootKey, wrapped, 1)?.equals(sealingKey)).toBe(true)
    expect(unwrapSealingKey(importKey(randomBytes(32)), wrapped, 1)).toBeUndefined()
    expect(unwrapSealingKey(rootKey, wrapped, 2)).toBeUndefined()
    expect(unwrapSealingKey(rootKey, '', 1)).toBeUndefined()
  })

  test('is never taken for the value of a row, nor a row for a key', () => {
    const bytes = randomBytes(32)
    const underRoot = createSealer({ 1: bytes })
    expect(failureOf(() => underRoot.open({ version: 1, ciphertext: wrapSealingKey(importKey(bytes), sealingKey, 1) }, { table: '', row: '' }))).toBe(closed)
    expect(unwrapSealingKey(importKey(bytes), underRoot.seal(key1, place).ciphertext, 1)).toBeUndefined()
  })

  test('shows nothing of itself when it is printed', () => {
    for (const shown of [inspect(sealingKey), JSON.stringify(sealingKey), String(sealingKey)]) {
      expect(shown).not.toContain(key1.toString('hex').slice(0, 12))
      expect(shown).not.toContain(key1.toString('base64').slice(0, 12))
    }
  })

  const wrong: [string, () => unknown][] = [
    ['a key that is too short', () => importKey(randomBytes(16))],
    ['version 0', () => wrapSealingKey(rootKey, sealingKey, 0)],
    ['version 1.5', () => wrapSealingKey(rootKey, sealingKey, 1.5)],
    ['a key of version -1', () => createSealer({ '-1': key1 })],
    ['no key at all', () => createSealer({}).seal('x', place)],
  ]
  test.each(wrong)('is refused: %s', (_name, run) => {
    expect(failureOf(run)).toMatch(/^internal: /)
  })
})
