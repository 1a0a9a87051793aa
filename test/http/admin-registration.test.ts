import { generateKeyPairSync } from 'node:crypto'
import { exportJWK } from 'jose'
import { expect, test } from 'vitest'
import { startBroker } from '../broker.ts'
import { describeEngines } from '../harness.ts'
import { answerOf, newAgent, readBot, registrationOf, unrecorded, type Body } from './admin-requests.ts'

describeEngines('A registration', (engine) => {
  test('makes a workload, says where it is, and records who it is and what it proves itself with', async () => {
    const broker = await startBroker(engine)
    const agent = await newAgent(broker)
    const response = await broker.sendAsAdmin('POST', '/v1/workloads', registrationOf(agent))
    expect(response.headers.get('location')).toBe('/v1/workloads/bot')
    const { status, body, index } = await answerOf(response)
    const { kid: _, alg: __, ...jwk } = agent.publicJwk
    const time = '2026-01-15T12:00:00.000Z'
    expect([status, body]).toEqual([
      201,
      {
        name: 'bot',
        spiffe_id: 'spiffe://stint.test/bot',
        environment: 'prod',
        stage: 'pilot',
        owner: { team: 'support', contact: 'oncall:support' },
        purpose: 'Labels tickets',
        tags: ['tier:1'],
        review_at: '2026-06-30T00:00:00.000Z',
        status: 'active',
        created_at: time,
        updated_at: time,
        keys: [{ kid: agent.kid, alg: 'ES256', jwk, status: 'active', added_at: time }],
      },
    ])
    expect(await readBot(broker)).toEqual(body)
    const operator = /^stint_op_([0-9a-f]{16})_/.exec(broker.adminCredential)?.[1]
    const event = await broker.lastEvent('workload.registered')
    expect(event).toMatchObject({
      index: Number(index),
      actor: { kind: 'operator', id: operator },
      request_id: response.headers.get('stint-request-id'),
      workload: 'bot',
      environment: 'prod',
      stage: 'pilot',
      owner: { team: 'support', contact: 'oncall:support' },
      purpose: 'Labels tickets',
      tags: ['tier:1'],
      review_at: '2026-06-30T00:00:00.000Z',
      kids: [agent.kid],
    })
  })

  test('that is wrong in any member makes nothing, records nothing, and is told what is wrong', async () => {
    const broker = await startBroker(engine)
    const agent = await newAgent(broker)
    const other = await broker.register('other')
    const { x, y } = agent.publicJwk
    const keys = (...list: unknown[]) => ({ jwks: { keys: list } })
    const p384 = await exportJWK(generateKeyPairSync('ec', { namedCurve: 'P-384' }).publicKey)
    const rsa = await exportJWK(generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey)
    const privateJwk = await exportJWK(agent.privateKey)
    const cases: readonly (readonly [Body, string])[] = [
      [{ enviroment: 'x' }, 'enviroment is not a known field: did you mean environment?'],
      [{ owner: { team: 'support', contact: 'oncall:a', mail: 'x' } }, 'owner.mail is not a known field'],
      [{ name: undefined }, 'name is required'],
      [{ name: 'a'.repeat(64) }, 'name must be 1 to 63'],
      [{ name: 'a'.repeat(65) }, 'name must be 1 to 63'],
      [{ name: 'Bot' }, 'name must be 1 to 63'],
      [{ name: '..' }, 'name must be 1 to 63'],
      [{ name: '-bot' }, 'name must be 1 to 63'],
      [{ name: 'a/b' }, 'name must be 1 to 63'],
      [{ name: 'bot\n' }, 'name must be 1 to 63'],
      [{ name: 7 }, 'name must be text'],
      [{ stage: 'prod' }, 'stage must be one of sandbox, pilot, production'],
      [{ owner: { team: 'support', contact: 'jo@example.com' } }, 'not an address'],
      [{ owner: { team: 'support', contact: 'mailto:jo@example.com' } }, 'not an address'],
      [{ purpose: '' }, 'purpose must not be empty'],
      [{ purpose: 'a\nb' }, 'purpose must be a single line'],
      [{ tags: ['a', 'a'] }, 'tags must not hold the same tag twice'],
      [{ review_at: '2026-01-15T12:00:00Z' }, 'review_at must be in the future'],
      [{ review_at: '2025-12-31' }, 'review_at must be in the future'],
      [{ review_at: '2027-02-20' }, 'review_at must be at most 400 days ahead'],
      [{ review_at: '2026-02-30' }, 'review_at must be a date'],
      [{ review_at: '30.6.2026' }, 'review_at must be a date'],
      [{ jwks: null }, 'jwks must be a JWK Set'],
      [keys(), 'jwks.keys must be an array of 1 to 8'],
      [keys(agent.publicJwk, agent.publicJwk), 'jwks.keys[1] is the same key as one before it'],
      [keys({ ...privateJwk }), 'jwks.keys[0].d is a private member'],
      [keys({ kty: 'oct', k: 'AAAA' }), 'jwks.keys[0] is a symmetric key'],
      [keys(rsa), 'jwks.keys[0].kty is RSA'],
      [keys(p384), 'jwks.keys[0].crv is "P-384"'],
      [keys({ kty: 'EC', crv: 'P-256', x, y: x }), 'is not a point on the curve'],
      [keys({ kty: 'EC', crv: 'P-256', x, y, x5u: 'https://a.test' }), 'jwks.keys[0].x5u is not accepted'],
    ]
    await unrecorded(broker, async () => {
      for (const [changes, detail] of cases) {
        const { status, body } = await answerOf(await broker.sendAsAdmin('POST', '/v1/workloads', registrationOf(agent, changes)))
        expect([status, body]).toMatchObject([400, { type: 'urn:stint:problem:invalid-input', detail: expect.stringContaining(detail) }])
        // Neither a private key nor anything else is said back.
        expect(JSON.stringify(body)).not.toContain(privateJwk.d ?? '?')
      }
      const taken = await answerOf(await broker.sendAsAdmin('POST', '/v1/workloads', registrationOf(agent, keys(other.publicJwk))))
      expect([taken.status, taken.body]).toMatchObject([409, { detail: expect.stringContaining('was registered before, by other') }])
      expect((await broker.sendAsAdmin('GET', '/v1/workloads/bot')).status).toBe(404)
    })
  })

  test('names every problem at once', async () => {
    const broker = await startBroker(engine)
    const response = await broker.sendAsAdmin('POST', '/v1/workloads', { nam: 'x', stage: 'prod', review_at: '2026-02-30' })
    const { problems } = (await response.json()) as { problems: { path: string; message: string }[] }
    const paths = problems.map(({ path }) => path).sort()
    expect(paths).toEqual(['environment', 'nam', 'name', 'owner', 'purpose', 'review_at', 'stage'])
  })

  test('of a name or a key that is registered at the same moment: one wins', async () => {
    const broker = await startBroker(engine)
    const beside = engine === 'postgres' ? await startBroker(engine, { beside: broker }) : broker
    const [one, two] = [await newAgent(broker, 'one'), await newAgent(broker, 'two')]
    const race = async (bodies: readonly Body[]) => {
      const answers = await Promise.all(
        bodies.map(async (body, i) => answerOf(await (i % 2 === 0 ? broker : beside).sendAsAdmin('POST', '/v1/workloads', body))),
      )
      expect(answers.map(({ status }) => status).sort()).toEqual([201, ...bodies.slice(1).map(() => 409)])
      return answers.filter(({ status }) => status === 409).map(({ body }) => body['detail'])
    }
    const agents = await Promise.all(['same', 'same', 'same', 'same'].map((name) => newAgent(broker, name)))
    expect(await race(agents.map((agent) => registrationOf(agent)))).toEqual(
      Array.from({ length: 3 }, () => expect.stringContaining('The name same is taken')),
    )
    const key = { jwks: { keys: [one.publicJwk] } }
    expect(await race([registrationOf(one, key), registrationOf(two, key)])).toEqual([expect.stringContaining('was registered before')])
    const registered = (await broker.events()).filter((event) => event.type === 'workload.registered')
    expect(registered).toHaveLength(2)
  })
})
