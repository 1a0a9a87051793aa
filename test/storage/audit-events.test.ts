import { expect, test } from 'vitest'
import { listEntries, type EntryFilter } from '../../src/storage/audit-events.ts'
import { insertRevocation, type RevocationSelector } from '../../src/storage/grants.ts'
import { createTestDatabase, describeEngines } from '../harness.ts'
import { naiveLeaf } from '../audit/naive-tree.ts'
import { grantChange, note, openLedger, startMs } from './changes.ts'

describeEngines('Entries', (engine) => {
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
    const indexes = async (filter: Partial<EntryFilter>) =>
      (await listEntries(database.read, { limit: 100, ...filter })).map((entry) => entry.index)
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
    const indexes = async (filter: Partial<EntryFilter>) =>
      (await listEntries(database.read, { limit: 100, ...filter })).map((entry) => entry.index)
    const cases: [Partial<EntryFilter>, number[]][] = [
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
    ]
    for (const [filter, expected] of cases) expect(await indexes(filter), JSON.stringify(filter)).toEqual(expected)
    const [entry] = await listEntries(database.read, { limit: 1, before: 1 })
    expect(entry).toMatchObject({ index: 0, time: '2026-01-15T12:00:00.000Z', type: 'grant.refused' })
    expect(Buffer.from(entry?.leafHash ?? [])).toEqual(naiveLeaf(entry?.body ?? ''))
  })
})
