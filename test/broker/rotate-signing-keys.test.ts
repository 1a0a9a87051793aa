import { createLocalJWKSet, jwtVerify, type JSONWebKeySet } from 'jose'
import { describe, expect, test } from 'vitest'
import { advanceSigningKeys } from '../../src/broker/rotate-signing-keys.ts'
import type { Engine } from '../../src/storage/engine.ts'
import { dayMs, getToken, startBroker, type TestAgent, type TestBroker } from '../broker.ts'
import { describeEngines } from '../harness.ts'
import { answerOf, type Body } from '../http/admin-requests.ts'
import { isActive } from '../http/oauth-requests.ts'

const aheadMs = 600_000

interface Shown {
  readonly kid: string
  readonly status: string
  readonly signs_from: string
  readonly verifies_until?: string
}

const shown = async (broker: TestBroker) => (await answerOf(await broker.sendAsAdmin('GET', '/v1/signing-keys'))).body as unknown as { keys: Shown[]; next_rotation_at: string }
const statuses = async (broker: TestBroker) => (await shown(broker)).keys.map(({ status }) => status)
const jwks = async (broker: TestBroker) => (await (await broker.send('GET', '/oauth2/jwks')).json()) as JSONWebKeySet
const published = async (broker: TestBroker) => (await jwks(broker)).keys.map(({ kid }) => kid)
const rotate = async (broker: TestBroker, body: Body = {}) => answerOf(await broker.sendAsAdmin('POST', '/v1/signing-keys/rotate', body))
const iso = (broker: TestBroker, ms = 0) => new Date(broker.clock.nowMs() + ms).toISOString()

/** What the log says of keys that sign tokens. */
async function keyEvents(broker: TestBroker) {
  return (await broker.events()).filter((event) => event.type.startsWith('key.') && 'use' in event && event.use === 'token')
}

async function getTicket(broker: TestBroker, agent: TestAgent): Promise<string> {
  return (await getToken(broker, agent, { scope: 'tickets:read' })).access_token
}

function kidOf(token: string): string {
  // The token is one that the broker has just signed.
  return (JSON.parse(Buffer.from(token.split('.')[0] ?? '', 'base64url').toString()) as { kid: string }).kid
}

/** Whether a tool that verifies offline by this key set accepts the token. */
async function verifies(broker: TestBroker, keys: JSONWebKeySet, token: string): Promise<boolean> {
  const options = { currentDate: new Date(broker.clock.nowMs()) }
  return jwtVerify(token, createLocalJWKSet(keys), options).then(() => true, () => false)
}

/** The broker, and where the engine allows it another process on its database. */
async function startTwo(engine: Engine) {
  const broker = await startBroker(engine)
  const beside = engine === 'postgres' ? await startBroker(engine, { beside: broker }) : broker
  return { broker, beside, agent: await broker.register('bot') }
}

describeEngines('Signing keys rotate by themselves', (engine) => {
  test('with an overlap: published ahead, signing, verifying what it signed, erased, and each step is recorded', async () => {
    const { broker, beside, agent } = await startTwo(engine)
    const step = () => advanceSigningKeys(broker.broker)
    const [first] = await published(broker)
    expect(await shown(broker)).toEqual({
      keys: [{ kid: first, alg: 'ES256', status: 'signing', created_at: iso(broker), signs_from: iso(broker) }],
      next_rotation_at: iso(broker, 30 * dayMs),
    })
    await step()
    expect(await published(broker)).toEqual([first])

    // Ten minutes before the month is over.
    broker.clock.advance(30 * dayMs - aheadMs - 1)
    await step()
    expect(await published(broker)).toEqual([first])
    broker.clock.advance(1)
    await step()
    const [second] = await published(broker)
    expect(await published(beside)).toEqual([second, first])
    expect(await broker.lastEvent('key.created')).toMatchObject({
      actor: { kind: 'stint', id: 'schedule' },
      use: 'token',
      alg: 'ES256',
      kid: second,
      signs_from: iso(broker, aheadMs),
    })
    expect(await statuses(broker)).toEqual(['next', 'signing'])

    // What caches hold before the switch verifies what is signed after it, and the other way round.
    broker.clock.advance(aheadMs - 300_000)
    const cached = await jwks(broker)
    broker.clock.advance(300_000 - 1)
    const before = await Promise.all([broker, beside].map((one) => getTicket(one, agent)))
    broker.clock.advance(1)
    const after = await Promise.all([broker, beside].map((one) => getTicket(one, agent)))
    expect([...before, ...after].map(kidOf)).toEqual([first, first, second, second])
    for (const token of [...before, ...after]) {
      for (const keys of [cached, await jwks(beside)]) expect(await verifies(broker, keys, token)).toBe(true)
      for (const process of [broker, beside]) expect(await isActive(process, agent, token)).toBe(true)
    }

    await step()
    expect(await broker.lastEvent('key.replaced')).toMatchObject({ use: 'token', kid: first, successor: second, verify_until: iso(broker, 600_000) })
    const events = await keyEvents(broker)
    await step()
    expect(await keyEvents(broker)).toEqual(events)
    expect(await statuses(beside)).toEqual(['signing', 'verifying'])
    // The old key's last token is good until it expires, and then the key goes.
    broker.clock.advance(600_000 - 2000)
    expect(await isActive(beside, agent, before[0] ?? '')).toBe(true)
    broker.clock.advance(2000)
    expect(await published(beside)).toEqual([second])
    expect(await statuses(broker)).toEqual(['signing', 'ended'])
    await step()
    expect(await broker.lastEvent('key.erased')).toMatchObject({ use: 'token', kid: first })
    const rows = await broker.broker.database.read.selectFrom('signing_key').select(['kid', 'sealed_private']).where('use', '=', 'token').execute()
    expect(new Map(rows.map((row) => [row.kid, row.sealed_private !== '']))).toEqual(new Map([[first, false], [second, true]]))
    expect(kidOf(await getTicket(beside, agent))).toBe(second)
    const done = await keyEvents(broker)
    await step()
    expect(await keyEvents(broker)).toEqual(done)
    expect((await shown(broker)).next_rotation_at).toBe(new Date(Date.parse((await shown(broker)).keys[0]?.signs_from ?? '') + 30 * dayMs).toISOString())
  })

  // No token was ever issued, so that the old key has nothing to wait for.
  test('once, however many processes see that it is due at the same moment', async () => {
    const { broker, beside } = await startTwo(engine)
    broker.clock.advance(31 * dayMs)
    await Promise.all([broker, beside, broker, beside].map((one) => advanceSigningKeys(one.broker)))
    expect(await statuses(broker)).toEqual(['next', 'signing'])
    broker.clock.advance(aheadMs)
    await Promise.all([broker, beside, broker, beside].map((one) => advanceSigningKeys(one.broker)))
    expect((await keyEvents(broker)).map(({ type }) => type)).toEqual(['key.created', 'key.created', 'key.replaced', 'key.erased'])
  })

  test('by the scheduler, and the key set of a process that missed it is right by time alone', async () => {
    const { broker, agent } = await startTwo(engine)
    broker.clock.advance(40 * dayMs)
    await broker.scheduler.tick()
    expect(await statuses(broker)).toEqual(['next', 'signing'])
    await getTicket(broker, agent)
    // Nothing but time passes: neither the epoch moves nor does anybody look.
    broker.clock.advance(aheadMs)
    expect(kidOf(await getTicket(broker, agent))).toBe((await published(broker))[0])
  })

  test('not because the clock went back, nor twice because it went ahead', async () => {
    const { broker } = await startTwo(engine)
    broker.clock.advance(365 * dayMs)
    await advanceSigningKeys(broker.broker)
    const events = await keyEvents(broker)
    broker.clock.advance(-365 * dayMs)
    await advanceSigningKeys(broker.broker)
    // The log's time stands still until the clock has caught up: the old key signs on, the new one waits.
    expect(await keyEvents(broker)).toEqual(events)
    expect(await statuses(broker)).toEqual(['next', 'signing'])
    broker.clock.advance(365 * dayMs + aheadMs)
    await advanceSigningKeys(broker.broker)
    expect(await statuses(broker)).toEqual(['signing', 'ended'])
  })
})

describeEngines('An admin rotates the signing keys', (engine) => {
  test('before their time: nothing happens to live tokens, and the answer says when which key begins and ends', async () => {
    const { broker, beside, agent } = await startTwo(engine)
    const token = await getTicket(broker, agent)
    const [first] = await published(broker)
    broker.clock.advance(1000)
    const { status, body, index } = await rotate(broker, { reason: 'a colleague left' })
    const event = await broker.lastEvent('key.created')
    const [second] = await published(beside)
    expect([status, body]).toEqual([
      200,
      {
        kid: second,
        signs_from: iso(broker, aheadMs),
        // By the longest ttl that the policies in force know.
        replaces: [{ kid: first, verifies_until: iso(broker, aheadMs + 3_600_000) }],
        audit_index: event['index'],
      },
    ])
    expect(index).toBe(String(event['index']))
    expect(event).toMatchObject({ actor: { kind: 'operator' }, kid: second, signs_from: body['signs_from'], reason: 'a colleague left' })
    expect(kidOf(await getTicket(beside, agent))).toBe(first)
    expect(await isActive(beside, agent, token)).toBe(true)

    // Another one, while this one has not taken over, is told so and recorded.
    const again = await rotate(beside)
    expect([again.status, again.body['detail']]).toEqual([
      409,
      `A rotation is under way: ${second} takes over at ${iso(broker, aheadMs)}. Wait for it, or rotate at once with \`stint keys rotate --now\`.`,
    ])
    expect(await broker.lastEvent('change.refused')).toMatchObject({ route: '/v1/signing-keys/rotate', code: 'conflict' })
  })

  test('at once: from the commit on no other key is accepted, on every process, and the answer says what that means', async () => {
    const { broker, beside, agent } = await startTwo(engine)
    const tokens = [await getTicket(broker, agent), await getTicket(beside, agent), await getTicket(beside, agent)]
    const revoked = tokens.pop() ?? ''
    await broker.send('POST', '/oauth2/revoke', { form: agent.form({ token: revoked }) })
    const cached = await jwks(broker)
    broker.clock.advance(1000)
    // Also ends the key that was to sign next.
    await rotate(broker)
    const [next, first] = await published(broker)
    broker.clock.advance(1000)
    const { status, body } = await rotate(broker, { now: true, reason: 'it was in a backup' })
    const keys = await published(beside)
    expect([status, keys]).toEqual([200, [body['kid']]])
    expect(body).toEqual({
      kid: keys[0],
      signs_from: iso(broker),
      replaces: expect.arrayContaining([first, next].map((kid) => ({ kid, verifies_until: iso(broker) }))) as unknown,
      ended_tokens: { count: 2, more: false, effect: 'introspection', cached_until: iso(broker, 300_000) },
      audit_index: expect.any(Number) as number,
    })
    const events = (await broker.events()).slice(Number(body['audit_index']))
    expect(events.map(({ type }) => type)).toEqual(['key.created', 'key.replaced', 'key.replaced'])
    for (const event of events.slice(1)) expect(event).toMatchObject({ successor: keys[0], verify_until: iso(broker) })

    for (const token of tokens) {
      for (const process of [broker, beside]) expect(await isActive(process, agent, token)).toBe(false)
      // What the answer warns of.
      expect(await verifies(broker, cached, token)).toBe(true)
      expect(await verifies(broker, await jwks(beside), token)).toBe(false)
    }
    const fresh = await getTicket(beside, agent)
    expect(kidOf(fresh)).toBe(keys[0])
    expect(await isActive(broker, agent, fresh)).toBe(true)

    await advanceSigningKeys(beside.broker)
    expect((await keyEvents(broker)).slice(-2).map(({ type }) => type)).toEqual(['key.erased', 'key.erased'])
    expect(await statuses(broker)).toEqual(expect.arrayContaining(['signing', 'ended', 'ended']))
    // Tokens that ended with an earlier key are not counted again.
    broker.clock.advance(1000)
    expect((await rotate(broker, { now: true })).body['ended_tokens']).toMatchObject({ count: 1 })
  })

  test.each([true, false])('and of two at the same moment (now: %s) one wins, and the other is told', async (now) => {
    const { broker, beside } = await startTwo(engine)
    const answers = await Promise.all([rotate(broker, { now }), rotate(beside, { now })])
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 409])
    const won = answers.find(({ status }) => status === 200)
    const lost = answers.find(({ status }) => status === 409)
    expect(lost?.body['detail']).toMatch(now ? /^Another rotation came first: \S{43} signs now\./ : /^A rotation is under way: /)
    expect(lost?.body['detail']).toContain(String(won?.body['kid']))
    expect(await statuses(broker)).toEqual(now ? ['signing', 'ended'] : ['next', 'signing'])
  })

  test('at once, while a token is being signed by the old key: it is signed again by the new one', async () => {
    const { broker, beside, agent } = await startTwo(engine)
    await getTicket(broker, agent)
    const { ledger } = broker.broker
    let rotated = false
    const append: typeof ledger.append = async (change) => {
      if (!rotated) {
        rotated = true
        expect((await rotate(beside, { now: true })).status).toBe(200)
      }
      return ledger.append(change)
    }
    // The rotation itself takes the way of any other process.
    Object.assign(broker.broker, { ledger: { ...ledger, append } })
    const token = await getTicket(broker, agent)
    expect([kidOf(token)]).toEqual(await published(broker))
    expect(await broker.lastEvent('grant.issued')).toMatchObject({ token_kid: kidOf(token) })
  })

  test('while the log is ahead of the clock: what is answered is by the log, and the new key signs at once', async () => {
    const { broker, agent } = await startTwo(engine)
    broker.clock.advance(5 * dayMs)
    const logTime = iso(broker)
    await getTicket(broker, agent)
    broker.clock.advance(-5 * dayMs)
    const { body } = await rotate(broker, { now: true })
    expect(body).toMatchObject({ signs_from: logTime, ended_tokens: { count: 1 } })
    expect(await published(broker)).toEqual([body['kid']])
  })

  test('with a body in order, or is told what is wrong', async () => {
    const { broker } = await startTwo(engine)
    const before = await broker.events()
    for (const body of [{ now: 'true' }, { now: null }, { reason: '' }, { reason: 'a\nb' }, { at: '2026-01-01' }, []]) {
      const { status } = await answerOf(await broker.sendAsAdmin('POST', '/v1/signing-keys/rotate', body))
      expect([body, status]).toEqual([body, 400])
    }
    expect(await broker.events()).toEqual(before)
  })
})

describe('The answers', () => {
  test('never show a private half, sealed or not', async () => {
    const { broker } = await startTwo('sqlite')
    const row = await broker.broker.database.read.selectFrom('signing_key').select('sealed_private').executeTakeFirstOrThrow()
    const texts = [JSON.stringify(await shown(broker)), JSON.stringify((await rotate(broker)).body), JSON.stringify(await broker.events())]
    for (const text of texts) {
      expect(text).not.toContain(row.sealed_private.slice(0, 20))
      expect(text).not.toMatch(/"d"\s*:/)
    }
  })
})
