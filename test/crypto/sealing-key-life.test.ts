import { describe, expect, test } from 'vitest'
import { entriesPerKeyMax, findDueSealingSteps, findSealing, replacedForMs, resealAfterMs, sealAheadMs, sealingKeyStatus } from '../../src/crypto/sealing-key-life.ts'

const rotateAfterMs = 1_000_000_000
const key = (version: number, sealsFromMs: number, more: { readonly erased?: boolean; readonly createdIndex?: number } = {}) => ({ version, sealsFromMs, createdIndex: 0, erased: false, ...more })
type Key = ReturnType<typeof key>

/** What is due, in short: a successor, the key that seals, those that are replaced, whether these may go. */
function due(keys: readonly Key[], timeMs: number, index = 0) {
  const { successor, sealing, replaced, erasable } = findDueSealingSteps(keys, { index, timeMs }, rotateAfterMs)
  return [successor, sealing?.version, replaced.map(({ version }) => version), erasable]
}

describe('A sealing key', () => {
  const one = [key(1, 0)]
  const two = [...one, key(2, 5_000_000)]
  const cases: [string, readonly Key[], number, number, ReturnType<typeof due>][] = [
    ['is made where there is none', [], 0, 0, [true, undefined, [], false]],
    ['seals', one, 1, 0, [false, 1, [], false]],
    ['is alone, and nothing is to be erased for it', one, replacedForMs, 0, [false, 1, [], true]],
    ['seals until its time is over', one, rotateAfterMs - 1, 0, [false, 1, [], true]],
    ['has a successor when its time is over', one, rotateAfterMs, 0, [true, 1, [], true]],
    ['has a successor when the log has grown by what one key may seal', one, 1, entriesPerKeyMax, [true, 1, [], false]],
    ['is counted from the entry at which it was made', [key(1, 0, { createdIndex: 1 })], 1, entriesPerKeyMax, [false, 1, [], false]],
    ['seals on while its successor waits, and no other one is made', two, 4_999_999, entriesPerKeyMax, [false, 1, [], false]],
    ['is replaced when the successor begins', two, 5_000_000, 0, [false, 2, [1], false]],
    ['stays for a while after that', two, 5_000_000 + replacedForMs - 1, 0, [false, 2, [1], false]],
    ['may go then', two, 5_000_000 + replacedForMs, 0, [false, 2, [1], true]],
    ['is replaced by the newest of several', [...two, key(3, 6_000_000)], 6_000_000, 0, [false, 3, [1, 2], false]],
    ['that is erased is done with', [key(1, 0, { erased: true }), key(2, 5_000_000)], 5_000_000, 0, [false, 2, [], false]],
    ['does not seal again because the clock went back', [key(1, 0, { erased: true }), key(2, 5_000_000)], 4_000_000, 0, [false, undefined, [], false]],
  ]
  test.each(cases)('%s', (_name, keys, timeMs, index, expected) => {
    expect(due(keys, timeMs, index)).toEqual(expected)
    // In whatever order they come.
    expect(due(keys.toReversed(), timeMs, index).slice(0, 2)).toEqual(expected.slice(0, 2))
  })

  test('has what it replaces sealed anew only when there was time to see that every process opens it', () => {
    const resealable = (timeMs: number) => findDueSealingSteps(two, { index: 0, timeMs }, rotateAfterMs).resealable
    expect([5_000_000, 5_000_000 + resealAfterMs - 1, 5_000_000 + resealAfterMs].map(resealable)).toEqual([false, false, true])
    expect(replacedForMs - resealAfterMs).toBe(3_600_000)
  })

  test('is shown where it is in its life', () => {
    const keys = [key(1, 0, { erased: true }), key(2, 10), key(3, 20), key(4, 30)]
    expect(keys.map((one) => sealingKeyStatus(one, keys, 25))).toEqual(['erased', 'replaced', 'sealing', 'next'])
    expect(findSealing(keys, 25)?.version).toBe(3)
  })

  test('seals well after every process has looked for it, and stays for much longer than that once replaced', () => {
    expect(sealAheadMs).toBeGreaterThanOrEqual(10_000)
    expect(replacedForMs).toBeGreaterThan(100 * sealAheadMs)
    expect(4 * entriesPerKeyMax).toBeLessThanOrEqual(2 ** 32)
  })
})
