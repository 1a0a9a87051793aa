import SqliteDatabase from 'better-sqlite3'
import pg from 'pg'
import { expect, onTestFinished, test } from 'vitest'
import type { Engine } from '../../src/storage/engine.ts'
import { insertRevocation, markGrantRevoked } from '../../src/storage/grants.ts'
import { putPolicyInForce } from '../../src/storage/policy-sets.ts'
import { createTestDatabase, describeEngines, type TestDatabase } from '../harness.ts'
import { checkLog } from './check-log.ts'
import { grantChange, note, openLedger } from './changes.ts'

type Run = (statement: string) => Promise<void>

/** Runs plain SQL beside the broker: on SQLite as whoever has the file, on PostgreSQL as the tables' owner or as the broker. */
async function connect(files: TestDatabase, as: 'owner' | 'broker'): Promise<Run> {
  if (files.engine === 'sqlite') {
    const handle = new SqliteDatabase(files.location)
    onTestFinished(() => void handle.close())
    return async (statement) => void handle.exec(statement)
  }
  const client = new pg.Client({ connectionString: as === 'owner' ? files.ownerLocation : files.location })
  await client.connect()
  onTestFinished(() => client.end())
  return async (statement) => void (await client.query(statement))
}

const zero = { sqlite: `x'00'`, postgres: `'\\x00'::bytea` }

function entry(engine: Engine, index: string): string {
  return `(idx, time, type, body, leaf_hash) values (${index}, '2026-01-15T12:00:00.000Z', 't', '{}', ${zero[engine]})`
}

function entries(engine: Engine, ...indexes: number[]): string {
  const rows = indexes.map((index) => `(${index}, '2026-01-15T12:00:00.000Z', 't', '{}', ${zero[engine]})`)
  return `insert into audit_event (idx, time, type, body, leaf_hash) values ${rows.join(', ')}`
}

const head = (engine: Engine) => `values (1, 9, 9, '2030-01-01T00:00:00.000Z', ${zero[engine]}, ${zero[engine]})`

/** The log holds the entries 0, 1 and 2; a revocation stands at 1, a policy set `p1` is kept. All of this must be refused. */
function attacks(engine: Engine): string[] {
  const policySet = `values ('p1', '{"a":"changed"}', '4', '2026-01-15T12:00:00.000Z')`
  const both = [
    `update audit_event set body = '{}' where idx = 1`,
    'update audit_event set idx = idx + 10',
    'update audit_event set time = time',
    'delete from audit_event where idx = 2',
    'delete from audit_event',
    `insert into audit_event ${entry(engine, '1')}`,
    `insert into audit_event ${entry(engine, '4')}`,
    `insert into audit_event ${entry(engine, '-1')}`,
    entries(engine, 3, 5),
    entries(engine, 4, 3, 1000),
    `insert into audit_event ${entry(engine, '1')} on conflict (idx) do update set body = 'changed'`,
    `insert into audit_event ${entry(engine, '3')} on conflict (idx) do update set body = 'changed'; update audit_event set body = '2' where idx = 3`,
    'update revocation set workload = null, task = null',
    `update revocation set before_time = '2020-01-01T00:00:00.000Z'`,
    'delete from revocation',
    `insert into revocation (idx, workload) values (1, 'someone-else')`,
    `insert into revocation (idx, workload) values (1, 'x') on conflict (idx) do update set workload = 'someone-else'`,
    `update policy_set set files = '{}'`,
    'delete from policy_set',
    `insert into policy_set (hash, files, cedar_version, created_at) ${policySet}`,
    `insert into policy_set (hash, files, cedar_version, created_at) ${policySet} on conflict (hash) do update set files = excluded.files`,
    'update log_head set size = 2',
    'update log_head set size = 4',
    'update log_head set epoch = epoch - 1',
    `update log_head set time = '2020-01-01T00:00:00.000Z'`,
    'update log_head set id = 2',
    'delete from log_head',
    `insert into log_head (id, size, epoch, time, root, frontier) ${head(engine)}`,
    `insert into log_head (id, size, epoch, time, root, frontier) ${head(engine).replace('(1,', '(2,')}`,
  ]
  const sqlite = [
    `insert or replace into audit_event ${entry(engine, '1')}`,
    `replace into audit_event ${entry(engine, '0')}`,
    `insert or ignore into audit_event ${entry(engine, '4')}`,
    `insert or replace into audit_event (rowid, time, type, body, leaf_hash) values (1, 't', 't', '{}', x'00')`,
    `insert or replace into audit_event (_rowid_, idx, time, type, body, leaf_hash) values (1, null, 't', 't', '{}', x'00')`,
    `update or replace audit_event set idx = 0 where idx = 1`,
    `insert or replace into revocation (idx, workload) values (1, 'someone-else')`,
    `insert or replace into revocation (rowid, workload) values (1, 'someone-else')`,
    `insert or replace into policy_set (hash, files, cedar_version, created_at) ${policySet}`,
    // A row id would be a second key, past which REPLACE deletes without a trigger.
    `insert or replace into policy_set (rowid, hash, files, cedar_version, created_at) values (1, 'p2', '{}', '4', 't')`,
    `insert or replace into log_head (id, size, epoch, time, root, frontier) ${head(engine)}`,
    `insert or replace into log_head (rowid, size, epoch, time, root, frontier) ${head(engine)}`,
  ]
  const postgres = ['audit_event', 'revocation', 'policy_set', 'policy_set cascade', 'log_head', 'audit_event, log_head'].map((table) => `truncate ${table}`)
  return [...both, ...(engine === 'sqlite' ? sqlite : postgres)]
}

// By a guard, by a key or for want of a privilege: an attack that is refused for its own mistakes would prove nothing.
const refusals = /append-only|only moves forward|is one row|is never deleted|permission denied|duplicate key|UNIQUE|violates check|CHECK constraint|no column named rowid|cannot truncate a table/

/** A log with three entries, a revocation and a policy set, and a dump of all that must stay as it is. */
async function fillLog(engine: Engine) {
  const files = await createTestDatabase(engine)
  const database = await files.open()
  const { ledger } = openLedger(database)
  await ledger.append({ events: [note('first')] })
  await ledger.transact({
    apply: async (tx, { index }) => {
      await insertRevocation(tx, index, { workload: 'triage-bot' })
      return { result: undefined, events: [note('second')], raisesEpoch: true }
    },
  })
  await ledger.transact({
    apply: async (tx, place) => {
      await putPolicyInForce(tx, { hash: 'p1', files: new Map([['a', 'b']]), cedarVersion: '4' }, place)
      return { result: undefined, events: [note('third')], raisesEpoch: true }
    },
  })
  const dump = async () => ({
    entries: await database.read.selectFrom('audit_event').selectAll().orderBy('idx').execute(),
    revocations: await database.read.selectFrom('revocation').selectAll().execute(),
    policySets: await database.read.selectFrom('policy_set').selectAll().execute(),
    head: await database.read.selectFrom('log_head').selectAll().execute(),
  })
  return { files, database, ledger, dump }
}

describeEngines('The database itself', (engine) => {
  for (const as of engine === 'sqlite' ? (['owner'] as const) : (['owner', 'broker'] as const)) {
    test(`refuses the ${as} every change of what is recorded (invariant 3)`, async () => {
      const { files, database, ledger, dump } = await fillLog(engine)
      const run = await connect(files, as)
      const before = await dump()
      for (const attack of attacks(engine)) {
        await run('begin')
        await expect(run(attack), attack).rejects.toThrow(refusals)
        await run('rollback')
        expect(await dump(), attack).toEqual(before)
      }
      expect(await ledger.append({ events: [note('fourth')] })).toMatchObject({ status: 'recorded', index: 3 })
      expect(await checkLog(database.read)).toHaveLength(4)
    })
  }

  test('says what it refuses', async () => {
    const run = await connect((await fillLog(engine)).files, 'owner')
    await expect(run('delete from audit_event')).rejects.toThrow('audit_event is append-only')
    await expect(run(entries(engine, 5))).rejects.toThrow('audit_event is append-only: the next index is')
    await expect(run('update log_head set size = 0')).rejects.toThrow('log_head only moves forward')
  })

  test('takes the entry that comes next', async () => {
    const { files, dump } = await fillLog(engine)
    const run = await connect(files, 'owner')
    await run(entries(engine, 3, 4))
    expect((await dump()).entries).toHaveLength(5)
  })
})

describeEngines('A grant', (engine) => {
  test('that was ended stays ended, and nothing else of it ever changes', async () => {
    const files = await createTestDatabase(engine)
    const database = await files.open()
    const { ledger } = openLedger(database)
    await ledger.append(grantChange('ended', {}))
    await ledger.append(grantChange('alive', {}))
    await ledger.transact({
      apply: async (tx, { index }) => (await markGrantRevoked(tx, 'ended', index), { result: 0, events: [note()], raisesEpoch: false }),
    })
    const run = await connect(files, 'owner')
    for (const change of ['revoked_index = null', 'revoked_index = 9', `expires_at = '2020-01-01T00:00:00.000Z'`, `expires_at = '2030-01-01T00:00:00.000Z'`, `workload = 'x'`, `actions = '[]'`]) {
      for (const id of ['ended', 'alive']) {
        // What is alive may be ended or renewed.
        if (id === 'alive' && (change === 'revoked_index = 9' || change.includes('2030'))) continue
        await expect(run(`update grants set ${change} where id = '${id}'`), `${change} of ${id}`).rejects.toThrow('grants are renewed, or end once')
      }
    }
  })
})
