import { generateKeyPairSync } from 'node:crypto'
import { exportJWK } from 'jose'
import { expect, test } from 'vitest'
import { createAgent, dayMs, getToken, issuer, startBroker, type TestAgent, type TestBroker } from '../broker.ts'
import { describeEngines } from '../harness.ts'
import { answerOf, newAgent, readBot, unrecorded, type Body } from './admin-requests.ts'
import { askToken, countGrants, isActive } from './oauth-requests.ts'
import { proofForCode, proofForWorkload, rotate, type ProofChanges } from './proofs.ts'

const hourMs = 3_600_000
const time = (ms: number) => new Date(ms).toISOString()
const works = async (broker: TestBroker, agent: TestAgent) => (await askToken(broker, agent, { scope: 'tickets:read' })).status === 200

const refusal = {
  status: 401,
  body: {
    type: 'urn:stint:problem:invalid-client',
    title: 'The request was refused',
    status: 401,
    detail: 'Client authentication failed. Send a fresh client assertion, signed with a registered key of an active workload.',
    request_id: expect.any(String) as unknown,
  },
  index: null,
}

/** The newest refusal that strangers have caused, which must be the only one since. */
async function reasonSince(broker: TestBroker, from: number): Promise<unknown> {
  await broker.broker.refusals.flush(true)
  return (await broker.events()).slice(from).map((event) => (event.type === 'authentication.refused' ? event.reason : event.type))
}

async function prepare(engine: 'sqlite' | 'postgres') {
  const broker = await startBroker(engine)
  const [old, fresh] = [await broker.register('bot'), await newAgent(broker)]
  return { broker, old, fresh }
}

/** Lets `change` happen just before the ledger gets the next call of this method. */
function interfere(broker: TestBroker, method: 'append' | 'transact', change: () => unknown): void {
  const { ledger } = broker.broker
  let left = 1
  const hooked = async (given: never) => {
    if (left-- > 0) await change()
    // Handed on as it came: the methods differ in what they take, and this does not look at it.
    return (ledger[method] as (given: never) => Promise<never>)(given)
  }
  Object.assign(broker.broker, { ledger: { ...ledger, [method]: hooked } })
}

describeEngines('A rotation', (engine) => {
  test('puts a new key in the place of the old one, which goes on for an hour and ends by itself', async () => {
    const { broker, old, fresh } = await prepare(engine)
    const beside = engine === 'postgres' ? await startBroker(engine, { beside: broker }) : broker
    const { access_token: token } = await getToken(beside, old, { scope: 'tickets:read' })
    const startMs = broker.clock.nowMs()
    const until = time(startMs + hourMs)
    const json = { client_assertion: old.assert(), proof: proofForWorkload(broker, fresh) }
    const response = await broker.send('POST', '/v1/keys/rotate', { json })
    const rotated = await answerOf(response)
    expect([rotated.status, rotated.body]).toEqual([200, { workload: 'bot', client_id: old.clientId, kid: fresh.kid, replaces: old.kid, until }])
    expect(await broker.lastEvent('workload.key_rotated')).toMatchObject({
      index: Number(rotated.index),
      actor: { kind: 'workload', id: 'bot' },
      request_id: response.headers.get('stint-request-id'),
      workload: 'bot',
      kid: fresh.kid,
      alg: 'ES256',
      replaces: old.kid,
      until,
    })
    const keys = (status: string) => [
      expect.objectContaining({ kid: old.kid, status, removed_at: until }),
      { kid: fresh.kid, alg: 'ES256', jwk: expect.any(Object) as unknown, status: 'active', added_at: time(startMs) },
    ]
    const read = async () => (await readBot(broker))['keys'] as Body[]
    const byKid = (of: readonly Body[]) => old.kid === of[0]?.['kid'] ? of : [...of].reverse()
    expect(byKid(await read())).toEqual(keys('ending'))

    // The new one at once, on every process; the old one to its last millisecond, also where the header names no key.
    for (const at of [startMs, startMs + hourMs - 1]) {
      broker.clock.set(at)
      for (const agent of [old, fresh]) {
        expect(await works(beside, agent)).toBe(true)
        expect(await askToken(beside, { ...agent, form: (more) => ({ ...agent.form(more), client_assertion: agent.assert({}, { kid: undefined }) }) }, { scope: 'tickets:read' })).toMatchObject({ status: 200 })
      }
      if (at === startMs) expect(await isActive(beside, old, token)).toBe(true)
    }
    broker.clock.set(startMs + hourMs)
    const size = (await broker.events()).length
    expect(await works(beside, old)).toBe(false)
    await beside.broker.refusals.flush(true)
    expect(await reasonSince(broker, size)).toEqual(['key_removed'])
    expect(await works(beside, fresh)).toBe(true)
    expect(byKid(await read())).toEqual(keys('removed'))
    // No clock turns that back.
    broker.clock.set(startMs + hourMs - 5000)
    expect((await beside.send('POST', '/oauth2/token', { form: old.form({ grant_type: 'client_credentials', scope: 'tickets:read' }) })).status).not.toBe(200)
  })

  test.each([
    [0, 0],
    [1, 1000],
    [86_400, dayMs],
  ])('with an overlap of %i seconds ends the old key then', async (overlap, ms) => {
    const { broker, old, fresh } = await prepare(engine)
    const startMs = broker.clock.nowMs()
    expect(await rotate(broker, old, fresh, { overlap_seconds: overlap })).toMatchObject({ status: 200, body: { until: time(startMs + ms) } })
    if (ms > 0) {
      broker.clock.set(startMs + ms - 1)
      expect(await works(broker, old)).toBe(true)
    }
    broker.clock.set(startMs + ms)
    expect([await works(broker, old), await works(broker, fresh)]).toEqual([false, true])
  })

  test('goes on from key to key, of either algorithm', async () => {
    const { broker, old } = await prepare(engine)
    let key = old
    for (const alg of ['Ed25519', 'ES256', 'Ed25519'] as const) {
      const next = await createAgent('bot', issuer, broker.clock, alg)
      expect(await rotate(broker, key, next)).toMatchObject({ status: 200, body: { kid: next.kid, replaces: key.kid } })
      expect(await works(broker, next)).toBe(true)
      key = next
    }
  })

  test('whose answer was lost is answered again, and changes nothing more', async () => {
    const { broker, old, fresh } = await prepare(engine)
    const first = await rotate(broker, old, fresh)
    broker.clock.advance(hourMs - 1)
    // Another overlap does not lengthen it.
    for (const changes of [{}, { overlap_seconds: 86_400 }]) {
      expect(await unrecorded(broker, () => rotate(broker, old, fresh, changes))).toEqual({ ...first, index: null })
    }
    broker.clock.advance(1)
    expect(await rotate(broker, old, fresh)).toEqual(refusal)
  })

  test('is not made by a key that was rotated out: whoever has stolen it is told, and recorded', async () => {
    const { broker, old, fresh } = await prepare(engine)
    await rotate(broker, old, fresh)
    const thief = await newAgent(broker)
    const assertion = old.assert()
    const refused = await rotate(broker, old, thief, { client_assertion: assertion })
    expect(refused).toMatchObject({ status: 409, body: { detail: expect.stringContaining('This key was rotated out and ends at') as unknown }, index: null })
    expect(await broker.lastEvent('change.refused')).toMatchObject({
      actor: { kind: 'workload', id: 'bot' },
      request_id: refused.body['request_id'],
      workload: 'bot',
      method: 'POST',
      route: '/v1/keys/rotate',
      code: 'conflict',
      detail: refused.body['detail'],
    })
    // That spent the assertion.
    expect(await rotate(broker, old, thief, { client_assertion: assertion })).toEqual(refusal)
    expect((await readBot(broker))['keys']).toHaveLength(2)
    expect(await works(broker, thief)).toBe(false)
    // The successor may.
    expect((await rotate(broker, fresh, thief)).status).toBe(200)
    // And then the first one's retry is no success any more: its successor is ending.
    expect((await rotate(broker, old, fresh)).status).toBe(409)
  })

  test('can be cut short by an admin, who ends the old key at once', async () => {
    const { broker, old, fresh } = await prepare(engine)
    await rotate(broker, old, fresh)
    broker.clock.advance(1000)
    const remove = async () => answerOf(await broker.sendAsAdmin('DELETE', `/v1/workloads/bot/keys/${old.kid}`))
    const removed = await remove()
    const now = time(broker.clock.nowMs())
    expect(removed).toMatchObject({ status: 200, body: { keys: expect.arrayContaining([expect.objectContaining({ kid: old.kid, status: 'removed', removed_at: now })]) as unknown } })
    expect(await broker.lastEvent('workload.key_removed')).toMatchObject({ kid: old.kid, index: Number(removed.index) })
    expect([await works(broker, old), await works(broker, fresh)]).toEqual([false, true])
    expect(await unrecorded(broker, remove)).toEqual({ ...removed, index: null })
  })

  test('needs a proof that this very key is held, for this workload and broker', async () => {
    const { broker, old, fresh } = await prepare(engine)
    const other = await newAgent(broker, 'other')
    const { privateKey: rsaKey, publicKey: rsaPublic } = generateKeyPairSync('rsa', { modulusLength: 2048 })
    const nowSeconds = broker.clock.nowMs() / 1000
    const proof = (changes: ProofChanges) => proofForWorkload(broker, fresh, changes)
    const privateJwk = { ...(await exportJWK(fresh.privateKey)) }
    const cases: readonly (readonly [string, string])[] = [
      ['x', 'The proof is no compact JWS'],
      [old.assert(), 'must hold typ, alg and jwk in its header, and nothing else'],
      [proofForCode(broker, fresh, 'x'), 'must have stint-key+jwt as typ'],
      [proofForWorkload(broker, other), `must have ${old.clientId} as sub`],
      [proof({ claims: { sub: undefined } }), `must have ${old.clientId} as sub`],
      [proof({ claims: { sub: [old.clientId] } }), `must have ${old.clientId} as sub`],
      [proof({ claims: { iss: old.clientId } }), 'must hold aud, iat, exp, jti and sub in its payload, and nothing else'],
      [proof({ claims: { aud: 'https://other.test' } }), '(audience_mismatch)'],
      [proof({ claims: { iat: nowSeconds - 60, exp: nowSeconds } }), '(expired)'],
      [proof({ claims: { iat: nowSeconds + 6 } }), '(issued_in_future)'],
      [proof({ claims: { exp: nowSeconds + 301 } }), '(lifetime_too_long)'],
      [proof({ claims: { exp: 1e20 } }), 'impossible time'],
      [proof({ signer: old }), 'is not signed with the key that it carries'],
      [proof({ header: { jwk: old.publicJwk } }), 'is not signed with the key that it carries'],
      [proof({ header: { jwk: privateJwk } }), 'jwk.d is a private member: this key has left its holder'],
      [proof({ header: { alg: 'Ed25519' } }), 'must be signed by ES256'],
      [proof({ header: { alg: 'none' } }).replace(/[^.]*$/, ''), 'must be signed by ES256'],
      [proof({ header: { alg: 'RS256', jwk: await exportJWK(rsaPublic) }, signer: { ...fresh, privateKey: rsaKey } }), 'jwk.kty is RSA'],
    ]
    for (const [text, detail] of cases) {
      const answer = await rotate(broker, old, fresh, { proof: text })
      expect(answer, detail).toMatchObject({ status: 400, body: { type: 'urn:stint:problem:invalid-input', detail: expect.stringContaining(detail) as unknown } })
      expect(JSON.stringify(answer.body)).not.toContain(privateJwk.d ?? '?')
      expect(await broker.lastEvent('change.refused')).toMatchObject({ workload: 'bot', code: 'invalid_input' })
    }
    expect(JSON.stringify(await broker.events())).not.toContain(privateJwk.d ?? '?')
    expect((await readBot(broker))['keys']).toHaveLength(1)
  })

  test('takes no key that was ever registered, and does not say whose it was', async () => {
    const { broker, old } = await prepare(engine)
    const others = await broker.register('other')
    const [spare, gone] = [await newAgent(broker), await newAgent(broker)]
    await broker.sendAsAdmin('POST', '/v1/workloads/bot/keys', { jwks: { keys: [spare.publicJwk, gone.publicJwk] } })
    await broker.sendAsAdmin('DELETE', `/v1/workloads/bot/keys/${gone.kid}`)
    for (const key of [others, spare, gone, old]) {
      const answer = await rotate(broker, old, { ...key, name: 'bot', clientId: old.clientId })
      expect(answer).toMatchObject({ status: 409, body: { detail: expect.stringContaining('was registered before') as unknown } })
      expect(JSON.stringify(answer.body)).not.toContain('other')
    }
    expect(await works(broker, old)).toBe(true)
  })

  test('is refused strangers as everywhere', async () => {
    const { broker, old, fresh } = await prepare(engine)
    const other = await broker.register('other')
    const unknown = await newAgent(broker, 'nobody')
    const cases: readonly (readonly [string, Body])[] = [
      ['assertion_malformed', { client_assertion: 'x' }],
      ['workload_unknown', { client_assertion: unknown.assert() }],
      ['key_unknown', { client_assertion: fresh.assert() }],
      ['key_unknown', { client_assertion: other.assert({ iss: old.clientId, sub: old.clientId }) }],
      ['audience_mismatch', { client_assertion: old.assert({ aud: `${issuer}/v1/keys/rotate` }) }],
      ['type_not_allowed', { client_assertion: old.assert({}, { typ: 'stint-key+jwt' }) }],
      ['header_not_allowed', { client_assertion: proofForWorkload(broker, fresh) }],
    ]
    for (const [reason, changes] of cases) {
      const size = (await broker.events()).length
      expect(await rotate(broker, old, fresh, changes)).toEqual(refusal)
      expect(await reasonSince(broker, size)).toEqual([reason])
    }
    // Another workload's assertion with a proof for this one.
    expect(await rotate(broker, other, fresh)).toMatchObject({ status: 400, body: { detail: expect.stringContaining(`must have ${other.clientId} as sub`) as unknown } })
    expect((await readBot(broker))['keys']).toHaveLength(1)
  })

  test.each([
    ['suspend', 'workload_suspended'],
    ['retire', 'workload_retired'],
  ])('is refused to a workload after %s', async (verb, reason) => {
    const { broker, old, fresh } = await prepare(engine)
    await broker.sendAsAdmin('POST', `/v1/workloads/bot/${verb}`, {})
    const size = (await broker.events()).length
    expect(await rotate(broker, old, fresh)).toEqual(refusal)
    expect(await reasonSince(broker, size)).toEqual([reason])
  })

  test('with a body that is wrong in itself is told so', async () => {
    const { broker, old, fresh } = await prepare(engine)
    const cases: readonly (readonly [Body, string])[] = [
      [{ client_assertion: undefined }, 'client_assertion must be text'],
      [{ proof: undefined }, 'proof must be text'],
      [{ proof: 7 }, 'proof must be text'],
      [{ overlap_seconds: -1 }, 'overlap_seconds must be a whole number of seconds from 0 to 86400'],
      [{ overlap_seconds: 86_401 }, 'overlap_seconds must be a whole number of seconds from 0 to 86400'],
      [{ overlap_seconds: 1.5 }, 'overlap_seconds must be a whole number of seconds from 0 to 86400'],
      [{ overlap_seconds: '60' }, 'overlap_seconds must be a whole number of seconds from 0 to 86400'],
      [{ overlap_second: 60 }, 'did you mean overlap_seconds?'],
    ]
    await unrecorded(broker, async () => {
      for (const [changes, detail] of cases) {
        expect(await rotate(broker, old, fresh, changes)).toMatchObject({ status: 400, body: { detail: expect.stringContaining(detail) as unknown } })
      }
    })
  })

  test('leaves a workload no more than eight keys at a time', async () => {
    const { broker, old, fresh } = await prepare(engine)
    const agents = await Promise.all(Array.from({ length: 7 }, () => newAgent(broker)))
    await broker.sendAsAdmin('POST', '/v1/workloads/bot/keys', { jwks: { keys: agents.map(({ publicJwk }) => publicJwk) } })
    expect(await rotate(broker, old, fresh)).toMatchObject({ status: 409, body: { detail: expect.stringContaining('has 8 keys') as unknown } })
    // Without an overlap it is one for one.
    expect((await rotate(broker, old, fresh, { overlap_seconds: 0 })).status).toBe(200)
    const next = await newAgent(broker)
    await broker.sendAsAdmin('DELETE', `/v1/workloads/bot/keys/${agents[0]?.kid ?? ''}`)
    expect((await rotate(broker, fresh, next)).status).toBe(200)
    // An ending key counts until it has ended.
    const keys = { jwks: { keys: [(await newAgent(broker)).publicJwk] } }
    expect((await broker.sendAsAdmin('POST', '/v1/workloads/bot/keys', keys)).status).toBe(409)
    broker.clock.advance(hourMs)
    expect((await broker.sendAsAdmin('POST', '/v1/workloads/bot/keys', keys)).status).toBe(201)
  })

  test('is made at most so often a day', async () => {
    const { broker, old } = await prepare(engine)
    let key = old
    for (let i = 1; i < 48; i++) {
      const next = await newAgent(broker)
      expect([i, (await rotate(broker, key, next, { overlap_seconds: 0 })).status]).toEqual([i, 200])
      key = next
    }
    const next = await newAgent(broker)
    const often = await rotate(broker, key, next, { overlap_seconds: 0 })
    expect(often).toMatchObject({ status: 409, body: { detail: expect.stringContaining('rotate less often') as unknown } })
    broker.clock.advance(dayMs)
    expect((await rotate(broker, key, next, { overlap_seconds: 0 })).status).toBe(200)
  })

  test.each([0, 60])('to two new keys at the same moment (overlap %i) is one, and the other is refused', async (overlap) => {
    const { broker, old } = await prepare(engine)
    const beside = engine === 'postgres' ? await startBroker(engine, { beside: broker }) : broker
    const agents = await Promise.all(Array.from({ length: 6 }, () => newAgent(broker)))
    const changes = { overlap_seconds: overlap }
    const answers = await Promise.all(agents.map((agent, i) => rotate(i % 2 === 0 ? broker : beside, old, agent, changes)))
    const won = answers.filter(({ status }) => status === 200)
    expect(won).toHaveLength(1)
    expect([...new Set(answers.filter(({ status }) => status !== 200).map(({ status }) => status))]).toEqual([overlap === 0 ? 401 : 409])
    const keys = (await readBot(broker))['keys'] as Body[]
    expect(keys.map(({ kid }) => kid).sort()).toEqual([old.kid, won[0]?.body['kid']].sort())
    expect((await broker.events()).filter(({ type }) => type === 'workload.key_rotated')).toHaveLength(1)
  })

  test('to the same new key at the same moment is one, and answered alike', async () => {
    const { broker, old, fresh } = await prepare(engine)
    const beside = engine === 'postgres' ? await startBroker(engine, { beside: broker }) : broker
    const answers = await Promise.all(Array.from({ length: 6 }, (_, i) => rotate(i % 2 === 0 ? broker : beside, old, fresh)))
    for (const { status, body } of answers) expect([status, body]).toEqual([200, answers[0]?.body])
    expect(answers.filter(({ index }) => index !== null)).toHaveLength(1)
  })

  test('is stopped by a suspension that comes between', async () => {
    const { broker, old, fresh } = await prepare(engine)
    expect(await works(broker, old)).toBe(true)
    interfere(broker, 'transact', () => broker.sendAsAdmin('POST', '/v1/workloads/bot/suspend', {}))
    expect(await rotate(broker, old, fresh)).toEqual(refusal)
    expect((await readBot(broker))['keys']).toHaveLength(1)
  })
})

describeEngines('A key that ends', (engine) => {
  test('between a decision and its record stops the token', async () => {
    const { broker, old, fresh } = await prepare(engine)
    await rotate(broker, old, fresh, { overlap_seconds: 10 })
    expect(await works(broker, old)).toBe(true)
    const grants = await countGrants(broker)
    interfere(broker, 'append', () => broker.clock.advance(10_000))
    expect(await askToken(broker, old, { scope: 'tickets:read' })).toMatchObject({ status: 401, body: { error: 'invalid_client' } })
    expect(await countGrants(broker)).toBe(grants)
  })
})
