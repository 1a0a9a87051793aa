import { generateKeyPair } from 'jose'
import { expect, test } from 'vitest'
import type { Engine } from '../../src/storage/engine.ts'
import { dayMs, startBroker, type TestBroker } from '../broker.ts'
import { clientId, startCompanyIssuer, type CompanyIssuer } from '../company-issuer.ts'
import { createTestClock, describeEngines } from '../harness.ts'
import { answerOf } from './admin-requests.ts'

async function setUp(engine: Engine) {
  const clock = createTestClock()
  const company = await startCompanyIssuer(clock)
  const broker = await startBroker(engine, { clock, signIn: company.settings })
  return { clock, company, broker }
}

const exchange = async (broker: TestBroker, idToken: unknown) => answerOf(await broker.send('POST', '/v1/sessions', { json: { id_token: idToken } }))

/** A session for somebody, whose credential is returned. */
async function signIn(broker: TestBroker, company: CompanyIssuer, claims: Record<string, unknown> = {}) {
  const answer = await exchange(broker, await company.sign(claims))
  expect(answer.status).toBe(201)
  return { credential: String(answer.body['credential']), session: String(answer.body['session']) }
}

const refused = { status: 401, body: { type: 'urn:stint:problem:unauthenticated', detail: expect.stringContaining('The ID token was not accepted') } }

async function expectTally(broker: TestBroker, reason: string): Promise<void> {
  await broker.broker.refusals.flush(true)
  expect(await broker.lastEvent('authentication.refused')).toMatchObject({ realm: 'sign_in', reason, count: 1 })
}

describeEngines('A person who signs in', (engine) => {
  test('gets a session once, which is in the log and acts under its own name', async () => {
    const { broker, company } = await setUp(engine)
    const answer = await exchange(broker, await company.sign())
    expect(answer).toMatchObject({
      status: 201,
      body: {
        credential: expect.stringMatching(/^stint_os_[0-9a-f]{16}_[\w-]{43}$/),
        session: expect.stringMatching(/^[0-9a-f]{16}$/),
        subject: 'ada-1815',
        issuer: company.url,
        role: 'admin',
        status: 'live',
        created_at: '2026-01-15T12:00:00.000Z',
        expires_at: '2026-01-15T13:00:00.000Z',
      },
    })
    const { session, credential } = answer.body
    const event = await broker.lastEvent('operator.signed_in')
    expect(event).toMatchObject({
      index: Number(answer.index),
      actor: { kind: 'operator', id: 'oidc:ada-1815', session },
      session,
      issuer: company.url,
      subject: 'ada-1815',
      role: 'admin',
      expires_at: '2026-01-15T13:00:00.000Z',
    })

    const me = await answerOf(await broker.sendAs(String(credential), 'GET', '/v1/operator'))
    expect(me).toMatchObject({ status: 200, body: { id: 'oidc:ada-1815', role: 'admin', session, expires_at: '2026-01-15T13:00:00.000Z' } })
    await broker.register('bot')
    expect((await broker.sendAs(String(credential), 'POST', '/v1/workloads/bot/suspend', {})).status).toBe(200)
    expect(await broker.lastEvent('workload.suspended')).toMatchObject({ actor: { kind: 'operator', id: 'oidc:ada-1815', session } })
    const [row] = await broker.broker.database.read.selectFrom('operator_session').selectAll().execute()
    expect(JSON.stringify(row)).not.toContain(String(credential).slice(-43))
  })

  test('may do what the role may, and no more', async () => {
    const { broker, company } = await setUp(engine)
    const { credential } = await signIn(broker, company, { groups: ['audit'] })
    expect((await broker.sendAs(credential, 'GET', '/v1/audit')).status).toBe(200)
    expect((await broker.sendAs(credential, 'PUT', '/v1/policy', { files: {} })).status).toBe(403)
    expect(await broker.lastEvent('change.refused')).toMatchObject({ actor: { id: 'oidc:ada-1815' }, code: 'forbidden' })
  })

  test.each([
    [['no-such-group'], 'none of your groups has a role here'],
    ['platform-admins', 'the ID token has no list of groups in its claim groups'],
  ])('with the groups %j is told why it is not enough', async (groups, why) => {
    const { broker, company } = await setUp(engine)
    const answer = await exchange(broker, await company.sign({ groups }))
    expect(answer).toMatchObject({ status: 403, body: { detail: expect.stringMatching(`^You are oidc:ada-1815, but ${why}`) } })
    await expectTally(broker, 'id_token_no_role')
    expect(await broker.broker.database.read.selectFrom('operator_session').selectAll().execute()).toEqual([])
  })

  test('under an address stands in the log by its hash', async () => {
    const { broker, company } = await setUp(engine)
    const { credential } = await signIn(broker, company, { sub: 'ada@example.com' })
    const me = await answerOf(await broker.sendAs(credential, 'GET', '/v1/operator'))
    expect(me.body['id']).toMatch(/^oidc:sha256:[\w-]{43}$/)
    const [row] = await broker.broker.database.read.selectFrom('operator_session').selectAll().execute()
    expect(JSON.stringify([row, await broker.events(), broker.logLines])).not.toContain('example.com')
  })
})

describeEngines('An ID token is refused, in the same words,', (engine) => {
  test.each<[string, (company: CompanyIssuer) => Promise<string>, string]>([
    ['that is none', async () => 'stint_os_0123456789abcdef_'.padEnd(69, 'A'), 'id_token_malformed'],
    ['of another issuer', (company) => company.sign({ iss: 'https://issuer.example' }), 'id_token_issuer_mismatch'],
    ['for another client', (company) => company.sign({ aud: 'else' }), 'id_token_audience_mismatch'],
    ['expired', (company) => company.sign({ exp: 1 }), 'id_token_expired'],
    ['of an unknown key', (company) => company.sign({}, { kid: 'else' }), 'id_token_key_unknown'],
    ['of somebody else\'s signature', async (company) => company.sign({}, {}, (await generateKeyPair('RS256')).privateKey), 'id_token_signature_invalid'],
  ])('%s', async (_, sign, reason) => {
    const { broker, company } = await setUp(engine)
    const beganMs = performance.now()
    expect(await exchange(broker, await sign(company))).toMatchObject(refused)
    // Not sooner than any other stranger is refused (invariant 10).
    expect(performance.now() - beganMs).toBeGreaterThan(19)
    await expectTally(broker, reason)
    expect(await broker.broker.database.read.selectFrom('operator_session').selectAll().execute()).toEqual([])
  })

  test('used before, also in another form of the same signature', async () => {
    const { broker, company } = await setUp(engine)
    await company.rotate('ES256')
    const token = await company.sign()
    expect((await exchange(broker, token)).status).toBe(201)
    expect(await exchange(broker, token)).toMatchObject(refused)
    await expectTally(broker, 'id_token_replayed')
    // (r, s) and (r, n − s) are both good.
    const n = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n
    const [header, payload, signature = ''] = token.split('.')
    const bytes = Buffer.from(signature, 'base64url')
    const s = (n - BigInt(`0x${bytes.subarray(32).toString('hex')}`)).toString(16).padStart(64, '0')
    const other = Buffer.concat([bytes.subarray(0, 32), Buffer.from(s, 'hex')]).toString('base64url')
    expect(await exchange(broker, `${header}.${payload}.${other}`)).toMatchObject(refused)
    await expectTally(broker, 'id_token_replayed')
    expect(await broker.broker.database.read.selectFrom('operator_session').selectAll().execute()).toHaveLength(1)
  })

  test('used twice at the same moment: one session begins', async () => {
    const { broker, company } = await setUp(engine)
    const elsewhere = engine === 'postgres' ? await startBroker(engine, { beside: broker, signIn: company.settings }) : broker
    for (let round = 0; round < 5; round++) {
      const token = await company.sign()
      const answers = await Promise.all([broker, elsewhere, broker, elsewhere].map((one) => exchange(one, token)))
      expect(answers.map(({ status }) => status).sort()).toEqual([201, 401, 401, 401])
    }
    expect(await broker.broker.database.read.selectFrom('operator_session').selectAll().execute()).toHaveLength(5)
  })

  test('when it comes in another way than as text of one request', async () => {
    const { broker, company } = await setUp(engine)
    const json = { id_token: await company.sign() }
    for (const body of [{}, { id_token: 7 }, { id_token: '' }, { ...json, more: 1 }, { id_token: 'x'.repeat(33_000) }]) {
      expect((await broker.send('POST', '/v1/sessions', { json: body })).status).toBe(400)
    }
    expect((await broker.send('POST', '/v1/sessions?x=1', { json })).status).toBe(400)
    expect((await broker.send('POST', '/v1/sessions', { form: json })).status).toBe(415)
  })
})

describeEngines('A session', (engine) => {
  test('is over when its time is up', async () => {
    const { broker, company, clock } = await setUp(engine)
    const { credential } = await signIn(broker, company)
    clock.advance(60 * 60_000 - 1)
    expect((await broker.sendAs(credential, 'GET', '/v1/operator')).status).toBe(200)
    clock.advance(1)
    expect((await broker.sendAs(credential, 'GET', '/v1/operator')).status).toBe(401)
    await broker.broker.refusals.flush(true)
    expect(await broker.lastEvent('authentication.refused')).toMatchObject({ realm: 'operator', reason: 'operator_expired' })
    expect(await answerOf(await broker.sendAsAdmin('GET', '/v1/sessions?status=expired'))).toMatchObject({ body: { sessions: [{ status: 'expired' }] } })
  })

  test('is ended by who holds it, once, on every process', async () => {
    const { broker, company } = await setUp(engine)
    const elsewhere = engine === 'postgres' ? await startBroker(engine, { beside: broker, signIn: company.settings }) : broker
    const { credential, session } = await signIn(broker, company, { groups: ['audit'] })
    const ended = await answerOf(await elsewhere.sendAs(credential, 'DELETE', '/v1/session'))
    expect(ended).toMatchObject({ status: 200, body: { session, status: 'ended', ended_at: '2026-01-15T12:00:00.000Z' } })
    const event = await broker.lastEvent('operator.signed_out')
    expect(event).toMatchObject({ index: Number(ended.index), session, subject: 'ada-1815', actor: { kind: 'operator', id: 'oidc:ada-1815', session } })
    for (const one of [broker, elsewhere]) expect((await one.sendAs(credential, 'GET', '/v1/operator')).status).toBe(401)
    await elsewhere.broker.refusals.flush(true)
    expect(await broker.lastEvent('authentication.refused')).toMatchObject({ realm: 'operator', reason: 'operator_revoked' })
  })

  test('is no credential of an operator\'s own', async () => {
    const { broker, company } = await setUp(engine)
    expect(await answerOf(await broker.sendAsAdmin('DELETE', '/v1/session'))).toMatchObject({ status: 404 })
    const { credential } = await signIn(broker, company)
    for (const wrong of [credential.replace('stint_os_', 'stint_op_'), `${credential.slice(0, -43)}${'A'.repeat(43)}`, credential.replace(/_[0-9a-f]{16}_/, `_${'0'.repeat(16)}_`)]) {
      expect((await broker.sendAs(wrong, 'GET', '/v1/operator')).status).toBe(401)
    }
  })

  test('is ended by an admin, and by nobody else', async () => {
    const { broker, company } = await setUp(engine)
    const { credential, session } = await signIn(broker, company)
    const auditor = (await signIn(broker, company, { sub: 'eve', groups: ['audit'] })).credential
    for (const [path, json] of [[`/v1/sessions/${session}/end`, {}], ['/v1/sessions/end', { subject: 'ada-1815' }]] as const) {
      expect((await broker.sendAs(auditor, 'POST', path, json)).status).toBe(403)
      expect(await broker.lastEvent('change.refused')).toMatchObject({ code: 'forbidden', actor: { id: 'oidc:eve' } })
    }
    const ended = await answerOf(await broker.sendAsAdmin('POST', `/v1/sessions/${session}/end`, { reason: 'lost laptop' }))
    expect(ended).toMatchObject({ status: 200, body: { status: 'ended' } })
    expect(await broker.lastEvent('operator.signed_out')).toMatchObject({ session, reason: 'lost laptop', index: Number(ended.index) })
    expect((await broker.sendAs(credential, 'GET', '/v1/operator')).status).toBe(401)
    const again = await answerOf(await broker.sendAsAdmin('POST', `/v1/sessions/${session}/end`, {}))
    expect(again).toMatchObject({ status: 200, index: null, body: { ended_at: ended.body['ended_at'] } })
    expect((await broker.sendAsAdmin('POST', `/v1/sessions/${'0'.repeat(16)}/end`, {})).status).toBe(404)
    expect((await broker.sendAsAdmin('POST', '/v1/sessions/..%2fend/end', {})).status).toBe(404)
  })

  test('and all others of the same person are ended together', async () => {
    const { broker, company } = await setUp(engine)
    for (let i = 0; i < 102; i++) await signIn(broker, company)
    const eve = await signIn(broker, company, { sub: 'eve' })
    const before = (await broker.events()).length
    expect(await answerOf(await broker.sendAsAdmin('POST', '/v1/sessions/end', { subject: 'ada-1815', reason: 'left' }))).toMatchObject({ status: 200, body: { ended: 102 } })
    const events = (await broker.events()).slice(before)
    expect(events).toHaveLength(102)
    expect(events.every((event) => event.type === 'operator.signed_out' && event.subject === 'ada-1815' && event.reason === 'left')).toBe(true)
    expect((await broker.sendAs(eve.credential, 'GET', '/v1/operator')).status).toBe(200)
    expect(await answerOf(await broker.sendAsAdmin('POST', '/v1/sessions/end', { subject: 'ada-1815' }))).toMatchObject({ body: { ended: 0 } })
    const page = await answerOf(await broker.sendAsAdmin('GET', '/v1/sessions?status=ended&limit=100'))
    const rest = await answerOf(await broker.sendAsAdmin('GET', `/v1/sessions?status=ended&after=${String(page.body['next'])}`))
    expect([page.body['sessions'], rest.body['sessions'], rest.body['next']]).toMatchObject([{ length: 100 }, { length: 2 }, undefined])
    const ids = [page, rest].flatMap(({ body }) => (body['sessions'] as { session: string }[]).map(({ session }) => session))
    expect(new Set(ids).size).toBe(102)
    expect(await answerOf(await broker.sendAsAdmin('GET', '/v1/sessions?status=live&subject=eve'))).toMatchObject({ body: { sessions: [{ session: eve.session }] } })
  })

  test('lasts no longer than the trust in who vouched for it', async () => {
    const { broker, company } = await setUp(engine)
    const { credential } = await signIn(broker, company)
    if (engine === 'sqlite') await broker.close()
    const without = await startBroker(engine, { beside: broker })
    expect((await without.sendAs(credential, 'GET', '/v1/operator')).status).toBe(401)
    if (engine === 'sqlite') await without.close()
    const other = await startBroker(engine, { beside: broker, signIn: { ...company.settings, issuer: `${company.url}/other` } })
    expect((await other.sendAs(credential, 'GET', '/v1/operator')).status).toBe(401)
  })

  test('that ends while a change of its holder is under way stops the change', async () => {
    const { broker, company } = await setUp(engine)
    await broker.register('bot')
    const { credential, session } = await signIn(broker, company)
    const [change] = await Promise.all([
      broker.sendAs(credential, 'POST', '/v1/workloads/bot/suspend', {}),
      broker.sendAsAdmin('POST', `/v1/sessions/${session}/end`, {}),
    ])
    const events = await broker.events()
    const after = events.slice(events.findIndex(({ type }) => type === 'operator.signed_out'))
    expect(after.some(({ type }) => type === 'workload.suspended')).toBe(false)
    expect(events.some(({ type }) => type === 'workload.suspended')).toBe(change.status === 200)
  })

  test('is forgotten a week after its time', async () => {
    const { broker, company, clock } = await setUp(engine)
    await signIn(broker, company)
    const count = async () => (await broker.broker.database.read.selectFrom('operator_session').selectAll().execute()).length
    clock.advance(7 * dayMs)
    await broker.scheduler.tick()
    expect(await count()).toBe(1)
    const before = await broker.events()
    clock.advance(3_600_000 + 1)
    await broker.scheduler.tick()
    expect(await count()).toBe(0)
    expect((await broker.events()).filter(({ type }) => type.startsWith('operator'))).toEqual(before.filter(({ type }) => type.startsWith('operator')))
  })
})

describeEngines('While the company issuer is down', (engine) => {
  test('nobody is refused for it, and who signed in goes on', async () => {
    const { broker, company, clock } = await setUp(engine)
    const { credential } = await signIn(broker, company)
    await company.stop()
    expect((await exchange(broker, await company.sign())).status).toBe(201)
    clock.advance(600_000)
    const token = await company.sign()
    const answer = await exchange(broker, token)
    expect(answer).toMatchObject({ status: 503, body: { detail: expect.stringContaining('The company issuer cannot be asked for its keys') } })
    expect(JSON.stringify(answer.body)).not.toContain(company.url)
    expect(broker.logLines.some((line) => line.includes(`${company.url}: fetch failed`))).toBe(true)
    expect(broker.logLines.join()).not.toContain(token)
    expect((await broker.sendAs(credential, 'GET', '/v1/operator')).status).toBe(200)
  })
})

describeEngines('Where no company issuer is configured', (engine) => {
  test('nobody signs in', async () => {
    const broker = await startBroker(engine)
    const company = await startCompanyIssuer(broker.clock)
    for (const answer of [
      await broker.send('GET', '/v1/sign-in'),
      await broker.send('POST', '/v1/sessions', { json: { id_token: await company.sign() } }),
      await broker.sendAsAdmin('GET', '/v1/sessions'),
      await broker.sendAsAdmin('POST', '/v1/sessions/end', { subject: 'ada' }),
    ]) {
      expect(await answerOf(answer)).toMatchObject({ status: 404, body: { detail: expect.stringContaining('operators.oidc') } })
    }
  })

  test('and where one is, everybody learns how', async () => {
    const { broker, company } = await setUp(engine)
    const answer = await answerOf(await broker.send('GET', '/v1/sign-in'))
    expect(answer).toMatchObject({ status: 200, body: { issuer: company.url, client_id: clientId, scopes: ['openid', 'groups'] } })
  })
})
