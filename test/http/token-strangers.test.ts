import { describe, expect, test } from 'vitest'
import { formatTime } from '../../src/kernel/clock.ts'
import { assertionType, createAgent, dayMs, getToken, issuer, startBroker } from '../broker.ts'
import { createTestClock } from '../harness.ts'
import { countGrants, post, type Endpoint } from './oauth-requests.ts'
import { strangers, type Cast } from './strangers.ts'

async function assemble() {
  const broker = await startBroker('sqlite')
  const { clock } = broker
  const first = await broker.register('triage-bot')
  const second = await createAgent('triage-bot', issuer, clock)
  await broker.sendAsAdmin('POST', '/v1/workloads/triage-bot/keys', { jwks: { keys: [second.publicJwk] } })
  const { access_token: accessToken } = await getToken(broker, first, { scope: 'tickets:read' })
  const removed = await broker.sendAsAdmin('DELETE', `/v1/workloads/triage-bot/keys/${first.kid}`)
  expect(removed.status).toBe(200)
  const suspended = await broker.register('suspended-bot')
  const retired = await broker.register('retired-bot')
  expect((await broker.sendAsAdmin('POST', '/v1/workloads/suspended-bot/suspend', {})).status).toBe(200)
  expect((await broker.sendAsAdmin('POST', '/v1/workloads/retired-bot/retire', {})).status).toBe(200)
  const overdue = await broker.register('overdue-bot', { reviewAt: formatTime(clock.nowMs() + dayMs) })
  const edwards = await broker.register('edwards-bot', { alg: 'Ed25519' })
  clock.advance(dayMs)
  const unknown = await createAgent('no-such-bot', issuer, clock)
  const workloads = { agent: second, rotatedOut: first, suspended, retired, overdue, edwards, unknown }
  const cast: Cast = { ...workloads, accessToken, nowSeconds: clock.nowMs() / 1000 }
  return { broker, cast }
}

function formOf(sent: string | Record<string, string>, parameters: Record<string, string>): Record<string, string> {
  const { client_assertion: assertion, ...rest } = typeof sent === 'string' ? { client_assertion: sent } : sent
  if (assertion === '') return { ...parameters, ...rest }
  return { ...parameters, ...rest, client_assertion_type: assertionType, client_assertion: assertion ?? '' }
}

const endpoints: [Endpoint, Record<string, string>][] = [
  ['token', { grant_type: 'client_credentials', scope: 'tickets:read' }],
  ['introspect', { token: 'x' }],
  ['revoke', { token: 'x' }],
]

describe('A stranger', () => {
  test.each(endpoints)('is told the same at /oauth2/%s, whatever is wrong, and the log tells each reason apart', async (endpoint, parameters) => {
    const { broker, cast } = await assemble()
    const before = (await broker.events()).length
    const grants = await countGrants(broker)
    const answers = await Promise.all(
      Object.entries(strangers).map(async ([name, [make]]) => {
        const { status, text, headers } = await post(broker, endpoint, { form: formOf(make(cast), parameters) })
        const seen = [...headers].filter(([header]) => header !== 'stint-request-id')
        return { name, seen: JSON.stringify([status, seen, text]) }
      }),
    )
    const expected = JSON.stringify([
      401,
      [
        ['cache-control', 'no-store'],
        ['content-security-policy', "default-src 'none'; frame-ancestors 'none'"],
        ['content-type', 'application/json'],
        ['strict-transport-security', 'max-age=31536000'],
        ['x-content-type-options', 'nosniff'],
      ],
      JSON.stringify({
        error: 'invalid_client',
        error_description:
          'Client authentication failed. Send a fresh client assertion, signed with a registered key of an active workload.',
      }),
    ])
    expect(Object.fromEntries(answers.map(({ name, seen }) => [name, seen]))).toEqual(
      Object.fromEntries(answers.map(({ name }) => [name, expected])),
    )

    // Nothing was given, and the log does not grow until the minute is over.
    expect(await countGrants(broker)).toBe(grants)
    await broker.broker.refusals.flush()
    expect(await broker.events()).toHaveLength(before)
    broker.clock.advance(60_000)
    await broker.broker.refusals.flush()
    const tally = new Map<string, { count: number; claimed: Record<string, number> }>()
    for (const [, reason, who] of Object.values(strangers)) {
      const { count, claimed } = tally.get(reason) ?? { count: 0, claimed: {} }
      const name = who === undefined ? undefined : cast[who].name
      tally.set(reason, { count: count + 1, claimed: name === undefined ? claimed : { ...claimed, [name]: (claimed[name] ?? 0) + 1 } })
    }
    const recorded = (await broker.events()).slice(before).map(({ type, ...event }) => {
      expect(type).toBe('authentication.refused')
      const { reason, count, realm, actor, claimed = {} } = { ...event } as Record<string, unknown>
      expect({ realm, actor }).toEqual({ realm: 'workload', actor: { kind: 'stranger' } })
      return [String(reason), { count, claimed }] as const
    })
    expect(Object.fromEntries(recorded)).toEqual(Object.fromEntries(tally))
    expect(recorded).toHaveLength(tally.size)
    await broker.broker.refusals.flush(true)
    expect(await broker.events()).toHaveLength(before + tally.size)
  })

  test('waits as long for his answer, be he refused at the first look or the last', async () => {
    const { broker, cast } = await assemble()
    const spent = cast.edwards.assert()
    const stages: Record<string, () => string> = {
      'text that is no JWT': () => 'x',
      'a name that nobody has': () => cast.unknown.assert(),
      'a wrong signature': () => cast.agent.assert().replace(/[^.]+$/, Buffer.alloc(64).toString('base64url')),
      'a workload that is suspended': () => cast.suspended.assert(),
      'a replay, which only the database knows': () => spent,
    }
    const send = (assertion: string) => post(broker, 'introspect', { form: formOf(assertion, { token: 'x' }) })
    expect((await send(spent)).status).toBe(200)
    for (const [name, make] of Object.entries(stages)) {
      let fastestMs = Infinity
      for (let i = 0; i < 4; i++) {
        const began = performance.now()
        expect((await send(make())).status, name).toBe(401)
        fastestMs = Math.min(fastestMs, performance.now() - began)
      }
      // The floor under every refusal; a timer may fire a little early.
      expect(fastestMs, name).toBeGreaterThan(19)
    }
  })

  test('who does not ask for a token is told the same: what else is wrong is not looked at', async () => {
    const { broker, cast } = await assemble()
    const before = (await broker.events()).length
    for (const parameters of [{ scope: 'no:such' }, { authorization_details: '[{' }, { scope: 'tickets:read', resource: '/x' }, {}]) {
      const form = formOf(cast.unknown.assert(), { grant_type: 'client_credentials', ...parameters })
      expect(await post(broker, 'token', { form })).toMatchObject({ status: 401, body: { error: 'invalid_client' } })
    }
    expect(await broker.events()).toHaveLength(before)
  })

  test('is recorded once per reason and minute, however often he comes', async () => {
    const broker = await startBroker('sqlite')
    const agent = await broker.register('triage-bot')
    const before = (await broker.events()).length
    const knock = (count: number, claims: Record<string, unknown>) => {
      const send = () => post(broker, 'token', { form: formOf(agent.assert(claims), { grant_type: 'client_credentials' }) })
      return Promise.all(Array.from({ length: count }, send))
    }
    await knock(30, { aud: 'https://evil.test' })
    broker.clock.advance(10_000)
    await knock(10, { aud: 'https://evil.test' })
    await knock(5, { jti: undefined })
    broker.clock.advance(60_000)
    await knock(2, { aud: 'https://evil.test' })
    await broker.broker.refusals.flush()
    const minute = { since: '2026-01-15T12:00:00.000Z', until: '2026-01-15T12:00:10.000Z' }
    const late = { since: '2026-01-15T12:00:10.000Z', until: '2026-01-15T12:00:10.000Z' }
    expect((await broker.events()).slice(before)).toMatchObject([
      { type: 'authentication.refused', reason: 'audience_mismatch', count: 40, claimed: { 'triage-bot': 40 }, ...minute },
      { type: 'authentication.refused', reason: 'jti_missing', count: 5, ...late },
    ])
    // What is counted at the end is not lost with the process.
    await broker.close()
    const again = await startBroker('sqlite', { beside: broker })
    expect(await again.lastEvent('authentication.refused')).toMatchObject({ reason: 'audience_mismatch', count: 2 })
  })

  test('cannot bring names of his own into the log', async () => {
    const broker = await startBroker('sqlite')
    const before = (await broker.events()).length
    for (let i = 0; i < 5; i++) {
      const stranger = await createAgent(`made-up-${i}`, issuer, createTestClock())
      const parameters = { grant_type: 'client_credentials', scope: 'tickets:read', client_id: 'made-up' }
      await post(broker, 'token', { form: formOf(stranger.assert(), parameters) })
    }
    await broker.broker.refusals.flush(true)
    const events = (await broker.events()).slice(before)
    expect(events).toMatchObject([{ type: 'authentication.refused', reason: 'workload_unknown', count: 5 }])
    expect(JSON.stringify(events)).not.toContain('made-up')
  })
})

describe('An Authorization header', () => {
  const challenges = [
    ['Basic c3BpZmZlOng=', 'Basic realm="stint"'],
    ['bearer x', 'Bearer realm="stint"'],
    ['Negotiate x', 'Bearer realm="stint"'],
    ['x', 'Bearer realm="stint"'],
  ] as const
  test.each(challenges)('%s is no way for a workload to authenticate', async (authorization, challenge) => {
    const broker = await startBroker('sqlite')
    const answer = await post(broker, 'token', {
      form: { grant_type: 'client_credentials', scope: 'tickets:read' },
      headers: { authorization },
    })
    expect(answer).toMatchObject({ status: 401, body: { error: 'invalid_client' } })
    // RFC 6749 §5.2.
    expect(answer.headers.get('www-authenticate')).toBe(challenge)
    await broker.broker.refusals.flush(true)
    expect(await broker.lastEvent('authentication.refused')).toMatchObject({ reason: 'assertion_missing', count: 1 })
  })

  test('with an admin\'s credential gets no token', async () => {
    const broker = await startBroker('sqlite')
    const answer = await post(broker, 'token', {
      form: { grant_type: 'client_credentials', scope: 'tickets:read' },
      headers: { authorization: `Bearer ${broker.adminCredential}` },
    })
    expect(answer).toMatchObject({ status: 401, body: { error: 'invalid_client' } })
    expect(await countGrants(broker)).toBe(0)
  })
})
