import fc from 'fast-check'
import { expect, test } from 'vitest'
import { listEntries, type EntryQuery, type PageBounds } from '../../src/storage/audit-events.ts'
import { findIndexAt, readWindow, type Direction, type EntryFilter, type IndexRange } from '../../src/storage/audit-windows.ts'
import type { Database } from '../../src/storage/engine.ts'
import { insertRevocation, type RevocationSelector } from '../../src/storage/grants.ts'
import { createTestDatabase, describeEngines } from '../harness.ts'
import { naiveLeaf } from '../audit/naive-tree.ts'
import { grantChange, note, openLedger, startMs } from './changes.ts'

const indexesOf = (database: Database) => async (query: Partial<EntryQuery>, bounds?: PageBounds) =>
  (await listEntries(database.read, { limit: 100, ...query }, bounds)).entries.map((entry) => entry.index)

/** A log with grants, notes and revocations of many that overlap in every way, and what each revocation picks. */
async function fillLog(database: Database) {
  const { ledger, clock } = openLedger(database)
  const selectors: readonly RevocationSelector[] = [{ task: '7' }, { workload: 'b' }, { beforeMs: startMs + 2001 }, { workload: 'a', task: '8' }, { tool: 'github' }, { tool: 'nothing' }, { tool: 'github', workload: 'a' }]
  const revocations = new Map<number, RevocationSelector>()
  for (let i = 0; i < 60; i++) {
    if (i % 3 === 0) clock.advance(1000)
    const [workload = '', task] = [['a', '7'], ['b'], ['a', '8'], ['c', '7'], ['a']][i % 5] ?? []
    const selector = selectors[(i / 6) % selectors.length]
    if (i % 6 === 0 && selector !== undefined) {
      revocations.set(i, selector)
      const { task, workload, tool } = selector
      const event = { type: 'grants.revoked', actor: { kind: 'operator', id: 'o' }, selector: {}, ...(task && { task }), ...(workload && { workload }), ...(tool && { tool }) } as const
      await ledger.transact({
        apply: async (tx, { index }) => (await insertRevocation(tx, index, selector), { result: 0, events: [event], raisesEpoch: false }),
      })
    } else if (i % 4 === 0) await ledger.append({ events: [note(`${i}`, workload)] })
    else await ledger.append(grantChange(`g${i}`, { workload, ...(task && { task }) }))
  }
  const rows = await database.read.selectFrom('audit_event').selectAll().orderBy('idx').execute()
  expect(rows).toHaveLength(60)

  /** What fits, found by looking at every row. */
  function findNaively(filter: EntryFilter, { after, before }: IndexRange): number[] {
    const { type, tool, workload, task, grant } = filter
    const granted = rows.find((row) => row.type === 'grant.issued' && row.grant_id === grant)
    const fits = rows.filter((row) => {
      if (row.idx <= after || row.idx >= before || (type !== undefined && row.type !== type)) return false
      const own =
        (tool ?? row.tool) === row.tool && (workload ?? row.workload) === row.workload && (task ?? row.task) === row.task && (grant ?? row.grant_id) === row.grant_id
      const selector = revocations.get(row.idx)
      if (own || selector === undefined || (tool !== undefined && selector.tool !== tool) || (workload ?? task ?? grant) === undefined) return own
      const concerns = (workload === undefined || (selector.workload ?? workload) === workload) && (task === undefined || (selector.task ?? task) === task)
      if (grant === undefined || !concerns) return concerns
      if (granted === undefined || granted.idx >= row.idx) return false
      return (
        (selector.workload ?? granted.workload) === granted.workload &&
        (selector.tool ?? granted.tool) === granted.tool &&
        (selector.task === undefined || selector.task === granted.task) &&
        (selector.beforeMs === undefined || Date.parse(granted.time) < selector.beforeMs)
      )
    })
    return fits.map((row) => row.idx)
  }
  return { ledger, clock, rows, findNaively }
}

const optional = <T>(values: readonly T[]) => fc.option(fc.constantFrom(...values), { nil: undefined })
const filters = fc.record({
  type: optional(['grant.issued', 'grants.revoked', 'grant.refused', 'log.opened'] as const),
  workload: optional(['a', 'b', 'c', 'nobody']),
  tool: optional(['github', 'nothing']),
  grant: optional(['g1', 'g3', 'g31', 'g55', 'nothing']),
  task: optional(['7', '8', '9']),
})
const given = (filter: Record<string, unknown>): EntryFilter => Object.fromEntries(Object.entries(filter).filter(([, value]) => value !== undefined))
const ranges = fc.record({ after: fc.integer({ min: -1, max: 60 }), before: fc.integer({ min: -1, max: 61 }) })

describeEngines('Entries', (engine) => {
  test('are found in windows of any width, in both directions, as by looking at every one', async () => {
    const database = await (await createTestDatabase(engine)).open()
    const { findNaively } = await fillLog(database)
    const directions = fc.constantFrom<Direction>('asc', 'desc')
    await fc.assert(
      fc.asyncProperty(filters, ranges, directions, fc.integer({ min: 1, max: 70 }), async (filter, range, direction, looked) => {
        const found: number[] = []
        let rest: IndexRange | undefined = range
        while (rest !== undefined) {
          const window: Awaited<ReturnType<typeof readWindow>> = await readWindow(database.read, given(filter), rest, direction, looked)
          const before: IndexRange = rest
          found.push(...window.entries.map((entry) => entry.index))
          rest = window.rest
          // Each window leads on, or the next one would be the same.
          if (rest !== undefined) expect(rest.before - rest.after).toBeLessThan(before.before - before.after)
        }
        const expected = findNaively(given(filter), range)
        expect(found).toEqual(direction === 'asc' ? expected : expected.toReversed())
      }),
      { numRuns: engine === 'sqlite' ? 300 : 60 },
    )
  })

  test('are listed in pages that end early when they took enough work, and none is missed', async () => {
    const database = await (await createTestDatabase(engine)).open()
    const { findNaively } = await fillLog(database)
    const bounds = fc.record({ windowMax: fc.integer({ min: 1, max: 9 }), lookedMax: fc.integer({ min: 1, max: 30 }), charactersMax: fc.constantFrom(0, 2000, 10_000) })
    await fc.assert(
      fc.asyncProperty(filters, bounds, fc.integer({ min: 1, max: 20 }), async (filter, bounds, limit) => {
        const found: number[] = []
        let before: number | undefined
        do {
          const query = { ...given(filter), limit, ...(before !== undefined && { before }) }
          const { entries, next, treeSize } = await listEntries(database.read, query, bounds)
          expect(treeSize).toBe(60)
          expect(entries.length).toBeLessThanOrEqual(limit)
          if (next !== undefined) expect(next).toBeLessThan(before ?? 60)
          found.push(...entries.map((entry) => entry.index))
          before = next
        } while (before !== undefined)
        expect(found).toEqual(findNaively(given(filter), { after: -1, before: 60 }).toReversed())
      }),
      { numRuns: engine === 'sqlite' ? 200 : 40 },
    )
  })

  test('are looked at in bounded numbers, however few of them fit', async () => {
    const database = await (await createTestDatabase(engine)).open()
    const { ledger } = openLedger(database)
    for (let i = 0; i < 50; i++) await ledger.append(grantChange(`g${i}`, { workload: 'a', task: '7' }))
    const rare = { workload: 'a', type: 'grant.refused' } as const
    expect(await readWindow(database.read, rare, { after: -1, before: 50 }, 'asc', 10)).toEqual({ entries: [], rest: { after: 9, before: 50 } })
    expect(await readWindow(database.read, rare, { after: -1, before: 50 }, 'desc', 10)).toEqual({ entries: [], rest: { after: -1, before: 40 } })
    // An index that leads past all that cannot fit.
    expect(await readWindow(database.read, { grant: 'g48', task: '7' }, { after: -1, before: 50 }, 'asc', 10)).toMatchObject({ entries: [{ index: 48 }], rest: undefined })
    const bounds = { windowMax: 10, lookedMax: 20, charactersMax: 1e6 }
    expect(await listEntries(database.read, { ...rare, limit: 100 }, bounds)).toEqual({ entries: [], next: 30, treeSize: 50 })
  })

  test('are found by time, also before the first and after the last', async () => {
    const database = await (await createTestDatabase(engine)).open()
    const { rows } = await fillLog(database)
    const times = rows.map((row) => Date.parse(row.time))
    for (const ms of [0, startMs, ...times.flatMap((time) => [time - 1, time, time + 1]), Date.UTC(9999, 0)]) {
      const expected = times.findIndex((time) => time >= ms)
      expect(await findIndexAt(database.read, ms, 60)).toBe(expected === -1 ? 60 : expected)
    }
    expect(await findIndexAt(database.read, startMs, 0)).toBe(0)
  })

  test('that ended what is asked about are listed with it', async () => {
    const database = await (await createTestDatabase(engine)).open()
    const { ledger } = openLedger(database)
    const revoke = (selector: RevocationSelector) =>
      ledger.transact({
        apply: async (tx, { index }) => (await insertRevocation(tx, index, selector), { result: 0, events: [note()], raisesEpoch: false }),
      })
    await ledger.append(grantChange('g0', { workload: 'a', task: '7' }))
    await ledger.append(grantChange('g1', { workload: 'b' }))
    await revoke({ task: '7' })
    await revoke({ workload: 'b' })
    await revoke({ beforeMs: startMs + 1 })
    await ledger.append(grantChange('g5', { workload: 'a', task: '7' }))
    const indexes = indexesOf(database)
    expect(await indexes({ grant: 'g0' })).toEqual([4, 2, 0])
    expect(await indexes({ grant: 'g1' })).toEqual([4, 3, 1])
    expect(await indexes({ grant: 'g5' })).toEqual([5])
    expect(await indexes({ task: '7' })).toEqual([5, 4, 3, 2, 0])
    expect(await indexes({ workload: 'a' })).toEqual([5, 4, 2, 0])
    expect(await indexes({ workload: 'b', limit: 2 })).toEqual([4, 3])
    expect(await indexes({ workload: 'b', before: 3 })).toEqual([2, 1])
    expect(await indexes({ tool: 'github' })).toEqual([5, 1, 0])
  })

  test('are listed newest first, in pages, by filter', async () => {
    const database = await (await createTestDatabase(engine)).open()
    const { ledger, clock } = openLedger(database)
    await ledger.append({ events: [note('0')] })
    await ledger.append(grantChange('g1', { workload: 'a', task: '7' }))
    clock.advance(1000)
    await ledger.append(grantChange('g2', { workload: 'a' }))
    await ledger.append({ events: [note('3', 'a'), note('4')] })
    const cases: [Partial<EntryQuery>, number[]][] = [
      [{}, [4, 3, 2, 1, 0]],
      [{ limit: 2 }, [4, 3]],
      [{ limit: 2, before: 3 }, [2, 1]],
      [{ after: 2 }, [4, 3]],
      [{ after: 0, before: 3 }, [2, 1]],
      [{ type: 'grant.issued' }, [2, 1]],
      [{ workload: 'a' }, [3, 2, 1]],
      [{ workload: 'a', type: 'grant.refused' }, [3]],
      [{ tool: 'github' }, [2, 1]],
      [{ grant: 'g2' }, [2]],
      [{ task: '7' }, [1]],
      [{ task: '8' }, []],
      [{ sinceMs: startMs + 1000 }, [4, 3, 2]],
      [{ sinceMs: startMs + 1 }, [4, 3, 2]],
      [{ untilMs: startMs + 1000 }, [1, 0]],
      [{ sinceMs: startMs, untilMs: startMs }, []],
      [{ sinceMs: startMs + 1000, after: 3, untilMs: startMs + 2000, before: 9 }, [4]],
    ]
    for (const [query, expected] of cases) expect(await indexesOf(database)(query), JSON.stringify(query)).toEqual(expected)
    const [entry] = (await listEntries(database.read, { limit: 1, before: 1 })).entries
    expect(entry).toMatchObject({ index: 0, time: '2026-01-15T12:00:00.000Z', type: 'grant.refused' })
    expect(Buffer.from(entry?.leafHash ?? [])).toEqual(naiveLeaf(entry?.body ?? ''))
  })
})
