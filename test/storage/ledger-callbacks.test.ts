import { CompiledQuery, sql, type Kysely } from 'kysely'
import { expect, test } from 'vitest'
import { BrokerError } from '../../src/kernel/errors.ts'
import { insertOperator } from '../../src/storage/operators.ts'
import type { Schema } from '../../src/storage/schema.ts'
import { createTestDatabase, describeEngines } from '../harness.ts'
import { checkLog } from './check-log.ts'
import { countWrites, grantChange, note, openLedger, sleep, startMs } from './changes.ts'

const recorded = { status: 'recorded' }
const done = { result: 'done', events: [note('by callback')], raisesEpoch: false } as const

function addOperator(tx: Kysely<Schema>, id: string): Promise<void> {
  return insertOperator(tx, { id, name: id, role: 'admin', secretHash: 'h', createdAtMs: startMs })
}

async function operatorIds(db: Kysely<Schema>): Promise<string[]> {
  return (await db.selectFrom('operator').select('id').orderBy('id').execute()).map((row) => row.id)
}

// What a callback may throw. None of it may be taken for a trouble of the database, which would fail everybody else.
const thrown: Record<string, () => Error> = {
  'an error of the broker': () => new BrokerError({ code: 'conflict', publicMessage: 'the name is taken' }),
  'an error that speaks of a connection': () => new Error('the connection to the policy timed out: timeout, terminated'),
  'an error of Node': () => Object.assign(new TypeError('wrong'), { code: 'ERR_INVALID_ARG_TYPE' }),
}

describeEngines('A ledger callback', (engine) => {
  test('is recorded with its rows, its result and its events in one place', async () => {
    const database = await (await createTestDatabase(engine)).open()
    const { ledger } = openLedger(database)
    const outcomes = await Promise.all([
      ledger.transact({
        apply: async (tx, place) => {
          await addOperator(tx, 'op_1')
          return { result: place, events: [note('one'), note('two')], raisesEpoch: true }
        },
      }),
      ledger.append(grantChange('grant_1')),
      ledger.transact({ apply: async (_, place) => ({ result: place, events: [note('three')], raisesEpoch: false }) }),
    ])
    const at = (index: number) => ({ index, timeMs: startMs })
    expect(outcomes[0]).toEqual({ ...recorded, result: at(1), ...at(1) })
    expect(outcomes[1]).toEqual({ ...recorded, result: undefined, ...at(0) })
    expect(outcomes[2]).toEqual({ ...recorded, result: at(3), ...at(3) })
    expect((await checkLog(database.read)).map((body) => body['detail'])).toEqual([undefined, 'one', 'two', 'three'])
    expect(await operatorIds(database.read)).toEqual(['op_1'])
    expect((await database.read.selectFrom('log_head').select('epoch').executeTakeFirstOrThrow()).epoch).toBe(1)
  })

  test('that changed nothing leaves nothing', async () => {
    const database = await (await createTestDatabase(engine)).open()
    const { ledger } = openLedger(database)
    const outcome = await ledger.transact({ apply: async () => ({ result: 7, unrecorded: 'nothing changed' }) })
    expect(outcome).toEqual({ ...recorded, result: 7, index: 0, timeMs: startMs })
    expect(await checkLog(database.read)).toEqual([])
  })

  test('that throws undoes its own rows and its mark, and nobody else is touched', async () => {
    const { database, writes } = countWrites(await (await createTestDatabase(engine)).open())
    const { ledger } = openLedger(database)
    let entries = 0
    for (const [name, makeError] of Object.entries(thrown)) {
      const mark = { id: name, expiresAtMs: startMs + 60_000 }
      const error = makeError()
      const before = writes()
      const outcomes = await Promise.allSettled([
        ledger.transact({ apply: async (tx) => addOperator(tx, `before ${name}`).then(() => done) }),
        ledger.transact({ mark, apply: async (tx) => addOperator(tx, `undone ${name}`).then(() => Promise.reject(error)) }),
        ledger.transact({
          apply: () => {
            throw error
          },
        }),
        ledger.append(grantChange(`grant ${name}`)),
      ])
      expect(outcomes, name).toMatchObject([{ value: recorded }, { reason: error }, { reason: error }, { value: recorded }])
      expect(outcomes[1]?.status === 'rejected' && outcomes[1].reason, name).toBe(error)
      expect(writes() - before, name).toBe(1)
      expect(await ledger.transact({ mark, apply: async () => done }), name).toMatchObject(recorded)
      entries += 3
      expect(await checkLog(database.read), name).toHaveLength(entries)
    }
    expect(await operatorIds(database.read)).toEqual(Object.keys(thrown).map((name) => `before ${name}`).toSorted())
  })

  test('whose statement fails undoes itself alone, even where it swallows the error', async () => {
    const database = await (await createTestDatabase(engine)).open()
    const { ledger } = openLedger(database)
    await ledger.transact({ apply: async (tx) => addOperator(tx, 'op_1').then(() => done) })
    const addTwice = async (tx: Kysely<Schema>) => {
      await addOperator(tx, 'op_2')
      await addOperator(tx, 'op_1')
    }
    const [good, failed, swallowed, unawaited, late] = await Promise.allSettled([
      ledger.append(grantChange('grant_1')),
      ledger.transact({ apply: (tx) => addTwice(tx).then(() => done) }),
      ledger.transact({ apply: (tx) => addOperator(tx, 'op_1').then(() => done, () => done) }),
      ledger.transact({ apply: async (tx) => {
        addOperator(tx, 'op_1').catch(() => undefined)
        return { result: 0, unrecorded: 'nothing changed' }
      } }),
      ledger.append({ events: [note()] }),
    ])
    expect(good).toMatchObject({ value: recorded })
    expect(late).toMatchObject({ value: recorded })
    expect(failed?.status === 'rejected' && database.isUniqueViolation(failed.reason)).toBe(true)
    // PostgreSQL refuses everything after a failed statement until the savepoint; SQLite goes on.
    const expected = engine === 'postgres' ? 'rejected' : 'fulfilled'
    expect([swallowed?.status, unawaited?.status]).toEqual([expected, expected])
    expect(await checkLog(database.read)).toHaveLength(engine === 'postgres' ? 3 : 4)
    expect(await operatorIds(database.read)).toEqual(['op_1'])
  })

  test('that does not come back is given up, the others are recorded', async () => {
    const { database, writes } = countWrites(await (await createTestDatabase(engine)).open())
    const { ledger } = openLedger(database, { callbackMsMax: 200 })
    let afterwards: unknown
    let returned: Promise<unknown> | undefined
    const outcomes = await Promise.allSettled([
      ledger.append(grantChange('grant_1')),
      ledger.transact({ apply: async (tx) => addOperator(tx, 'op_hung').then(() => new Promise<typeof done>(() => {})) }),
      ledger.transact({ apply: async (tx) => addOperator(tx, 'op_good').then(() => done) }),
      ledger.transact({
        apply: (tx) => {
          const work = sleep(450).then(() => addOperator(tx, 'op_late'))
          returned = work.catch((error: unknown) => void (afterwards = error))
          return work.then(() => done)
        },
      }),
      ledger.append({ events: [note('last')] }),
    ])
    expect(outcomes.map((outcome) => outcome.status)).toEqual(['fulfilled', 'rejected', 'fulfilled', 'rejected', 'fulfilled'])
    expect(outcomes[1]).toMatchObject({ reason: { code: 'unavailable' } })
    expect(writes()).toBe(3)
    await returned
    expect(String(afterwards)).toContain('this transaction is over')
    expect(await operatorIds(database.read)).toEqual(['op_good'])
    expect(await checkLog(database.read)).toHaveLength(3)
    expect(await ledger.append({ events: [note()] })).toMatchObject({ ...recorded, index: 3 })
  })

  test('cannot use its handle once it has returned', async () => {
    const database = await (await createTestDatabase(engine)).open()
    const { ledger } = openLedger(database)
    let kept: Kysely<Schema> | undefined
    await ledger.transact({
      apply: async (tx) => {
        kept = tx
        return done
      },
    })
    if (kept === undefined) throw new Error('the callback did not run')
    const over = 'this transaction is over'
    await expect(addOperator(kept, 'op_1')).rejects.toThrow(over)
    await expect(sql`select 1`.execute(kept)).rejects.toThrow(over)
    await expect(kept.executeQuery(CompiledQuery.raw('select 1'))).rejects.toThrow(over)
    await expect(kept.withoutPlugins().selectFrom('operator').selectAll().execute()).rejects.toThrow(over)
    await expect(kept.connection().execute((db) => sql`select 1`.execute(db))).rejects.toThrow(over)
    expect(await operatorIds(database.read)).toEqual([])
  })

  test('cannot end the transaction of all the others', async () => {
    const database = await (await createTestDatabase(engine)).open()
    const { ledger } = openLedger(database)
    const outcomes = await Promise.allSettled([
      ledger.transact({ apply: (tx) => tx.transaction().execute(async (inner) => (await addOperator(inner, 'op_1'), done)) }),
      ledger.transact({ apply: (tx) => tx.destroy().then(() => done) }),
      ledger.append({ events: [note()] }),
    ])
    expect(outcomes.map((outcome) => outcome.status)).toEqual(['rejected', 'rejected', 'fulfilled'])
    expect(await operatorIds(database.read)).toEqual([])
    expect(await checkLog(database.read)).toHaveLength(1)
  })

  test('that waits for the outer handle is given up, and only it', async () => {
    const database = await (await createTestDatabase(engine)).open()
    const { ledger } = openLedger(database, { callbackMsMax: 200 })
    const outcomes = await Promise.allSettled([
      ledger.transact({ apply: async () => (await database.write(async () => undefined), done) }),
      ledger.append({ events: [note()] }),
    ])
    expect(outcomes).toMatchObject([{ reason: { code: 'unavailable' } }, { value: recorded }])
    expect(await checkLog(database.read)).toHaveLength(1)
  })
})
