import { expect, test } from 'vitest'
import type { Database } from '../../src/storage/engine.ts'
import type { Recorded, RowsChange } from '../../src/storage/change.ts'
import { createTestDatabase, describeEngines } from '../harness.ts'
import { checkLog } from './check-log.ts'
import { countWrites, grantChange, note, openLedger, startMs } from './changes.ts'

function statusOf(outcome: PromiseSettledResult<Recorded<unknown>>): string {
  return outcome.status === 'fulfilled' ? outcome.value.status : 'failed'
}

async function countMarks(database: Database): Promise<number> {
  return (await database.read.selectFrom('replay_mark').select('id').execute()).length
}

// Each of these makes the whole statement or the whole batch fail when it is tried together with others.
const culprits: Record<string, () => RowsChange> = {
  'a grant id that exists': () => grantChange('grant_old'),
  'an event that is too large': () => ({ ...grantChange('grant_new'), events: [note('x'.repeat(61 * 1024))] }),
  // The compiler would refuse the field: this is what a slip past it does.
  'an event with a field that its type does not list': () => ({ events: [Object.assign(note(), { connection: 'timeout' })] }),
  'a lone surrogate': () => ({ ...grantChange('grant_new'), events: [note('\ud800')] }),
  'a row that violates a constraint': () => {
    const change = grantChange('grant_new')
    // Likewise: the table refuses what the compiler would.
    return { ...change, ...(change.grant && { grant: { ...change.grant, tool: null as unknown as string } }) }
  },
  'a second event that is refused': () => ({ ...grantChange('grant_new'), events: [note(), note('x'.repeat(61 * 1024))] }),
}

describeEngines('The ledger', (engine) => {
  test('lets changes of one moment share a commit, and answers after it', async () => {
    const opened = await (await createTestDatabase(engine)).open()
    let committed = 0
    const { database, writes } = countWrites({
      ...opened,
      write: async (body) => {
        const result = await opened.write(body)
        committed += 1
        return result
      },
    })
    const { ledger } = openLedger(database, { batchMax: 50 })
    const outcomes = await Promise.all(
      Array.from({ length: 120 }, async (_, i) => {
        const outcome = await ledger.append(i % 2 === 0 ? { events: [note(`${i}`)] } : grantChange(`grant_${i}`))
        return { outcome, committed }
      }),
    )
    expect(writes()).toBe(3)
    expect(outcomes.map(({ outcome }) => outcome)).toEqual(
      outcomes.map((_, index) => ({ status: 'recorded', result: undefined, index, timeMs: startMs })),
    )
    expect(outcomes.map((outcome) => outcome.committed)).toEqual(outcomes.map((_, i) => Math.floor(i / 50) + 1))
    const bodies = await checkLog(database.read)
    expect(bodies).toHaveLength(120)
    expect(bodies[0]).toMatchObject({ detail: '0' })
    const grant = await database.read.selectFrom('grants').selectAll().where('id', '=', 'grant_7').executeTakeFirstOrThrow()
    expect(grant).toMatchObject({ issued_index: 7, issued_at: '2026-01-15T12:00:00.000Z', revoked_index: null })
  })

  test('fails only the culprit of a batch, and does not spend its mark', async () => {
    const { database, writes } = countWrites(await (await createTestDatabase(engine)).open())
    const { ledger } = openLedger(database)
    await ledger.append(grantChange('grant_old'))
    let good = 1
    for (const [name, culprit] of Object.entries(culprits)) {
      const mark = { id: `mark of ${name}`, expiresAtMs: startMs + 60_000 }
      const before = writes()
      const outcomes = await Promise.allSettled([
        ledger.append(grantChange(`grant_before ${name}`)),
        ledger.append({ ...culprit(), mark }),
        ledger.append({ events: [note('after'), note('and one more')], mark: { id: `good ${name}`, expiresAtMs: startMs + 60_000 } }),
      ])
      expect(outcomes.map(statusOf), name).toEqual(['recorded', 'failed', 'recorded'])
      expect(writes() - before, name).toBe(2)
      good += 3
      expect(await checkLog(database.read), name).toHaveLength(good)
      expect(await ledger.append({ events: [note()], mark }), name).toMatchObject({ status: 'recorded', index: good })
      good += 1
    }
    expect(await database.read.selectFrom('grants').select('id').where('id', '=', 'grant_new').execute()).toEqual([])
  })

  test('records one of two grants of the same id in one batch', async () => {
    const database = await (await createTestDatabase(engine)).open()
    const { ledger } = openLedger(database)
    const outcomes = await Promise.allSettled([ledger.append(grantChange('grant_1')), ledger.append(grantChange('grant_1'))])
    expect(outcomes.map(statusOf)).toEqual(['recorded', 'failed'])
    const [, second] = outcomes
    expect(second?.status === 'rejected' && database.isUniqueViolation(second.reason)).toBe(true)
    expect(await checkLog(database.read)).toHaveLength(1)
  })

  test('refuses a change whose epoch has moved, stores nothing of it and leaves its mark (invariant 13)', async () => {
    const database = await (await createTestDatabase(engine)).open()
    const { ledger } = openLedger(database)
    const raise = { epoch: 0, apply: async () => ({ result: 'raised', events: [note('raise')] as const, raisesEpoch: true }) }
    const mark = { id: 'm', expiresAtMs: startMs + 60_000 }
    const first = await Promise.all([
      ledger.transact(raise),
      // Plain values go first in a batch: they are still decided under the old epoch.
      ledger.append({ ...grantChange('grant_0'), epoch: 0 }),
      ledger.transact(raise),
      ledger.append({ ...grantChange('grant_stale'), epoch: 1 }),
    ])
    expect(first.map((outcome) => outcome.status)).toEqual(['recorded', 'recorded', 'epoch_moved', 'epoch_moved'])
    expect(await ledger.append({ ...grantChange('grant_1'), epoch: 0, mark })).toEqual({ status: 'epoch_moved' })
    expect(await ledger.spend({ epoch: 0, mark })).toEqual({ status: 'epoch_moved' })
    expect(await countMarks(database)).toBe(0)
    expect(await ledger.append({ ...grantChange('grant_1'), epoch: 1, mark })).toMatchObject({ status: 'recorded', index: 2 })
    expect((await database.read.selectFrom('log_head').select('epoch').executeTakeFirstOrThrow()).epoch).toBe(1)
    const grants = await database.read.selectFrom('grants').select('id').orderBy('id').execute()
    expect(grants.map((grant) => grant.id)).toEqual(['grant_0', 'grant_1'])
    await checkLog(database.read)
  })

  test('lets a mark take effect once: in one batch, later, after a restart', async () => {
    const files = await createTestDatabase(engine)
    const database = await files.open()
    const { ledger } = openLedger(database)
    const mark = { id: 'm', expiresAtMs: startMs + 60_000 }
    const callback = { mark, apply: async () => ({ result: 1, events: [note()] as const, raisesEpoch: false }) }
    const together = await Promise.all([
      ledger.append({ ...grantChange('grant_1'), mark }),
      ledger.append({ ...grantChange('grant_2'), mark }),
      ledger.transact(callback),
      ledger.spend({ epoch: 0, mark }),
    ])
    expect(together.map((outcome) => outcome.status)).toEqual(['recorded', 'replayed', 'replayed', 'replayed'])
    expect(await ledger.append({ ...grantChange('grant_3'), mark })).toEqual({ status: 'replayed' })
    expect(await ledger.transact(callback)).toEqual({ status: 'replayed' })
    await ledger.close()
    await database.close()
    const reopened = await files.open()
    const again = openLedger(reopened).ledger
    expect(await again.append({ ...grantChange('grant_4'), mark })).toEqual({ status: 'replayed' })
    expect(await again.append({ events: [note()], mark: { ...mark, id: 'another' } })).toMatchObject({ status: 'recorded' })
    expect(await checkLog(reopened.read)).toHaveLength(2)
  })

  test('refuses an expired mark by its own time, which never runs backwards (invariant 12)', async () => {
    const files = await createTestDatabase(engine)
    const database = await files.open()
    const { ledger, clock } = openLedger(database)
    const expiring = (id: string, seconds: number) => ({ id, expiresAtMs: startMs + seconds * 1000 })
    await ledger.append({ events: [note()], mark: expiring('good', 1) })
    clock.advance(60_000)
    expect(await ledger.append({ events: [note()], mark: expiring('just over', 60) })).toEqual({ status: 'late' })
    expect(await ledger.append({ events: [note()], mark: expiring('just not', 60.001) })).toMatchObject({ status: 'recorded' })
    clock.set(startMs - 3_600_000)
    expect(ledger.nowMs()).toBe(startMs + 60_000)
    expect(await ledger.append({ events: [note()], mark: expiring('a', 30) })).toEqual({ status: 'late' })
    expect(await ledger.spend({ epoch: 0, mark: expiring('b', 60) })).toEqual({ status: 'late' })
    const apply = () => Promise.reject(new Error('must not run'))
    expect(await ledger.transact({ mark: expiring('c', 60), apply })).toEqual({ status: 'late' })
    expect(await ledger.append({ events: [note()] })).toMatchObject({ status: 'recorded', timeMs: startMs + 60_000 })
    await ledger.close()
    await database.close()
    const reopened = await files.open()
    const restarted = openLedger(reopened, { clock: { nowMs: () => startMs } }).ledger
    expect(await restarted.append({ events: [note()], mark: expiring('d', 30) })).toEqual({ status: 'late' })
    await checkLog(reopened.read)
  })

  test('spends a mark without an entry, and remembers the time even so', async () => {
    const database = await (await createTestDatabase(engine)).open()
    const { ledger, clock } = openLedger(database)
    const mark = { id: 'm', expiresAtMs: startMs + 60_000 }
    expect(await ledger.spend({ epoch: 0, mark })).toMatchObject({ status: 'recorded', index: 0 })
    expect(await ledger.spend({ epoch: 0, mark })).toEqual({ status: 'replayed' })
    clock.advance(30_000)
    await ledger.spend({ epoch: 0, mark: { ...mark, id: 'n' } })
    clock.set(startMs)
    expect(await ledger.append({ events: [note()] })).toMatchObject({ timeMs: startMs + 30_000 })
    expect(await checkLog(database.read)).toHaveLength(1)
    expect(await countMarks(database)).toBe(2)
  })

  test('forgets expired marks, and refuses their assertions all the same, whatever the clock does', async () => {
    const files = await createTestDatabase(engine)
    const database = await files.open()
    const { ledger, clock } = openLedger(database)
    const marks = Array.from({ length: 10 }, (_, i) => ({ id: `m${i}`, expiresAtMs: startMs + (i + 1) * 1000 }))
    await Promise.all(marks.map((mark) => ledger.spend({ epoch: 0, mark })))
    clock.advance(5_000)
    expect(await ledger.forgetExpiredMarks(3)).toBe(3)
    expect(await ledger.forgetExpiredMarks(100)).toBe(2)
    expect(await ledger.forgetExpiredMarks(100)).toBe(0)
    expect(await countMarks(database)).toBe(5)
    await ledger.close()
    await database.close()
    // Nothing but housekeeping has happened at the later time, and the next process has a clock that is behind.
    const reopened = await files.open()
    const next = openLedger(reopened).ledger
    const outcomes = await Promise.all(marks.map((mark) => next.spend({ epoch: 0, mark })))
    expect(outcomes.map((outcome) => outcome.status)).toEqual([...Array<string>(5).fill('late'), ...Array<string>(5).fill('replayed')])
    await checkLog(reopened.read)
  })

  test('checks under the lock what a change says must still hold', async () => {
    const database = await (await createTestDatabase(engine)).open()
    const { ledger } = openLedger(database)
    const mark = { id: 'm', expiresAtMs: startMs + 60_000 }
    const atMost = (count: number): Pick<RowsChange, 'stillHolds'> => ({
      stillHolds: async (tx) => (await tx.selectFrom('grants').select('id').execute()).length <= count,
    })
    const outcomes = await Promise.allSettled([
      ledger.append({ ...grantChange('grant_a'), ...atMost(1) }),
      ledger.append({ ...grantChange('grant_b'), ...atMost(1), mark }),
      ledger.append({ ...grantChange('grant_c'), stillHolds: () => Promise.reject(new Error('no')), mark }),
      ledger.append(grantChange('grant_d')),
    ])
    expect(outcomes.map(statusOf)).toEqual(['recorded', 'epoch_moved', 'failed', 'recorded'])
    expect(await countMarks(database)).toBe(0)
    const grants = await database.read.selectFrom('grants').select('id').orderBy('id').execute()
    expect(grants.map((grant) => grant.id)).toEqual(['grant_a', 'grant_d'])
    expect(await checkLog(database.read)).toHaveLength(2)
  })

  test('refuses what does not fit its queue', async () => {
    const database = await (await createTestDatabase(engine)).open()
    const { ledger } = openLedger(database, { queueMax: 5 })
    const outcomes = await Promise.allSettled(Array.from({ length: 7 }, () => ledger.append({ events: [note()] })))
    expect(outcomes.map(statusOf)).toEqual([...Array<string>(5).fill('recorded'), 'failed', 'failed'])
    await expect(Promise.reject(outcomes[6]?.status === 'rejected' && outcomes[6].reason)).rejects.toMatchObject({ code: 'unavailable' })
    expect(await ledger.append({ events: [note()] })).toMatchObject({ status: 'recorded', index: 5 })
  })

  test('finishes what was begun before it closes, and refuses the rest', async () => {
    const database = await (await createTestDatabase(engine)).open()
    const { ledger } = openLedger(database, { batchMax: 4 })
    const begun = Promise.all(Array.from({ length: 10 }, () => ledger.append({ events: [note()] })))
    const closing = ledger.close()
    await expect(ledger.append({ events: [note()] })).rejects.toMatchObject({ code: 'unavailable' })
    await closing
    expect(await checkLog(database.read)).toHaveLength(10)
    expect((await begun).map((outcome) => outcome.status)).toEqual(Array<string>(10).fill('recorded'))
    await expect(ledger.transact({ apply: () => Promise.reject(new Error('must not run')) })).rejects.toMatchObject({ code: 'unavailable' })
  })
})
