import fc from 'fast-check'
import { expect, test } from 'vitest'
import { formatTime, parseTime, systemClock } from '../../src/kernel/clock.ts'

const noon = Date.UTC(2026, 10, 21, 12)

test.for<[string, number]>([
  ['2026-11-21', Date.UTC(2026, 10, 21)],
  ['2026-11-21T12:00:00Z', noon],
  ['2026-11-21T12:00:00.5Z', noon + 500],
  ['2026-11-21T12:00:00.123Z', noon + 123],
  ['2026-11-21T12:00:00.123999999Z', noon + 123],
  ['2026-11-21T12:00:00+00:00', noon],
  ['2026-11-21T12:00:00-00:00', noon],
  ['2026-11-21T13:30:00+01:30', noon],
  ['2026-11-21T00:30:00-11:30', noon],
  ['2026-11-22T11:59:00+23:59', noon],
  ['2026-11-21T23:59:59Z', Date.UTC(2026, 10, 21, 23, 59, 59)],
  ['2024-02-29', Date.UTC(2024, 1, 29)],
  ['2000-02-29T00:00:00Z', Date.UTC(2000, 1, 29)],
  ['0000-02-29', Date.parse('0000-02-29T00:00:00Z')],
  ['9999-12-31T23:59:59.999Z', Date.parse('9999-12-31T23:59:59.999Z')],
  ['1969-12-31T23:59:59.999Z', -1],
])('%s is a time', ([text, ms]) => {
  expect(parseTime(text)).toBe(ms)
})

test.for([
  '',
  ' 2026-11-21',
  '2026-11-21 ',
  '2026-11-21\n',
  '2026-11',
  '2026-11-21Z',
  '2026-11-21T12:00:00',
  '2026-11-21T12:00Z',
  '2026-11-21 12:00:00Z',
  '2026-11-21t12:00:00z',
  '2026-11-21T12:00:00,5Z',
  '2026-11-21T12:00:00.Z',
  '2026-11-21T12:00:00.1234567890Z',
  '2026-11-21T12:00:00+0100',
  '2026-11-21T12:00:00+01',
  '2026-11-21T12:00:00+24:00',
  '2026-11-21T12:00:00+01:60',
  '2026-11-21T24:00:00Z',
  '2026-11-21T24:00:00.5Z',
  '2026-11-21T12:60:00Z',
  '2026-11-21T12:00:60Z',
  '2026-00-21',
  '2026-13-21',
  '2026-11-00',
  '2026-11-31',
  '2026-02-29',
  '2026-02-30T12:00:00Z',
  '1900-02-29',
  '+002026-11-21',
  '12026-11-21',
  '9999-12-31T23:59:59-00:01',
  '0000-01-01T00:00:00+00:01',
  '1763726400000',
  '٢٠٢٦-11-21',
  'yesterday',
])('%j is none', (text) => {
  expect(parseTime(text)).toBeUndefined()
})

test('A time is written with three decimals in UTC, and sorts as text', () => {
  expect(formatTime(noon)).toBe('2026-11-21T12:00:00.000Z')
  const ms = fc.integer({ min: Date.parse('0000-01-01T00:00:00Z'), max: Date.parse('9999-12-31T23:59:59.999Z') })
  fc.assert(
    fc.property(ms, ms, (a, b) => {
      expect(parseTime(formatTime(a))).toBe(a)
      expect(formatTime(a) < formatTime(b)).toBe(a < b)
    }),
  )
})

test('A time that four digits of year cannot hold is not written', () => {
  for (const ms of [Date.UTC(10_000, 0, 1), Date.parse('0000-01-01T00:00:00Z') - 1, Number.NaN, Number.POSITIVE_INFINITY]) {
    expect(() => formatTime(ms)).toThrow(RangeError)
  }
})

test('The clock of the system is the time of day', () => {
  expect(Math.abs(systemClock.nowMs() - Date.now())).toBeLessThan(1000)
})
