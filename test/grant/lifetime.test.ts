import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { endTriesMax, leaseMs, outboundMsMax, renewedExpiryMs, retryDelayMs } from '../../src/grant/lifetime.ts'

describe('How long after a try that failed the next one is', () => {
  test.each([
    [1, 0, 1_000],
    [1, 1, 500],
    [2, 0, 3_000],
    [2, 0.5, 2_250],
    [5, 0, 81_000],
    [6, 0, 243_000],
    [7, 0, 600_000],
    [11, 0, 600_000],
    [11, 1, 300_000],
    [1_000, 0, 600_000],
  ])('after %d, by the chance %d: %d ms', (tries, chance, ms) => {
    expect(retryDelayMs(tries, chance)).toBe(ms)
  })

  test.each([
    [1, 30, 30_000],
    [1, 0, 1_000],
    [6, 1, 243_000],
    [1, 3_600, 600_000],
    [1, 1_000_000, 600_000],
    [11, 601, 600_000],
  ])('after %d, where the tool asks for %d s: %d ms', (tries, asked, ms) => {
    expect(retryDelayMs(tries, 0, asked)).toBe(ms)
  })

  test('never less than half a second, nor more than ten minutes; not less after more tries', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 2_000 }), fc.double({ min: 0, max: 1, noNaN: true }), fc.integer({ min: 0, max: 1_000_000 }), (tries, chance, asked) => {
        const ms = retryDelayMs(tries, chance, asked)
        expect(ms).toBeGreaterThanOrEqual(500)
        expect(ms).toBeLessThanOrEqual(600_000)
        expect(retryDelayMs(tries + 1, chance, asked)).toBeGreaterThanOrEqual(ms)
      }),
    )
  })

  test('so that all tries together take minutes, not days, and not seconds', () => {
    const total = (chance: number) => Array.from({ length: endTriesMax - 1 }, (_, i) => retryDelayMs(i + 1, chance)).reduce((sum, ms) => sum + ms, 0)
    expect([total(1), total(0)]).toEqual([1_082_000, 2_164_000])
  })
})

test('A process has longer for a mint than any call may take, twice over', () => {
  expect(leaseMs).toBeGreaterThan(2 * outboundMsMax)
})

describe('A grant that is renewed ends', () => {
  const firstIssuedAtMs = 1_000_000
  test.each([
    ['after the time asked for', 600_000, 60, 660_000],
    ['at the end of its longest life', 3_590_000, 60, 3_600_000],
    ['at that very end, asked for to the second', 3_540_000, 60, 3_600_000],
    ['a millisecond before it is over', 3_599_999, 60, 3_600_000],
    ['never again when it is over', 3_600_000, 60, undefined],
    ['never again long after', 9_000_000, 60, undefined],
  ])('%s', (_, afterMs, ttlSeconds, endsAfterMs) => {
    expect(renewedExpiryMs({ firstIssuedAtMs, nowMs: firstIssuedAtMs + afterMs, ttlSeconds, maxSeconds: 3_600 })).toBe(endsAfterMs === undefined ? undefined : firstIssuedAtMs + endsAfterMs)
  })
})
