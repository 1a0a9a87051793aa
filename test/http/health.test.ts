import { expect, test } from 'vitest'
import { formatTime } from '../../src/kernel/clock.ts'
import { startBroker } from '../broker.ts'
import { describeEngines } from '../harness.ts'

describeEngines('Health', (engine) => {
  test('says that the process lives, and that it could issue a token', async () => {
    const broker = await startBroker(engine)
    expect(await (await broker.send('GET', '/healthz')).json()).toEqual({ status: 'alive' })
    const ready = await broker.send('GET', '/readyz')
    expect(ready.status).toBe(200)
    expect(await ready.json()).toEqual({
      status: 'ready',
      parts: { database: 'ready', log: 'ready', policy: 'ready', signing_key: 'ready', sealing_keys: 'ready', clock: 'ready', process: 'ready' },
    })
  })

  test('is not ready while the clock is behind the log, whose time never runs backwards (invariants 11 and 12)', async () => {
    const broker = await startBroker(engine)
    broker.clock.advance(86_400_000)
    await broker.register('triage-bot')
    broker.clock.advance(-86_400_000)
    const response = await broker.send('GET', '/readyz')
    expect(response.status).toBe(503)
    expect(await response.json()).toMatchObject({ status: 'not ready', parts: { clock: '86400 s behind the log', log: 'ready' } })
    broker.clock.advance(86_395_000)
    expect((await broker.send('GET', '/readyz')).status).toBe(200)
  })

  test('is not ready once it was told to stop, although it answers what comes until then', async () => {
    const broker = await startBroker(engine)
    broker.beginDraining()
    const response = await broker.send('GET', '/readyz')
    expect([response.status, await response.json()]).toMatchObject([503, { status: 'not ready', parts: { process: 'stopping', database: 'ready' } }])
    expect((await broker.send('GET', '/healthz')).status).toBe(200)
    expect((await broker.sendAsAdmin('GET', '/v1/workloads')).status).toBe(200)
  })

  test('is not ready without a key whose time to sign has come', async () => {
    const broker = await startBroker(engine)
    await broker.broker.ledger.transact({
      async apply(tx, { timeMs }) {
        await tx.updateTable('signing_key').set({ verify_until: formatTime(timeMs) }).execute()
        const event = { type: 'key.erased', actor: { kind: 'stint', id: 'test' }, use: 'token', kid: 'x' } as const
        return { result: undefined, raisesEpoch: true, events: [event] }
      },
    })
    const response = await broker.send('GET', '/readyz')
    expect([response.status, await response.json()]).toMatchObject([503, { parts: { signing_key: 'none usable', policy: 'ready' } }])
  })

  test('is not ready without a database, and says no more of it than it knows', async () => {
    const broker = await startBroker(engine)
    // As where the folder is followed: whether it is in force is in the database.
    const policyFolder = { start: async () => {}, look: async () => {}, reload: async () => {}, state: () => 'not in force: another set stays' as const }
    Object.assign(broker.broker, { policyFolder })
    await broker.broker.database.close()
    const unknown = { log: 'unknown', policy: 'unknown', signing_key: 'unknown' }
    const expected = { status: 'not ready', parts: { ...unknown, database: 'unreachable', sealing_keys: 'ready', clock: 'ready', process: 'ready' } }
    const response = await broker.send('GET', '/readyz')
    expect([response.status, await response.json()]).toEqual([503, expected])
  })

  test('is not ready without a policy set', async () => {
    const broker = await startBroker(engine, { policies: 'none' })
    expect(await (await broker.send('GET', '/readyz')).json()).toMatchObject({ status: 'not ready', parts: { policy: 'none in force' } })
  })
})
