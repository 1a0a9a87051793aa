import { randomBytes } from 'node:crypto'
import SqliteDatabase from 'better-sqlite3'
import { sql, type Kysely } from 'kysely'
import { Migrator, type Migration } from 'kysely/migration'
import pg from 'pg'
import { expect, inject, onTestFinished, test } from 'vitest'
import { join } from 'node:path'
import type { Database, Engine } from '../../src/storage/engine.ts'
import { checkMigrated, grantPrivileges, migrate } from '../../src/storage/migrate.ts'
import { createFoundation } from '../../src/storage/migrations/0001-foundation.ts'
import { createOperation } from '../../src/storage/migrations/0002-operation.ts'
import { openPostgres } from '../../src/storage/postgres.ts'
import { openSqlite } from '../../src/storage/sqlite.ts'
import { naiveRoot } from '../audit/naive-tree.ts'
import { issuer, startBroker, type TestBroker } from '../broker.ts'
import { createTestClock, createTestDatabase, createTestFolder, describeEngines, describePostgres, type TestDatabase } from '../harness.ts'
import { ownerUrl, runAsOwner as runInServer, servingRole, servingUrl } from '../template.ts'
import { grantChange, note, openLedger, startMs } from './changes.ts'
import { checkLog } from './check-log.ts'

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
      publicMessage: 'the database lacks 0001-foundation, 0002-operation, 0003-proof, 0004-credentials, 0005-rotation: run `stint migrate` first',
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
  expect(await migrate(database.maintenance, 'sqlite')).toEqual(['0001-foundation', '0002-operation', '0003-proof', '0004-credentials', '0005-rotation'])
  await checkMigrated(database.read, 'sqlite')
  await database.close()
})

test('Migrations of SQLite that do not come to their end leave nothing, so that the next ones begin afresh', async () => {
  const database = openSqlite({ file: join(createTestFolder(), 'stint.db') })
  const tables = async () => (await database.read.introspection.getTables()).map(({ name }) => name)
  await database.maintenance.schema.createTable('checkpoint').addColumn('size', 'integer').execute()
  await expect(migrate(database.maintenance, 'sqlite')).rejects.toThrow('table checkpoint already exists')
  expect(await tables()).toEqual(['checkpoint'])
  await database.maintenance.schema.dropTable('checkpoint').execute()
  expect(await migrate(database.maintenance, 'sqlite')).toEqual(['0001-foundation', '0002-operation', '0003-proof', '0004-credentials', '0005-rotation'])
  await database.close()
})

/** A database as the version before checkpoints left it, open as its owner; and how a broker of this version opens it. */
async function createOldDatabase(engine: Engine): Promise<{ owner: Database; files: TestDatabase }> {
  const file = join(createTestFolder(), 'stint.db')
  const server = inject('postgres')
  const name = `old_${randomBytes(8).toString('hex')}`
  if (engine === 'postgres') {
    if (server.missing !== undefined) throw new Error(server.missing)
    await runInServer(server, `create database ${name}`)
    onTestFinished(() => runInServer(server, `drop database ${name} with (force)`))
  }
  const [location, ownerLocation] = server.missing === undefined && engine === 'postgres' ? [servingUrl(server, name), ownerUrl(server, name)] : [file, file]
  const owner = engine === 'sqlite' ? openSqlite({ file }) : openPostgres({ url: ownerLocation })
  onTestFinished(() => owner.close())
  const migrations: Record<string, Migration> = {
    '0001-foundation': { up: (db: Kysely<never>) => createFoundation(db, engine) },
    '0002-operation': { up: (db: Kysely<never>) => createOperation(db, engine) },
  }
  const provider = { getMigrations: async () => migrations }
  const { error } = await new Migrator({ db: owner.maintenance, provider, migrationTableName: 'schema_migration', migrationLockTableName: 'schema_migration_lock' }).migrateToLatest()
  expect(error).toBeUndefined()
  const open = async () => {
    const database = engine === 'sqlite' ? openSqlite({ file }) : openPostgres({ url: location })
    onTestFinished(() => database.close())
    return database
  }
  return { owner, files: { engine, location, ownerLocation, open } }
}

describePostgres('A process of the version before that runs on beside this one', (engine) => {
  test('puts no secret that nobody would find: it is refused', async () => {
    const database = await (await createTestDatabase(engine)).open()
    const put = (columns: string, values: string) => sql.raw(`insert into sealed_secret (name, version, sealed, sealed_version, created_at${columns}) values ('crm', ${values})`).execute(database.maintenance)
    await expect(put('', "1, 'x', 1, 't'")).rejects.toThrow('sealed_secret_staged')
    await put(', stage', "1, 'x', 1, 't', 'current'")
    await expect(sql`update sealed_secret set sealed = ''`.execute(database.maintenance)).rejects.toThrow('sealed_secret_staged')
    await sql`update sealed_secret set sealed = '', stage = null`.execute(database.maintenance)
  })
})

describeEngines('A log from before checkpoints', (engine) => {
  test('is migrated as it stands, and signed to its last entry by the first broker of this version', async () => {
    const { owner, files } = await createOldDatabase(engine)
    const { ledger } = openLedger(owner)
    const opened = { type: 'log.opened', actor: { kind: 'stint', id: 'start' }, trust_domain: 'stint.test', issuer } as const
    await ledger.append({ events: [opened] })
    for (let i = 0; i < 300; i++) await ledger.append(i % 3 === 0 ? grantChange(`grant_${i}`) : { events: [note(`${i}`)] })
    const before = await checkLog(owner.read)
    expect(before).toHaveLength(301)
    await sql`insert into revocation (idx, workload, task, before_time) values (7, 'old-bot', null, null)`.execute(owner.maintenance)

    expect(await migrate(owner.maintenance, engine)).toEqual(['0003-proof', '0004-credentials', '0005-rotation'])
    if (engine === 'postgres') await grantPrivileges(owner.maintenance, servingRole)
    await ledger.close()
    await owner.close()

    // As if beside a broker on it: with this database, and no operator made in it.
    const beside = { database: files, clock: createTestClock(startMs), adminCredential: '' } as TestBroker
    const broker = await startBroker(engine, { beside })
    const { read } = broker.broker.database
    expect(await read.selectFrom('revocation').selectAll().execute()).toEqual([{ idx: 7, workload: 'old-bot', task: null, before_time: null, tool: null }])
    const after = await checkLog(read)
    expect(after.slice(0, 301)).toEqual(before)
    expect(after.slice(301)).toMatchObject([{ use: 'seal' }, { use: 'token' }, { use: 'checkpoint', alg: 'Ed25519' }])
    const leaves = (await read.selectFrom('audit_event').select('leaf_hash').orderBy('idx').execute()).map(({ leaf_hash: hash }) => hash)
    expect(await read.selectFrom('checkpoint').select(['size', 'root']).execute()).toEqual([{ size: 304, root: naiveRoot(leaves) }])
    expect(broker.broker.ledger.halted).toBeUndefined()
    const tile = Buffer.from(await (await broker.send('GET', '/log/tile/0/000')).arrayBuffer())
    expect(tile.equals(Buffer.concat(leaves.slice(0, 256)))).toBe(true)
  })
})
