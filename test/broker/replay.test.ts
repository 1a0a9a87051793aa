import { expect, test } from 'vitest'
import type { RefusalReason } from '../../src/identity/refusal.ts'
import { startBroker, type TestAgent, type TestBroker } from '../broker.ts'
import { describeEngines, describePostgres } from '../harness.ts'
import { countGrants, post } from '../http/oauth-requests.ts'

/** Token requests that all carry the same assertion. */
function repeatable(agent: TestAgent, claims: Record<string, unknown> = {}) {
  const parameters = { grant_type: 'client_credentials', scope: 'tickets:read' }
  const form: Record<string, string> = { ...agent.form(parameters), client_assertion: agent.assert(claims) }
  return { form, send: async (broker: TestBroker) => (await post(broker, 'token', { form })).status }
}

async function restart(broker: TestBroker): Promise<TestBroker> {
  await broker.close()
  return startBroker(broker.database.engine, { beside: broker })
}

/** Why the last stranger was refused: the log's own words. */
async function expectRefused(broker: TestBroker, reason: RefusalReason, count = 1): Promise<void> {
  await broker.broker.refusals.flush(true)
  expect(await broker.lastEvent('authentication.refused')).toMatchObject({ reason, count, claimed: { 'triage-bot': count } })
}

describeEngines('An assertion that is used again', (engine) => {
  test('at once gets exactly one token', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('triage-bot')
    const { send } = repeatable(agent)
    const statuses = await Promise.all(Array.from({ length: 20 }, () => send(broker)))
    expect(statuses.toSorted()).toEqual([200, ...Array.from({ length: 19 }, () => 401)])
    expect(await countGrants(broker)).toBe(1)
    expect((await broker.events()).filter(({ type }) => type === 'grant.issued')).toHaveLength(1)
    await expectRefused(broker, 'replayed', 19)
  })

  test('later, at any endpoint, is refused', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('triage-bot')
    const { form, send } = repeatable(agent)
    expect(await send(broker)).toBe(200)
    broker.clock.advance(59_000)
    expect(await send(broker)).toBe(401)
    const { grant_type: _grant, scope: _scope, ...client } = form
    for (const endpoint of ['introspect', 'revoke'] as const) {
      const answer = await post(broker, endpoint, { form: { ...client, token: 'x' } })
      expect(answer).toMatchObject({ status: 401, body: { error: 'invalid_client' } })
    }
    await expectRefused(broker, 'replayed', 3)
  })

  test('with the same jti in another text, too', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('triage-bot')
    expect(await repeatable(agent, { jti: 'same' }).send(broker)).toBe(200)
    expect(await repeatable(agent, { jti: 'same', extra: 1 }).send(broker)).toBe(401)
    // The jti is each workload's own: nobody can use up another's.
    const other = await broker.register('other-bot')
    expect(await repeatable(other, { jti: 'same' }).send(broker)).toBe(200)
    await expectRefused(broker, 'replayed')
  })

  test('after a denial or a refusal is refused', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('triage-bot')
    for (const [scope, code] of [['tickets:purge', 'access_denied'], ['no:such', 'invalid_scope']] as const) {
      const { form, send } = repeatable(agent)
      expect((await post(broker, 'token', { form: { ...form, scope } })).body).toMatchObject({ error: code })
      expect(await send(broker)).toBe(401)
    }
    expect(await countGrants(broker)).toBe(0)
  })

  test('after a restart is refused', async () => {
    const broker = await startBroker(engine)
    const { send } = repeatable(await broker.register('triage-bot'))
    expect(await send(broker)).toBe(200)
    const again = await restart(broker)
    expect(await send(again)).toBe(401)
    await expectRefused(again, 'replayed')
  })

  test('after its mark was forgotten is refused by the time', async () => {
    const broker = await startBroker(engine)
    const { send } = repeatable(await broker.register('triage-bot'))
    expect(await send(broker)).toBe(200)
    expect(await broker.broker.ledger.forgetExpiredMarks(100)).toBe(0)
    broker.clock.advance(60_000)
    expect(await broker.broker.ledger.forgetExpiredMarks(100)).toBe(1)
    expect(await send(broker)).toBe(401)
    await expectRefused(broker, 'expired')
  })

  test('with the clock set back after a restart is refused, for the ledger\'s time does not go back', async () => {
    const broker = await startBroker(engine)
    const { send } = repeatable(await broker.register('triage-bot'))
    expect(await send(broker)).toBe(200)
    broker.clock.advance(60_000)
    expect(await broker.broker.ledger.forgetExpiredMarks(100)).toBe(1)
    expect(await broker.broker.database.read.selectFrom('replay_mark').selectAll().execute()).toEqual([])
    const startedMs = broker.clock.nowMs()
    await broker.close()
    broker.clock.set(startedMs - 60_000)
    const again = await startBroker(engine, { beside: broker })
    expect(await send(again)).toBe(401)
    await expectRefused(again, 'expired')
    expect(await countGrants(again)).toBe(1)
  })
})

describePostgres('An assertion that comes to two processes', (engine) => {
  test('gets exactly one token, at once and later', async () => {
    const broker = await startBroker(engine)
    const other = await startBroker(engine, { beside: broker })
    const agent = await broker.register('triage-bot')
    for (let round = 0; round < 3; round++) {
      const { send } = repeatable(agent)
      const statuses = await Promise.all(Array.from({ length: 12 }, (_, i) => send(i % 2 === 0 ? broker : other)))
      expect(statuses.filter((status) => status === 200)).toHaveLength(1)
      expect(await Promise.all([send(broker), send(other)])).toEqual([401, 401])
    }
    expect(await countGrants(broker)).toBe(3)
  })
})
