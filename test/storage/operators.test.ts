import { expect, test } from 'vitest'
import {
  countActiveOperators,
  countLastingAdmins,
  findOperator,
  findOperatorByName,
  insertOperator,
  listOperators,
  updateOperator,
  type StoredOperator,
} from '../../src/storage/operators.ts'
import { createTestDatabase, describeEngines } from '../harness.ts'
import { startMs } from './changes.ts'

const operator = (name: string, changes: Partial<StoredOperator> = {}): StoredOperator => ({
  id: `id-of-${name}`,
  name,
  role: 'auditor',
  secretHash: 'ab',
  createdAtMs: startMs,
  ...changes,
})

const all: readonly StoredOperator[] = [
  operator('a', { role: 'admin' }),
  operator('b', { role: 'admin', expiresAtMs: startMs + 100 }),
  operator('c', { role: 'admin', revokedAtMs: startMs }),
  operator('d', { expiresAtMs: startMs + 10 }),
  operator('e', { expiresAtMs: startMs + 11 }),
  operator('f', { expiresAtMs: startMs + 50, revokedAtMs: startMs + 5 }),
  operator('g'),
]

async function prepare(engine: 'sqlite' | 'postgres') {
  const database = await (await createTestDatabase(engine)).open()
  await database.write(async ({ db }) => {
    for (const one of all) await insertOperator(db, one)
  })
  return database
}

describeEngines('Stored operators', (engine) => {
  test('are found as they were stored, by id and by name', async () => {
    const { read } = await prepare(engine)
    for (const one of all) expect([await findOperator(read, one.id), await findOperatorByName(read, one.name)]).toEqual([one, one])
    expect([await findOperator(read, 'a'), await findOperatorByName(read, 'A')]).toEqual([undefined, undefined])
  })

  test('change in their secret and their end alone', async () => {
    const database = await prepare(engine)
    const change = { secretHash: 'cd', expiresAtMs: startMs + 7, revokedAtMs: startMs + 8 }
    await database.write(({ db }) => updateOperator(db, { ...operator('g'), ...change, name: 'x', role: 'admin', createdAtMs: 0 }))
    expect(await findOperator(database.read, 'id-of-g')).toEqual({ ...operator('g'), ...change })
    await database.write(({ db }) => updateOperator(db, operator('g')))
    expect(await listOperators(database.read, { limit: 9 }, startMs)).toEqual(all)
  })

  test('are counted by role: those that are active at a time, and those of them that expire before another', async () => {
    const { read } = await prepare(engine)
    const none = { active: 0, expiring: 0 }
    expect(await countActiveOperators(read, startMs, startMs + 11)).toEqual({ admin: { active: 2, expiring: 0 }, approver: none, auditor: { active: 3, expiring: 1 } })
    // The end itself is not in the lifetime.
    expect(await countActiveOperators(read, startMs + 10, startMs + 101)).toEqual({ admin: { active: 2, expiring: 1 }, approver: none, auditor: { active: 2, expiring: 1 } })
    expect(await countActiveOperators(read, startMs + 100, startMs + 200)).toEqual({ admin: { active: 1, expiring: 0 }, approver: none, auditor: { active: 1, expiring: 0 } })
  })

  test('are lasting admins where nothing but a revocation could end them', async () => {
    const database = await prepare(engine)
    expect(await countLastingAdmins(database.read)).toBe(1)
    await database.write(({ db }) => insertOperator(db, operator('h', { role: 'admin' })))
    expect(await countLastingAdmins(database.read)).toBe(2)
  })
})
