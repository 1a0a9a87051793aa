import { expect, test } from 'vitest'
import { startBroker, type TestBroker } from '../broker.ts'
import { describeEngines } from '../harness.ts'
import { listen } from '../listen.ts'
import { admin, call, lend, lifeOf, minuteMs, passTime, type Lent } from './lending.ts'

const dayMs = 86_400_000

/** An API that takes the keys that it was told of, until it is told that one is no more. */
async function startApi() {
  const keys = new Set(['first-key-of-the-api'])
  const api = {
    keys,
    down: false,
    url: await listen((request, response) => {
      void (async () => {
        const text = Buffer.concat(await request.toArray()).toString()
        const form = new URLSearchParams(text)
        const bearer = request.headers.authorization?.slice('Bearer '.length) ?? ''
        if (api.down) response.statusCode = 503
        else if (!keys.has(bearer)) response.statusCode = 401
        else if (request.url === '/add') keys.add(form.get('key') ?? '')
        else if (request.url === '/remove') keys.delete(form.get('key') ?? '')
        response.end()
      })()
    }),
  }
  return api
}

async function setUp(engine: 'sqlite' | 'postgres') {
  const api = await startApi()
  const policies = new Map([
    [
      'tools/billing.yaml',
      `tool: billing
connector: sealed-secret
sensitivity: high
ttl: { default: 10m, max: 1h }
actions: { use: {} }
config:
  secret: billing-api
  rotation:
    every: 30d
    rotator:
      http:
        generate: {}
        set: { method: POST, url: "${api.url}/add", headers: { authorization: "Bearer {current}" }, form: { key: "{pending}" } }
        test: { method: GET, url: "${api.url}/", headers: { authorization: "Bearer {pending}" } }
        revoke: { method: POST, url: "${api.url}/remove", headers: { authorization: "Bearer {current}" }, form: { key: "{retired}" } }
        private_network: true
`,
    ],
    ['rules.cedar', '@id("support-works")\npermit (principal in Team::"support", action, resource);\n'],
  ])
  const broker = await startBroker(engine, { policies })
  await admin(broker, 'PUT', '/v1/secrets/billing-api', { value: 'first-key-of-the-api' })
  const agent = await broker.register('bot')
  return {
    api,
    broker,
    agent,
    lendOne: () => lend(broker, agent, { tool: 'billing', actions: ['use'] }),
    opens: ({ credential }: Lent) => api.keys.has(String(credential['value'])),
    stateOf: async ({ grant }: Lent) => (await call(broker, agent, 'GET', `/v1/grants/${grant}`)).body.state as string,
  }
}

/** Lets the jobs run until nothing is left to be done at once. */
async function settle(broker: TestBroker): Promise<void> {
  for (let i = 0; i < 6; i++) await passTime(broker, 1_000)
}

describeEngines('A secret that Stint keeps and replaces', (engine) => {
  test('is replaced by schedule, and what was lent before is good until its grant is over', async () => {
    const { api, broker, lendOne, opens, stateOf } = await setUp(engine)
    await settle(broker)
    await passTime(broker, 30 * dayMs - 10 * minuteMs)
    const lent = await lendOne()
    expect(lent.ends).toEqual({ effect: 'propagating', meaning: expect.stringMatching(/^The value stays good until it is replaced/) })
    await passTime(broker, 11 * minuteMs)
    await settle(broker)
    expect(await stateOf(lent)).toBe('ending')
    const next = await lendOne()
    expect([next.credential['version'], next.credential['value'] === lent.credential['value'], opens(next), opens(lent)]).toEqual(['2', false, true, true])
    // The longest that a grant of the tool lasts.
    await passTime(broker, 61 * minuteMs)
    await settle(broker)
    expect([opens(lent), opens(next), await stateOf(lent), [...api.keys]]).toEqual([false, true, 'expired', [next.credential['value']]])
    const { body } = await admin(broker, 'GET', '/v1/secrets/billing-api/versions')
    expect(body.versions).toMatchObject([{ version: 2, stage: 'current', rotation: expect.any(String) }, { version: 1, stage: 'erased' }])
  })

  test('is replaced at once when a grant of it is revoked, which ends every grant of the old value', async () => {
    const { api, broker, agent, lendOne, opens, stateOf } = await setUp(engine)
    await settle(broker)
    const [lent, other, given] = [await lendOne(), await lendOne(), await lendOne()]
    // To give one back is no reason to take it from the others.
    expect((await call(broker, agent, 'DELETE', `/v1/grants/${given.grant}`)).body).toMatchObject({ outcome: 'retrying', problem: expect.stringMatching(/is good until it is replaced: its rotation does that\.$/) })
    await settle(broker)
    expect([opens(lent), await stateOf(given)]).toEqual([true, 'ending'])
    expect((await admin(broker, 'POST', '/v1/revocations', { grant: lent.grant, reason: 'it leaked' })).body.grants).toMatchObject([{ outcome: 'retrying', effect: 'propagating' }])
    await settle(broker)
    expect([opens(lent), opens(other), await stateOf(lent), await stateOf(given)]).toEqual([false, false, 'revoked', 'revoked'])
    expect(await lifeOf(broker, lent.grant)).toEqual(['grant.minting', 'grant.activated', 'grant.revoked', 'grant.ended'])
    const next = await lendOne()
    expect([opens(next), api.keys.size]).toEqual([true, 1])
    // Whoever had the same value is a bystander: the grant ends in its time, and opens nothing until then.
    expect(await stateOf(other)).toBe('active')
    await passTime(broker, 11 * minuteMs)
    expect(await stateOf(other)).toBe('expired')
  })

  test('stays in force while the system behind it is down, and is replaced once that is back', async () => {
    const { api, broker, lendOne, opens, stateOf } = await setUp(engine)
    await settle(broker)
    const lent = await lendOne()
    api.down = true
    await admin(broker, 'POST', '/v1/revocations', { grant: lent.grant })
    await settle(broker)
    expect([await stateOf(lent), (await lendOne()).credential['version']]).toEqual(['ending', '1'])
    api.down = false
    for (let i = 0; i < 8; i++) await passTime(broker, 10 * minuteMs)
    expect([await stateOf(lent), opens(lent), (await lendOne()).credential['version']]).toEqual(['revoked', false, expect.not.stringMatching(/^1$/)])
  })

  test('is what an admin puts: a rotation that is under way gives way', async () => {
    const { api, broker, lendOne, opens } = await setUp(engine)
    await settle(broker)
    const lent = await lendOne()
    api.down = true
    await admin(broker, 'POST', '/v1/revocations', { grant: lent.grant })
    await settle(broker)
    api.down = false
    api.keys.add('put-by-an-admin')
    await admin(broker, 'PUT', '/v1/secrets/billing-api', { value: 'put-by-an-admin' })
    for (let i = 0; i < 12; i++) await passTime(broker, 10 * minuteMs)
    const next = await lendOne()
    expect(opens(next)).toBe(true)
    expect((await lifeOf(broker, lent.grant)).at(-1)).toBe('grant.ended')
    expect(api.keys.has(String(next.credential['value']))).toBe(true)
  })
})

describeEngines('A secret that Stint keeps and replaces, where an admin puts another one', (engine) => {
  test('is retired where it is used before what it was lent by has ended', async () => {
    const { api, broker, lendOne, opens, stateOf } = await setUp(engine)
    await settle(broker)
    const lent = await lendOne()
    api.keys.add('put-by-an-admin')
    await admin(broker, 'PUT', '/v1/secrets/billing-api', { value: 'put-by-an-admin' })
    api.keys.add('put-once-more')
    await admin(broker, 'PUT', '/v1/secrets/billing-api', { value: 'put-once-more' })
    await admin(broker, 'POST', '/v1/revocations', { grant: lent.grant })
    await settle(broker)
    expect([opens(lent), await stateOf(lent)]).toEqual([false, 'revoked'])
    expect((await broker.events()).filter(({ type }) => type === 'rotation.retired')).toMatchObject([{ version: '1' }, { version: '2' }, { version: '3' }])
    expect(api.keys).toEqual(new Set([(await lendOne()).credential['value']]))
  })
})

describeEngines('A secret that Stint keeps and nobody replaces by schedule', (engine) => {
  test('ends what was lent as soon as an admin puts another one', async () => {
    const policies = new Map([
      ['tools/billing.yaml', 'tool: billing\nconnector: sealed-secret\nsensitivity: high\nttl: { default: 10m, max: 1h }\nactions: { use: {} }\nconfig: { secret: billing-api }\n'],
      ['rules.cedar', '@id("support-works")\npermit (principal in Team::"support", action, resource);\n'],
    ])
    const broker = await startBroker(engine, { policies })
    const put = (name: string, value: string) => admin(broker, 'PUT', `/v1/secrets/${name}`, { value })
    await put('billing-api', 'the first value')
    const agent = await broker.register('bot')
    const lent = await lend(broker, agent, { tool: 'billing', actions: ['use'] })
    expect(lent.ends).toEqual({ effect: 'expiry', meaning: expect.stringMatching(/^The value stays good until somebody replaces it/) })
    await call(broker, agent, 'DELETE', `/v1/grants/${lent.grant}`)
    const stateOf = async () => (await call(broker, agent, 'GET', `/v1/grants/${lent.grant}`)).body.state as string
    await put('billing', 'another secret')
    await passTime(broker, 1_000)
    expect(await stateOf()).toBe('ending')
    await put('billing-api', 'the second value')
    await passTime(broker, 1_000)
    expect(await stateOf()).toBe('revoked')
  })
})
