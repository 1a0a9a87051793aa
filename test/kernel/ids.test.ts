import fc from 'fast-check'
import { expect, test } from 'vitest'
import { newId, readIdTime, systemRandom } from '../../src/kernel/ids.ts'

const nowMs = Date.UTC(2026, 0, 15, 12)

test('An id is its prefix, ten characters of time and sixteen of chance', () => {
  const id = newId('grant', nowMs, (bytes) => Uint8Array.from({ length: bytes }, (_, i) => i * 2))
  expect(id).toMatch(/^grant_[0-9a-hjkmnp-tv-z]{26}$/)
  expect(id).toHaveLength(32)
  expect(id.slice(6, 16)).toBe('01kf0rdqg0')
  expect(id.slice(16)).toBe('02468acegjmprtwy')
})

test('The alphabet is Crockford’s, every character as likely as another', () => {
  const seen = new Map<string, number>()
  for (let byte = 0; byte < 256; byte++) {
    const last = newId('x', nowMs, (bytes) => new Uint8Array(bytes).fill(byte)).slice(-1)
    seen.set(last, (seen.get(last) ?? 0) + 1)
  }
  expect([...seen.keys()].toSorted().join('')).toBe('0123456789abcdefghjkmnpqrstvwxyz')
  expect(new Set(seen.values())).toEqual(new Set([8]))
})

test('Ids sort as the times at which they were made', () => {
  const ms = fc.integer({ min: 0, max: 2 ** 48 })
  fc.assert(
    fc.property(ms, ms, (a, b) => {
      fc.pre(a !== b)
      expect(newId('g', a, systemRandom) < newId('g', b, systemRandom)).toBe(a < b)
    }),
  )
})

test('Ids of one instant differ', () => {
  expect(new Set(Array.from({ length: 1000 }, () => newId('g', nowMs, systemRandom))).size).toBe(1000)
})

test('An id tells when it was made, and what is none tells nothing', () => {
  fc.assert(fc.property(fc.integer({ min: 0, max: 2 ** 48 }), (ms) => void expect(readIdTime(newId('grant', ms, systemRandom))).toBe(ms)))
  for (const text of ['', 'grant_', 'grant_01kb', newId('grant', nowMs, systemRandom).toUpperCase(), `${newId('grant', nowMs, systemRandom)}0`, 'grant_0000i000000000000000000000', 'stint:nobody']) {
    expect(readIdTime(text)).toBeUndefined()
  }
})
