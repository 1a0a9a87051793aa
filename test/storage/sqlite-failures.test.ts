import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { sql } from 'kysely'
import { describe, expect, test } from 'vitest'
import type { Database } from '../../src/storage/engine.ts'
import { createTestDatabase } from '../harness.ts'
import { checkLog } from './check-log.ts'
import { grantChange, note, openLedger, startMs } from './changes.ts'

const recorded = { status: 'fulfilled', value: { status: 'recorded' } }
const unavailable = { status: 'rejected', reason: { code: 'unavailable' } }

async function setPragma(database: Database, pragma: string): Promise<void> {
  await sql.raw(`pragma ${pragma}`).execute(database.maintenance)
}

describe('When SQLite fails', () => {
  test('a full disk fails the whole batch, which is taken again once there is room', async () => {
    const database = await (await createTestDatabase('sqlite')).open()
    const { ledger, lines } = openLedger(database)
    await ledger.append(grantChange('grant_1'))
    const { rows } = await sql<{ page_count: number }>`pragma page_count`.execute(database.maintenance)
    await setPragma(database, `max_page_count = ${rows[0]?.page_count}`)
    const mark = { id: 'm', expiresAtMs: startMs + 60_000 }
    const attempt = () =>
      Promise.allSettled([
        ledger.append({ ...grantChange('grant_2'), mark }),
        ledger.append({ events: [note('x'.repeat(50_000))] }),
        ledger.transact({ apply: async () => ({ result: 1, events: [note()], raisesEpoch: true }) }),
      ])
    expect(ledger.failing).toBe(false)
    expect(await attempt()).toMatchObject([unavailable, unavailable, unavailable])
    expect([ledger.failing, ledger.halted]).toEqual([true, undefined])
    expect(lines.join('')).toContain('database or disk is full')
    expect(await checkLog(database.read)).toHaveLength(1)
    expect(await database.read.selectFrom('replay_mark').selectAll().execute()).toEqual([])
    await setPragma(database, 'max_page_count = 1000000')
    expect(await attempt()).toMatchObject([recorded, recorded, recorded])
    expect(ledger.failing).toBe(false)
    expect(await checkLog(database.read)).toHaveLength(4)
  })

  test('a database that may not be written fails the whole batch, and is used again afterwards', async () => {
    const database = await (await createTestDatabase('sqlite')).open()
    const { ledger } = openLedger(database)
    await setPragma(database, 'query_only = on')
    const attempt = () => Promise.allSettled([ledger.append(grantChange('grant_1')), ledger.append({ events: [note()] })])
    expect(await attempt()).toMatchObject([unavailable, unavailable])
    expect(ledger.halted).toBeUndefined()
    await setPragma(database, 'query_only = off')
    expect(await attempt()).toMatchObject([recorded, recorded])
    expect(await checkLog(database.read)).toHaveLength(2)
  })

  // A limit on the size of files makes the write of COMMIT itself fail, for any user, in a process of its own.
  const canLimit = spawnSync('prlimit', ['--version']).status === 0
  test.skipIf(!canLimit)('a COMMIT that fails in mid-write is never told as recorded, and the log goes on', async () => {
    const files = await createTestDatabase('sqlite')
    const child = spawn(process.execPath, [`${import.meta.dirname}/limited-writer.ts`, files.location], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    let answers = ''
    child.stdout.on('data', (data: Buffer) => void (answers += data.toString()))
    await once(child, 'close')
    const [beforeLimit, atLimit, after, failing, detail] = JSON.parse(answers) as [number, string[], string[], boolean[], string]
    expect(beforeLimit).toBe(1)
    expect(detail).toMatch(/disk I\/O error|disk is full/)
    expect(atLimit).toContain('unavailable')
    expect(after).toEqual(['recorded', 'recorded'])
    // With nothing to forget, too, the job finds out that the log cannot be written, and that it can be again.
    expect(failing).toEqual([false, true, false])
    const database = await files.open()
    const kept = atLimit.filter((status) => status === 'recorded').length
    expect(await checkLog(database.read)).toHaveLength(beforeLimit + kept + after.length)
  })
})
