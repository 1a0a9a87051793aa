import { decodeJwt } from 'jose'
import { describe, expect, test } from 'vitest'
import { createRawRootKey } from '../../src/crypto/root-key.ts'
import { formatTime } from '../../src/kernel/clock.ts'
import { createAgent, dayMs, getToken, issuer, signJws, startBroker, testPolicies } from '../broker.ts'
import { describeEngines } from '../harness.ts'
import { askToken, details, eventsOf, isActive, post } from './oauth-requests.ts'

describeEngines('Introspection', (engine) => {
  test('tells the holder and the tool\'s introspectors, and nobody else', async () => {
    const broker = await startBroker(engine)
    const holder = await broker.register('books', { team: 'finance' })
    const triage = await broker.register('triage-bot')
    const introspector = await broker.register('tickets-api', { team: 'platform' })
    const stranger = await broker.register('nosy-bot')
    const asked = details({ actions: ['tickets:read'], task: 't-1' })
    const { access_token: token } = await getToken(broker, triage, { authorization_details: asked })
    const { jti, iat, exp } = decodeJwt(token)
    const alive = {
      active: true,
      iss: issuer,
      sub: triage.clientId,
      client_id: triage.clientId,
      aud: 'https://tickets.test',
      jti,
      iat,
      exp,
      scope: 'tickets:read',
      token_type: 'Bearer',
      authorization_details: [{ type: 'stint', actions: ['tickets:read'], task: 't-1', ttl_seconds: 600 }],
    }
    const before = (await broker.events()).length
    for (const asker of [triage, introspector]) {
      for (const hint of [{}, { token_type_hint: 'access_token' }, { token_type_hint: 'refresh_token' }]) {
        expect((await post(broker, 'introspect', { form: asker.form({ token, ...hint }) })).body).toEqual(alive)
      }
    }
    // What changes nothing is not recorded.
    expect(await broker.events()).toHaveLength(before)
    for (const asker of [stranger, holder]) {
      const answer = await post(broker, 'introspect', { form: asker.form({ token }) })
      expect(answer).toMatchObject({ status: 200, body: { active: false }, text: '{"active":false}' })
      expect(await eventsOf(broker, answer)).toMatchObject([
        { type: 'introspection.refused', actor: { kind: 'workload', id: asker.name }, workload: asker.name, grant: jti, proof_kid: asker.kid },
      ])
    }
    // Being an introspector of one tool is nothing at another.
    const paid = await getToken(broker, holder, { authorization_details: details({ actions: ['payments:read'], target: 'acct-1' }) })
    expect(await isActive(broker, introspector, paid.access_token)).toBe(false)
    expect(await broker.lastEvent('introspection.refused')).toMatchObject({ workload: 'tickets-api' })
  })

  test('calls a token dead when it has expired, to the millisecond of the ledger\'s time', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('triage-bot')
    const { access_token: token } = await getToken(broker, agent, { scope: 'tickets:read' })
    broker.clock.advance(599_999)
    expect(await isActive(broker, agent, token)).toBe(true)
    broker.clock.advance(1)
    expect(await isActive(broker, agent, token)).toBe(false)
    // Invariant 12: a clock that is set back does not bring it to life.
    broker.clock.advance(-1)
    expect(await isActive(broker, agent, token)).toBe(false)
  })

  const endings: Record<string, (broker: Awaited<ReturnType<typeof startBroker>>) => Promise<unknown>> = {
    suspended: (broker) => broker.sendAsAdmin('POST', '/v1/workloads/triage-bot/suspend', { reason: 'odd traffic' }),
    retired: (broker) => broker.sendAsAdmin('POST', '/v1/workloads/triage-bot/retire', {}),
    'past its review date': async (broker) => broker.clock.advance(60_000),
  }
  test.each(Object.entries(endings))('calls the tokens of a workload dead that is %s, at once and on every process', async (_, end) => {
    const broker = await startBroker(engine)
    const reviewAt = formatTime(broker.clock.nowMs() + 60_000)
    const agent = await broker.register('triage-bot', { reviewAt })
    const introspector = await broker.register('tickets-api')
    const { access_token: token } = await getToken(broker, agent, { scope: 'tickets:read' })
    const asked = engine === 'postgres' ? await startBroker(engine, { beside: broker }) : broker
    expect(await isActive(asked, introspector, token)).toBe(true)
    await end(broker)
    expect(await isActive(asked, introspector, token)).toBe(false)
  })

  test('calls them alive again when the workload is resumed', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('triage-bot')
    const { access_token: token } = await getToken(broker, agent, { scope: 'tickets:read' })
    await broker.sendAsAdmin('POST', '/v1/workloads/triage-bot/suspend', {})
    await broker.sendAsAdmin('POST', '/v1/workloads/triage-bot/resume', {})
    expect(await isActive(broker, agent, token)).toBe(true)
  })

  test('follows the catalog in force about who may ask', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('triage-bot')
    const introspector = await broker.register('tickets-api')
    const { access_token: token } = await getToken(broker, agent, { scope: 'tickets:read' })
    const asked = engine === 'postgres' ? await startBroker(engine, { beside: broker }) : broker
    expect(await isActive(asked, introspector, token)).toBe(true)
    const tickets = (testPolicies.get('tools/tickets.yaml') ?? '').replace('[tickets-api]', '[]')
    const files = Object.fromEntries([...testPolicies, ['tools/tickets.yaml', tickets]])
    expect((await broker.sendAsAdmin('PUT', '/v1/policy', { files })).status).toBe(200)
    expect(await isActive(asked, introspector, token)).toBe(false)
    expect(await isActive(asked, agent, token)).toBe(true)
    // A tool that is gone has no introspectors; what was given for it is still its holder's to ask about.
    const without = Object.fromEntries([...testPolicies].filter(([path]) => path === 'tools/payments.yaml'))
    expect((await broker.sendAsAdmin('PUT', '/v1/policy', { files: without })).status).toBe(200)
    expect(await isActive(asked, introspector, token)).toBe(false)
    expect(await isActive(asked, agent, token)).toBe(true)
  })

  test('spends its assertion', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('triage-bot')
    const stranger = await broker.register('nosy-bot')
    const { access_token: token } = await getToken(broker, agent, { scope: 'tickets:read' })
    for (const [asker, sent] of [[agent, token], [agent, 'garbage'], [stranger, token]] as const) {
      const form = asker.form({ token: sent })
      expect((await post(broker, 'introspect', { form })).status).toBe(200)
      for (const endpoint of ['introspect', 'revoke'] as const) expect((await post(broker, endpoint, { form })).status).toBe(401)
    }
  })
})

describe('Introspection on SQLite', () => {
  test('knows only what Stint signed and has on record', async () => {
    const broker = await startBroker('sqlite')
    const agent = await broker.register('triage-bot')
    const { access_token: token } = await getToken(broker, agent, { scope: 'tickets:read' })
    const [header = '', payload = '', signature = ''] = token.split('.')
    const head = JSON.parse(Buffer.from(header, 'base64url').toString()) as Record<string, unknown>
    const claims = decodeJwt(token)
    // A token in every way like ours, of a broker that has the same issuer and another key.
    const elsewhere = await startBroker('sqlite', { rootKey: createRawRootKey(Buffer.alloc(32, 7)) })
    const foreign = await getToken(elsewhere, await elsewhere.register('triage-bot'), { scope: 'tickets:read' })
    const other = await createAgent('triage-bot', issuer, broker.clock)
    const wider = Buffer.from(JSON.stringify({ ...claims, scope: 'tickets:read tickets:purge' })).toString('base64url')
    const tokens: Record<string, string> = {
      garbage: 'garbage',
      dots: '...',
      'a grant\'s id': String(claims.jti),
      'a client assertion': agent.assert(),
      'an operator credential': broker.adminCredential,
      'another broker\'s token': foreign.access_token,
      'another issuer': signJws(head, { ...claims, iss: 'https://evil.test' }, other.privateKey),
      'another key under our kid': signJws(head, claims, other.privateKey),
      'alg none': `${Buffer.from(JSON.stringify({ ...head, alg: 'none' })).toString('base64url')}.${payload}.`,
      'no signature': `${header}.${payload}.`,
      'a wider scope under the old signature': `${header}.${wider}.${signature}`,
      'a space behind': `${token} `,
      'a newline behind': `${token}\n`,
      'padding behind': `${token}=`,
      'a part more': `${token}.x`,
      'NUL': '\0',
      'very long': 'x'.repeat(60_000),
    }
    const before = (await broker.events()).length
    for (const [name, sent] of Object.entries(tokens)) {
      const { status, text } = await post(broker, 'introspect', { form: agent.form({ token: sent }) })
      expect({ status, text }, name).toEqual({ status: 200, text: '{"active":false}' })
    }
    expect(await broker.events()).toHaveLength(before)
    expect(await isActive(broker, agent, token)).toBe(true)
  })

  test('calls a token dead that the same keys signed under another issuer', async () => {
    const broker = await startBroker('sqlite')
    const agent = await broker.register('triage-bot')
    const { access_token: token } = await getToken(broker, agent, { scope: 'tickets:read' })
    await broker.close()
    const renamed = await startBroker('sqlite', { beside: broker, issuer: 'https://renamed.test' })
    const toRenamed = (parameters: Record<string, string>) => {
      return { ...agent.form(parameters), client_assertion: agent.assert({ aud: 'https://renamed.test' }) }
    }
    const ask = async (sent: string) => {
      return (await post(renamed, 'introspect', { form: toRenamed({ token: sent }) })).body['active']
    }
    expect(await ask(token)).toBe(false)
    const form = toRenamed({ grant_type: 'client_credentials', scope: 'tickets:read' })
    expect(await ask(String((await post(renamed, 'token', { form })).body['access_token']))).toBe(true)
  })

  test('is not for admins: their credential authenticates no workload', async () => {
    const broker = await startBroker('sqlite')
    const agent = await broker.register('triage-bot', { reviewAt: formatTime(broker.clock.nowMs() + dayMs) })
    const token = String((await askToken(broker, agent, { scope: 'tickets:read' })).body['access_token'])
    for (const authorization of [`Bearer ${broker.adminCredential}`, `Bearer ${token}`]) {
      const answer = await post(broker, 'introspect', { form: { token }, headers: { authorization } })
      expect(answer).toMatchObject({ status: 401, body: { error: 'invalid_client' } })
    }
  })
})
