import fc from 'fast-check'
import { expect, test } from 'vitest'
import { formatDuration, parseDuration } from '../../src/kernel/duration.ts'

test.for<[string, number]>([
  ['1s', 1],
  ['45s', 45],
  ['10m', 600],
  ['1h', 3600],
  ['90d', 7_776_000],
  ['999999999s', 999_999_999],
])('%s is %d seconds', ([text, seconds]) => {
  expect(parseDuration(text)).toBe(seconds)
})

test.for(['', '0s', '00s', '01m', '-1s', '+1s', '1', 's', '1.5h', '1e3s', '10M', '1w', '1h30m', ' 1s', '1s ', '1 s', '1s\n', '1000000000s', '١s'])(
  '%j is no duration',
  (text) => {
    expect(parseDuration(text)).toBeUndefined()
  },
)

test.for<[number, string]>([
  [0, '0s'],
  [59, '59s'],
  [60, '1m'],
  [90, '90s'],
  [600, '10m'],
  [3600, '1h'],
  [5400, '90m'],
  [86_400, '1d'],
  [172_801, '172801s'],
])('%d seconds are written %s', ([seconds, text]) => {
  expect(formatDuration(seconds)).toBe(text)
})

test('What is written is read back exactly', () => {
  fc.assert(fc.property(fc.integer({ min: 1, max: 999_999_999 }), (seconds) => void expect(parseDuration(formatDuration(seconds))).toBe(seconds)))
})
