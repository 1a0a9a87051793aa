import pg from 'pg'
import { describe, expect, inject, onTestFinished, test } from 'vitest'
import type { Database } from '../../src/storage/engine.ts'
import type { Recorded } from '../../src/storage/change.ts'
import { openPostgres } from '../../src/storage/postgres.ts'
import { createTestDatabase, type TestDatabase } from '../harness.ts'
import { checkLog } from './check-log.ts'
import { countWrites, grantChange, note, openLedger, sleep, startMs } from './changes.ts'
import { startTcpProxy, type TcpProxy } from './tcp-proxy.ts'

const server = inject('postgres')
const where = server.missing === undefined ? '' : ` (skipped: ${server.missing})`
const recorded = { status: 'fulfilled', value: { status: 'recorded' } }
const unavailable = { status: 'rejected', reason: { code: 'unavailable' } }

interface Wired {
  readonly files: TestDatabase
  /** Reaches the server through the proxy. */
  readonly database: Database
  /** Reaches it directly. */
  readonly direct: Database
  readonly proxy: TcpProxy
}

async function openThroughProxy(silenceMsMax = 20_000): Promise<Wired> {
  const files = await createTestDatabase('postgres')
  const url = new URL(files.location)
  const proxy = await startTcpProxy(Number(url.port))
  url.port = String(proxy.port)
  const database = openPostgres({ url: url.href, silenceMsMax })
  onTestFinished(() => database.close())
  return { files, database, direct: await files.open(), proxy }
}

/** Three changes of different kinds that share a batch. */
function appendThree(ledger: ReturnType<typeof openLedger>['ledger'], tag: string): Promise<PromiseSettledResult<Recorded<unknown>>[]> {
  return Promise.allSettled([
    ledger.append({ ...grantChange(`grant_${tag}`), mark: { id: tag, expiresAtMs: startMs + 60_000 } }),
    ledger.append({ events: [note(tag)] }),
    ledger.transact({ apply: async () => ({ result: tag, events: [note(tag)], raisesEpoch: true }) }),
  ])
}

describe.skipIf(server.missing !== undefined)(`When PostgreSQL fails${where}`, () => {
  test('a connection that breaks in mid-transaction fails the batch, stores nothing, and is replaced', async () => {
    const { database, direct, proxy } = await openThroughProxy()
    const { ledger } = openLedger(database)
    await appendThree(ledger, 'before')
    const outcomes = await Promise.allSettled([
      ledger.append(grantChange('grant_1')),
      ledger.transact({
        apply: async () => {
          proxy.cutAll()
          // Long enough for the break to be noticed while no query is under way.
          await sleep(50)
          return { result: 1, events: [note()], raisesEpoch: false }
        },
      }),
    ])
    expect(outcomes).toMatchObject([unavailable, unavailable])
    expect(await checkLog(direct.read)).toHaveLength(3)
    expect(await appendThree(ledger, 'after')).toMatchObject([recorded, recorded, recorded])
    expect(await checkLog(direct.read)).toHaveLength(6)
  })

  test('a session that an administrator ends is no more than a failed batch', async () => {
    const { files, database, direct } = await openThroughProxy()
    const { ledger } = openLedger(database)
    const owner = await connectOwner(files)
    const outcomes = await Promise.allSettled([
      ledger.append(grantChange('grant_1')),
      ledger.transact({
        apply: async (tx) => {
          await owner.query(`select pg_terminate_backend(pid) from pg_stat_activity
            where datname = current_database() and state = 'idle in transaction'`)
          await tx.selectFrom('operator').selectAll().execute()
          return { result: 1, events: [note()], raisesEpoch: false }
        },
      }),
    ])
    expect(outcomes).toMatchObject([unavailable, unavailable])
    expect(await checkLog(direct.read)).toEqual([])
    expect(await appendThree(ledger, 'after')).toMatchObject([recorded, recorded, recorded])
  })

  test('a COMMIT that took effect but whose answer is lost counts as recorded', async () => {
    const { database, direct, proxy } = await openThroughProxy()
    const { ledger, lines } = openLedger(database)
    proxy.onAnswer = (data, connection) => {
      if (!data.includes('COMMIT\0')) return 'forward'
      proxy.onAnswer = () => 'forward'
      connection.cut()
      return 'drop'
    }
    const outcomes = await appendThree(ledger, 'x')
    expect(outcomes).toMatchObject([recorded, recorded, { ...recorded, value: { result: 'x', index: 2 } }])
    expect(lines.join('')).toContain('the answer to a COMMIT was lost')
    expect(await checkLog(direct.read)).toHaveLength(3)
    expect(await ledger.append({ events: [note()], epoch: 1 })).toMatchObject({ status: 'recorded', index: 3 })
  })

  test('a COMMIT that never arrives fails everyone, stores nothing, and is not tried again', async () => {
    const { database: wired, direct, proxy } = await openThroughProxy()
    const { database, writes } = countWrites(wired)
    const { ledger } = openLedger(database)
    proxy.onRequest = (data, connection) => {
      if (!data.includes('commit\0')) return 'forward'
      proxy.onRequest = () => 'forward'
      connection.cut()
      return 'drop'
    }
    expect(await appendThree(ledger, 'x')).toMatchObject([unavailable, unavailable, unavailable])
    // The batch, and the search for it.
    expect(writes()).toBe(2)
    expect(await checkLog(direct.read)).toEqual([])
    expect(await direct.read.selectFrom('replay_mark').selectAll().execute()).toEqual([])
    expect(await appendThree(ledger, 'x')).toMatchObject([recorded, recorded, recorded])
  })

  test('a COMMIT that arrives late is waited for', async () => {
    const { database, direct, proxy } = await openThroughProxy()
    const { ledger } = openLedger(database)
    proxy.onRequest = (data, { client, server: upstream }) => {
      if (!data.includes('commit\0')) return 'forward'
      proxy.onRequest = () => 'forward'
      // The client is cut off at once; the server hears of it only after its COMMIT.
      upstream.removeAllListeners('end').removeAllListeners('close')
      client.removeAllListeners('end').removeAllListeners('close')
      client.resetAndDestroy()
      setTimeout(() => upstream.end(data), 400)
      return 'drop'
    }
    expect(await appendThree(ledger, 'x')).toMatchObject([recorded, recorded, recorded])
    expect(await checkLog(direct.read)).toHaveLength(3)
  })

  test('an outcome that cannot be found out is said to be unknown, and nothing is written twice', async () => {
    const { database, direct, proxy } = await openThroughProxy()
    const { ledger } = openLedger(database, { settleMsMax: 300 })
    let stopped: Promise<void> | undefined
    proxy.onAnswer = (data) => {
      if (!data.includes('COMMIT\0')) return 'forward'
      proxy.onAnswer = () => 'forward'
      stopped = proxy.stop()
      return 'drop'
    }
    const unknown = { status: 'rejected', reason: { code: 'unavailable', publicMessage: expect.stringContaining('not known') } }
    expect(await appendThree(ledger, 'x')).toMatchObject([unknown, unknown, unknown])
    await stopped
    await proxy.listen()
    expect(await appendThree(ledger, 'y')).toMatchObject([recorded, recorded, recorded])
    expect(await checkLog(direct.read)).toHaveLength(6)
  })

  test('a transaction that the server rolled back is not taken for committed', async () => {
    const database = await (await createTestDatabase('postgres')).open()
    const row = { id: 'm', expires_at: '2026-01-15T12:00:00.000Z' }
    const swallowed = database.write(async ({ db }) => {
      await db.insertInto('replay_mark').values(row).execute()
      await db.insertInto('replay_mark').values(row).execute().catch(() => undefined)
    })
    await expect(swallowed).rejects.toThrow('rolled the transaction back')
    await database.write(async ({ db }) => void (await db.insertInto('replay_mark').values(row).execute()))
  })

  test('a server that cannot be reached fails at once, and is used again when it is back', async () => {
    const { database, direct, proxy } = await openThroughProxy()
    const { ledger } = openLedger(database)
    await proxy.stop()
    const beganMs = performance.now()
    expect(await appendThree(ledger, 'x')).toMatchObject([unavailable, unavailable, unavailable])
    await expect(ledger.forgetExpiredMarks(10)).rejects.toMatchObject({ code: 'unavailable' })
    expect(performance.now() - beganMs).toBeLessThan(2_000)
    expect(ledger.halted).toBeUndefined()
    await proxy.listen()
    expect(await appendThree(ledger, 'x')).toMatchObject([recorded, recorded, recorded])
    expect(await checkLog(direct.read)).toHaveLength(3)
  })

  test('a network that goes silent fails within its limit, for writers and readers, and both recover', async () => {
    const { database, direct, proxy } = await openThroughProxy(400)
    const { ledger } = openLedger(database)
    await appendThree(ledger, 'x')
    await database.read.selectFrom('log_head').selectAll().execute()
    proxy.onRequest = () => 'drop'
    const beganMs = performance.now()
    const reading = database.read.selectFrom('log_head').selectAll().execute()
    const [read, ...outcomes] = await Promise.allSettled([reading, appendThree(ledger, 'y')])
    expect(read).toMatchObject({ status: 'rejected' })
    expect(outcomes).toMatchObject([{ value: [unavailable, unavailable, unavailable] }])
    expect(performance.now() - beganMs).toBeLessThan(3_000)
    proxy.onRequest = () => 'forward'
    proxy.cutAll()
    expect(await database.read.selectFrom('log_head').select('size').execute()).toEqual([{ size: 3 }])
    expect(await appendThree(ledger, 'y')).toMatchObject([recorded, recorded, recorded])
    expect(await checkLog(direct.read)).toHaveLength(6)
  })

  test('a log that another session holds is waited for, but not for ever', async () => {
    const { files, direct } = await openThroughProxy()
    // Shorter than in production.
    const database = openPostgres({ url: files.location, lockMsMax: 800 })
    onTestFinished(() => database.close())
    const { ledger } = openLedger(database)
    const owner = await connectOwner(files)
    await owner.query('begin')
    await owner.query('select * from log_head for update')
    const waiting = appendThree(ledger, 'x')
    await sleep(100)
    await owner.query('commit')
    expect(await waiting).toMatchObject([recorded, recorded, recorded])
    await owner.query('begin')
    await owner.query('select * from log_head for update')
    expect(await appendThree(ledger, 'y')).toMatchObject([unavailable, unavailable, unavailable])
    await owner.query('commit')
    expect(await appendThree(ledger, 'y')).toMatchObject([recorded, recorded, recorded])
    expect(await checkLog(direct.read)).toHaveLength(6)
  })
})

async function connectOwner(files: TestDatabase): Promise<pg.Client> {
  const owner = new pg.Client({ connectionString: files.ownerLocation })
  await owner.connect()
  onTestFinished(() => owner.end())
  return owner
}
