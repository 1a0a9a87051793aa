import { createHash, generateKeyPairSync } from 'node:crypto'
import { exportJWK } from 'jose'
import { expect, test } from 'vitest'
import { createAgent, dayMs, getToken, issuer, startBroker, type TestBroker } from '../broker.ts'
import { describeEngines } from '../harness.ts'
import { answerOf, newAgent, readBot, registrationOf, unrecorded, type Body } from './admin-requests.ts'
import { makeCode, proofForCode, redeem, type ProofChanges } from './proofs.ts'

const time = (ms: number) => new Date(ms).toISOString()

/** A workload that has no key, and an agent that would be it. */
async function prepare(engine: 'sqlite' | 'postgres') {
  const broker = await startBroker(engine)
  const agent = await newAgent(broker)
  const { jwks: _, ...registration } = registrationOf(agent)
  const { status, body } = await answerOf(await broker.sendAsAdmin('POST', '/v1/workloads', registration))
  expect([status, body['keys']]).toEqual([201, []])
  return { broker, agent }
}

const refusal = {
  status: 401,
  body: {
    type: 'urn:stint:problem:unauthenticated',
    title: 'Who are you?',
    status: 401,
    detail:
      'The code could not be redeemed: a code works once and for 15 minutes, with a fresh proof of possession of the new key. ' +
      'Ask an admin for a new one (stint workload enroll NAME).',
    request_id: expect.any(String) as unknown,
  },
  index: null,
}

/** The refusals that the log has counted since, as reasons with whose name was claimed. */
async function reasonsIn(broker: TestBroker, from: number): Promise<unknown[]> {
  await broker.broker.refusals.flush(true)
  const events = (await broker.events()).slice(from)
  return events.map((event) => (event.type === 'authentication.refused' ? [event.realm, event.reason, event.count, event.claimed] : event.type))
}

describeEngines('An enrolment', (engine) => {
  test('lets an agent register a key of its own by a code that is shown once', async () => {
    const { broker, agent } = await prepare(engine)
    await expect(getToken(broker, agent, { scope: 'tickets:read' })).rejects.toThrow('invalid_client')
    const created = await answerOf(await broker.sendAsAdmin('POST', '/v1/workloads/bot/enrolments'))
    const expiresAt = time(broker.clock.nowMs() + 900_000)
    expect([created.status, created.body]).toEqual([
      201,
      {
        enrolment: expect.stringMatching(/^[0-9a-f]{16}$/),
        workload: 'bot',
        code: expect.stringMatching(/^stint_enroll_[0-9a-f]{16}_[\w-]{43}$/),
        expires_at: expiresAt,
      },
    ])
    const { enrolment, code } = created.body
    const event = await broker.lastEvent('enrolment.created')
    expect(event).toMatchObject({ actor: { kind: 'operator' }, workload: 'bot', enrolment, expires_at: expiresAt, index: Number(created.index) })

    const response = await broker.send('POST', '/v1/enrolments/redeem', { json: { code, proof: proofForCode(broker, agent, String(code)) } })
    expect(response.headers.get('cache-control')).toBe('no-store')
    const redeemed = await answerOf(response)
    expect([redeemed.status, redeemed.body]).toEqual([
      200,
      { workload: 'bot', client_id: agent.clientId, kid: agent.kid, issuer, token_endpoint: `${issuer}/oauth2/token` },
    ])
    expect(await broker.lastEvent('enrolment.redeemed')).toMatchObject({
      index: Number(redeemed.index),
      actor: { kind: 'workload', id: 'bot' },
      request_id: response.headers.get('stint-request-id'),
      workload: 'bot',
      enrolment,
      kid: agent.kid,
      alg: 'ES256',
    })
    const { kty, crv, x, y } = agent.publicJwk
    const now = time(broker.clock.nowMs())
    expect((await readBot(broker))['keys']).toEqual([{ kid: agent.kid, alg: 'ES256', jwk: { kty, crv, x, y }, status: 'active', added_at: now }])
    expect(await getToken(broker, agent, { scope: 'tickets:read' })).toMatchObject({ token_type: 'Bearer' })
    const list = await answerOf(await broker.sendAsAdmin('GET', '/v1/workloads/bot/enrolments'))
    const record = { enrolment, workload: 'bot', status: 'redeemed', created_at: now, expires_at: expiresAt, ended_at: now, kid: agent.kid }
    expect([list.status, list.body]).toEqual([200, { enrolments: [record] }])

    // The code is nowhere, but for its hash.
    const [, secret = ''] = /^stint_enroll_[0-9a-f]{16}_(.+)$/.exec(String(code)) ?? []
    const rows = await broker.broker.database.read.selectFrom('enrolment').selectAll().execute()
    expect(rows).toMatchObject([{ id: enrolment, code_hash: createHash('sha256').update(secret).digest('hex') }])
    for (const text of [JSON.stringify(rows), JSON.stringify(await broker.events()), broker.logLines.join('\n')]) expect(text).not.toContain(secret)
  })

  test('takes an Ed25519 key, too, also beside those that are there', async () => {
    const broker = await startBroker(engine)
    const first = await broker.register('bot')
    const second = await createAgent('bot', issuer, broker.clock, 'Ed25519')
    const { code } = await makeCode(broker)
    expect(await redeem(broker, code, proofForCode(broker, second, code))).toMatchObject({ status: 200, body: { kid: second.kid } })
    for (const agent of [first, second]) expect(await getToken(broker, agent, { scope: 'tickets:read' })).toMatchObject({ token_type: 'Bearer' })
  })

  test('answers a lost redemption again, as long as the code would have lived, and never another key', async () => {
    const { broker, agent } = await prepare(engine)
    const other = await newAgent(broker)
    const { code } = await makeCode(broker)
    const again = () => redeem(broker, code, proofForCode(broker, agent, code))
    const first = await again()
    expect(first).toMatchObject({ status: 200, index: expect.any(String) as unknown })
    broker.clock.advance(900_000 - 1)
    expect(await unrecorded(broker, again)).toEqual({ ...first, index: null })
    const size = (await broker.events()).length
    expect(await redeem(broker, code, proofForCode(broker, other, code))).toEqual(refusal)
    broker.clock.advance(1)
    expect(await again()).toEqual(refusal)
    // One of each minute.
    const ended = ['enrolment', 'enrolment_ended', 1, { bot: 1 }]
    expect(await reasonsIn(broker, size)).toEqual([ended, ended])
  })

  test('answers no redemption again whose key was taken away since', async () => {
    const { broker, agent } = await prepare(engine)
    const { code } = await makeCode(broker)
    expect((await redeem(broker, code, proofForCode(broker, agent, code))).status).toBe(200)
    expect((await broker.sendAsAdmin('DELETE', `/v1/workloads/bot/keys/${agent.kid}`)).status).toBe(200)
    expect(await redeem(broker, code, proofForCode(broker, agent, code))).toEqual(refusal)
  })

  test('expires to the millisecond, by the ledger\'s time, which no clock turns back', async () => {
    const { broker, agent } = await prepare(engine)
    const { code } = await makeCode(broker)
    const startMs = broker.clock.nowMs()
    // Fresh by the ledger's time.
    const inTen = { iat: startMs / 1000 + 890, exp: startMs / 1000 + 950 }
    broker.clock.set(startMs + 900_000)
    await broker.register('other')
    broker.clock.set(startMs + 600_000)
    const size = (await broker.events()).length
    expect(await redeem(broker, code, proofForCode(broker, agent, code, { claims: inTen }))).toEqual(refusal)
    expect(await reasonsIn(broker, size)).toEqual([['enrolment', 'enrolment_expired', 1, { bot: 1 }]])

    broker.clock.set(startMs + 1_000_000)
    const { code: next } = await makeCode(broker)
    broker.clock.advance(900_000 - 1)
    expect((await redeem(broker, next, proofForCode(broker, agent, next))).status).toBe(200)
  })

  test('of which there is one at a time: a further one cancels the one before', async () => {
    const { broker, agent } = await prepare(engine)
    await broker.register('other')
    const foreign = await makeCode(broker, 'other')
    const first = await makeCode(broker)
    broker.clock.advance(1000)
    const second = await makeCode(broker)
    const events = (await broker.events()).slice(-2)
    expect(events).toMatchObject([
      { type: 'enrolment.created', enrolment: second.enrolment },
      { type: 'enrolment.cancelled', enrolment: first.enrolment, workload: 'bot', actor: { kind: 'operator' } },
    ])
    const size = (await broker.events()).length
    expect(await redeem(broker, first.code, proofForCode(broker, agent, first.code))).toEqual(refusal)
    expect(await reasonsIn(broker, size)).toEqual([['enrolment', 'enrolment_ended', 1, { bot: 1 }]])
    expect((await redeem(broker, second.code, proofForCode(broker, agent, second.code))).status).toBe(200)
    const other = await createAgent('other', issuer, broker.clock)
    expect((await redeem(broker, foreign.code, proofForCode(broker, other, foreign.code))).body).toMatchObject({ workload: 'other' })
  })

  test('is cancelled, once, unless it was redeemed', async () => {
    const { broker, agent } = await prepare(engine)
    await broker.register('other')
    const { enrolment, code } = await makeCode(broker)
    const cancel = async (name = 'bot', id = enrolment) => answerOf(await broker.sendAsAdmin('DELETE', `/v1/workloads/${name}/enrolments/${id}`))
    await unrecorded(broker, async () => {
      expect(await cancel('other')).toMatchObject({ status: 404, body: { detail: `other has no enrolment ${enrolment}.` } })
      expect(await cancel('bot', '0'.repeat(16))).toMatchObject({ status: 404 })
      expect(await cancel('bot', enrolment.toUpperCase().replace(/^./, 'A'))).toMatchObject({ status: 404 })
    })
    const now = time(broker.clock.nowMs())
    const cancelled = await cancel()
    expect(cancelled).toMatchObject({ status: 200, body: { enrolment, status: 'cancelled', ended_at: now } })
    expect(cancelled.body).not.toHaveProperty('kid')
    expect(await broker.lastEvent('enrolment.cancelled')).toMatchObject({ enrolment, workload: 'bot', index: Number(cancelled.index) })
    expect(await unrecorded(broker, () => cancel())).toEqual({ ...cancelled, index: null })
    expect(await redeem(broker, code, proofForCode(broker, agent, code))).toEqual(refusal)

    const next = await makeCode(broker)
    await redeem(broker, next.code, proofForCode(broker, agent, next.code))
    const late = await cancel('bot', next.enrolment)
    expect(late).toMatchObject({ status: 409, body: { detail: expect.stringContaining(`remove-key bot --kid=${agent.kid}`) as unknown } })
    expect(await broker.lastEvent('change.refused')).toMatchObject({ route: '/v1/workloads/:name/enrolments/:id', code: 'conflict' })

    const last = await makeCode(broker)
    broker.clock.advance(900_000)
    expect(await unrecorded(broker, () => cancel('bot', last.enrolment))).toMatchObject({ status: 200, body: { status: 'expired' } })
  })

  test.each(['suspend', 'retire'])('ends with the workload that is stopped: %s', async (verb) => {
    const { broker, agent } = await prepare(engine)
    const { enrolment, code } = await makeCode(broker)
    expect((await broker.sendAsAdmin('POST', `/v1/workloads/bot/${verb}`, {})).status).toBe(200)
    expect(await broker.lastEvent('enrolment.cancelled')).toMatchObject({ enrolment, workload: 'bot', actor: { kind: 'operator' } })
    if (verb === 'suspend') expect((await broker.sendAsAdmin('POST', '/v1/workloads/bot/resume', {})).status).toBe(200)
    expect(await redeem(broker, code, proofForCode(broker, agent, code))).toEqual(refusal)
  })

  test('is made for no workload that could not use its key', async () => {
    const { broker } = await prepare(engine)
    const create = async (name: string) => answerOf(await broker.sendAsAdmin('POST', `/v1/workloads/${name}/enrolments`))
    const refused = async (name: string, status: number, detail: string) => {
      expect(await create(name)).toMatchObject({ status, body: { detail: expect.stringContaining(detail) as unknown } })
      expect(await broker.lastEvent('change.refused')).toMatchObject({ route: '/v1/workloads/:name/enrolments' })
    }
    await refused('nobody', 404, 'There is no workload nobody.')
    await broker.sendAsAdmin('POST', '/v1/workloads/bot/suspend', {})
    await refused('bot', 409, 'bot is suspended: resume it first')
    await broker.sendAsAdmin('POST', '/v1/workloads/bot/resume', {})
    broker.clock.advance(200 * dayMs)
    await refused('bot', 409, 'The review date of bot has passed')
    await broker.sendAsAdmin('PATCH', '/v1/workloads/bot', { review_at: '2027-01-01' })
    const agents = await Promise.all(Array.from({ length: 8 }, () => newAgent(broker)))
    const keys = { jwks: { keys: agents.map((agent) => agent.publicJwk) } }
    expect((await broker.sendAsAdmin('POST', '/v1/workloads/bot/keys', keys)).status).toBe(201)
    await refused('bot', 409, 'bot has as many keys as it may')
    await broker.sendAsAdmin('POST', '/v1/workloads/bot/retire', {})
    await refused('bot', 409, 'bot is retired')
    expect(await broker.broker.database.read.selectFrom('enrolment').selectAll().execute()).toEqual([])
  })

  test('is listed without its code, page by page, the newest first', async () => {
    const { broker } = await prepare(engine)
    await broker.register('other')
    const other = await makeCode(broker, 'other')
    const made: string[] = []
    // Two of each moment: the id decides between them.
    for (let i = 0; i < 5; i++) {
      made.push((await makeCode(broker)).enrolment)
      if (i % 2 === 1) broker.clock.advance(1000)
    }
    const list = async (query = '') => {
      const { status, body } = await answerOf(await broker.sendAsAdmin('GET', `/v1/workloads/bot/enrolments${query}`))
      expect([query, status]).toEqual([query, 200])
      return { enrolments: body['enrolments'] as Body[], next: body['next'] }
    }
    const all = await list()
    expect(all.enrolments.map(({ enrolment }) => enrolment).sort()).toEqual([...made].sort())
    expect(all.enrolments.map((enrolment) => enrolment['status'])).toEqual(['open', ...Array.from({ length: 4 }, () => 'cancelled')])
    expect(JSON.stringify(all)).not.toContain('stint_enroll')
    const paged: Body[] = []
    for (let next: unknown = ''; next !== undefined; ) {
      const page = await list(`?limit=2${next === '' ? '' : `&after=${String(next)}`}`)
      paged.push(...page.enrolments)
      next = page.next
    }
    expect(paged).toEqual(all.enrolments)
    expect((await broker.sendAsAdmin('GET', `/v1/workloads/bot/enrolments?after=${other.enrolment}`)).status).toBe(400)
    expect((await broker.sendAsAdmin('GET', '/v1/workloads/bot/enrolments?after=x')).status).toBe(400)
    expect((await broker.sendAsAdmin('GET', '/v1/workloads/nobody/enrolments')).status).toBe(404)
    broker.clock.advance(900_000)
    expect((await list()).enrolments[0]).toMatchObject({ status: 'expired' })
  })
})

describeEngines('Who redeems a code', (engine) => {
  test('and is a stranger gets one answer, and the log the reason', async () => {
    const { broker, agent } = await prepare(engine)
    const [other, edwards] = [await newAgent(broker), await createAgent('bot', issuer, broker.clock, 'Ed25519')]
    const used = await makeCode(broker)
    await redeem(broker, used.code, proofForCode(broker, await newAgent(broker), used.code))
    const { code, enrolment } = await makeCode(broker)
    const foreign = (await broker.register('other'), await makeCode(broker, 'other'))
    const { privateKey: rsaKey, publicKey: rsaPublic } = generateKeyPairSync('rsa', { modulusLength: 2048 })
    const rsa = { ...agent, privateKey: rsaKey, publicJwk: (await exportJWK(rsaPublic)) as Record<string, string> }
    const nowSeconds = broker.clock.nowMs() / 1000
    const good = (text = code) => proofForCode(broker, agent, text)
    const bad = (changes: ProofChanges): [string, string, string] => [code, proofForCode(broker, agent, code, changes), 'enrolment_proof_invalid']
    const malformed = (text: string): [string, string, string] => [text, good(text), 'enrolment_malformed']
    const privateJwk = { ...agent.publicJwk, ...(await exportJWK(agent.privateKey)), kid: undefined }

    const cases: readonly (readonly [code: string, proof: string, reason: string])[] = [
      malformed('x'),
      malformed(`${code} `),
      malformed(` ${code}`),
      malformed(`${code}\n`),
      malformed(code.toUpperCase()),
      malformed(code.slice(0, -1)),
      malformed(`${code}A`),
      malformed(`${code}=`),
      malformed('A'.repeat(8192)),
      malformed(code.replace('stint_enroll_', 'stint_op_')),
      malformed(broker.adminCredential),
      // The last character of 43 carries four bits: another one for the same bytes is another code.
      malformed(`${code.slice(0, -1)}${sameBits(code.slice(-1))}`),
      [`stint_enroll_${'0'.repeat(16)}_${code.slice(-43)}`, good(`stint_enroll_${'0'.repeat(16)}_${code.slice(-43)}`), 'enrolment_unknown'],
      [`stint_enroll_${enrolment}_${'A'.repeat(43)}`, good(`stint_enroll_${enrolment}_${'A'.repeat(43)}`), 'enrolment_wrong'],
      [`stint_enroll_${foreign.enrolment}_${code.slice(-43)}`, good(`stint_enroll_${foreign.enrolment}_${code.slice(-43)}`), 'enrolment_wrong'],
      // A bad proof beside a code that is not right either.
      [`stint_enroll_${enrolment}_${'A'.repeat(43)}`, 'x', 'enrolment_wrong'],
      [used.code, good(used.code), 'enrolment_ended'],

      [code, 'x', 'enrolment_proof_invalid'],
      [code, `${good()} `, 'enrolment_proof_invalid'],
      [code, `${good()}=`, 'enrolment_proof_invalid'],
      [code, good().split('.').slice(0, 2).join('.'), 'enrolment_proof_invalid'],
      [code, good().replace(/\.[^.]*$/, '.'), 'enrolment_proof_invalid'],
      [code, good().replace(/\.[^.]*$/, `.${Buffer.alloc(64).toString('base64url')}`), 'enrolment_proof_invalid'],
      [code, agent.assert(), 'enrolment_proof_invalid'],
      [code, good(foreign.code), 'enrolment_proof_invalid'],
      bad({ signer: other }),
      bad({ signer: edwards }),
      bad({ header: { jwk: other.publicJwk } }),
      bad({ header: { jwk: undefined } }),
      bad({ header: { jwk: null } }),
      bad({ header: { jwk: privateJwk } }),
      bad({ header: { jwk: { ...agent.publicJwk, kid: other.kid } } }),
      bad({ header: { jwk: { ...agent.publicJwk, x5u: 'https://evil.test' } } }),
      bad({ header: { jwk: { kty: 'oct', k: 'AAAA' } } }),
      bad({ header: { jwk: { keys: [agent.publicJwk] } } }),
      bad({ header: { typ: 'stint-key+jwt' } }),
      bad({ header: { typ: 'STINT-ENROLMENT+JWT' } }),
      bad({ header: { typ: 'jwt' } }),
      bad({ header: { typ: undefined } }),
      bad({ header: { alg: 'none' } }),
      bad({ header: { alg: 'HS256' } }),
      bad({ header: { alg: 'Ed25519' } }),
      bad({ header: { kid: agent.kid } }),
      bad({ header: { crit: ['b64'], b64: true } }),
      bad({ header: { jku: 'https://evil.test' } }),
      [code, proofForCode(broker, { ...rsa, alg: 'ES256' }, code, { header: { alg: 'RS256', jwk: rsa.publicJwk } }), 'enrolment_proof_invalid'],
      bad({ claims: { aud: 'https://other.test' } }),
      bad({ claims: { aud: [issuer] } }),
      bad({ claims: { aud: `${issuer}/` } }),
      bad({ claims: { aud: undefined } }),
      bad({ claims: { code_sha256: undefined } }),
      bad({ claims: { code_sha256: code } }),
      bad({ claims: { sub: agent.clientId } }),
      bad({ claims: { jti: undefined } }),
      bad({ claims: { jti: '' } }),
      bad({ claims: { jti: 7 } }),
      bad({ claims: { jti: 'a\u0000' } }),
      bad({ claims: { iat: undefined } }),
      bad({ claims: { exp: undefined } }),
      bad({ claims: { iat: nowSeconds + 6, exp: nowSeconds + 60 } }),
      bad({ claims: { iat: nowSeconds - 301, exp: nowSeconds + 1 } }),
      bad({ claims: { iat: nowSeconds, exp: nowSeconds + 301 } }),
      bad({ claims: { iat: nowSeconds - 60, exp: nowSeconds } }),
      bad({ claims: { iat: String(nowSeconds) } }),
      bad({ claims: { exp: nowSeconds * 1000 } }),
    ]
    const size = (await broker.events()).length
    const spent: number[] = []
    for (const [text, proof, reason] of cases) {
      const beganMs = performance.now()
      expect(await redeem(broker, text, proof), `${reason}: ${proof}`).toEqual(refusal)
      spent.push(performance.now() - beganMs)
    }
    // None of them is answered before the time that all are.
    expect(Math.min(...spent)).toBeGreaterThan(18)

    const counted = Map.groupBy(cases, ([, , reason]) => reason)
    const claims: Readonly<Record<string, Body>> = { enrolment_ended: { bot: 1 }, enrolment_proof_invalid: { bot: counted.get('enrolment_proof_invalid')?.length } }
    expect((await reasonsIn(broker, size)).sort()).toEqual(
      [...counted].map(([reason, of]) => ['enrolment', reason, of.length, claims[reason]]).sort(),
    )
    expect((await readBot(broker))['keys']).toHaveLength(1)
    // The code has suffered nothing of all that.
    expect((await redeem(broker, code, good())).status).toBe(200)
  })

  test('with a body that is wrong in itself is told so, and not who is who', async () => {
    const { broker, agent } = await prepare(engine)
    const { code } = await makeCode(broker)
    const proof = proofForCode(broker, agent, code)
    const cases: readonly (readonly [Body, string])[] = [
      [{ code }, 'proof must be text: a compact JWS'],
      [{ proof }, 'code must be text: the code'],
      [{ code: 7, proof }, 'code must be text: the code'],
      [{ code: '', proof }, 'code must not be empty'],
      [{ code: 'x'.repeat(8193), proof }, 'code must be at most 8192 characters'],
      [{ code, proof, workload: 'bot' }, 'workload is not known here'],
    ]
    await unrecorded(broker, async () => {
      for (const [json, detail] of cases) {
        const answer = await answerOf(await broker.send('POST', '/v1/enrolments/redeem', { json }))
        expect(answer).toMatchObject({ status: 400, body: { detail: expect.stringContaining(detail) as unknown } })
      }
    })
  })

  test('with the same proof a second time is refused', async () => {
    const { broker, agent } = await prepare(engine)
    const { code } = await makeCode(broker)
    const proof = proofForCode(broker, agent, code)
    expect((await redeem(broker, code, proof)).status).toBe(200)
    const size = (await broker.events()).length
    expect(await redeem(broker, code, proof)).toEqual(refusal)
    expect(await reasonsIn(broker, size)).toEqual([['enrolment', 'replayed', 1, { bot: 1 }]])
  })

  test.each(['suspend', 'retire'])('of a workload that was stopped in between (%s) is a stranger', async (verb) => {
    const { broker, agent } = await prepare(engine)
    const { code } = await makeCode(broker)
    await broker.sendAsAdmin('POST', `/v1/workloads/bot/${verb}`, {})
    const size = (await broker.events()).length
    expect(await redeem(broker, code, proofForCode(broker, agent, code))).toEqual(refusal)
    expect(await reasonsIn(broker, size)).toEqual([['enrolment', verb === 'retire' ? 'workload_retired' : 'workload_suspended', 1, { bot: 1 }]])
    expect((await readBot(broker))['keys']).toEqual([])
  })

  test('of a workload that was stopped while it redeemed is a stranger', async () => {
    const { broker, agent } = await prepare(engine)
    const { code } = await makeCode(broker)
    const { ledger } = broker.broker
    let stopped = false
    // As it stands between the look and the commit.
    const transact: typeof ledger.transact = async (change) => {
      if (!stopped) {
        stopped = true
        await broker.sendAsAdmin('POST', '/v1/workloads/bot/suspend', {})
      }
      return ledger.transact(change)
    }
    Object.assign(broker.broker, { ledger: { ...ledger, transact } })
    expect(await redeem(broker, code, proofForCode(broker, agent, code))).toEqual(refusal)
    expect((await readBot(broker))['keys']).toEqual([])
  })

  test('with a key that was ever registered is told, not by whom, and has the code still', async () => {
    const { broker } = await prepare(engine)
    const taken = await broker.register('other')
    const gone = await broker.register('third')
    await broker.sendAsAdmin('DELETE', `/v1/workloads/third/keys/${gone.kid}`)
    const { code } = await makeCode(broker)
    const size = (await broker.events()).length
    for (const key of [taken, gone]) {
      const answer = await redeem(broker, code, proofForCode(broker, key, code))
      expect(answer).toMatchObject({ status: 409, body: { detail: expect.stringContaining('was registered before') as unknown } })
      expect(JSON.stringify(answer)).not.toMatch(/other|third/)
    }
    // Counted, not written one by one: with a code one could fill the log.
    expect(await reasonsIn(broker, size)).toEqual([['enrolment', 'enrolment_key_refused', 2, { bot: 2 }]])
    const fresh = await newAgent(broker)
    expect((await redeem(broker, code, proofForCode(broker, fresh, code))).status).toBe(200)
  })

  test('where the workload has got as many keys as it may since is told', async () => {
    const { broker, agent } = await prepare(engine)
    const { code } = await makeCode(broker)
    const agents = await Promise.all(Array.from({ length: 8 }, () => newAgent(broker)))
    const keys = { jwks: { keys: agents.map(({ publicJwk }) => publicJwk) } }
    expect((await broker.sendAsAdmin('POST', '/v1/workloads/bot/keys', keys)).status).toBe(201)
    const answer = await redeem(broker, code, proofForCode(broker, agent, code))
    expect(answer).toMatchObject({ status: 409, body: { detail: expect.stringContaining('8 keys') as unknown } })
    await broker.sendAsAdmin('DELETE', `/v1/workloads/bot/keys/${agents[0]?.kid ?? ''}`)
    expect((await redeem(broker, code, proofForCode(broker, agent, code))).status).toBe(200)
  })

  test('with ten minutes between its clock and the broker\'s is refused, whichever is ahead', async () => {
    const { broker, agent } = await prepare(engine)
    const { code } = await makeCode(broker)
    const nowSeconds = broker.clock.nowMs() / 1000
    for (const offset of [-600, 600]) {
      const claims = { iat: nowSeconds + offset, exp: nowSeconds + offset + 60 }
      expect(await redeem(broker, code, proofForCode(broker, agent, code, { claims }))).toEqual(refusal)
    }
  })

  test('at the same moment as fifty others is the one, or is refused', async () => {
    const { broker } = await prepare(engine)
    const beside = engine === 'postgres' ? await startBroker(engine, { beside: broker }) : broker
    const agents = await Promise.all(Array.from({ length: 50 }, () => newAgent(broker)))
    const { code } = await makeCode(broker)
    const answers = await Promise.all(agents.map((agent, i) => redeem(i % 2 === 0 ? broker : beside, code, proofForCode(broker, agent, code))))
    const won = answers.filter(({ status }) => status === 200)
    expect(won).toHaveLength(1)
    for (const answer of answers.filter(({ status }) => status !== 200)) expect(answer).toEqual(refusal)
    expect((await readBot(broker))['keys']).toMatchObject([{ kid: won[0]?.body['kid'] }])
    expect((await broker.events()).filter(({ type }) => type === 'enrolment.redeemed')).toHaveLength(1)
  })

  test('at the same moment as itself is answered the same', async () => {
    const { broker, agent } = await prepare(engine)
    const beside = engine === 'postgres' ? await startBroker(engine, { beside: broker }) : broker
    const { code } = await makeCode(broker)
    const answers = await Promise.all(Array.from({ length: 6 }, (_, i) => redeem(i % 2 === 0 ? broker : beside, code, proofForCode(broker, agent, code))))
    for (const { status, body } of answers) expect([status, body['kid']]).toEqual([200, agent.kid])
    expect(answers.filter(({ index }) => index !== null)).toHaveLength(1)
  })

  test('registers one key by two codes only once', async () => {
    const { broker, agent } = await prepare(engine)
    const beside = engine === 'postgres' ? await startBroker(engine, { beside: broker }) : broker
    await broker.register('other')
    const [mine, others] = [await makeCode(broker), await makeCode(broker, 'other')]
    const answers = await Promise.all([redeem(broker, mine.code, proofForCode(broker, agent, mine.code)), redeem(beside, others.code, proofForCode(broker, agent, others.code))])
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 409])
  })
})

/** Another last character that a careless decoder takes for the same: it differs in the bits that no byte has. */
function sameBits(character: string): string {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
  return alphabet.charAt(alphabet.indexOf(character) ^ 1)
}

