import { randomBytes } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { createRawRootKey, type RootKey } from '../../src/crypto/root-key.ts'
import { BrokerError } from '../../src/kernel/errors.ts'
import { rotateSealingKeys } from '../../src/broker/rotate-sealing-keys.ts'
import type { Engine } from '../../src/storage/engine.ts'
import { getToken, startBroker, type BrokerOptions, type TestBroker } from '../broker.ts'
import { describeEngines, describePostgres } from '../harness.ts'
import { answerOf } from '../http/admin-requests.ts'
import { tamper } from '../storage/tamper.ts'
import { lend, openLent } from './sealed.ts'

const makeRoot = () => createRawRootKey(randomBytes(32))
const rows = ({ broker: { database } }: TestBroker) => database.read.selectFrom('sealing_key').selectAll().orderBy('version').execute()
const rewrap = async (broker: TestBroker) => answerOf(await broker.sendAsAdmin('POST', '/v1/sealing-keys/rewrap'))

/** What a start with these root keys is refused for; the broker before it is closed where there can be only one. */
async function refusalOf(engine: Engine, beside: TestBroker, options: Pick<BrokerOptions, 'rootKey' | 'previousRootKey'>): Promise<string> {
  if (engine === 'sqlite') await beside.close()
  const database = await beside.database.open()
  try {
    await startBroker(engine, { beside: { ...beside, database: { ...beside.database, open: async () => database } }, ...options })
  } catch (error) {
    await database.close()
    if (error instanceof BrokerError) return `${error.code}: ${error.publicMessage}`
    throw error
  }
  return 'started'
}

/** A broker under the first root key, with something that is sealed. */
async function startFirst(engine: Engine) {
  const root = makeRoot()
  const broker = await startBroker(engine, { rootKey: root })
  const agent = await broker.register('bot')
  return { root, broker, agent, grant: await lend(broker, agent, 'a handle') }
}

/** The same database under other root keys: on SQLite only once the broker before is closed. */
async function startAgain(engine: Engine, before: TestBroker, options: Pick<BrokerOptions, 'rootKey' | 'previousRootKey'>): Promise<TestBroker> {
  if (engine === 'sqlite') await before.close()
  return startBroker(engine, { beside: before, ...options })
}

describeEngines('A start', (engine) => {
  test('names the root key that wraps the sealing keys', async () => {
    const { root, broker } = await startFirst(engine)
    expect(await rows(broker)).toMatchObject([{ version: 1, root: root.name, created_index: 1 }])
    expect(root.name).toMatch(/^raw:[0-9a-f]{16}$/)
  })

  test('with another root key is refused, by both names, and neither overwrites nor makes anything', async () => {
    const { root, broker } = await startFirst(engine)
    const before = [await rows(broker), await broker.events()]
    const [other, third] = [makeRoot(), makeRoot()]
    const refusal = (given: string) =>
      `config_invalid: The database's sealing keys are wrapped by the root key ${root.name}, and the configuration gives ${given}. Give that one, as root_key or as root_key.previous.`
    expect(await refusalOf(engine, broker, { rootKey: other })).toBe(refusal(other.name))
    expect(await refusalOf(engine, broker, { rootKey: other, previousRootKey: third })).toBe(refusal(`${other.name} and ${third.name}`))
    const again = await startAgain(engine, broker, { rootKey: root })
    expect([await rows(again), await again.events()]).toEqual(before)
  })

  test('is one thing, a root key that falls silent later another: what is there goes on, and it is asked again after some seconds', async () => {
    const root = makeRoot()
    let asked: number | undefined
    const flaky: RootKey = {
      ...root,
      unwrap(wrapped, version) {
        if (asked === undefined) return root.unwrap(wrapped, version)
        asked++
        return Promise.reject(new BrokerError({ code: 'unavailable', publicMessage: 'silence' }))
      },
    }
    const broker = await startBroker(engine, { rootKey: flaky })
    const agent = await broker.register('bot')
    const { sealingKeys } = broker.broker
    await rotateSealingKeys(broker.broker, { actor: { kind: 'stint', id: 'test' } })
    asked = 0
    await expect(sealingKeys.load()).rejects.toMatchObject({ code: 'unavailable' })
    broker.clock.advance(4_999)
    // Until then it says the same, and is not asked.
    await expect(sealingKeys.load()).rejects.toMatchObject({ code: 'unavailable', publicMessage: 'silence' })
    expect([asked, sealingKeys.has(2)]).toEqual([1, false])
    expect(await openLent(broker, await lend(broker, agent, 'a handle'))).toBe('a handle')
    broker.clock.advance(1)
    await expect(sealingKeys.load()).rejects.toMatchObject({ code: 'unavailable' })
    expect(asked).toBe(2)
    // Once the key seals that it has not got, nothing can be sealed that the others would keep.
    expect(() => sealingKeys.checkSealing()).not.toThrow()
    expect(await answerOf(await broker.send('GET', '/readyz'))).toMatchObject({ status: 503, body: { parts: { sealing_keys: 'version 2 cannot be opened by this process: its log says why' } } })
    broker.clock.advance(5_000)
    await expect(sealingKeys.load()).rejects.toThrow('silence')
    expect(() => sealingKeys.checkSealing()).toThrow('This process cannot open the sealing key of version 2 at the moment: its log says why. Try again shortly. (silence)')
    asked = undefined
    broker.clock.advance(5_000)
    await sealingKeys.load()
    expect(sealingKeys.has(2)).toBe(true)
    sealingKeys.checkSealing()
    expect((await broker.send('GET', '/readyz')).status).toBe(200)
  })

  test('with the right root key and a row that it does not open is refused', async () => {
    const { root, broker } = await startFirst(engine)
    await broker.broker.database.write(({ db }) => db.updateTable('sealing_key').set({ wrapped: 'AAAA' }).execute())
    expect(await refusalOf(engine, broker, { rootKey: root })).toBe(
      `config_invalid: The root key ${root.name} does not open the sealing key of version 1, although it has wrapped it: the row is damaged, or the trust domain was changed. Restore it from a backup.`,
    )
  })

  test('while the root key cannot be asked is refused as one to try again, and what is there stays', async () => {
    const { root, broker } = await startFirst(engine)
    const before = [await rows(broker), await broker.events()]
    const silent: RootKey = { ...root, unwrap: () => Promise.reject(new BrokerError({ code: 'unavailable', publicMessage: 'silence' })) }
    expect(await refusalOf(engine, broker, { rootKey: silent })).toBe('unavailable: silence')
    const again = await startAgain(engine, broker, { rootKey: root })
    expect([await rows(again), await again.events()]).toEqual(before)
  })

  test('finds by trying which root key wrapped a key of before root keys had names, and writes it down', async () => {
    const { root, broker, grant } = await startFirst(engine)
    await tamper(broker.database, 'update sealing_key set root = null, seals_from = null, created_index = null')
    const other = makeRoot()
    expect(await refusalOf(engine, broker, { rootKey: other })).toBe(`config_invalid: The root key does not open the database's sealing keys. Give the one it was set up with, in place of ${other.name}.`)
    const again = await startAgain(engine, broker, { rootKey: root })
    expect(await openLent(again, grant)).toBe('a handle')
    again.clock.advance(10_000)
    await again.scheduler.tick()
    expect(await rows(again)).toMatchObject([{ root: root.name }])
    expect(await again.lastEvent('key.rewrapped')).toMatchObject({ actor: { kind: 'stint', id: 'schedule' }, root: root.name, versions: [1] })
  })
})

describeEngines('The sealing keys move to another root key', (engine) => {
  test('by themselves after a start that names the previous one, while everything goes on; then the previous one is not needed', async () => {
    const { root, broker, agent, grant } = await startFirst(engine)
    const next = makeRoot()
    const moving = await startAgain(engine, broker, { rootKey: next, previousRootKey: root })
    const [before] = await rows(moving)
    expect(before?.root).toBe(root.name)
    moving.clock.advance(10_000)
    await moving.scheduler.tick()
    const [after] = await rows(moving)
    expect([after?.root, after?.version, after?.created_at]).toEqual([next.name, 1, before?.created_at])
    expect(after?.wrapped).not.toBe(before?.wrapped)
    expect(await moving.lastEvent('key.rewrapped')).toMatchObject({ root: next.name, versions: [1] })
    expect(await openLent(moving, grant)).toBe('a handle')
    // Once.
    const events = await moving.events()
    moving.clock.advance(10_000)
    await moving.scheduler.tick()
    expect(await moving.events()).toEqual(events)
    expect(await rewrap(moving)).toMatchObject({ status: 200, body: { root: next.name, previous: root.name, moved: [], elsewhere: [], previous_is_needed: false } })

    const later = await startAgain(engine, moving, { rootKey: next })
    expect(await openLent(later, grant)).toBe('a handle')
    await getToken(later, agent, { scope: 'tickets:read' })
    expect(await refusalOf(engine, later, { rootKey: root })).toContain(`are wrapped by the root key ${next.name}, and the configuration gives ${root.name}`)
  })

  test('at the word of an admin, who is told what was moved and recorded for it; by no other role', async () => {
    const { root, broker, grant } = await startFirst(engine)
    const next = makeRoot()
    const moving = await startAgain(engine, broker, { rootKey: next, previousRootKey: root })
    const auditor = await moving.createOperator('auditor')
    expect((await moving.sendAs(auditor, 'POST', '/v1/sealing-keys/rewrap')).status).toBe(403)
    expect((await answerOf(await moving.sendAs(auditor, 'GET', '/v1/sealing-keys'))).body).toMatchObject({ keys: [{ version: 1, root: root.name }], root: next.name, previous_root: root.name })
    const { status, body, index } = await rewrap(moving)
    const event = await moving.lastEvent('key.rewrapped')
    expect([status, body, index]).toEqual([
      200,
      { root: next.name, previous: root.name, moved: [1], elsewhere: [], previous_is_needed: false, audit_index: event['index'] },
      String(event['index']),
    ])
    expect(event).toMatchObject({ actor: { kind: 'operator' }, root: next.name, versions: [1] })
    expect(await openLent(moving, grant)).toBe('a handle')
  })

  test('and a root key that does not open what it wraps changes nothing', async () => {
    const { root, broker } = await startFirst(engine)
    const next = makeRoot()
    const before = await rows(broker)
    const other = makeRoot()
    const moving = await startAgain(engine, broker, { rootKey: { ...next, unwrap: other.unwrap }, previousRootKey: root })
    expect((await rewrap(moving)).status).toBe(500)
    const mute = await startAgain(engine, moving, { rootKey: { ...next, wrap: () => Promise.reject(new BrokerError({ code: 'unavailable', publicMessage: 'The root key is silent.' })) }, previousRootKey: root })
    expect(await rewrap(mute)).toMatchObject({ status: 503, body: { detail: 'The root key is silent.' } })
    expect(await rows(mute)).toEqual(before)
  })
})

describePostgres('While processes are restarted one by one', (engine) => {
  test('one with the old configuration alone runs on, moves nothing back, and is told to restart', async () => {
    const { root, broker, agent, grant } = await startFirst(engine)
    const next = makeRoot()
    const moving = await startBroker(engine, { beside: broker, rootKey: next, previousRootKey: root })
    expect(await rewrap(moving)).toMatchObject({ body: { moved: [1] } })
    const after = await rows(moving)
    broker.clock.advance(10_000)
    await Promise.all([broker.scheduler.tick(), moving.scheduler.tick()])
    expect(await rewrap(broker)).toMatchObject({ status: 200, body: { root: root.name, moved: [], elsewhere: [{ version: 1, root: next.name }], previous_is_needed: false } })
    expect(await rows(moving)).toEqual(after)
    expect(await openLent(broker, grant)).toBe('a handle')
    await getToken(broker, agent, { scope: 'tickets:read' })
  })

  test('two that were given each other\'s root key do not move a key to and fro', async () => {
    const { root, broker } = await startFirst(engine)
    const next = makeRoot()
    const [one, other] = [await startBroker(engine, { beside: broker, rootKey: next, previousRootKey: root }), await startBroker(engine, { beside: broker, rootKey: root, previousRootKey: next })]
    for (let i = 0; i < 6; i++) {
      broker.clock.advance(10_000)
      await one.scheduler.tick()
      await other.scheduler.tick()
    }
    const moves = (await broker.events()).filter(({ type }) => type === 'key.rewrapped').length
    expect(moves).toBeLessThanOrEqual(2)
  })

  test('of two that move at the same moment each key is moved once', async () => {
    const { root, broker, grant } = await startFirst(engine)
    const next = makeRoot()
    const fast = await startBroker(engine, { beside: broker, rootKey: next, previousRootKey: root })
    // Both have found the key where it was; one of them wraps it when the other is done.
    const late: RootKey = {
      ...next,
      async wrap(key, version) {
        expect(await rewrap(fast)).toMatchObject({ body: { moved: [1] } })
        return next.wrap(key, version)
      },
    }
    const slow = await startBroker(engine, { beside: broker, rootKey: late, previousRootKey: root })
    expect(await rewrap(slow)).toMatchObject({ status: 200, body: { moved: [], elsewhere: [], previous_is_needed: false } })
    expect((await broker.events()).filter(({ type }) => type === 'key.rewrapped')).toHaveLength(1)
    const later = await startBroker(engine, { beside: broker, rootKey: next })
    expect(await openLent(later, grant)).toBe('a handle')
  })
})

describe('A root key', () => {
  test('of bytes has a name that two of them do not share, and that is always the same', () => {
    const bytes = randomBytes(32)
    expect(createRawRootKey(bytes).name).toBe(createRawRootKey(Uint8Array.from(bytes)).name)
    expect(createRawRootKey(randomBytes(32)).name).not.toBe(createRawRootKey(bytes).name)
    expect(bytes.toString('hex')).not.toContain(createRawRootKey(bytes).name.slice(4))
  })
})
