import { randomBytes } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { createSealer, unwrapSealingKey, wrapSealingKey, type Sealed } from '../../src/crypto/seal.ts'
import { BrokerError } from '../../src/kernel/errors.ts'

const key1 = randomBytes(32)
const key2 = randomBytes(32)
const sealer = createSealer(new Map([[1, key1], [2, key2]]), 2)
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
    const fixed = createSealer(new Map([[1, key1]]), 1, (bytes) => new Uint8Array(bytes).fill(7))
    expect(Buffer.from(fixed.seal('x', place).ciphertext, 'base64url').subarray(0, 12)).toEqual(Buffer.alloc(12, 7))
    const short = createSealer(new Map([[1, key1]]), 1, () => new Uint8Array(8))
    expect(() => short.seal('x', place)).toThrow(BrokerError)
  })

  test('opens under an older key as long as it is there', () => {
    const old = createSealer(new Map([[1, key1]]), 1).seal('x', place)
    expect(Buffer.from(sealer.open(old, place)).toString()).toBe('x')
    const withoutOld = createSealer(new Map([[2, key2]]), 2)
    expect(failureOf(() => withoutOld.open(old, place))).toBe(closed)
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
    ['as an unknown version', { ...sealed, version: 3 }, place],
    ['as no version', { ...sealed, version: Number.NaN }, place],
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
    const other = createSealer(new Map([[2, key1]]), 2)
    expect(failureOf(() => other.open(sealed, place))).toBe(closed)
  })
})

describe('the sealing key', () => {
  const rootKey = randomBytes(32)

  test('unwraps under the root key that wrapped it', () => {
    const wrapped = wrapSealingKey(rootKey, key1, 1)
    expect(wrapped.version).toBe(1)
    expect(Buffer.from(unwrapSealingKey(rootKey, wrapped))).toEqual(key1)
  })

  test('does not unwrap otherwise, and the operator learns what to do', () => {
    const wrapped = wrapSealingKey(rootKey, key1, 1)
    const message = /^config_invalid: The root key does not open .* Give the one it was set up with/
    expect(failureOf(() => unwrapSealingKey(randomBytes(32), wrapped))).toMatch(message)
    expect(failureOf(() => unwrapSealingKey(rootKey, { ...wrapped, version: 2 }))).toMatch(message)
    expect(failureOf(() => unwrapSealingKey(rootKey, { ...wrapped, ciphertext: '' }))).toMatch(message)
  })

  test('is never taken for the value of a row, nor a row for a key', () => {
    const underRoot = createSealer(new Map([[1, rootKey]]), 1)
    expect(failureOf(() => underRoot.open(wrapSealingKey(rootKey, key1, 1), { table: '', row: '' }))).toBe(closed)
    expect(failureOf(() => unwrapSealingKey(rootKey, underRoot.seal(key1, place)))).toMatch(/^config_invalid/)
  })

  const wrong: [string, () => unknown][] = [
    ['a short root key', () => wrapSealingKey(randomBytes(16), key1, 1)],
    ['a short sealing key', () => wrapSealingKey(rootKey, randomBytes(16), 1)],
    ['version 0', () => wrapSealingKey(rootKey, key1, 0)],
    ['version 1.5', () => wrapSealingKey(rootKey, key1, 1.5)],
    ['a sealer with a short key', () => createSealer(new Map([[1, randomBytes(24)]]), 1)],
    ['a sealer with a key of version -1', () => createSealer(new Map([[-1, key1]]), -1)],
    ['a sealer without its current key', () => createSealer(new Map([[1, key1]]), 2)],
  ]
  test.each(wrong)('is refused: %s', (_name, run) => {
    expect(failureOf(run)).toMatch(/^internal: /)
  })
})
