import { describe, expect, test } from 'vitest'
import { startRotating, monthMs, passTime, tickMs } from '../broker/rotating.ts'
import { base, bodiesOf, seal, stint, verify, type Event } from './made-log.ts'

const rotation = 'billing'
const begun = (id: string, more: object = {}): Event => ({ type: 'rotation.begun', actor: stint, rotation, id, reason: 'schedule', ...more })
const finished = (id: string, version: string, replaced?: string): Event => ({ type: 'rotation.finished', actor: stint, rotation, id, version, ...(replaced !== undefined && { replaced }) })
const failed = (id: string, more: object = {}): Event => ({ type: 'rotation.failed', actor: stint, rotation, id, step: 'test', detail: 'd', ...more })
const retired = (version: string, more: object = {}): Event => ({ type: 'rotation.retired', actor: stint, rotation, version, ...more })

const problemsOf = (events: readonly Event[]) => verify(seal(bodiesOf([...base, ...events]))).problems.map(({ what }) => what)

describe('Rotations as a log tells of them', () => {
  test.each<[string, Event[]]>([
    ['one after the other', [begun('a'), finished('a', '2', '1'), retired('1'), begun('b'), finished('b', '3', '2')]],
    ['one that fails, and the next', [begun('a'), failed('a'), begun('b'), finished('b', '2')]],
    ['two of different secrets at once', [begun('a'), begun('b', { rotation: 'mail' }), failed('b', { rotation: 'mail' }), failed('a')]],
    ['one that is overdue, and ordered', [{ type: 'rotation.overdue', actor: stint, rotation, due_at: '2026-01-01T00:00:00.000Z' }, { type: 'rotation.ordered', actor: stint, rotation, id: 'a', reason: 'leak' }, begun('a')]],
  ])('may be %s', (_, events) => {
    expect(problemsOf(events)).toEqual([])
  })

  test.each<[string, Event[], string]>([
    ['finished', [finished('a', '2')], 'ends the run a of the rotation billing, which was not under way'],
    ['failed as another one', [begun('a'), failed('b')], 'ends the run b of the rotation billing, which was not under way'],
    ['finished twice', [begun('a'), finished('a', '2'), finished('a', '2')], 'ends the run a of the rotation billing, which was not under way'],
    ['finished as another secret', [begun('a'), failed('a', { rotation: 'mail' })], 'ends the run a of the rotation mail, which was not under way'],
    ['begun while one is under way', [begun('a'), begun('b')], `begins a run of the rotation billing, where that of entry ${base.length} was under way`],
    ['begun twice', [begun('a'), failed('a'), begun('a')], 'begins the run a of the rotation billing once more'],
    ['retired', [retired('1')], 'retires version 1 of the rotation billing, which no rotation had replaced, or which was retired before'],
    ['retired twice', [begun('a'), finished('a', '2', '1'), retired('1'), retired('1')], 'retires version 1 of the rotation billing, which no rotation had replaced, or which was retired before'],
  ])('must not be %s out of place', (_, events, problem) => {
    expect(problemsOf(events)).toEqual([problem])
  })

  test('are in order in the log of a broker', async () => {
    const { broker, vault } = await startRotating('sqlite')
    await passTime(broker, tickMs)
    vault.wrong = 'No.'
    await passTime(broker, monthMs)
    vault.wrong = undefined
    await passTime(broker, 300_000)
    await broker.sendAsAdmin('POST', '/v1/rotations/billing', { leaked: true })
    for (let i = 0; i < 3; i++) await passTime(broker, tickMs)
    const bodies = (await broker.broker.database.read.selectFrom('audit_event').select('body').orderBy('idx').execute()).map(({ body }) => body)
    const { problems, life } = verify(seal(bodies))
    expect([problems, life.entries]).toEqual([[], bodies.length])
    expect(bodies.filter((body) => body.includes('"rotation.retired"'))).toHaveLength(2)
  })
})
