import { expect, test } from 'vitest'
import { createAgent, getToken, issuer, type TestAgent, type TestBroker } from '../broker.ts'
import { admin, ask, call, lend, lifeOf, minuteMs, startLending } from '../broker/lending.ts'
import { startBroker } from '../broker.ts'
import { writePolicies } from '../broker/lending.ts'
import { describeEngines, describePostgres } from '../harness.ts'

const wish = { tool: 'tickets', actions: ['read'], task: 'ticket-7' }

/** A broker that lends nothing outside, but knows the tool for itself. */
async function prepare(engine: 'sqlite' | 'postgres') {
  const broker = await startBroker(engine, { policies: writePolicies({ reader: 'r', writer: 'w', heir: 'h' }), env: {} })
  const agent = await broker.register('bot')
  return { broker, agent, show: await showOwn(broker, agent) }
}

async function showOwn(broker: TestBroker, agent: TestAgent, scope = 'stint:grants', more: Record<string, string> = {}) {
  const { access_token: token } = await getToken(broker, agent, { scope, ...more })
  return { token, authorization: `Bearer ${token}` }
}

describeEngines('A token that Stint issued for itself', (engine) => {
  test('proves its workload in every route for agents, again and again, and the record says by which grant', async () => {
    const { broker, agent, show: { authorization } } = await prepare(engine)
    const headers = { authorization }
    const { grant } = await lend(broker, agent, wish, headers)
    const own = (await broker.events()).find((event) => event.type === 'grant.issued')
    const issued = (await broker.events()).find((event) => event.type === 'grant.issued' && event.grant === grant)
    expect(issued).toMatchObject({ workload: 'bot', proof_grant: own?.type === 'grant.issued' ? own.grant : '', actor: { kind: 'workload', id: 'bot' } })
    expect(issued).not.toHaveProperty('proof_kid')
    const requests = [
      ['GET', `/v1/grants/${grant}`, 200],
      ['POST', `/v1/grants/${grant}/renew`, 201, {}],
      ['DELETE', `/v1/grants/${grant}`, 200],
      ['POST', '/v1/tasks/ticket-7/complete', 200],
    ] as const
    for (const [method, path, status, json] of requests) expect([path, (await call(broker, agent, method, path, json, headers)).status]).toEqual([path, status])
  })

  test('is refused once it is revoked, also while a request by it is under way', async () => {
    const { broker, agent, show: { token, authorization } } = await prepare(engine)
    await lend(broker, agent, wish, { authorization })
    const { ledger } = broker.broker
    let revoke: (() => Promise<unknown>) | undefined = () => broker.send('POST', '/oauth2/revoke', { form: agent.form({ token }) })
    const hooked: typeof ledger.append = async (change) => {
      const first = revoke
      revoke = undefined
      await first?.()
      return ledger.append(change)
    }
    Object.assign(broker.broker, { ledger: { ...ledger, append: hooked } })
    const before = (await broker.events()).length
    expect(await ask(broker, agent, wish, { authorization })).toMatchObject({ status: 401 })
    Object.assign(broker.broker, { ledger })
    expect((await broker.events()).slice(before).map(({ type }) => type)).toEqual(['grant.revoked'])
    expect(await ask(broker, agent, wish, { authorization })).toMatchObject({ status: 401 })
    await broker.broker.refusals.flush(true)
    expect(await broker.lastEvent('authentication.refused')).toMatchObject({ realm: 'workload', reason: 'token_ended', claimed: { bot: expect.any(Number) } })
  })

  test.each([
    ['GET', ''],
    ['DELETE', ''],
    ['POST', '/renew'],
  ] as const)('that has ended by its own word opens nothing more (%s …%s)', async (method, path) => {
    const { broker, agent, show: { authorization, token } } = await prepare(engine)
    const own = await lend(broker, agent, wish)
    // By it, the grant behind it is given back, too.
    const jti = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()).jti as string
    expect((await call(broker, agent, 'DELETE', `/v1/grants/${jti}`, undefined, { authorization })).status).toBe(200)
    expect((await call(broker, agent, method, `/v1/grants/${own.grant}${path}`, method === 'POST' ? {} : undefined, { authorization })).status).toBe(401)
    expect(await lifeOf(broker, own.grant)).toEqual(['grant.issued'])
  })

  test('is refused when it has expired, or its workload is suspended', async () => {
    const { broker, agent, show: { authorization } } = await prepare(engine)
    broker.clock.advance(10 * minuteMs - 1_000)
    expect((await ask(broker, agent, wish, { authorization })).status).toBe(201)
    broker.clock.advance(1_000)
    expect((await ask(broker, agent, wish, { authorization })).status).toBe(401)
    const { authorization: fresh } = await showOwn(broker, agent)
    await admin(broker, 'POST', '/v1/workloads/bot/suspend', {})
    expect((await ask(broker, agent, wish, { authorization: fresh })).status).toBe(401)
    await admin(broker, 'POST', '/v1/workloads/bot/resume', {})
    expect((await ask(broker, agent, wish, { authorization: fresh })).status).toBe(201)
  })

  test('is nothing else: not of another audience, another action or another signer, nor both proofs at once', async () => {
    const { broker, agent, show: { token, authorization } } = await prepare(engine)
    const { authorization: tickets } = await showOwn(broker, agent, 'tickets:read')
    const { authorization: other } = await showOwn(broker, agent, 'stint:other')
    const stranger = await createAgent('bot', issuer, broker.clock)
    const [header = '', payload = '', signature = ''] = token.split('.')
    const forged = [
      tickets,
      other,
      `Bearer ${agent.assert()}`,
      `Bearer ${stranger.assert({}, { typ: 'at+jwt' })}`,
      `Bearer ${header}.${payload}.${signature.slice(0, -8)}AAAAAAAA`,
      `Bearer ${header}.${payload}.`,
      `Bearer ${token}x`,
      `Bearer ${token} `,
      `bearer ${token}${'x'.repeat(20_000)}`,
      `Basic ${Buffer.from(`x:${token}`).toString('base64')}`,
      `DPoP ${token}`,
    ]
    const before = (await broker.events()).length
    for (const given of forged) {
      const { status } = await ask(broker, agent, wish, { authorization: given })
      // A space behind it is not part of a header's value (RFC 9110 §5.5).
      expect([given.slice(0, 20), status]).toEqual([given.slice(0, 20), given.endsWith(' ') ? 201 : 401])
    }
    expect((await broker.events()).slice(before).filter(({ type }) => type === 'grant.issued')).toHaveLength(1)
    for (const authorizations of [authorization, 'Basic eDp5']) {
      expect((await ask(broker, agent, wish, { authorization: authorizations, 'client-assertion': agent.assert() })).status).toBe(401)
    }
  })

  test('for one target is for less than this', async () => {
    const targeted = 'tool: stint\nconnector: jwt\naudience: urn:stint:broker\nsensitivity: low\nttl: { default: 10m, max: 1h }\ntarget: { name: tool, required: false, pattern: ".*" }\nactions: { grants: {} }\n'
    const policies = new Map([...writePolicies({ reader: 'r', writer: 'w', heir: 'h' }), ['tools/stint.yaml', targeted]])
    const broker = await startBroker(engine, { policies, env: {} })
    const agent = await broker.register('bot')
    const { body } = await ask(broker, agent, { tool: 'stint', actions: ['grants'], target: 'tickets' })
    expect((await ask(broker, agent, wish, { authorization: `Bearer ${body.credential.access_token}` })).status).toBe(401)
    const { body: whole } = await ask(broker, agent, { tool: 'stint', actions: ['grants'] })
    expect((await ask(broker, agent, wish, { authorization: `Bearer ${whole.credential.access_token}` })).status).toBe(201)
  })

  test('is judged by the policy each time, which knows by what the workload has proven itself', async () => {
    const policies = new Map([...writePolicies({ reader: 'r', writer: 'w', heir: 'h' }), ['rules.cedar', `@id("all")
permit (principal in Team::"support", action, resource);
@id("only-by-key")
forbid (principal, action == Action::"tickets:read", resource) when { context.proof == "stint_token" };
`]])
    const broker = await startBroker(engine, { policies, env: {} })
    const agent = await broker.register('bot')
    const { authorization } = await showOwn(broker, agent)
    expect((await ask(broker, agent, wish, { authorization })).status).toBe(403)
    expect((await ask(broker, agent, wish)).status).toBe(201)
  })
})

describeEngines('A client assertion', (engine) => {
  test('proves a workload once', async () => {
    const { broker, agent } = await prepare(engine)
    const headers = { 'client-assertion': agent.assert() }
    expect((await ask(broker, agent, wish, headers)).status).toBe(201)
    expect((await ask(broker, agent, wish, headers)).status).toBe(401)
    const other = { 'client-assertion': agent.assert() }
    expect((await call(broker, agent, 'POST', '/v1/tasks/none/complete', undefined, other)).status).toBe(200)
    expect((await ask(broker, agent, wish, other)).status).toBe(401)
  })

  test.each([
    ['for another audience', { aud: 'https://other.test' }],
    ['that has expired', { exp: 1_700_000_000 }],
    ['of another subject', { sub: 'spiffe://stint.test/other' }],
  ])('%s proves nobody', async (_, claims) => {
    const { broker, agent } = await prepare(engine)
    expect((await ask(broker, agent, wish, { 'client-assertion': agent.assert(claims) })).status).toBe(401)
  })
})

describePostgres('A token that Stint issued for itself and that ends while a credential is made by it', () => {
  test('has served: what was decided then is given, and stands for itself', async () => {
    let during: () => Promise<unknown> = async () => undefined
    const lending = await startLending('sqlite', { pass: async (point) => void (point === 'outside_answered' && (await during())) })
    const { broker, agent } = lending
    const { token, authorization } = await showOwn(broker, agent)
    during = () => broker.send('POST', '/oauth2/revoke', { form: agent.form({ token }) })
    expect((await ask(broker, agent, { tool: 'ledger', actions: ['read'] }, { authorization })).status).toBe(201)
    expect((await ask(broker, agent, { tool: 'ledger', actions: ['read'] }, { authorization })).status).toBe(401)
  })
})
