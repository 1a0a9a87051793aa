import SqliteDatabase from 'better-sqlite3'
import pg from 'pg'
import { expect, test } from 'vitest'
import { readHead } from '../../src/storage/head.ts'
import { createTestDatabase, describeEngines, type TestDatabase } from '../harness.ts'
import { checkLog } from './check-log.ts'
import { grantChange, note, openLedger } from './changes.ts'

/** Puts the log back to its first entry, guards or not, as a restored backup or an operator could. */
async function cutLog(files: TestDatabase): Promise<void> {
  const head = `update log_head set size = 1`
  if (files.engine === 'sqlite') {
    const handle = new SqliteDatabase(files.ownerLocation)
    handle.exec(`drop trigger audit_event_no_delete; drop trigger log_head_forward; delete from audit_event where idx > 0; ${head}`)
    handle.exec(`update log_head set frontier = (select leaf_hash from audit_event), root = (select leaf_hash from audit_event)`)
    handle.close()
    return
  }
  const owner = new pg.Client({ connectionString: files.ownerLocation })
  await owner.connect()
  await owner.query(`set session_replication_role = replica`)
  await owner.query(`delete from audit_event where idx > 0`)
  await owner.query(`${head}, frontier = (select leaf_hash from audit_event), root = (select leaf_hash from audit_event)`)
  await owner.end()
}

describeEngines('A log that is shorter than it was', (engine) => {
  test('stops issuance for good', async () => {
    const files = await createTestDatabase(engine)
    const database = await files.open()
    const { ledger } = openLedger(database)
    for (const detail of ['a', 'b', 'c']) await ledger.append({ events: [note(detail)] })
    await cutLog(files)
    const outcomes = await Promise.allSettled([
      ledger.append(grantChange('grant_1')),
      ledger.transact({ apply: async () => ({ result: 1, events: [note()], raisesEpoch: true }) }),
    ])
    expect(outcomes).toMatchObject([{ reason: { code: 'unavailable' } }, { reason: { code: 'unavailable' } }])
    expect(ledger.halted).toMatch(/^the log has 1 entries, but had 3/)
    await expect(ledger.append({ events: [note()] })).rejects.toMatchObject({ code: 'unavailable' })
    await expect(ledger.forgetExpiredMarks(1)).rejects.toMatchObject({ code: 'unavailable' })
    expect(await checkLog(database.read)).toHaveLength(1)
    // What another process appends to the shorter log does not set this one going again.
    if (engine === 'postgres') {
      const other = openLedger(await files.open()).ledger
      for (const detail of ['d', 'e', 'f']) await other.append({ events: [note(detail)] })
    }
    await expect(ledger.append({ events: [note()] })).rejects.toMatchObject({ code: 'unavailable' })
  })

  test('is noticed by a process that only read the longer one', async () => {
    const files = await createTestDatabase(engine)
    const database = await files.open()
    const writer = openLedger(database).ledger
    for (const detail of ['a', 'b', 'c']) await writer.append({ events: [note(detail)] })
    const reader = openLedger(database).ledger
    reader.observe(await readHead(database.read))
    await cutLog(files)
    await expect(reader.append({ events: [note()] })).rejects.toMatchObject({ code: 'unavailable' })
    expect(reader.halted).toBeDefined()
  })

  test('is not confused with a head that cannot be read', async () => {
    const files = await createTestDatabase(engine)
    const database = await files.open()
    const { ledger, lines } = openLedger(database)
    await ledger.append({ events: [note()] })
    const damage = (frontier: Buffer) => database.write(async ({ db }) => void (await db.updateTable('log_head').set({ frontier }).execute()))
    const { frontier } = await database.read.selectFrom('log_head').select('frontier').executeTakeFirstOrThrow()
    await damage(Buffer.alloc(31))
    await expect(ledger.append({ events: [note()] })).rejects.toMatchObject({ code: 'unavailable' })
    expect(lines.join('')).toContain('the log head is damaged')
    expect(ledger.halted).toBeUndefined()
    await damage(Buffer.from(frontier))
    expect(await ledger.append({ events: [note()] })).toMatchObject({ status: 'recorded', index: 1 })
  })
})
