import SqliteDatabase from 'better-sqlite3'
import pg from 'pg'
import { expect, test } from 'vitest'
import { join } from 'node:path'
import { checkMigrated, migrate } from '../../src/storage/migrate.ts'
import { openSqlite } from '../../src/storage/sqlite.ts'
import { createTestDatabase, createTestFolder, describeEngines, type TestDatabase } from '../harness.ts'

async function runAsOwner(files: TestDatabase, statement: string): Promise<void> {
  if (files.engine === 'sqlite') {
    const handle = new SqliteDatabase(files.location)
    handle.exec(statement)
    handle.close()
    return
  }
  const client = new pg.Client({ connectionString: files.ownerLocation })
  await client.connect()
  await client.query(statement)
  await client.end()
}

describeEngines('Migrations', (engine) => {
  test('that have all run pass the check, and running them again does nothing', async () => {
    const database = await (await createTestDatabase(engine)).open()
    await checkMigrated(database.read, engine)
    if (engine === 'sqlite') expect(await migrate(database.maintenance, engine)).toEqual([])
  })

  test('that are missing are named, with what to do', async () => {
    const files = await createTestDatabase(engine)
    const database = await files.open()
    await runAsOwner(files, 'delete from schema_migration')
    await expect(checkMigrated(database.read, engine)).rejects.toMatchObject({
      code: 'config_invalid',
      publicMessage: 'the database lacks 0001-foundation, 0002-operation: run `stint migrate` first',
    })
  })

  test('of a newer version are refused', async () => {
    const files = await createTestDatabase(engine)
    const database = await files.open()
    await runAsOwner(files, `insert into schema_migration (name, timestamp) values ('9999-later', '2030-01-01')`)
    await expect(checkMigrated(database.read, engine)).rejects.toMatchObject({
      code: 'config_invalid',
      publicMessage: expect.stringContaining('of a newer version (9999-later)'),
    })
  })
})

test('A database that was never migrated lacks everything', async () => {
  const database = openSqlite({ file: join(createTestFolder(), 'stint.db') })
  await expect(checkMigrated(database.read, 'sqlite')).rejects.toMatchObject({ code: 'config_invalid' })
  expect(await migrate(database.maintenance, 'sqlite')).toEqual(['0001-foundation', '0002-operation'])
  await checkMigrated(database.read, 'sqlite')
  await database.close()
})
