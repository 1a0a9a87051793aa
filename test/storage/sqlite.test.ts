import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, existsSync, mkdirSync, readdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { sql } from 'kysely'
import { describe, expect, onTestFinished, test } from 'vitest'
import { migrate } from '../../src/storage/migrate.ts'
import { openSqlite } from '../../src/storage/sqlite.ts'
import { createTestFolder } from '../harness.ts'

const heldElsewhere = { code: 'config_invalid', publicMessage: expect.stringContaining('another process has') }

/** The error that opening the file throws; closes the database at once where it throws none. */
async function openingError(file: string): Promise<unknown> {
  try {
    await openSqlite({ file }).close()
    return undefined
  } catch (error) {
    return error
  }
}

describe('A SQLite file', () => {
  test('is open once at a time, under whatever name', async () => {
    const folder = createTestFolder()
    const file = join(folder, 'data', 'stint.db')
    const database = openSqlite({ file })
    symlinkSync(file, join(folder, 'link.db'))
    expect(await openingError(file)).toMatchObject(heldElsewhere)
    expect(await openingError(join(folder, 'link.db'))).toMatchObject(heldElsewhere)
    expect(await openingError(join(folder, 'data', '..', 'data', 'stint.db'))).toMatchObject(heldElsewhere)
    await sql`create table t (a)`.execute(database.maintenance)
    await database.close()
    expect(await openingError(join(folder, 'link.db'))).toBeUndefined()
  })

  test('is held by a process until that process ends, even by SIGKILL', async () => {
    const file = join(createTestFolder(), 'stint.db')
    const holding = `
      import { openSqlite } from ${JSON.stringify(new URL('../../src/storage/sqlite.ts', import.meta.url).href)}
      openSqlite({ file: ${JSON.stringify(file)} })
      process.stdout.write('open')
      setInterval(() => {}, 1000)`
    const child = spawn(process.execPath, ['--input-type=module', '-e', holding], { stdio: ['ignore', 'pipe', 'inherit'] })
    onTestFinished(() => void child.kill('SIGKILL'))
    await once(child.stdout, 'data')
    expect(await openingError(file)).toMatchObject(heldElsewhere)
    child.kill('SIGKILL')
    await once(child, 'exit')
    expect(await openingError(file)).toBeUndefined()
  })

  test('commits durably: WAL and full synchronisation, foreign keys on', async () => {
    const database = openSqlite({ file: join(createTestFolder(), 'stint.db') })
    onTestFinished(() => database.close())
    const read = async (name: string) => Object.values((await sql.raw<Record<string, unknown>>(`pragma ${name}`).execute(database.maintenance)).rows[0] ?? {})
    expect(await read('journal_mode')).toEqual(['wal'])
    expect(await read('synchronous')).toEqual([2])
    expect(await read('foreign_keys')).toEqual([1])
    expect(await read('trusted_schema')).toEqual([0])
  })

  test('is readable to its owner alone', async () => {
    const file = join(createTestFolder(), 'data', 'stint.db')
    const database = openSqlite({ file })
    onTestFinished(() => database.close())
    await migrate(database.maintenance, 'sqlite')
    const modeOf = (path: string) => (statSync(path).mode & 0o777).toString(8)
    const paths = [join(file, '..'), file, `${file}-wal`, `${file}.lock`]
    expect(paths.map(modeOf)).toEqual(['700', '600', '600', '600'])
  })

  test('has a lock that others cannot take, also where an earlier one was open to them', async () => {
    const file = join(createTestFolder(), 'stint.db')
    writeFileSync(`${file}.lock`, '')
    chmodSync(`${file}.lock`, 0o644)
    onTestFinished(openSqlite({ file }).close)
    expect(statSync(`${file}.lock`).mode & 0o777).toBe(0o600)
  })

  test('that must be there is not made up', async () => {
    const folder = createTestFolder()
    const file = join(folder, 'data', 'stint.db')
    const open = () => openSqlite({ file, whenMissing: 'refuse' })
    expect(open).toThrow(`there is no database ${file}: make it with \`stint migrate --config …\``)
    expect(readdirSync(folder)).toEqual([])
    await openSqlite({ file }).close()
    await open().close()
    expect(existsSync(file)).toBe(true)
  })

  test.each(['', '-wal', '-shm'])('that others can read is refused where it must be private, with what to run (stint.db%s)', async (suffix) => {
    const file = join(createTestFolder(), 'stint.db')
    await openSqlite({ file }).close()
    if (suffix !== '') writeFileSync(`${file}${suffix}`, '')
    chmodSync(`${file}${suffix}`, 0o640)
    expect(() => openSqlite({ file, privateOnly: true })).toThrow(`run chmod 600 ${file}${suffix}, and see who had access`)
    chmodSync(`${file}${suffix}`, 0o600)
    await openSqlite({ file, privateOnly: true }).close()
  })

  test('that is none, or that cannot be made, is refused with its name and the reason, and is not held', async () => {
    const folder = createTestFolder()
    const file = join(folder, 'notes.db')
    writeFileSync(file, 'not a database at all, but a text that is long enough to be taken for a header of one')
    for (let attempt = 0; attempt < 2; attempt++) {
      const message = expect.stringMatching(/notes\.db cannot be opened: file is not a database/)
      expect(await openingError(file)).toMatchObject({ code: 'config_invalid', publicMessage: message })
    }
    mkdirSync(join(folder, 'folder.db'))
    expect(await openingError(join(folder, 'folder.db'))).toMatchObject({ code: 'config_invalid' })
    expect(await openingError(join(file, 'stint.db'))).toMatchObject({ code: 'config_invalid' })
  })

  test('is only read through the handle for reading', async () => {
    const database = openSqlite({ file: join(createTestFolder(), 'stint.db') })
    onTestFinished(() => database.close())
    await migrate(database.maintenance, 'sqlite')
    await expect(sql`delete from replay_mark`.execute(database.read)).rejects.toThrow('readonly')
  })

  test('sees no half of a transaction, and nothing of one that failed', async () => {
    const database = openSqlite({ file: join(createTestFolder(), 'stint.db') })
    onTestFinished(() => database.close())
    await migrate(database.maintenance, 'sqlite')
    const insert = { id: 'm', expires_at: '2026-01-15T12:00:00.000Z' }
    const failing = database.write(async ({ db }) => {
      await db.insertInto('replay_mark').values(insert).execute()
      expect(await database.read.selectFrom('replay_mark').selectAll().execute()).toEqual([])
      throw new Error('undone')
    })
    await expect(failing).rejects.toThrow('undone')
    await database.write(async ({ db }) => void (await db.insertInto('replay_mark').values(insert).execute()))
    expect(await database.read.selectFrom('replay_mark').selectAll().execute()).toEqual([insert])
  })
})
