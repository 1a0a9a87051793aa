import { expect, test } from 'vitest'
import type { Workload, WorkloadKey } from '../../src/identity/workload.ts'
import type { Database } from '../../src/storage/engine.ts'
import {
  findKeyOwners,
  findWorkload,
  insertWorkload,
  insertWorkloadKeys,
  listWorkloads,
  markKeyRemoved,
  updateWorkload,
} from '../../src/storage/workloads.ts'
import { createTestDatabase, describeEngines } from '../harness.ts'
import { startMs } from './changes.ts'

function key(kid: string, addedAtMs = startMs): WorkloadKey {
  return { kid, alg: 'ES256', jwk: { kty: 'EC', crv: 'P-256', x: 'x', y: 'y' }, addedAtMs }
}

function workload(name: string, over: Partial<Workload> = {}): Workload {
  return {
    name,
    environment: 'staging',
    stage: 'pilot',
    owner: { team: 'support', contact: 'oncall:support' },
    purpose: 'labels “incoming” issues — ✓',
    tags: ['triage', 'a"b\\c'],
    reviewAtMs: startMs + 86_400_000,
    status: 'active',
    createdAtMs: startMs,
    updatedAtMs: startMs,
    keys: [],
    ...over,
  }
}

async function insertAll(database: Database, ...workloads: Workload[]): Promise<void> {
  await database.write(async ({ db }) => {
    for (const each of workloads) await insertWorkload(db, each)
  })
}

describeEngines('Workloads', (engine) => {
  test('come back as they were stored, with all their keys in order', async () => {
    const database = await (await createTestDatabase(engine)).open()
    const removed = { ...key('k3', startMs - 5), removedAtMs: startMs }
    const stored = workload('triage-bot', { keys: [key('k2', startMs + 1), key('k1', startMs + 1), removed] })
    await insertAll(database, stored, workload('other'))
    expect(await findWorkload(database.read, 'triage-bot')).toEqual({ ...stored, keys: [removed, key('k1', startMs + 1), key('k2', startMs + 1)] })
    expect(await findWorkload(database.read, 'other')).toEqual(workload('other'))
    expect(await findWorkload(database.read, 'triage')).toBeUndefined()
  })

  test('are updated, and their keys added and taken away', async () => {
    const database = await (await createTestDatabase(engine)).open()
    await insertAll(database, workload('a', { keys: [key('k1')] }), workload('b'))
    const changed = workload('a', { stage: 'production', status: 'suspended', tags: [], purpose: 'p', updatedAtMs: startMs + 9 })
    await database.write(async ({ db }) => {
      await updateWorkload(db, changed)
      await insertWorkloadKeys(db, 'a', [key('k2', startMs + 9)])
      await insertWorkloadKeys(db, 'a', [])
      await markKeyRemoved(db, 'k1', startMs + 9)
    })
    const keys = [{ ...key('k1'), removedAtMs: startMs + 9 }, key('k2', startMs + 9)]
    expect(await findWorkload(database.read, 'a')).toEqual({ ...changed, keys })
    expect(await findWorkload(database.read, 'b')).toEqual(workload('b'))
  })

  test('have a name and a key that nobody else ever had', async () => {
    const database = await (await createTestDatabase(engine)).open()
    await insertAll(database, workload('a', { keys: [key('k1')], status: 'retired' }), workload('b'))
    for (const taken of [workload('a'), workload('c', { keys: [key('k1')] })]) {
      const error = await insertAll(database, taken).catch((reason: unknown) => reason)
      expect(database.isUniqueViolation(error)).toBe(true)
    }
    expect(await findWorkload(database.read, 'c')).toBeUndefined()
    expect(await findKeyOwners(database.read, ['k0', 'k1'])).toEqual([{ kid: 'k1', workload: 'a' }])
    expect(await findKeyOwners(database.read, [])).toEqual([])
    const unknownWorkload = database.write(({ db }) => insertWorkloadKeys(db, 'nobody', [key('k9')]))
    await expect(unknownWorkload).rejects.toThrow(/foreign key/i)
    await expect(insertAll(database, workload('d', { status: 'asleep' as 'active' }))).rejects.toThrow(/check/i)
  })

  test('are listed by name, in pages, by filter', async () => {
    const database = await (await createTestDatabase(engine)).open()
    const other = { team: 'platform', contact: 'c' }
    await insertAll(
      database,
      workload('b2', { stage: 'sandbox' }),
      workload('a-1', { keys: [key('k1')] }),
      workload('a1', { status: 'suspended' }),
      workload('b10', { owner: other }),
    )
    const names = async (filter: Partial<Parameters<typeof listWorkloads>[1]>) =>
      (await listWorkloads(database.read, { limit: 10, ...filter })).map((each) => each.name)
    // By byte, whatever the database's locale would say.
    expect(await names({})).toEqual(['a-1', 'a1', 'b10', 'b2'])
    expect(await names({ limit: 2 })).toEqual(['a-1', 'a1'])
    expect(await names({ limit: 2, after: 'a1' })).toEqual(['b10', 'b2'])
    expect(await names({ after: 'b2' })).toEqual([])
    expect(await names({ status: 'suspended' })).toEqual(['a1'])
    expect(await names({ stage: 'sandbox' })).toEqual(['b2'])
    expect(await names({ team: 'platform' })).toEqual(['b10'])
    expect(await names({ team: 'platform', status: 'retired' })).toEqual([])
    const [first] = await listWorkloads(database.read, { limit: 1 })
    expect(first).toEqual(workload('a-1', { keys: [key('k1')] }))
  })
})
