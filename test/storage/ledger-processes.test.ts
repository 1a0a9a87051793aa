import { expect, test } from 'vitest'
import { createTestDatabase, describeEngines } from '../harness.ts'
import { checkLog } from './check-log.ts'
import { grantChange, note, openLedger, startMs } from './changes.ts'

describeEngines('The log', (engine) => {
  // A SQLite file has one process; PostgreSQL as many as one likes.
  const processes = engine === 'sqlite' ? 1 : 3

  test('of several writers at once has no gap, and its head is the tree of its entries', async () => {
    const files = await createTestDatabase(engine)
    const databases = await Promise.all(Array.from({ length: processes }, () => files.open()))
    const ledgers = databases.map((database) => openLedger(database, { batchMax: 7 }).ledger)
    const outcomes = await Promise.all(
      ledgers.flatMap((ledger, p) =>
        Array.from({ length: 60 }, (_, i) => {
          if (i % 10 === 3) return ledger.append({ events: [note(`${p}/${i}/a`), note(`${p}/${i}/b`)] })
          if (i % 10 !== 7) return ledger.append(grantChange(`grant_${p}_${i}`))
          return ledger.transact({ apply: async () => ({ result: undefined, events: [note()], raisesEpoch: true }) })
        }),
      ),
    )
    const bodies = await checkLog(databases[0]?.read ?? fail())
    expect(bodies).toHaveLength(processes * 66)
    const indexes = outcomes.map((outcome) => (outcome.status === 'recorded' ? outcome.index : -1))
    expect(new Set(indexes).size).toBe(processes * 60)
    for (const [i, index] of indexes.entries()) {
      const change = i % 60
      if (![3, 7].includes(change % 10)) expect(bodies[index]).toMatchObject({ grant: `grant_${Math.floor(i / 60)}_${change}` })
    }
    const head = await databases[0]?.read.selectFrom('log_head').select('epoch').executeTakeFirstOrThrow()
    expect(head?.epoch).toBe(processes * 6)
    expect(new Set(bodies.map((body) => body['salt'])).size).toBe(bodies.length)
  })

  test('lets one of many racing processes spend a mark', async () => {
    const files = await createTestDatabase(engine)
    const databases = await Promise.all(Array.from({ length: processes }, () => files.open()))
    const ledgers = databases.map((database) => openLedger(database).ledger)
    for (let round = 0; round < 5; round++) {
      const mark = { id: `m${round}`, expiresAtMs: startMs + 60_000 }
      const outcomes = await Promise.all(
        ledgers.flatMap((ledger) => [
          ledger.append({ events: [note()], mark }),
          ledger.spend({ epoch: 0, mark }),
          ledger.transact({ mark, apply: async () => ({ result: 1, events: [note()], raisesEpoch: false }) }),
        ]),
      )
      expect(outcomes.filter((outcome) => outcome.status === 'recorded')).toHaveLength(1)
      expect(outcomes.filter((outcome) => outcome.status === 'replayed')).toHaveLength(processes * 3 - 1)
    }
  })

  test('has one time for all processes, and one epoch', async () => {
    const files = await createTestDatabase(engine)
    const databases = await Promise.all(Array.from({ length: processes }, () => files.open()))
    const [early, late] = [openLedger(databases[0] ?? fail()), openLedger(databases.at(-1) ?? fail())]
    late.clock.advance(90_000)
    await late.ledger.transact({ apply: async () => ({ result: 1, events: [note()], raisesEpoch: true }) })
    const mark = { id: 'm', expiresAtMs: startMs + 60_000 }
    expect(await early.ledger.append({ events: [note()], mark })).toEqual({ status: 'late' })
    expect(await early.ledger.append({ events: [note()], epoch: 0 })).toEqual({ status: 'epoch_moved' })
    expect(await early.ledger.append({ events: [note()], epoch: 1 })).toMatchObject({ timeMs: startMs + 90_000 })
    expect(early.ledger.nowMs()).toBe(startMs + 90_000)
    await checkLog(databases[0]?.read ?? fail())
  })
})

function fail(): never {
  throw new Error('no database was opened')
}
