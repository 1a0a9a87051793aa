import { describe, expect, test } from 'vitest'
import { createRateLimit, type RateLimit } from '../../src/kernel/rate-limit.ts'
import { createTestClock } from '../harness.ts'

/** How often this caller may go on until it has to wait, at most `max` times. */
function exhaust(limit: RateLimit, caller: string, max = 1_000): number {
  for (let count = 0; count < max; count++) {
    if (limit.waitSeconds(caller) !== undefined) return count
    limit.spend(caller)
  }
  return max
}

describe('A rate limit', () => {
  test.each([
    [1, 60],
    [1 / 60, 1],
    [7 / 60, 7],
    [200, 400],
    [3, 6],
    [1_000_000 / 60, 700],
  ])('of %s a second lets %s through at once, and then as many as come back', (perSecond, burst) => {
    const clock = createTestClock()
    const limit = createRateLimit({ clock, perSecond, burst, callersMin: 10 })
    expect(exhaust(limit, 'a')).toBe(burst)
    const waitSeconds = limit.waitSeconds('a') ?? 0
    expect(waitSeconds).toBe(Math.ceil(1 / perSecond))
    clock.advance(waitSeconds * 1000)
    expect(exhaust(limit, 'a')).toBe(Math.min(burst, Math.floor(waitSeconds * perSecond + 1e-6)))
    // However long nothing came, no more than a full bucket is there.
    clock.advance(86_400_000)
    expect(exhaust(limit, 'a')).toBe(burst)
  })

  test('counts each caller by itself, and what is given back as if it had not been', () => {
    const limit = createRateLimit({ clock: createTestClock(), perSecond: 1, burst: 5, callersMin: 10 })
    expect(exhaust(limit, 'a')).toBe(5)
    expect(exhaust(limit, 'b')).toBe(5)
    limit.giveBack('a')
    expect([limit.waitSeconds('a'), limit.waitSeconds('b')]).toEqual([undefined, 1])
    for (let i = 0; i < 100; i++) limit.giveBack('c')
    expect(exhaust(limit, 'c')).toBe(5)
  })

  test('makes whoever went on all the same wait longer, up to a second bucket', () => {
    const clock = createTestClock()
    const limit = createRateLimit({ clock, perSecond: 1, burst: 10, callersMin: 10 })
    for (let i = 0; i < 15; i++) limit.spend('a')
    expect(limit.waitSeconds('a')).toBe(6)
    for (let i = 0; i < 1_000; i++) limit.spend('a')
    clock.advance(0)
    expect(limit.waitSeconds('a')).toBe(11)
  })

  test('is not thrown off by a clock that is set back', () => {
    const clock = createTestClock()
    const limit = createRateLimit({ clock, perSecond: 1, burst: 10, callersMin: 10 })
    exhaust(limit, 'a')
    clock.advance(-86_400_000)
    expect(limit.waitSeconds('a')).toBe(1)
    clock.advance(1_000)
    expect(limit.waitSeconds('a')).toBeUndefined()
  })

  test('forgets nobody before as many others came as it promises, and is bounded', () => {
    const limit = createRateLimit({ clock: createTestClock(), perSecond: 1, burst: 5, callersMin: 1_000 })
    exhaust(limit, 'a')
    for (let i = 0; i < 999; i++) limit.spend(`other ${i}`)
    expect(limit.waitSeconds('a')).toBeDefined()
    // By then it may be forgotten; that it is shows that what is remembered is bounded.
    for (let i = 0; i < 2_000; i++) limit.spend(`more ${i}`)
    expect(limit.waitSeconds('a')).toBeUndefined()
    // Nor is anybody forgotten who goes on.
    exhaust(limit, 'b')
    for (let i = 0; i < 10_000; i++) {
      if (i % 500 === 0) limit.spend('b')
      limit.spend(`again ${i}`)
    }
    expect(limit.waitSeconds('b')).toBeDefined()
  })
})
