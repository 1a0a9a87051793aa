import { expect, test } from 'vitest'
import { createPace } from '../../src/broker/pace.ts'

test('A backlog has a quarter of the time, and no rest is longer than a second', () => {
  const pace = createPace()
  expect(pace.restMs('ledger', 8, 40)).toBe(120)
  expect(pace.restMs('ledger', 8, 0)).toBe(0)
  expect(pace.restMs('ledger', 8, 20_000)).toBe(1_000)
})

test('Where as much is lent as ended there is no rest, for each tool by itself', () => {
  const pace = createPace()
  for (let i = 0; i < 8; i++) pace.countLent('ledger')
  expect(pace.restMs('docs', 8, 40)).toBe(120)
  expect(pace.restMs('ledger', 8, 40)).toBe(0)
  // They count once.
  expect(pace.restMs('ledger', 8, 40)).toBe(120)
  for (let i = 0; i < 7; i++) pace.countLent('ledger')
  expect(pace.restMs('ledger', 8, 40)).toBe(120)
})
