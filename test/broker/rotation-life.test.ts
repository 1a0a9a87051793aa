import { describe, expect, test } from 'vitest'
import { failedRunDelayMs, findMissed, givesUp, graceMs, isToRetire, nextLookMs, nextStep, planOrder, stateOf, type RotationOrder } from '../../src/broker/rotation-life.ts'
import type { RotationChange, RotationReason, RotationStep, StoredRotation } from '../../src/storage/rotations.ts'

const [minute, hour, day] = [60_000, 3_600_000, 86_400_000]
const now = Date.UTC(2026, 0, 15, 12)
const scheduled = { everySeconds: 30 * 86_400, policySet: 'set' }
const idle: StoredRotation = { name: 'billing', tool: 'billing', scheduled, version: 'v2', leaked: false, retireLeaked: false, tries: 0, failures: 0, nextAtMs: now + day, dueAtMs: now + day }
const run = (step: RotationStep, reason: RotationReason = 'schedule') => ({ run: { id: 'r1', step, reason } })

describe('A rotation', () => {
  test('takes its steps in order', () => {
    expect((['create', 'set', 'test'] as const).map(nextStep)).toEqual(['set', 'test', 'finish'])
  })

  test.each<[string, Partial<StoredRotation>, boolean]>([
    ['nothing was replaced', {}, false],
    ['not yet', { replaced: 'v1', retireAtMs: now + 1 }, false],
    ['its time has come', { replaced: 'v1', retireAtMs: now }, true],
    ['another run cannot wait for its place', { replaced: 'v1', retireAtMs: now + 1, ...run('order', 'leak'), leaked: true }, true],
    ['another run can wait for its place', { replaced: 'v1', retireAtMs: now + 1, ...run('order', 'request') }, false],
    ['it is retired', { replaced: 'v1', ...run('order') }, false],
    ['a run that has begun has retired it', { replaced: 'v1', retireAtMs: now + 1, ...run('set') }, false],
  ])('retires what was replaced: %s', (_, more, expected) => {
    expect(isToRetire({ ...idle, ...more }, now)).toBe(expected)
  })

  test.each<[string, Parameters<typeof nextLookMs>[0], number]>([
    ['when the next one is due', { nextAtMs: now + hour }, now + hour],
    ['at once where that was missed', { nextAtMs: now - hour }, now],
    ['once a day', { nextAtMs: now + 30 * day }, now + day],
    ['when something is to be retired', { nextAtMs: now + 30 * day, retireAtMs: now + minute }, now + minute],
  ])('is looked at %s', (_, row, expected) => {
    expect(nextLookMs(row, now)).toBe(expected)
  })

  test.each<[RotationStep | undefined, number, 'nothing_done' | 'unknown', boolean]>([
    ['set', 9, 'unknown', false],
    ['create', 10, 'unknown', true],
    ['set', 10, 'nothing_done', true],
    ['test', 12, 'unknown', true],
    ['finish', 10, 'nothing_done', true],
    ['finish', 100, 'unknown', false],
    ['abandon', 100, 'nothing_done', false],
    ['order', 100, 'unknown', false],
    [undefined, 100, 'unknown', false],
  ])('whose step %s has failed %i times (%s) is given up: %s', (step, tries, outcome, expected) => {
    expect(givesUp(step, tries, outcome)).toBe(expected)
  })

  test('that fails again and again begins more and more seldom', () => {
    expect([1, 2, 3, 4, 5, 50].map((failures) => failedRunDelayMs(failures) / minute)).toEqual([5, 15, 45, 135, 360, 360])
  })

  test.each([
    [3_600, hour],
    [86_400, 2.4 * hour],
    [7 * 86_400, 16.8 * hour],
    [30 * 86_400, day],
    [365 * 86_400, day],
  ])('of every %i s is overdue after %i ms', (everySeconds, expected) => {
    expect(graceMs(everySeconds)).toBe(expected)
    const row = { scheduled: { everySeconds, policySet: 'set' }, nextAtMs: now }
    expect([findMissed(row, now + expected - 1), findMissed(row, now + expected)]).toEqual([undefined, now])
    expect(findMissed({ nextAtMs: now }, now + 100 * day)).toBeUndefined()
  })

  test.each<[string, Partial<StoredRotation>, string]>([
    ['nothing is due', {}, 'idle'],
        ['it could not be looked at', { problem: 'p', tries: 1 }, 'waiting'],
    ['it is due', { ...run('set'), dueAtMs: now }, 'running'],
    ['somebody is at it', { ...run('set'), dueAtMs: now + minute, owner: 'p1', leaseUntilMs: now + minute }, 'running'],
    ['who was at it is gone', { ...run('set'), dueAtMs: now + minute, owner: 'p1', leaseUntilMs: now }, 'waiting'],
    ['it is tried again', { ...run('set'), problem: 'p', tries: 1 }, 'waiting'],
    ['a run came to nothing', { failures: 1, problem: 'p' }, 'failed'],
    ['and is ordered again', { ...run('order', 'leak'), failures: 1, problem: 'p' }, 'failed'],
    ['and its clean-up did not work', { ...run('abandon'), failures: 1, problem: 'p' }, 'failed'],
    ['and another one is under way', { ...run('set'), failures: 1, dueAtMs: now }, 'running'],
  ])('stands: %s', (_name, more, expected) => {
    expect(stateOf({ ...idle, ...more }, now)).toBe(expected)
    const { scheduled: _, ...dismissed } = { ...idle, ...more }
    expect(stateOf(dismissed, now)).toBe(expected === 'idle' ? 'unmanaged' : expected)
  })
})

describe('An order', () => {
  const [revocation, leak, request] = [{ reason: 'revocation', id: 'r2' }, { reason: 'leak', id: 'r2' }, { reason: 'request', id: 'r2' }] as const
  const ordered = (reason: RotationReason, leaked: boolean): RotationChange => ({ run: { id: 'r2', step: 'order', reason }, leaked, dueAtMs: now, nextAtMs: now })

  test.each<[string, Partial<StoredRotation>, RotationOrder, RotationChange | undefined]>([
    ['begins a run', {}, revocation, ordered('revocation', true)],
    ['of the version in force, too', {}, { ...revocation, version: 'v2' }, ordered('revocation', true)],
    ['of a version that nobody knows, too', {}, { ...revocation, version: 'v9' }, ordered('revocation', true)],
    ['without a leak lets holders keep it', {}, request, ordered('request', false)],
    ['does not put off what is due already', { nextAtMs: now - hour }, leak, { ...ordered('leak', true), nextAtMs: now - hour }],
    ['of the version before retires that one', { replaced: 'v1', retireAtMs: now + hour }, { ...revocation, version: 'v1' }, { retireAtMs: now, retireLeaked: true, dueAtMs: now }],
    ['of the version before that is being retired, but not cut off', { replaced: 'v1', retireAtMs: now }, { ...revocation, version: 'v1' }, { retireAtMs: now, retireLeaked: true, dueAtMs: now }],
    ['of the version before that is being cut off does nothing', { replaced: 'v1', retireAtMs: now, retireLeaked: true }, { ...revocation, version: 'v1' }, undefined],
    ['of a version that is retired does nothing', { replaced: 'v1' }, { ...revocation, version: 'v1' }, undefined],
    ['joins a run that waits', run('order', 'leak'), request, undefined],
    ['joins one of its kind', { ...run('order', 'revocation'), leaked: true }, { ...revocation, version: 'v2' }, undefined],
    ['makes a run that was due urgent', run('order'), revocation, { run: { id: 'r1', step: 'order', reason: 'revocation' }, leaked: true, nextAtMs: now, dueAtMs: now }],
    ['makes one that is under way cut off', run('test'), { ...revocation, version: 'v2' }, { run: { id: 'r1', step: 'test', reason: 'revocation' }, leaked: true, nextAtMs: now }],
    ['leaves one to its process', { ...run('order'), owner: 'p1' }, leak, { run: { id: 'r1', step: 'order', reason: 'leak' }, leaked: true, nextAtMs: now }],
    ['of what the run makes has another one follow', run('finish'), { ...revocation, version: 'v3' }, { again: 'revocation' }],
    ['of it once more does nothing', { ...run('finish'), again: 'revocation' }, { ...revocation, version: 'v3' }, undefined],
  ])('%s', (_, more, order, expected) => {
    expect(planOrder({ ...idle, ...more }, order, now)).toEqual(expected)
  })
})
