import { randomBytes } from 'node:crypto'
import pg from 'pg'
import { describe, expect, inject, onTestFinished, test } from 'vitest'
import { checkPostgres, openPostgres } from '../../src/storage/postgres.ts'
import { createTestDatabase, type TestDatabase } from '../harness.ts'
import { checkLog } from './check-log.ts'
import { note, openLedger } from './changes.ts'

const server = inject('postgres')
const where = server.missing === undefined ? '' : ` (skipped: ${server.missing})`

async function connect(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  onTestFinished(() => client.end())
  return client
}

/** A role of this test alone, which begins with the privileges of the broker's. Returns its name and its URL. */
async function createRole(files: TestDatabase, owner: pg.Client): Promise<{ role: string; url: string; database: string }> {
  const role = `role_${randomBytes(6).toString('hex')}`
  const url = new URL(files.location)
  const database = url.pathname.slice(1)
  await owner.query(`create role ${role} login password 'p' in role stint_app`)
  onTestFinished(async () => {
    await owner.query(`alter database ${database} owner to postgres`)
    await owner.query(`reassign owned by ${role} to postgres`)
    await owner.query(`drop owned by ${role}`)
    await owner.query(`drop role ${role}`)
  })
  url.username = role
  url.password = 'p'
  return { role, url: url.href, database }
}

async function refusalOf(url: string): Promise<string | undefined> {
  const database = openPostgres({ url })
  try {
    await checkPostgres(database.read)
    return undefined
  } catch (error) {
    expect(error).toMatchObject({ code: 'config_invalid' })
    return error instanceof Error ? error.message : String(error)
  } finally {
    await database.close()
  }
}

// What makes a role unfit to serve, one way each.
const unfit: Record<string, (role: string, database: string) => string> = {
  'may change entries': (role) => `grant update on audit_event to ${role}`,
  'may change one column of entries': (role) => `grant update (body) on audit_event to ${role}`,
  'may delete entries': (role) => `grant delete on audit_event to ${role}`,
  'may empty the log': (role) => `grant truncate on audit_event to ${role}`,
  'may put triggers on the log': (role) => `grant trigger on audit_event to ${role}`,
  'may delete revocations': (role) => `grant delete on revocation to ${role}`,
  'may change policy sets': (role) => `grant update on policy_set to ${role}`,
  'may delete the head': (role) => `grant delete on log_head to ${role}`,
  'owns the log': (role) => `alter table audit_event owner to ${role}`,
  'owns the head': (role) => `alter table log_head owner to ${role}`,
  'owns the database, and with it the schema': (role, database) => `alter database ${database} owner to ${role}`,
  'is a superuser': (role) => `alter role ${role} superuser`,
  'can become a superuser, though it inherits nothing': (role) => `grant postgres to ${role} with inherit false`,
  'may write all data': (role) => `grant pg_write_all_data to ${role}`,
}

describe.skipIf(server.missing !== undefined)(`The PostgreSQL role${where}`, () => {
  test('of the broker passes the check', async () => {
    expect(await refusalOf((await createTestDatabase('postgres')).location)).toBeUndefined()
  })

  test('of the owner is refused', async () => {
    expect(await refusalOf((await createTestDatabase('postgres')).ownerLocation)).toContain('the role postgres can change the audit log')
  })

  test('that could change what is recorded is refused, whatever way it has', async () => {
    const files = await createTestDatabase('postgres')
    const owner = await connect(files.ownerLocation)
    for (const [name, makeUnfit] of Object.entries(unfit)) {
      const { role, url, database } = await createRole(files, owner)
      expect(await refusalOf(url), name).toBeUndefined()
      await owner.query(makeUnfit(role, database))
      expect(await refusalOf(url), name).toContain(`the role ${role} can change the audit log`)
    }
  })

  test('whose commits are not durable is refused (invariant 1)', async () => {
    const files = await createTestDatabase('postgres')
    const owner = await connect(files.ownerLocation)
    const { role, url } = await createRole(files, owner)
    await owner.query(`alter role ${role} set synchronous_commit = off`)
    expect(await refusalOf(url)).toContain('synchronous_commit is off')
  })

  test('is not opened by a URL that would lift the time limits', () => {
    expect(() => openPostgres({ url: 'postgres://a:b@127.0.0.1/c?options=-c%20statement_timeout%3D0' })).toThrow('must not carry `options`')
  })

  test('of the broker can take no guard away (invariant 3)', async () => {
    const files = await createTestDatabase('postgres')
    const database = await files.open()
    const { ledger } = openLedger(database)
    await ledger.append({ events: [note()] })
    const broker = await connect(files.location)
    const attempts = [
      'alter table audit_event disable trigger all',
      'alter table audit_event disable trigger user',
      'drop trigger audit_event_no_delete on audit_event',
      'drop trigger log_head_forward on log_head',
      'alter trigger audit_event_no_delete on audit_event rename to x',
      `create trigger mine before insert on audit_event for each row execute function stint_refuse()`,
      'create or replace function stint_refuse() returns trigger language plpgsql as $$ begin return old; end $$',
      'create or replace function stint_audit_in_order() returns trigger language plpgsql as $$ begin return null; end $$',
      'drop function stint_refuse() cascade',
      'alter function stint_head_forward() set search_path = pg_temp',
      'set session_replication_role = replica',
      'alter table audit_event owner to stint_app',
      'alter table audit_event add column x text',
      'create rule r as on insert to audit_event do instead nothing',
      'create temp table child () inherits (audit_event)',
      'drop table audit_event cascade',
      'drop schema public cascade',
      'create table public.log_head2 (id int)',
      'create function public.max(bigint) returns bigint language sql as $$ select 0::bigint $$',
      'set role postgres',
      'alter role stint_app superuser',
      'delete from schema_migration',
      `update grants set actions = '[]'`,
      `update signing_key set public_jwk = '{}'`,
      'delete from operator',
      'delete from workload_key',
    ]
    for (const attempt of attempts) await expect(broker.query(attempt), attempt).rejects.toThrow(/permission denied|must be owner|not permitted|Only roles with/)
    expect(await checkLog(database.read)).toHaveLength(1)
  })

  test('of the broker cannot put a table of its own in a guard’s place', async () => {
    const files = await createTestDatabase('postgres')
    const database = await files.open()
    const { ledger } = openLedger(database)
    await ledger.append({ events: [note()] })
    const broker = await connect(files.location)
    await broker.query(`create temp table log_head (id bigint, size bigint, epoch bigint, time text)`)
    await broker.query(`insert into pg_temp.log_head values (1, 7, 0, '')`)
    await broker.query(`create temp table audit_event (idx bigint)`)
    await broker.query(`create temp table added (idx bigint)`)
    const columns = `(idx, time, type, body, leaf_hash) values`
    const row = (index: number) => `(${index}, '2026-01-15T12:00:00.000Z', 't', '{}', '\\x00')`
    await expect(broker.query(`insert into public.audit_event ${columns} ${row(7)}`)).rejects.toThrow('append-only')
    await broker.query(`insert into pg_temp.audit_event values (6)`)
    await expect(broker.query(`update public.log_head set size = 7`)).rejects.toThrow('only moves forward')
    expect(await checkLog(database.read)).toHaveLength(1)
  })
})
