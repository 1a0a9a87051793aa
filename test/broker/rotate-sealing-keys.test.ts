import { sql } from 'kysely'
import { describe, expect, test } from 'vitest'
import { eraseReplaced, resealBefore } from '../../src/broker/reseal.ts'
import { advanceSealingKeys, rotateSealingKeys, showSealingKeys } from '../../src/broker/rotate-sealing-keys.ts'
import { createRawRootKey } from '../../src/crypto/root-key.ts'
import type { Engine } from '../../src/storage/engine.ts'
import { findSecret, secretPlace } from '../../src/storage/secrets.ts'
import { dayMs, getToken, startBroker, type TestBroker } from '../broker.ts'
import { describeEngines, describePostgres } from '../harness.ts'
import { answerOf } from '../http/admin-requests.ts'
import { lend, openLent, put, sealedVersions } from './sealed.ts'

const aheadMs = 10_000
const hourMs = 3_600_000
const caller = { actor: { kind: 'operator', id: 'op_1' } } as const

const load = (...brokers: TestBroker[]) => Promise.all(brokers.map(({ broker }) => broker.sealingKeys.load()))
const iso = (broker: TestBroker, ms = 0) => new Date(broker.clock.nowMs() + ms).toISOString()
const statuses = async (broker: TestBroker) => (await showSealingKeys(broker.broker)).versions.map(({ version, status }) => `${version} ${status}`)
const sealEvents = async (broker: TestBroker) => (await broker.events()).filter((event) => event.type.startsWith('key.') && 'use' in event && event.use === 'seal')

async function openPut({ broker: { database, sealer } }: TestBroker, name: string): Promise<string> {
  const secret = await findSecret(database.read, name)
  return secret === undefined ? 'none' : Buffer.from(sealer.open(secret.sealed, secretPlace(name, secret.version))).toString()
}

/** The broker with something sealed in each place, and where the engine allows it another process on its database. */
async function startTwo(engine: Engine) {
  const broker = await startBroker(engine)
  const agent = await broker.register('bot', { reviewAt: iso(broker, 180 * dayMs) })
  await put(broker, 'crm', 'a secret')
  const grant = await lend(broker, agent, 'a handle')
  const beside = engine === 'postgres' ? await startBroker(engine, { beside: broker }) : broker
  return { broker, beside, agent, grant }
}

/** Makes a new key and has it seal. */
async function rotate(broker: TestBroker, ...others: TestBroker[]): Promise<void> {
  await rotateSealingKeys(broker.broker, caller)
  await load(broker, ...others)
  broker.clock.advance(aheadMs)
}

describeEngines('Sealing keys rotate by themselves', (engine) => {
  test('when their time is over: all processes have the new one before it seals, all is sealed anew, the old one is erased', async () => {
    const { broker, beside, agent, grant } = await startTwo(engine)
    const step = () => advanceSealingKeys(broker.broker)
    const startMs = broker.clock.nowMs()
    expect(await showSealingKeys(broker.broker)).toMatchObject({ lastMs: startMs, nextMs: startMs + 90 * dayMs, versions: [{ version: 1, status: 'sealing' }], remaining: 0 })

    broker.clock.advance(90 * dayMs - 1)
    await step()
    expect(await statuses(broker)).toEqual(['1 sealing'])
    broker.clock.advance(1)
    await step()
    expect(await broker.lastEvent('key.created')).toMatchObject({ actor: { kind: 'stint', id: 'schedule' }, use: 'seal', alg: 'A256GCM', version: 2, seals_from: iso(broker, aheadMs) })
    await step()
    expect(await statuses(broker)).toEqual(['2 next', '1 sealing'])
    await load(broker, beside)

    // Until its time has come nobody seals under it, and from then on everybody.
    broker.clock.advance(aheadMs - 1)
    for (const [i, one] of [broker, beside].entries()) await put(one, `early-${i}`, 'x')
    expect((await sealedVersions(broker))['sealed_secret']).toEqual([1])
    broker.clock.advance(1)
    for (const [i, one] of [broker, beside].entries()) await put(one, `late-${i}`, 'x')
    expect(await sealedVersions(broker)).toEqual({ signing_key: [1], sealed_secret: [1, 2], credential: [1] })
    const size = (await broker.events()).length
    expect((await showSealingKeys(broker.broker)).remaining).toBeGreaterThan(3)

    // For an hour all that is older opens in a process that has not got the new key.
    broker.clock.advance(hourMs - 1)
    await step()
    expect(await sealedVersions(broker)).toEqual({ signing_key: [1], sealed_secret: [1, 2], credential: [1] })
    broker.clock.advance(1)
    await step()
    expect(await sealedVersions(broker)).toEqual({ signing_key: [2], sealed_secret: [2], credential: [2] })
    expect((await showSealingKeys(broker.broker)).remaining).toBe(0)
    // Nothing that an auditor would miss has happened.
    expect(await broker.events()).toHaveLength(size)
    for (const one of [broker, beside]) expect([await openPut(one, 'crm'), await openLent(one, grant)]).toEqual(['a secret', 'a handle'])

    broker.clock.advance(hourMs - 1)
    await step()
    expect(await statuses(broker)).toEqual(['2 sealing', '1 replaced'])
    broker.clock.advance(1)
    await step()
    expect(await broker.lastEvent('key.erased')).toMatchObject({ actor: { id: 'schedule' }, use: 'seal', version: 1 })
    expect(await statuses(beside)).toEqual(['2 sealing', '1 erased'])
    expect(await broker.broker.database.read.selectFrom('sealing_key').select(['version', 'wrapped', 'root']).where('version', '=', 1).execute()).toEqual([{ version: 1, wrapped: '', root: null }])
    await load(broker, beside)
    for (const one of [broker, beside]) expect([one.broker.sealingKeys.has(1), await openPut(one, 'crm')]).toEqual([false, 'a secret'])
    const events = await sealEvents(broker)
    await step()
    expect(await sealEvents(broker)).toEqual(events)
    await getToken(beside, agent, { scope: 'tickets:read' })

    // Whoever starts now finds all it needs.
    await Promise.all([broker, beside].map((one) => one.close()))
    const later = await startBroker(engine, { beside: broker })
    expect([await openPut(later, 'crm'), await openLent(later, grant)]).toEqual(['a secret', 'a handle'])
    await getToken(later, agent, { scope: 'tickets:read' })
  })

  test('once, however many processes see that it is due at the same moment, and each value is sealed anew once', async () => {
    const { broker, beside, grant } = await startTwo(engine)
    broker.clock.advance(91 * dayMs)
    const four = [broker, beside, broker, beside]
    await Promise.all(four.map((one) => advanceSealingKeys(one.broker)))
    expect(await statuses(broker)).toEqual(['2 next', '1 sealing'])
    await load(broker, beside)
    broker.clock.advance(aheadMs + hourMs)
    await Promise.all(four.map((one) => advanceSealingKeys(one.broker)))
    expect(await sealedVersions(broker)).toEqual({ signing_key: [2], sealed_secret: [2], credential: [2] })
    broker.clock.advance(hourMs)
    await Promise.all(four.map((one) => advanceSealingKeys(one.broker)))
    expect((await sealEvents(broker)).map(({ type }) => type)).toEqual(['key.created', 'key.created', 'key.erased'])
    for (const one of [broker, beside]) expect([await openPut(one, 'crm'), await openLent(one, grant)]).toEqual(['a secret', 'a handle'])
  })

  test('by the scheduler', async () => {
    const { broker, grant } = await startTwo(engine)
    const tick = async (ms: number) => {
      broker.clock.advance(ms)
      await broker.scheduler.tick()
    }
    for (const ms of [91 * dayMs, aheadMs, hourMs, hourMs, aheadMs]) await tick(ms)
    expect(await statuses(broker)).toEqual(['2 sealing', '1 erased'])
    expect(await openLent(broker, grant)).toBe('a handle')
  })
})

describeEngines('Sealing anew', (engine) => {
  test('goes on where a process that died left it, and takes many values in small commits', async () => {
    const { broker, beside, agent } = await startTwo(engine)
    for (let i = 0; i < 120; i++) await put(broker, `secret-${i}`, `value ${i}`)
    await lend(broker, agent, 'another handle')
    await rotate(broker, beside)
    // It dies in its third commit.
    const { ledger } = broker.broker
    let commits = 0
    const dying = { ...broker.broker, ledger: { ...ledger, transact: (async (change) => (++commits < 3 ? ledger.transact(change) : Promise.reject(new Error('killed')))) as typeof ledger.transact } }
    await expect(resealBefore(dying, 2)).rejects.toThrow('killed')
    const { remaining } = await showSealingKeys(broker.broker)
    expect([(await sealedVersions(broker))['sealed_secret'], remaining > 0 && remaining < 120]).toEqual([[1, 2], true])
    // When the old key may go, nothing that is still under it is lost with it.
    broker.clock.advance(2 * hourMs)
    await eraseReplaced(broker.broker)
    expect(await statuses(broker)).toEqual(['2 sealing', '1 replaced'])
    await advanceSealingKeys(beside.broker)
    expect(await statuses(broker)).toEqual(['2 sealing', '1 erased'])
    for (let i = 0; i < 120; i++) expect(await openPut(beside, `secret-${i}`)).toBe(`value ${i}`)
  })

  test('leaves alone what has changed since it was read', async () => {
    const { broker, beside, grant } = await startTwo(engine)
    await rotate(broker, beside)
    const { ledger, database } = broker.broker
    // Between the look at its table and the commit an admin puts another version, and the grant ends.
    const meanwhile = [
      async () => undefined,
      () => put(beside, 'crm', 'another secret'),
      () => database.write(({ db }) => db.updateTable('credential').set({ handle: null, handle_version: null }).where('grant_id', '=', grant).execute()),
    ]
    const transact = (async (change) => {
      await meanwhile.shift()?.()
      return ledger.transact(change)
    }) as typeof ledger.transact
    await resealBefore({ ...broker.broker, ledger: { ...ledger, transact } }, 2)
    expect([meanwhile.length, await openPut(broker, 'crm'), await openLent(broker, grant)]).toEqual([0, 'another secret', 'erased'])
    const erased = await database.read.selectFrom('sealed_secret').select(['version', 'sealed']).where('name', '=', 'crm').where('sealed', '=', '').execute()
    expect(erased).toEqual([{ version: 1, sealed: '' }])
  })

  test('passes over a damaged value, says so, and keeps the key that sealed it', async () => {
    const { broker, grant } = await startTwo(engine)
    for (let i = 0; i < 60; i++) await put(broker, `a-${i}`, 'x')
    await broker.broker.database.write(({ db }) => sql`update sealed_secret set sealed = 'AAAA' where name like 'a-%' and name <> 'a-59'`.execute(db))
    await rotate(broker)
    broker.clock.advance(2 * hourMs)
    await advanceSealingKeys(broker.broker)
    expect([await openPut(broker, 'crm'), await openPut(broker, 'a-59'), await openLent(broker, grant)]).toEqual(['a secret', 'x', 'a handle'])
    expect(await showSealingKeys(broker.broker)).toMatchObject({ versions: [{ status: 'sealing' }, { status: 'replaced' }], remaining: 59 })
    expect(broker.logLines.findLast((line) => line.includes('do not open'))).toMatch(/"table":"sealed_secret","count":59/)
    // An admin puts them anew, and the key can go.
    for (let i = 0; i < 60; i++) await put(broker, `a-${i}`, 'y')
    await advanceSealingKeys(broker.broker)
    expect(await statuses(broker)).toEqual(['2 sealing', '1 erased'])
  })

  test('is not done by a process that has not got the new key: it would seal under the old one', async () => {
    const { broker, beside } = await startTwo(engine)
    await rotateSealingKeys(broker.broker, caller)
    broker.clock.advance(aheadMs + hourMs)
    const rows = () => broker.broker.database.read.selectFrom('sealed_secret').selectAll().execute()
    const before = await rows()
    await advanceSealingKeys(beside.broker)
    expect(await rows()).toEqual(before)
    expect(await sealedVersions(broker)).toEqual({ signing_key: [1], sealed_secret: [1], credential: [1] })
    await load(beside)
    await advanceSealingKeys(beside.broker)
    expect(await sealedVersions(broker)).toEqual({ signing_key: [2], sealed_secret: [2], credential: [2] })
  })
})

describeEngines('The database', (engine) => {
  test('takes nothing that was sealed under an erased key, in no place and by nobody, and keeps it erased', async () => {
    const { broker, beside, grant } = await startTwo(engine)
    await rotate(broker, beside)
    broker.clock.advance(2 * hourMs)
    await advanceSealingKeys(broker.broker)
    const { database } = broker.broker
    const refused = 'the sealing key of this version is erased'
    const attempts = [
      'update sealed_secret set sealed_version = 1',
      "insert into sealed_secret (name, version, sealed, sealed_version, created_at) values ('z', 1, 'x', 1, 't')",
      "update signing_key set sealed_private = 'x', sealed_version = 1",
      "insert into signing_key (kid, use, alg, public_jwk, sealed_private, sealed_version, created_at, publish_at, sign_from) values ('z', 'token', 'ES256', '{}', 'x', 1, 't', 't', 't')",
      `update credential set handle = 'x', handle_version = 1 where grant_id = '${grant}'`,
    ]
    for (const attempt of attempts) await expect(database.write(({ db }) => sql.raw(attempt).execute(db)), attempt).rejects.toThrow(refused)
    await expect(database.write(({ db }) => sql`update sealing_key set wrapped = 'x' where version = 1`.execute(db))).rejects.toThrow('stays erased')
    // What is under a key that is there, and what is erased, passes.
    await database.write(({ db }) => sql`update sealed_secret set sealed = '', sealed_version = 1, stage = null where name = 'crm'`.execute(db))
  })

  test('has no sealed value that is not sealed anew', async () => {
    const { broker } = await startTwo(engine)
    const tables = await broker.broker.database.read.introspection.getTables()
    const versions = tables.flatMap(({ name, columns }) => columns.filter((column) => /(?:sealed|handle)_version$/.test(column.name)).map((column) => `${name}.${column.name}`))
    expect(versions.sort()).toEqual(['credential.handle_version', 'sealed_secret.sealed_version', 'signing_key.sealed_version'])
  })
})

describeEngines('An admin rotates the sealing key', (engine) => {
  test('before its time, and it is recorded with the reason', async () => {
    const { broker, beside } = await startTwo(engine)
    broker.clock.advance(1000)
    expect(await rotateSealingKeys(broker.broker, caller, 'a backup was lost')).toEqual({ version: 2, sealsFromMs: broker.clock.nowMs() + aheadMs, auditIndex: (await broker.events()).length - 1 })
    expect(await broker.lastEvent('key.created')).toMatchObject({ actor: caller.actor, use: 'seal', version: 2, reason: 'a backup was lost', seals_from: iso(broker, aheadMs) })
    await expect(rotateSealingKeys(beside.broker, caller)).rejects.toMatchObject({ code: 'conflict', publicMessage: `A rotation is under way: the sealing key of version 2 takes over at ${iso(broker, aheadMs)}.` })
  })

  test('and of two at the same moment one wins, and the other is told', async () => {
    const { broker, beside } = await startTwo(engine)
    const outcomes = await Promise.allSettled([rotateSealingKeys(broker.broker, caller), rotateSealingKeys(beside.broker, caller)])
    expect(outcomes.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
    expect(await statuses(broker)).toEqual(['2 next', '1 sealing'])
  })

  test('and sees how far it is, as an auditor does', async () => {
    const { broker } = await startTwo(engine)
    await rotate(broker)
    const auditor = await broker.createOperator('auditor')
    const { status, body } = await answerOf(await broker.sendAs(auditor, 'GET', '/v1/sealing-keys'))
    const root = broker.broker.sealingKeys.root.name
    expect([status, body]).toEqual([
      200,
      {
        keys: [
          { version: 2, status: 'sealing', created_at: iso(broker, -aheadMs), seals_from: iso(broker), root },
          { version: 1, status: 'replaced', created_at: iso(broker, -aheadMs), seals_from: iso(broker, -aheadMs), root },
        ],
        root,
        remaining: 4,
        next_rotation_at: iso(broker, 90 * dayMs),
      },
    ])
  })
})

describePostgres('Two processes', (engine) => {
  test('of which one has not loaded a new key yet: what is sealed under it opens as soon as it has', async () => {
    const { broker, beside, agent } = await startTwo(engine)
    await rotateSealingKeys(broker.broker, caller)
    await load(broker)
    broker.clock.advance(aheadMs)
    const grant = await lend(broker, agent, 'late')
    await expect(openLent(beside, grant)).rejects.toMatchObject({ code: 'unavailable', detail: 'it was not loaded yet' })
    // Token keys that are sealed under it are another matter: without them nothing can be decided, and so it loads it at once.
    expect((await broker.sendAsAdmin('POST', '/v1/signing-keys/rotate', { now: true })).status).toBe(200)
    await getToken(beside, agent, { scope: 'tickets:read' })
    expect(await openLent(beside, grant)).toBe('late')
  })

  test('with one that was given another root key: the key that it makes is under a root that is known, or it makes none', async () => {
    const { broker } = await startTwo(engine)
    const { root } = broker.broker.sealingKeys
    const next = createRawRootKey(Buffer.from('another root key of tests, 32 b.'))
    const moved = await startBroker(engine, { beside: broker, rootKey: next, previousRootKey: root })
    expect((await moved.sendAsAdmin('POST', '/v1/sealing-keys/rewrap')).status).toBe(200)
    broker.clock.advance(91 * dayMs)
    await advanceSealingKeys(broker.broker)
    expect(await statuses(broker)).toEqual(['1 sealing'])
    await expect(rotateSealingKeys(broker.broker, caller)).rejects.toMatchObject({ code: 'conflict', publicMessage: `The sealing keys are wrapped by the root key ${next.name}, and this process was given ${root.name}: restart it with the configuration of now.` })
    await advanceSealingKeys(moved.broker)
    expect(await statuses(broker)).toEqual(['2 next', '1 sealing'])
    // It runs on with what it has.
    await expect(load(broker)).rejects.toMatchObject({ code: 'config_invalid' })
    expect(await openPut(broker, 'crm')).toBe('a secret')
  })
})

describe('The answers', () => {
  test('never show a key, wrapped or not', async () => {
    const broker = await startBroker('sqlite')
    const { wrapped } = await broker.broker.database.read.selectFrom('sealing_key').select('wrapped').executeTakeFirstOrThrow()
    const shown = await (await broker.sendAsAdmin('GET', '/v1/sealing-keys')).text()
    expect(shown).not.toContain(wrapped.slice(0, 16))
  })
})
