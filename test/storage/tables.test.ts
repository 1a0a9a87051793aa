import { sql } from 'kysely'
import { expect, test } from 'vitest'
import { formatTime } from '../../src/kernel/clock.ts'
import { insertSigningKey, listSigningKeys, type NewSigningKey } from '../../src/storage/keys.ts'
import { countOperators, findOperator, insertOperator } from '../../src/storage/operators.ts'
import { putPolicyInForce, readPolicyFiles, readPolicyInForce } from '../../src/storage/policy-sets.ts'
import { insertSealingKey, listSealingKeys } from '../../src/storage/sealing-keys.ts'
import { readTime } from '../../src/storage/time.ts'
import { createTestDatabase, describeEngines } from '../harness.ts'
import { startMs } from './changes.ts'

describeEngines('The tables', (engine) => {
  test('keep every policy set and say which one decides', async () => {
    const database = await (await createTestDatabase(engine)).open()
    const apply = (hash: string, files: [string, string][], index: number) =>
      database.write(({ db }) => putPolicyInForce(db, { hash, files: new Map(files), cedarVersion: '4.13.0' }, { index, timeMs: startMs + index }))
    expect(await readPolicyInForce(database.read)).toBeUndefined()
    await apply('h1', [['tools/github.yaml', 'tool: github\n'], ['__proto__', 'x'], ['ü.cedar', '✓']], 3)
    expect(await readPolicyInForce(database.read)).toEqual({ hash: 'h1', sinceMs: startMs + 3, eventIndex: 3 })
    await apply('h2', [], 5)
    await apply('h1', [['ignored', 'for the hash stands for its files']], 8)
    expect(await readPolicyInForce(database.read)).toEqual({ hash: 'h1', sinceMs: startMs + 8, eventIndex: 8 })
    expect(await readPolicyFiles(database.read, 'h1')).toEqual(new Map([['tools/github.yaml', 'tool: github\n'], ['__proto__', 'x'], ['ü.cedar', '✓']]))
    expect(await readPolicyFiles(database.read, 'h2')).toEqual(new Map())
    expect(await readPolicyFiles(database.read, 'h3')).toBeUndefined()
  })

  test('keep keys, in the order in which they sign', async () => {
    const database = await (await createTestDatabase(engine)).open()
    const signing = (kid: string, signFromMs: number, verifyUntilMs?: number): NewSigningKey => ({
      kid,
      use: 'token',
      alg: 'ES256',
      publicJwk: { kty: 'EC', crv: 'P-256', x: 'x', y: 'y' },
      sealedPrivate: { version: 1, ciphertext: 'c' },
      createdAtMs: startMs,
      publishAtMs: startMs + 1,
      signFromMs,
      ...(verifyUntilMs !== undefined && { verifyUntilMs }),
    })
    await database.write(async ({ db }) => {
      await insertSealingKey(db, { version: 2, wrapped: 'w2', root: 'r2' }, { index: 7, timeMs: startMs + 5 }, startMs + 9)
      await sql`insert into sealing_key (version, wrapped, created_at) values (1, 'w1', ${formatTime(startMs)})`.execute(db)
      await insertSigningKey(db, signing('late', startMs + 9))
      await insertSigningKey(db, signing('early', startMs + 2, startMs + 99))
    })
    expect(await listSealingKeys(database.read)).toEqual([
      // As it was written before root keys had names.
      { version: 1, wrapped: 'w1', createdAtMs: startMs, sealsFromMs: startMs, createdIndex: 0, erased: false },
      { version: 2, wrapped: 'w2', root: 'r2', createdAtMs: startMs + 5, sealsFromMs: startMs + 9, createdIndex: 7, erased: false },
    ])
    expect(await listSigningKeys(database.read)).toEqual([signing('early', startMs + 2, startMs + 99), signing('late', startMs + 9)])
    const unsealable = database.write(({ db }) => insertSigningKey(db, { ...signing('x', 1), sealedPrivate: { version: 3, ciphertext: 'c' } }))
    await expect(unsealable).rejects.toThrow(/foreign key/i)
  })

  test('keep operators, one to a name, and take no unknown role for the one there is', async () => {
    const database = await (await createTestDatabase(engine)).open()
    const operator = { id: 'op_1', name: 'first admin', role: 'admin', secretHash: 'ab', createdAtMs: startMs } as const
    expect(await countOperators(database.read)).toBe(0)
    await database.write(({ db }) => insertOperator(db, operator))
    expect(await findOperator(database.read, 'op_1')).toEqual(operator)
    expect(await findOperator(database.read, 'op_2')).toBeUndefined()
    const again = await database.write(({ db }) => insertOperator(db, { ...operator, id: 'op_2' })).catch((error: unknown) => error)
    expect(database.isUniqueViolation(again)).toBe(true)
    const janitor = { id: 'op_3', name: 'a', role: 'janitor', secret_hash: 'h', created_at: formatTime(startMs) }
    await database.write(async ({ db }) => void (await db.insertInto('operator').values(janitor).execute()))
    await expect(findOperator(database.read, 'op_3')).rejects.toThrow('unknown role janitor')
    expect(await countOperators(database.read)).toBe(2)
  })
})

test('A time column that is no time is reported', () => {
  expect(readTime('2026-01-15T12:00:00.000Z')).toBe(startMs)
  expect(() => readTime('yesterday')).toThrow('the database holds "yesterday" where a time should be')
})
