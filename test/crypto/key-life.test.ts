import { describe, expect, test } from 'vitest'
import { findDueSteps, findSigning, keyStatus, publishAheadMs, type KeyStatus } from '../../src/crypto/key-life.ts'

const dayMs = 86_400_000
const rotateAfterMs = 30 * dayMs

interface Key {
  readonly kid: string
  readonly createdAtMs: number
  readonly signFromMs: number
  readonly verifyUntilMs?: number
  readonly erased: boolean
}

function key(kid: string, signFromMs: number, rest: Partial<Key> = {}): Key {
  return { kid, createdAtMs: signFromMs, signFromMs, erased: false, ...rest }
}

// `a` signs from 0; `b` is published before 1,000, signs from there; `a` ends at 2,000.
const overlap = [key('a', 0, { verifyUntilMs: 2000 }), key('b', 1000, { createdAtMs: 500 })]

test.each<[number, KeyStatus, KeyStatus]>([
  [500, 'signing', 'next'],
  [999, 'signing', 'next'],
  [1000, 'verifying', 'signing'],
  [1999, 'verifying', 'signing'],
  [2000, 'ended', 'signing'],
])('at %i the old key is %s and the new one %s', (nowMs, a, b) => {
  for (const keys of [overlap, overlap.toReversed()]) {
    const statuses = new Map(keys.map((one) => [one.kid, keyStatus(one, keys, nowMs)]))
    expect([statuses.get('a'), statuses.get('b')]).toEqual([a, b])
    expect(findSigning(keys, nowMs)?.kid).toBe(a === 'signing' ? 'a' : 'b')
  }
})

test('of keys that ended, none signs, also where no other one does', () => {
  expect(findSigning([key('a', 0, { verifyUntilMs: 10 })], 10)).toBeUndefined()
  expect(findSigning([], 0)).toBeUndefined()
})

describe('What is due', () => {
  const due = rotateAfterMs - publishAheadMs
  const ended = key('a', 0, { verifyUntilMs: 100 })
  const erased = { ...ended, erased: true }
  const cases: readonly (readonly [string, readonly Key[], number, { successor: boolean; replaced: string[]; ended: string[] }])[] = [
    ['without keys', [], 0, { successor: true, replaced: [], ended: [] }],
    ['with a young key', [key('a', 0)], due - 1, { successor: false, replaced: [], ended: [] }],
    ['as early as caches need', [key('a', 0)], due, { successor: true, replaced: [], ended: [] }],
    ['while one waits to sign', [key('a', 0), key('b', rotateAfterMs)], rotateAfterMs - 1, { successor: false, replaced: [], ended: [] }],
    ['once it has taken over', [key('a', 0), key('b', rotateAfterMs)], rotateAfterMs, { successor: false, replaced: ['a'], ended: [] }],
    ['from several', [key('a', 0), key('b', 1), key('c', 2)], 2, { successor: false, replaced: ['a', 'b'].toReversed(), ended: [] }],
    ['while the old one verifies', [key('a', 0, { verifyUntilMs: 100 }), key('b', 50)], 99, { successor: false, replaced: [], ended: [] }],
    ['once the old one has ended', [ended, key('b', 50)], 100, { successor: false, replaced: [], ended: ['a'] }],
    ['once it is erased', [erased, key('b', 50)], 100, { successor: false, replaced: [], ended: [] }],
    ['where only erased keys are left', [erased], 100, { successor: true, replaced: [], ended: [] }],
    ['of a waiting key that was ended', [key('a', 0), key('b', 1000, { verifyUntilMs: 10 })], 1000, { successor: false, replaced: [], ended: ['b'] }],
  ]
  test.each(cases)('%s', (_, keys, nowMs, expected) => {
    const { successor, replaced, ended } = findDueSteps(keys, nowMs, rotateAfterMs)
    expect({ successor, replaced: replaced.map(({ kid }) => kid), ended: ended.map(({ kid }) => kid) }).toEqual(expected)
  })
})
