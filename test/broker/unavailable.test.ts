import { describe, expect, test, vi } from 'vitest'
import { openPostgres } from '../../src/storage/postgres.ts'
import { getToken, startBroker, type TestAgent, type TestBroker } from '../broker.ts'
import { describeEngines, describePostgres } from '../harness.ts'
import { countGrants, isActive, post, type Endpoint } from '../http/oauth-requests.ts'
import { startTcpProxy } from '../storage/tcp-proxy.ts'
import { readExposition } from '../telemetry/exposition.ts'
import { setReadOnly } from './read-only.ts'

/** Every OAuth request, with assertions that are kept, so that they can be sent again. */
function requests(agent: TestAgent, token: string): [Endpoint, Record<string, string>][] {
  return [
    ['token', agent.form({ grant_type: 'client_credentials', scope: 'tickets:read' })],
    ['token', agent.form({ grant_type: 'client_credentials', scope: 'tickets:purge' })],
    ['token', agent.form({ grant_type: 'client_credentials', scope: 'no:such' })],
    ['introspect', agent.form({ token })],
    ['revoke', agent.form({ token })],
  ]
}

async function expectUnavailable(broker: TestBroker, sent: ReturnType<typeof requests>): Promise<void> {
  for (const [endpoint, form] of sent) {
    const answer = await post(broker, endpoint, { form })
    expect(answer, `${endpoint} ${form['scope'] ?? ''}`).toMatchObject({ status: 503, body: { error: 'temporarily_unavailable' } })
    expect(answer.headers.get('retry-after')).toBe('2')
  }
}

/** What did not come through has spent nothing: the very same requests succeed. */
async function expectRecovered(broker: TestBroker, sent: ReturnType<typeof requests>): Promise<void> {
  const statuses = []
  for (const [endpoint, form] of sent) statuses.push((await post(broker, endpoint, { form })).status)
  expect(statuses).toEqual([200, 400, 400, 200, 200])
}

async function readReadiness(broker: TestBroker): Promise<[status: number, body: unknown]> {
  const response = await broker.send('GET', '/readyz')
  return [response.status, await response.json()]
}

/** What an operator's alarm sees. */
async function readWritable(broker: TestBroker): Promise<number | undefined> {
  return readExposition(await (await broker.sendAsAdmin('GET', '/metrics')).text()).value('stint_log_writable')
}

async function prepare(engine: 'sqlite' | 'postgres') {
  const broker = await startBroker(engine)
  const agent = await broker.register('triage-bot')
  const { access_token: token } = await getToken(broker, agent, { scope: 'tickets:read' })
  expect(await isActive(broker, agent, token)).toBe(true)
  return { broker, agent, token, sent: requests(agent, token) }
}

describeEngines('When the log cannot be written (invariant 1)', (engine) => {
  test('nothing is issued, introspection does not answer, and all goes on afterwards', async () => {
    const { broker, agent, token, sent } = await prepare(engine)
    const size = (await broker.events()).length
    await setReadOnly(broker, true)
    await expectUnavailable(broker, sent)
    expect(await readReadiness(broker)).toMatchObject([503, { parts: { database: 'ready', log: 'cannot be written', policy: 'ready' } }])
    expect(await readWritable(broker)).toBe(0)
    expect(await broker.events()).toHaveLength(size)
    expect(await countGrants(broker)).toBe(1)
    expect((await broker.sendAsAdmin('POST', '/v1/revocations', { workload: 'triage-bot' })).status).toBe(503)
    await setReadOnly(broker, false)
    await vi.waitFor(async () => expect(await isActive(broker, agent, token)).toBe(true), { timeout: 10_000 })
    await expectRecovered(broker, sent)
    expect([await readReadiness(broker), await readWritable(broker)]).toMatchObject([[200, { parts: { log: 'ready' } }], 1])
    expect(await isActive(broker, agent, token)).toBe(false)
    expect(await countGrants(broker)).toBe(2)
  })

  test('that is noticed within ten seconds where nobody asks, and so is its end', async () => {
    const { broker } = await prepare(engine)
    const tickAfter = (ms: number) => (broker.clock.advance(ms), broker.scheduler.tick())
    await setReadOnly(broker, true)
    expect((await readReadiness(broker))[0]).toBe(200)
    await tickAfter(10_000)
    expect(await readReadiness(broker)).toMatchObject([503, { parts: { log: 'cannot be written' } }])
    await tickAfter(10_000)
    expect((await readReadiness(broker))[0]).toBe(503)
    await setReadOnly(broker, false)
    expect((await readReadiness(broker))[0]).toBe(503)
    await vi.waitFor(async () => {
      await tickAfter(10_000)
      expect((await readReadiness(broker))[0]).toBe(200)
    }, { timeout: 10_000 })
  })

  test('refusals of strangers are counted until it can', async () => {
    const { broker, agent } = await prepare(engine)
    const refuse = () => post(broker, 'token', { form: { ...agent.form({ grant_type: 'client_credentials' }), client_assertion: 'x' } })
    await refuse()
    broker.clock.advance(60_000)
    await setReadOnly(broker, true)
    await broker.broker.refusals.flush()
    expect(broker.logLines.join('')).toContain('refusals could not be recorded yet')
    await refuse()
    await setReadOnly(broker, false)
    const before = (await broker.events()).length
    await vi.waitFor(async () => {
      await broker.broker.refusals.flush(true)
      expect((await broker.events()).length).toBeGreaterThan(before)
    }, { timeout: 10_000 })
    expect((await broker.events()).slice(before)).toMatchObject([
      { type: 'authentication.refused', reason: 'assertion_malformed', count: 1, since: '2026-01-15T12:00:00.000Z' },
      { type: 'authentication.refused', reason: 'assertion_malformed', count: 1, since: '2026-01-15T12:01:00.000Z' },
    ])
  })

  test('because an older database was put in its place, issuance stops for good', async () => {
    const { broker, sent } = await prepare(engine)
    // As if this process had seen a longer log than the database now holds.
    broker.broker.ledger.observe({ size: 1_000_000, epoch: 0, timeMs: 0, frontier: [] })
    await expectUnavailable(broker, sent)
    expect(broker.broker.ledger.halted).toMatch(/looks like a restored backup/)
    await expectUnavailable(broker, sent)
    const ready = await broker.send('GET', '/readyz')
    expect(ready.status).toBe(503)
    expect(await ready.json()).toMatchObject({ status: 'not ready', parts: { log: 'halted' } })
    expect(await readWritable(broker)).toBe(0)
    expect(await countGrants(broker)).toBe(1)
  })
})

describePostgres('When the database is away', (engine) => {
  test('nobody is told that a token is alive, nobody is called a stranger, and all goes on afterwards', async () => {
    const { broker: direct, agent, token, sent } = await prepare(engine)
    const url = new URL(direct.database.location)
    const proxy = await startTcpProxy(Number(url.port))
    url.port = String(proxy.port)
    const open = async () => openPostgres({ url: url.href })
    const broker = await startBroker(engine, { beside: { ...direct, database: { ...direct.database, open } } })
    expect(await isActive(broker, agent, token)).toBe(true)
    await proxy.stop()
    await expectUnavailable(broker, sent)
    // A refusal has to be sure that nothing newer is committed.
    const stranger = { ...agent.form({ grant_type: 'client_credentials', scope: 'tickets:read' }), client_assertion: 'x' }
    expect((await post(broker, 'token', { form: stranger })).status).toBe(503)
    const unknown = { policy: 'unknown', signing_key: 'unknown' }
    expect(await readReadiness(broker)).toMatchObject([503, { parts: { ...unknown, database: 'unreachable', log: 'cannot be written' } }])
    expect((await broker.sendAsAdmin('GET', '/v1/workloads')).status).toBe(503)
    expect((await broker.sendAsAdmin('GET', '/metrics')).status).toBe(503)
    await proxy.listen()
    await vi.waitFor(async () => expect(await isActive(broker, agent, token)).toBe(true), { timeout: 10_000 })
    await expectRecovered(broker, sent)
  })
})

describe('A bug', () => {
  test('is answered with nothing but that it happened, and logged', async () => {
    const { broker, sent } = await prepare('sqlite')
    const ledger = {
      ...broker.broker.ledger,
      append: async () => {
        throw new TypeError('the secret is hunter2')
      },
    }
    Object.assign(broker.broker, { ledger })
    const [first] = sent
    const answer = await post(broker, 'token', { form: first?.[1] ?? {} })
    expect(answer).toMatchObject({ status: 500, body: { error: 'server_error' } })
    expect(answer.text).not.toContain('hunter2')
    expect(broker.logLines.join('')).toContain(answer.requestId)
  })
})
