import fc from 'fast-check'
import { expect, test } from 'vitest'
import { grantState } from '../../src/grant/grant.ts'
import type { Database } from '../../src/storage/engine.ts'
import {
  countDenialsSince,
  countGrantsSince,
  countRevokedBy,
  findGrant,
  insertRevocation,
  markGrantRevoked,
  type RevocationSelector,
} from '../../src/storage/grants.ts'
import type { Ledger } from '../../src/storage/ledger.ts'
import { createTestDatabase, describeEngines } from '../harness.ts'
import { grantChange, note, openLedger, startMs } from './changes.ts'

async function open(engine: Parameters<Parameters<typeof describeEngines>[1]>[0]) {
  const database = await (await createTestDatabase(engine)).open()
  return { database, ...openLedger(database) }
}

/** Stores a revocation with its entry, and returns its index. */
async function revoke(ledger: Ledger, selector: RevocationSelector): Promise<number> {
  const outcome = await ledger.transact({
    apply: async (tx, { index }) => {
      await insertRevocation(tx, index, selector)
      return { result: index, events: [note('revoked')], raisesEpoch: false }
    },
  })
  return outcome.status === 'recorded' ? outcome.result : -1
}

async function revokedIndexOf(database: Database, id: string): Promise<number | undefined> {
  return (await findGrant(database.read, id))?.revokedIndex
}

describeEngines('Grants', (engine) => {
  test('are found as they were issued, and not otherwise', async () => {
    const { database, ledger } = await open(engine)
    await ledger.append({ events: [note()] })
    await ledger.append(grantChange('grant_1', { task: 'ticket-7', expiresAtMs: startMs + 1 }))
    await ledger.append(grantChange('grant_2'))
    const expected = { workload: 'triage-bot', tool: 'github', audience: 'https://api.github.test', actions: ['issues.read'], issuedAtMs: startMs }
    const first = { ...expected, id: 'grant_1', task: 'ticket-7', issuedIndex: 1, expiresAtMs: startMs + 1 }
    expect(await findGrant(database.read, 'grant_1')).toEqual(first)
    expect(await findGrant(database.read, 'grant_2')).toEqual({ ...expected, id: 'grant_2', issuedIndex: 2, expiresAtMs: startMs + 600_000 })
    expect(await findGrant(database.read, 'grant_3')).toBeUndefined()
    expect(await findGrant(database.read, 'GRANT_1')).toBeUndefined()
  })

  test('end by a revocation of their own, once', async () => {
    const { database, ledger } = await open(engine)
    await ledger.append(grantChange('grant_1'))
    await ledger.append(grantChange('grant_2'))
    const end = (index: number) =>
      ledger.transact({
        apply: async (tx) => {
          await markGrantRevoked(tx, 'grant_1', index)
          return { result: undefined, events: [note()], raisesEpoch: false }
        },
      })
    await end(2)
    await end(3)
    expect(await revokedIndexOf(database, 'grant_1')).toBe(2)
    expect(await revokedIndexOf(database, 'grant_2')).toBeUndefined()
    // A revocation of many that comes later does not change when it ended.
    await revoke(ledger, { workload: 'triage-bot' })
    expect(await revokedIndexOf(database, 'grant_1')).toBe(2)
    expect(await revokedIndexOf(database, 'grant_2')).toBe(4)
  })

  test.for<[string, RevocationSelector, string[]]>([
    ['workload', { workload: 'a' }, ['a', 'a7', 'a_late']],
    ['task', { task: '7' }, ['a7', 'b7']],
    ['time', { beforeMs: startMs + 60_000 }, ['a', 'a7', 'b7']],
    ['the very instant of issue, which is not before', { beforeMs: startMs }, []],
    ['workload and task', { workload: 'b', task: '7' }, ['b7']],
    ['workload and time', { workload: 'a', beforeMs: startMs + 60_000 }, ['a', 'a7']],
    ['task and time', { task: '7', beforeMs: startMs + 1 }, ['a7', 'b7']],
    ['all three', { workload: 'a', task: '7', beforeMs: startMs + 1 }, ['a7']],
    ['a workload that has none', { workload: 'c' }, []],
  ])('issued before it are covered by a revocation by %s', async ([, selector, covered]) => {
    const { database, ledger, clock } = await open(engine)
    await ledger.append(grantChange('a', { workload: 'a' }))
    await ledger.append(grantChange('a7', { workload: 'a', task: '7' }))
    await ledger.append(grantChange('b7', { workload: 'b', task: '7' }))
    clock.advance(60_000)
    await ledger.append(grantChange('a_late', { workload: 'a' }))
    const index = await revoke(ledger, selector)
    expect(await countRevokedBy(database.read, selector, index, startMs + 60_000)).toEqual({ revoked: covered.length, more: false })
    await ledger.append(grantChange('a_after', { workload: 'a', task: '7' }))
    await ledger.append(grantChange('b_after', { workload: 'b', task: '7' }))
    const ends: Record<string, number | undefined> = {}
    for (const id of ['a', 'a7', 'b7', 'a_late', 'a_after', 'b_after']) ends[id] = await revokedIndexOf(database, id)
    expect(Object.keys(ends).filter((id) => ends[id] !== undefined)).toEqual(covered)
    for (const id of covered) expect(ends[id]).toBe(index)
    // The first one that covers it is what ended it.
    await revoke(ledger, selector)
    for (const id of covered) expect(await revokedIndexOf(database, id)).toBe(index)
  })

  test('count as ended by a revocation only if they were alive', async () => {
    const { database, ledger } = await open(engine)
    for (const [i, id] of ['w', 'x', 'y', 'z'].entries()) await ledger.append(grantChange(id, { expiresAtMs: startMs + 1000 * (i + 1) }))
    await ledger.transact({
      apply: async (tx, { index }) => (await markGrantRevoked(tx, 'y', index), { result: 0, events: [note()], raisesEpoch: false }),
    })
    const selector = { workload: 'triage-bot' }
    const index = await revoke(ledger, selector)
    const ended = async (nowMs: number, by = index) => (await countRevokedBy(database.read, selector, by, nowMs)).revoked
    expect(await ended(startMs)).toBe(3)
    expect(await ended(startMs + 999)).toBe(3)
    expect(await ended(startMs + 1000)).toBe(2)
    // The second one found nothing alive.
    expect(await ended(startMs, await revoke(ledger, selector))).toBe(0)
  })

  test('and denials are counted from an instant on, per workload', async () => {
    const { database, ledger, clock } = await open(engine)
    const deny = async (workload: string) => {
      const { events } = grantChange('x', { workload })
      const [{ decision, actor, tool, actions, ttl_seconds, proof_kid = '' }] = events as [Extract<(typeof events)[0], { type: 'grant.issued' }>]
      const denied = { ...decision, verdict: 'deny' as const }
      await ledger.append({ events: [{ type: 'grant.denied', actor, workload, tool, actions, ttl_seconds, proof_kid, decision: denied }] })
    }
    await ledger.append(grantChange('a1', { workload: 'a' }))
    await deny('a')
    clock.advance(1000)
    await ledger.append(grantChange('a2', { workload: 'a' }))
    await deny('a')
    await deny('b')
    for (const [sinceMs, grants, denials] of [[startMs, 2, 2], [startMs + 1, 1, 1], [startMs + 1000, 1, 1], [startMs + 1001, 0, 0]] as const) {
      expect(await countGrantsSince(database.read, 'a', sinceMs)).toBe(grants)
      expect(await countDenialsSince(database.read, 'a', sinceMs)).toBe(denials)
    }
    expect(await countGrantsSince(database.read, 'b', startMs)).toBe(0)
  })

  test('end when a plain reading of all revocations says so', async () => {
    const names = fc.constantFrom('a', 'b')
    const tasks = fc.constantFrom('7', '8')
    const grant = fc.record({ kind: fc.constant('grant' as const), workload: names, task: fc.option(tasks, { nil: undefined }), waitMs: fc.nat(3) })
    const single = fc.record({ kind: fc.constant('single' as const), of: fc.nat(20) })
    const selector = fc
      .record({ workload: names, task: tasks, beforeMs: fc.integer({ min: startMs - 1, max: startMs + 40 }) }, { requiredKeys: [] })
      .filter((members) => Object.keys(members).length > 0)
    const many = fc.record({ kind: fc.constant('many' as const), selector })
    const step = fc.oneof({ weight: 4, arbitrary: grant }, { weight: 1, arbitrary: single }, { weight: 2, arbitrary: many })
    const { database, ledger, clock } = await open(engine)
    let run = 0
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 30 }), async (steps) => {
        // One database for all runs: what came before a grant must not concern it, so earlier runs are no trouble.
        const prefix = `r${run++}-`
        clock.advance(10_000)
        const baseMs = clock.nowMs()
        const shift = ({ beforeMs, ...rest }: RevocationSelector): RevocationSelector => ({
          ...rest,
          ...(beforeMs !== undefined && { beforeMs: beforeMs - startMs + baseMs }),
        })
        const grants: { id: string; workload: string; task: string | undefined; index: number; issuedMs: number; endedBy: number[] }[] = []
        for (const each of steps) {
          if (each.kind === 'grant') {
            clock.advance(each.waitMs)
            const { workload, task } = each
            const id = `${prefix}${grants.length}`
            const outcome = await ledger.append(grantChange(id, { workload, ...(task !== undefined && { task }) }))
            if (outcome.status !== 'recorded') throw new Error(outcome.status)
            grants.push({ id, workload, task, index: outcome.index, issuedMs: outcome.timeMs, endedBy: [] })
          } else if (each.kind === 'single') {
            const target = grants[each.of % Math.max(1, grants.length)]
            if (target === undefined) continue
            await ledger.transact({
              apply: async (tx, { index }) => {
                await markGrantRevoked(tx, target.id, index)
                target.endedBy.push(index)
                return { result: 0, events: [note()], raisesEpoch: false }
              },
            })
          } else {
            const chosen = shift(each.selector)
            const index = await revoke(ledger, chosen)
            for (const given of grants) {
              const fits =
                (chosen.workload === undefined || chosen.workload === given.workload) &&
                (chosen.task === undefined || chosen.task === given.task) &&
                (chosen.beforeMs === undefined || given.issuedMs < chosen.beforeMs)
              if (fits) given.endedBy.push(index)
            }
          }
        }
        for (const given of grants) {
          const expected = given.endedBy.length === 0 ? undefined : Math.min(...given.endedBy)
          const found = await findGrant(database.read, given.id)
          expect(found?.revokedIndex).toBe(expected)
          expect(found && grantState(found, given.issuedMs)).toBe(expected === undefined ? 'active' : 'revoked')
        }
      }),
      { numRuns: 25 },
    )
  })
})
