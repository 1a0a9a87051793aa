import { describe, expect, test } from 'vitest'
import { routes } from '../../src/http/app.ts'
import { askToken, isActive } from './oauth-requests.ts'
import { assertionType, createAgent, getToken, issuer, startBroker, type TestBroker } from '../broker.ts'
import { describeEngines } from '../harness.ts'
import { pathOf } from './admin-requests.ts'

const few = { limits: { refusalsPerMinutePerAddress: 5, requestsPerSecondPerWorkload: 1_000 } }

/** Fails so often from that address. */
async function fail(broker: TestBroker, from: string, times: number): Promise<void> {
  for (let i = 0; i < times; i++) {
    const response = await broker.send('GET', '/v1/workloads', { from, headers: { authorization: `Bearer stint_op_${i}` } })
    expect([i, response.status]).toEqual([i, 401])
  }
}

const asAdmin = ({ adminCredential }: TestBroker) => ({ authorization: `Bearer ${adminCredential}` })

describe('An address that fails too often to prove who it is', () => {
  test('has to wait on every route that asks for a proof, and on no other, and right operators never', async () => {
    const broker = await startBroker('sqlite', few)
    const agent = await broker.register('bot')
    await fail(broker, '192.0.2.1', 5)
    for (const { method, path, access, body } of routes) {
      const type = body?.type === 'form' ? 'application/x-www-form-urlencoded' : 'application/json'
      const response = await broker.send(method, pathOf({ path }), { from: '192.0.2.1', headers: { 'content-type': type } })
      const open = access === 'anyone' && method === 'GET'
      expect([method, path, response.status === 429]).toEqual([method, path, !open])
      if (open) continue
      expect([path, response.headers.get('retry-after')]).toEqual([path, '12'])
      const answer = (await response.json()) as Record<string, unknown>
      if (path.startsWith('/oauth2/')) expect(answer).toEqual({ error: 'temporarily_unavailable', error_description: 'This address has failed too often to prove who it is. Try again in 12 s.' })
      else expect(answer).toMatchObject({ type: 'urn:stint:problem:rate-limited', status: 429, title: 'Too many requests' })
    }
    // A workload that is right has to wait as well, from there; from elsewhere it need not.
    const form = agent.form({ grant_type: 'client_credentials', scope: 'tickets:read' })
    expect((await broker.send('POST', '/oauth2/token', { form, from: '192.0.2.1' })).status).toBe(429)
    expect((await broker.send('POST', '/oauth2/token', { form, from: '192.0.2.2' })).status).toBe(200)
    expect((await broker.send('HEAD', '/v1/workloads', { from: '192.0.2.1' })).status).toBe(429)
    // Whoever is to stop what goes on there is let through.
    const suspended = await broker.send('POST', '/v1/workloads/bot/suspend', { from: '192.0.2.1', headers: asAdmin(broker), json: {} })
    expect(suspended.status).toBe(200)
  })

  test('may go on after the time that it was told, once for each time that it waited', async () => {
    const broker = await startBroker('sqlite', few)
    await fail(broker, '192.0.2.1', 5)
    const status = async (headers = {}) => (await broker.send('GET', '/v1/workloads', { from: '192.0.2.1', headers })).status
    expect(await status()).toBe(429)
    broker.clock.advance(11_000)
    expect(await status()).toBe(429)
    broker.clock.advance(1_000)
    // Success costs nothing.
    for (let i = 0; i < 20; i++) expect(await status(asAdmin(broker))).toBe(200)
    expect(await status()).toBe(401)
    expect(await status()).toBe(429)
    expect(await status(asAdmin(broker))).toBe(200)
  })

  test('is known by every kind of failing', async () => {
    const broker = await startBroker('sqlite', { limits: { ...few.limits, refusalsPerMinutePerAddress: 1 } })
    const agent = await broker.register('bot')
    const stranger = await createAgent('bot', issuer, broker.clock)
    const used = agent.form({ grant_type: 'client_credentials', scope: 'tickets:read' })
    expect((await broker.send('POST', '/oauth2/token', { form: used, from: '192.0.2.99' })).status).toBe(200)
    const token = { token: 'x', client_assertion_type: assertionType }
    const failures: readonly (readonly [string, string, object])[] = [
      ['GET', '/v1/workloads', {}],
      ['GET', '/v1/workloads', { headers: { authorization: 'Basic eDp5' } }],
      ['PUT', '/v1/policy', { json: {}, headers: { authorization: `Bearer stint_op_0123456789abcdef_${'A'.repeat(43)}` } }],
      ['POST', '/oauth2/token', { form: stranger.form({ grant_type: 'client_credentials' }) }],
      ['POST', '/oauth2/token', { form: { grant_type: 'client_credentials' } }],
      ['POST', '/oauth2/token', { form: used }],
      ['POST', '/oauth2/introspect', { form: { ...token, client_assertion: stranger.assert() } }],
      ['POST', '/oauth2/revoke', { form: { ...token, client_assertion: stranger.assert() } }],
      ['POST', '/oauth2/revoke', { form: { token: 'x' }, headers: { authorization: 'Bearer stint_op_x' } }],
    ]
    for (const [i, [method, path, options]] of failures.entries()) {
      const from = `192.0.2.${i}`
      expect([i, (await broker.send(method, path, { ...options, from })).status]).toEqual([i, 401])
      expect([i, (await broker.send(method, path, { ...options, from })).status]).toEqual([i, 429])
    }
    // What is only wrong has cost its reading, too, where somebody was to prove himself; elsewhere it has not.
    expect((await broker.send('POST', '/oauth2/token', { form: 'x=1', from: '192.0.2.50' })).status).toBe(400)
    expect((await broker.send('POST', '/oauth2/token', { form: 'x=1', from: '192.0.2.50' })).status).toBe(429)
    expect((await broker.send('POST', '/v1/enrolments/redeem', { json: { x: 1 }, from: '192.0.2.51' })).status).toBe(400)
    expect((await broker.send('POST', '/v1/enrolments/redeem', { json: { x: 1 }, from: '192.0.2.51' })).status).toBe(429)
    for (let i = 0; i < 5; i++) expect((await broker.send('GET', '/nothing', { from: '192.0.2.52' })).status).toBe(404)
    expect((await broker.send('POST', '/oauth2/token', { form: 'x=1', from: '192.0.2.52' })).status).toBe(400)
    // Of one who has proven himself, it counts for nobody.
    for (let i = 0; i < 3; i++) {
      expect((await askToken(broker, agent, { scope: 'tickets:nothing' }, { from: '192.0.2.53' })).status).toBe(400)
      expect((await broker.send('POST', '/v1/workloads', { json: {}, headers: asAdmin(broker), from: '192.0.2.53' })).status).toBe(400)
    }
  })

  test('is, of IPv6, its whole /64, and shares with nobody else', async () => {
    const broker = await startBroker('sqlite', few)
    for (let i = 0; i < 5; i++) await fail(broker, `2001:db8:0:1::${i}`, 1)
    const status = async (from: string) => (await broker.send('GET', '/v1/workloads', { from })).status
    expect(await status('2001:db8:0:1:ffff:ffff:ffff:ffff')).toBe(429)
    expect(await status('2001:db8:0:2::1')).toBe(401)
    // The same address of IPv4, however the system writes it.
    await fail(broker, '::ffff:192.0.2.1', 5)
    expect(await status('192.0.2.1')).toBe(429)
  })

  test('cannot give itself another by a header, unless it speaks through the proxy', async () => {
    const spoof = (i: number) => ({ 'x-forwarded-for': `192.0.2.${i}`, forwarded: `for=192.0.2.${i}` })
    const direct = await startBroker('sqlite', few)
    const statuses = []
    for (let i = 0; i < 7; i++) statuses.push((await direct.send('GET', '/v1/workloads', { from: '127.0.0.1', headers: spoof(i) })).status)
    expect(statuses).toEqual([401, 401, 401, 401, 401, 429, 429])

    const behind = await startBroker('sqlite', { ...few, proxies: ['127.0.0.1'] })
    const through = async (header: string) => (await behind.send('GET', '/v1/workloads', { from: '127.0.0.1', headers: { 'x-forwarded-for': header } })).status
    for (let i = 0; i < 5; i++) expect(await through(`6.6.6.${i}, 192.0.2.1`)).toBe(401)
    expect(await through('6.6.6.7, 192.0.2.1')).toBe(429)
    expect(await through('192.0.2.2')).toBe(401)
    expect(await through('192.0.2.1, nowhere')).toBe(400)
    expect((await behind.send('GET', '/healthz', { from: '127.0.0.1', headers: spoof(1) })).status).toBe(400)
  })

  test('costs the log one entry a minute', async () => {
    const broker = await startBroker('sqlite', few)
    await fail(broker, '192.0.2.1', 5)
    for (let i = 0; i < 50; i++) await broker.send('POST', '/oauth2/token', { form: 'grant_type=x', from: '192.0.2.1' })
    await broker.broker.refusals.flush(true)
    const refused = (await broker.events()).filter(({ type }) => type === 'authentication.refused')
    expect(refused).toMatchObject([
      { realm: 'operator', reason: 'operator_malformed', count: 5 },
      { realm: 'address', reason: 'address_limited', count: 50, actor: { kind: 'stranger' } },
    ])
  })
})

describeEngines('A workload that asks too often', (engine) => {
  const limits = { refusalsPerMinutePerAddress: 1_000, requestsPerSecondPerWorkload: 3 }

  test('has to wait, by itself, and what it was refused is not spent', async () => {
    const broker = await startBroker(engine, { limits })
    const [agent, other] = [await broker.register('bot'), await broker.register('other')]
    const { access_token: token } = await getToken(broker, agent, { scope: 'tickets:read' })
    expect(await isActive(broker, agent, token)).toBe(true)
    // Decisions against it count as well.
    for (let i = 0; i < 4; i++) expect((await askToken(broker, agent, { scope: 'tickets:purge' })).status).toBe(400)
    const before = await broker.events()
    const form = agent.form({ grant_type: 'client_credentials', scope: 'tickets:read' })
    for (let i = 0; i < 10; i++) {
      const response = await broker.send('POST', '/oauth2/token', { form })
      expect([response.status, response.headers.get('retry-after'), await response.json()]).toEqual([
        429,
        '1',
        { error: 'temporarily_unavailable', error_description: 'This workload asks too often. Try again in 1 s; the assertion may be sent again.' },
      ])
    }
    expect((await broker.send('POST', '/oauth2/introspect', { form: agent.form({ token }) })).status).toBe(429)
    expect((await broker.send('POST', '/oauth2/revoke', { form: agent.form({ token }) })).status).toBe(429)
    // Nothing is in the log but one count a minute, and another workload notices nothing.
    expect(await broker.events()).toEqual(before)
    await getToken(broker, other, { scope: 'tickets:read' })
    broker.clock.advance(1_000)
    expect((await broker.send('POST', '/oauth2/token', { form })).status).toBe(200)
    await broker.broker.refusals.flush(true)
    expect(await broker.lastEvent('requests.limited')).toMatchObject({ actor: { kind: 'workload', id: 'bot' }, workload: 'bot', count: 12 })
  })

  test('at the same moment, gets just its share', async () => {
    const broker = await startBroker(engine, { limits })
    const agent = await broker.register('bot')
    const answers = await Promise.all(Array.from({ length: 40 }, () => askToken(broker, agent, { scope: 'tickets:read' })))
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(6)
    expect(answers.filter(({ status }) => status === 429)).toHaveLength(34)
  })

  test('is not the one whose name others use, nor whose used assertions they send', async () => {
    const broker = await startBroker(engine, { limits })
    const agent = await broker.register('bot')
    const thief = await createAgent('bot', issuer, broker.clock)
    const used = agent.form({ grant_type: 'client_credentials', scope: 'tickets:read' })
    expect((await broker.send('POST', '/oauth2/token', { form: used })).status).toBe(200)
    for (let i = 0; i < 20; i++) {
      expect((await broker.send('POST', '/oauth2/token', { form: used })).status).toBe(401)
      expect((await broker.send('POST', '/oauth2/token', { form: thief.form({ grant_type: 'client_credentials' }) })).status).toBe(401)
    }
    for (let i = 0; i < 5; i++) await getToken(broker, agent, { scope: 'tickets:read' })
  })
})
