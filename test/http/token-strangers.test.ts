import { createHmac, createPublicKey, generateKeyPairSync } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import type { RefusalReason } from '../../src/identity/refusal.ts'
import { formatTime } from '../../src/kernel/clock.ts'
import { assertionType, createAgent, dayMs, getToken, issuer, signJws, startBroker, type TestAgent } from '../broker.ts'
import { createTestClock } from '../harness.ts'
import { countGrants, post, type Endpoint } from './oauth-requests.ts'

interface Cast {
  /** An ES256 and an Ed25519 workload in good order. */
  readonly agent: TestAgent
  readonly edwards: TestAgent
  readonly suspended: TestAgent
  readonly retired: TestAgent
  readonly overdue: TestAgent
  /** Never registered. */
  readonly unknown: TestAgent
  /** `agent`, but with a key that was taken away. */
  readonly rotatedOut: TestAgent
  /** An access token of `agent`. */
  readonly accessToken: string
  readonly nowSeconds: number
}

/** What a stranger sends beside or instead of a good request, and the reason that the log gives. */
type Case = [(cast: Cast) => string | Record<string, string>, RefusalReason, claimed?: 'agent' | 'edwards' | 'suspended' | 'retired' | 'overdue']

const header = (members: Record<string, unknown>): Case => [({ agent }) => agent.assert({}, members), 'header_not_allowed']
const claims = (make: (cast: Cast) => Record<string, unknown>, reason: RefusalReason): Case => {
  const known: readonly RefusalReason[] = ['claims_malformed', 'expiry_missing', 'jti_missing', 'type_not_allowed', 'issuer_mismatch', 'subject_mismatch']
  // What is wrong with the text itself is found before a name is looked up.
  return known.includes(reason) ? [(cast) => cast.agent.assert(make(cast)), reason] : [(cast) => cast.agent.assert(make(cast)), reason, 'agent']
}

/** An assertion whose payload is this text, so that it can hold what JSON.stringify does not write. */
function withPayload(make: (payload: string) => string): Case[0] {
  return ({ agent }) => {
    const [, payload = ''] = agent.assert().split('.')
    return signJws({ alg: agent.alg, kid: agent.kid }, make(Buffer.from(payload, 'base64url').toString()), agent.privateKey)
  }
}

/** Algorithm confusion (RFC 8725 §2.1): a MAC whose secret is the public key, in one of its spellings. */
function withMac(secretOf: (agent: TestAgent) => string | Buffer): Case {
  return [
    ({ agent }) => {
      const input = agent.assert({}, { alg: 'HS256' }).split('.').slice(0, 2).join('.')
      return `${input}.${createHmac('sha256', secretOf(agent)).update(input).digest('base64url')}`
    },
    'algorithm_not_allowed',
  ]
}

function publicPem({ privateKey }: TestAgent, format: 'pem' | 'der') {
  const key = createPublicKey(privateKey)
  return format === 'pem' ? key.export({ type: 'spki', format }) : key.export({ type: 'spki', format })
}

const cases: Record<string, Case> = {
  'no assertion': [() => ({ client_assertion: '' }), 'assertion_missing'],
  'a client_id alone': [({ agent }) => ({ client_assertion: '', client_id: agent.clientId }), 'assertion_missing'],
  'no JWT': [() => 'secret', 'assertion_malformed'],
  'two parts': [({ agent }) => agent.assert().split('.').slice(0, 2).join('.'), 'assertion_malformed'],
  'four parts': [({ agent }) => `${agent.assert()}.x`, 'assertion_malformed'],
  'a space behind': [({ agent }) => `${agent.assert()} `, 'assertion_malformed'],
  'padding': [({ agent }) => `${agent.assert()}=`, 'assertion_malformed'],
  'more than 8 KiB': [({ agent }) => agent.assert({ extra: 'x'.repeat(8192) }), 'assertion_malformed'],
  'a claim twice': [withPayload((payload) => payload.replace('{', '{"sub":"x",')), 'assertion_malformed'],

  'alg none': [({ agent }) => agent.assert({}, { alg: 'none' }).replace(/\.[^.]*$/, '.'), 'algorithm_not_allowed'],
  'alg None': [({ agent }) => agent.assert({}, { alg: 'None' }), 'algorithm_not_allowed'],
  'no alg': [({ agent }) => agent.assert({}, { alg: undefined }), 'algorithm_not_allowed'],
  'HS256 with the public PEM': withMac((agent) => publicPem(agent, 'pem')),
  'HS256 with the public DER': withMac((agent) => publicPem(agent, 'der')),
  'HS256 with the public JWK': withMac((agent) => JSON.stringify(agent.publicJwk)),
  'HS256 with the empty key': withMac(() => ''),
  'ES384': [({ agent }) => agent.assert({}, { alg: 'ES384' }), 'algorithm_not_allowed'],
  'RS256': [({ agent }) => agent.assert({}, { alg: 'RS256' }), 'algorithm_not_allowed'],
  'the other algorithm than the key\'s': [({ agent }) => agent.assert({}, { alg: 'Ed25519' }), 'algorithm_not_allowed', 'agent'],
  'the other algorithm, no kid': [({ agent }) => agent.assert({}, { alg: 'Ed25519', kid: undefined }), 'key_unknown', 'agent'],

  'kid of another workload': [({ agent, edwards }) => agent.assert({}, { kid: edwards.kid }), 'key_unknown', 'agent'],
  'kid of nobody': [({ agent }) => agent.assert({}, { kid: 'x' }), 'key_unknown', 'agent'],
  'kid as a path': [({ agent }) => agent.assert({}, { kid: '../../../../dev/null' }), 'key_unknown', 'agent'],
  'kid as SQL': [({ agent }) => agent.assert({}, { kid: "' or 1=1 --" }), 'key_unknown', 'agent'],
  'an empty kid': [({ agent }) => agent.assert({}, { kid: '' }), 'key_unknown', 'agent'],
  'kid as a number': header({ kid: 1 }),
  'kid as a list': [({ agent }) => agent.assert({}, { kid: [agent.kid] }), 'header_not_allowed'],
  'jku': header({ jku: 'https://evil.test/jwks' }),
  'x5u': header({ x5u: 'https://evil.test/cert' }),
  'x5c': header({ x5c: ['MIIB'] }),
  'an embedded jwk, with its own signature': [
    ({ agent }) => {
      const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
      const [, payload = ''] = agent.assert().split('.')
      const jwk = publicKey.export({ format: 'jwk' })
      return signJws({ alg: 'ES256', jwk }, Buffer.from(payload, 'base64url').toString(), privateKey)
    },
    'header_not_allowed',
  ],
  'an unknown crit': header({ crit: ['x'], x: 1 }),
  'an empty crit': header({ crit: [] }),
  'b64 false': header({ b64: false, crit: ['b64'] }),
  'zip': header({ zip: 'DEF' }),
  'typ at+jwt': [({ agent }) => agent.assert({}, { typ: 'at+jwt' }), 'type_not_allowed'],
  'an access token': [({ accessToken }) => accessToken, 'type_not_allowed'],
  'an access token\'s claims': claims(() => ({ scope: 'tickets:read' }), 'type_not_allowed'),

  'aud with others beside the issuer': claims(() => ({ aud: [issuer, 'https://evil.test'] }), 'audience_mismatch'),
  'the issuer twice': claims(() => ({ aud: [issuer, issuer] }), 'audience_mismatch'),
  'the token endpoint as aud': claims(() => ({ aud: `${issuer}/oauth2/token` }), 'audience_mismatch'),
  'the issuer with a slash': claims(() => ({ aud: `${issuer}/` }), 'audience_mismatch'),
  'the issuer in upper case': claims(() => ({ aud: issuer.toUpperCase() }), 'audience_mismatch'),
  'an empty aud': claims(() => ({ aud: [] }), 'audience_mismatch'),
  'no aud': claims(() => ({ aud: undefined }), 'claims_malformed'),
  'aud of a number': claims(() => ({ aud: [1] }), 'claims_malformed'),

  'no exp': claims(() => ({ exp: undefined }), 'expiry_missing'),
  'exp as text': claims(({ nowSeconds }) => ({ exp: String(nowSeconds + 60) }), 'claims_malformed'),
  'exp null': claims(() => ({ exp: null }), 'claims_malformed'),
  'exp negative': claims(() => ({ exp: -1 }), 'claims_malformed'),
  'exp in milliseconds': claims(({ nowSeconds }) => ({ exp: nowSeconds * 1000 }), 'claims_malformed'),
  'a huge exp': [withPayload((payload) => payload.replace(/"exp":\d+/, '"exp":1e400')), 'claims_malformed'],
  'exp NaN': [withPayload((payload) => payload.replace(/"exp":\d+/, '"exp":NaN')), 'assertion_malformed'],
  'exp now': claims(({ nowSeconds }) => ({ exp: nowSeconds }), 'expired'),
  'exp just past': claims(({ nowSeconds }) => ({ exp: nowSeconds - 1 }), 'expired'),
  'a life of 301 seconds': claims(({ nowSeconds }) => ({ exp: nowSeconds + 301 }), 'lifetime_too_long'),
  'a life of an hour without iat': claims(({ nowSeconds }) => ({ exp: nowSeconds + 3600, iat: undefined }), 'lifetime_too_long'),
  'older than five minutes': claims(({ nowSeconds }) => ({ iat: nowSeconds - 301, exp: nowSeconds + 1 }), 'too_old'),
  'iat to come': claims(({ nowSeconds }) => ({ iat: nowSeconds + 6 }), 'issued_in_future'),
  'iat as text': claims(() => ({ iat: 'now' }), 'claims_malformed'),
  'nbf to come': claims(({ nowSeconds }) => ({ nbf: nowSeconds + 6 }), 'not_yet_valid'),
  'nbf as text': claims(() => ({ nbf: 'now' }), 'claims_malformed'),
  'no jti': claims(() => ({ jti: undefined }), 'jti_missing'),
  'an empty jti': claims(() => ({ jti: '' }), 'claims_malformed'),
  'jti as a number': claims(() => ({ jti: 1 }), 'claims_malformed'),
  'jti with NUL': claims(() => ({ jti: 'a\0' }), 'claims_malformed'),

  'no iss': claims(() => ({ iss: undefined }), 'claims_malformed'),
  'iss of another trust domain': claims(() => ({ iss: 'spiffe://evil.test/triage-bot', sub: 'spiffe://evil.test/triage-bot' }), 'issuer_mismatch'),
  'iss as a bare name': claims(() => ({ iss: 'triage-bot', sub: 'triage-bot' }), 'issuer_mismatch'),
  'iss with a path': claims(({ agent }) => ({ iss: `${agent.clientId}/x`, sub: `${agent.clientId}/x` }), 'issuer_mismatch'),
  'sub is another': claims(({ edwards }) => ({ sub: edwards.clientId }), 'subject_mismatch'),
  'iss is another': claims(({ edwards }) => ({ iss: edwards.clientId }), 'subject_mismatch'),
  'another\'s name, own key': [({ agent, edwards }) => agent.assert({ iss: edwards.clientId, sub: edwards.clientId }), 'key_unknown', 'edwards'],
  'another\'s name and kid, own key': [
    ({ agent, edwards }) => agent.assert({ iss: edwards.clientId, sub: edwards.clientId }, { alg: 'Ed25519', kid: edwards.kid }),
    'signature_invalid',
    'edwards',
  ],
  'another\'s key': [({ agent, unknown }) => signJws({ alg: 'ES256', kid: agent.kid }, payloadOf(agent), unknown.privateKey), 'signature_invalid', 'agent'],
  'another\'s key, no kid': [({ agent, unknown }) => signJws({ alg: 'ES256' }, payloadOf(agent), unknown.privateKey), 'signature_invalid', 'agent'],
  'a signature of DER': [({ agent }) => agent.assert().replace(/[^.]+$/, Buffer.alloc(70, 0x30).toString('base64url')), 'signature_invalid', 'agent'],
  'a signature of zeros': [({ agent }) => agent.assert().replace(/[^.]+$/, Buffer.alloc(64).toString('base64url')), 'signature_invalid', 'agent'],
  'an empty signature': [({ agent }) => agent.assert().replace(/[^.]+$/, ''), 'signature_invalid', 'agent'],
  'an edited payload': [
    ({ agent }) => {
      const [head, , signature] = agent.assert().split('.')
      const [, payload] = agent.assert().split('.')
      return [head, payload, signature].join('.')
    },
    'signature_invalid',
    'agent',
  ],
  'a rotated-out key': [({ rotatedOut }) => rotatedOut.assert(), 'key_removed', 'agent'],
  'a rotated-out key, no kid': [({ rotatedOut }) => rotatedOut.assert({}, { kid: undefined }), 'signature_invalid', 'agent'],
  'a client_id that is another\'s': [({ agent, edwards }) => ({ client_assertion: agent.assert(), client_id: edwards.clientId }), 'client_id_mismatch', 'agent'],
  'a client_id that is the bare name': [({ agent }) => ({ client_assertion: agent.assert(), client_id: agent.name }), 'client_id_mismatch', 'agent'],
  'an unknown workload': [({ unknown }) => unknown.assert(), 'workload_unknown'],
  'a suspended workload': [({ suspended }) => suspended.assert(), 'workload_suspended', 'suspended'],
  'a retired workload': [({ retired }) => retired.assert(), 'workload_retired', 'retired'],
  'a workload whose review is overdue': [({ overdue }) => overdue.assert(), 'review_overdue', 'overdue'],
}

function payloadOf(agent: TestAgent): string {
  const [, payload = ''] = agent.assert().split('.')
  return Buffer.from(payload, 'base64url').toString()
}

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
  const cast: Cast = { agent: second, rotatedOut: first, suspended, retired, overdue, edwards, unknown, accessToken, nowSeconds: clock.nowMs() / 1000 }
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
      Object.entries(cases).map(async ([name, [make]]) => {
        const began = performance.now()
        const { status, text, headers } = await post(broker, endpoint, { form: formOf(make(cast), parameters) })
        const seen = [...headers].filter(([header]) => header !== 'stint-request-id')
        return { name, tookMs: performance.now() - began, seen: JSON.stringify([status, seen, text]) }
      }),
    )
    const expected = JSON.stringify([
      401,
      [['cache-control', 'no-store'], ['content-type', 'application/json'], ['x-content-type-options', 'nosniff']],
      '{"error":"invalid_client","error_description":"Client authentication failed. Send a fresh client assertion, signed with a registered key of an active workload."}',
    ])
    expect(Object.fromEntries(answers.map(({ name, seen }) => [name, seen]))).toEqual(
      Object.fromEntries(answers.map(({ name }) => [name, expected])),
    )
    // The floor under every refusal; a timer may fire a little early.
    for (const { name, tookMs } of answers) expect(tookMs, name).toBeGreaterThan(19)

    // Nothing was given, and the log does not grow until the minute is over.
    expect(await countGrants(broker)).toBe(grants)
    await broker.broker.refusals.flush()
    expect(await broker.events()).toHaveLength(before)
    broker.clock.advance(60_000)
    await broker.broker.refusals.flush()
    const tally = new Map<string, { count: number; claimed: Record<string, number> }>()
    for (const [, reason, who] of Object.values(cases)) {
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
    const knock = (count: number, claims: Record<string, unknown>) =>
      Promise.all(Array.from({ length: count }, () => post(broker, 'token', { form: formOf(agent.assert(claims), { grant_type: 'client_credentials' }) })))
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
      await post(broker, 'token', { form: formOf(stranger.assert(), { grant_type: 'client_credentials', scope: 'tickets:read', client_id: 'made-up' }) })
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
