import { decodeJwt } from 'jose'
import { expect, test } from 'vitest'
import { formatTime } from '../../src/kernel/clock.ts'
import { createAgent, getToken, issuer, signJws, startBroker, type TestAgent, type TestBroker } from '../broker.ts'
import { describeEngines } from '../harness.ts'
import { details, eventsOf, isActive, post } from './oauth-requests.ts'

/** A second process where the engine allows one, else the same. */
async function startBeside(broker: TestBroker): Promise<TestBroker> {
  return broker.database.engine === 'postgres' ? startBroker('postgres', { beside: broker }) : broker
}

async function giveToken(broker: TestBroker, agent: TestAgent, task?: string): Promise<{ token: string; grant: string }> {
  const { access_token: token } = await getToken(broker, agent, {
    authorization_details: details({ actions: ['tickets:read'], ...(task !== undefined && { task }) }),
  })
  return { token, grant: String(decodeJwt(token).jti) }
}

describeEngines('Revocation by token (RFC 7009)', (engine) => {
  test('ends the holder\'s token at once on every process, recorded once however often it is asked for', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('triage-bot')
    const other = await startBeside(broker)
    const { token, grant } = await giveToken(broker, agent, 't-1')
    const kept = await giveToken(broker, agent, 't-1')
    expect(await isActive(other, agent, token)).toBe(true)
    const answer = await post(broker, 'revoke', { form: agent.form({ token, token_type_hint: 'refresh_token' }) })
    expect(answer).toMatchObject({ status: 200, text: '' })
    expect(await eventsOf(broker, answer)).toMatchObject([
      { type: 'grant.revoked', actor: { kind: 'workload', id: 'triage-bot' }, workload: 'triage-bot', grant, tool: 'tickets', task: 't-1' },
    ])
    expect(await isActive(other, agent, token)).toBe(false)
    expect(await isActive(other, agent, kept.token)).toBe(true)
    const size = (await broker.events()).length
    const form = agent.form({ token })
    expect(await post(other, 'revoke', { form })).toMatchObject({ status: 200, text: '' })
    expect(await broker.events()).toHaveLength(size)
    // What changed nothing has spent its assertion all the same.
    expect(await post(broker, 'revoke', { form })).toMatchObject({ status: 401, body: { error: 'invalid_client' } })
  })

  test('is recorded once when asked for twice at the same time', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('triage-bot')
    const other = await startBeside(broker)
    const { token } = await giveToken(broker, agent)
    const answers = await Promise.all([broker, other, broker, other].map((at) => post(at, 'revoke', { form: agent.form({ token }) })))
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 200])
    expect((await broker.events()).filter(({ type }) => type === 'grant.revoked')).toHaveLength(1)
  })

  test('of another\'s token is refused and recorded, and the token lives', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('triage-bot')
    const introspector = await broker.register('tickets-api')
    const { token, grant } = await giveToken(broker, agent)
    const form = introspector.form({ token })
    const answer = await post(broker, 'revoke', { form })
    expect(answer).toMatchObject({
      status: 400,
      body: { error: 'unauthorized_client', error_description: expect.stringContaining('an admin can revoke it') },
    })
    expect(await eventsOf(broker, answer)).toMatchObject([
      { type: 'revocation.refused', actor: { kind: 'workload', id: 'tickets-api' }, workload: 'tickets-api', grant, proof_kid: introspector.kid },
    ])
    expect(await isActive(broker, agent, token)).toBe(true)
    expect((await post(broker, 'revoke', { form })).status).toBe(401)
  })

  test('by an admin ends any token', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('triage-bot')
    const other = await startBeside(broker)
    const { token, grant } = await giveToken(broker, agent)
    const headers = { authorization: `Bearer ${broker.adminCredential}` }
    const answer = await post(broker, 'revoke', { form: { token }, headers })
    expect(answer).toMatchObject({ status: 200, text: '' })
    expect(await eventsOf(broker, answer)).toMatchObject([{ type: 'grant.revoked', actor: { kind: 'operator' }, workload: 'triage-bot', grant }])
    expect(await isActive(other, agent, token)).toBe(false)
    const size = (await broker.events()).length
    for (const sent of [token, 'garbage']) expect((await post(broker, 'revoke', { form: { token: sent }, headers })).status).toBe(200)
    expect(await broker.events()).toHaveLength(size)
  })

  test('by who is no admin ends nothing, whatever he shows', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('triage-bot')
    const { token } = await giveToken(broker, agent)
    const bearers = [token, 'x', `${broker.adminCredential.slice(0, -43)}${'A'.repeat(43)}`, `stint_op_${'0'.repeat(16)}_${'A'.repeat(43)}`]
    const answers = await Promise.all(
      bearers.map((bearer) => post(broker, 'revoke', { form: { token }, headers: { authorization: `Bearer ${bearer}` } })),
    )
    for (const answer of answers) {
      expect(answer).toMatchObject({ status: 401, body: { error: 'invalid_client' } })
      expect(answer.headers.get('www-authenticate')).toBe('Bearer realm="stint"')
      expect(answer.text).toBe(answers[0]?.text)
    }
    expect(await isActive(broker, agent, token)).toBe(true)
    const both = { form: agent.form({ token }), headers: { authorization: `Bearer ${broker.adminCredential}` } }
    expect(await post(broker, 'revoke', both)).toMatchObject({ status: 400, body: { error: 'invalid_request' } })
    // Invariant 6: an admin who claims to be a client, too, is not half believed.
    for (const extra of [{ client_id: agent.clientId }, { client_assertion_type: 'x' }]) {
      const answer = await post(broker, 'revoke', { ...both, form: { token, ...extra } })
      expect(answer).toMatchObject({ status: 400, body: { error_description: expect.stringMatching(/Authorization header alone/) } })
    }
    expect(await isActive(broker, agent, token)).toBe(true)
  })

  test('by an operator of another role ends nothing, and is recorded', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('triage-bot')
    const { token } = await giveToken(broker, agent)
    const auditor = await broker.createOperator('auditor')
    const answer = await post(broker, 'revoke', { form: { token }, headers: { authorization: `Bearer ${auditor}` } })
    expect(answer).toMatchObject({ status: 403, body: { error: 'access_denied' } })
    expect(await eventsOf(broker, answer)).toMatchObject([{ type: 'change.refused', route: '/oauth2/revoke', code: 'forbidden' }])
    expect(await isActive(broker, agent, token)).toBe(true)
  })

  test('of what Stint does not know succeeds and does nothing', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('triage-bot')
    const other = await createAgent('triage-bot', issuer, broker.clock)
    const { token } = await giveToken(broker, agent)
    const size = (await broker.events()).length
    const forged = signJws({ alg: 'ES256', typ: 'at+jwt', kid: 'x' }, decodeJwt(token), other.privateKey)
    for (const sent of ['garbage', forged, `${token}x`]) {
      expect(await post(broker, 'revoke', { form: agent.form({ token: sent }) })).toMatchObject({ status: 200, text: '' })
    }
    expect(await broker.events()).toHaveLength(size)
    expect(await isActive(broker, agent, token)).toBe(true)
  })

  test('of a token that has expired succeeds and is not recorded', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('triage-bot')
    const { token } = await giveToken(broker, agent)
    broker.clock.advance(600_000)
    const size = (await broker.events()).length
    expect((await post(broker, 'revoke', { form: agent.form({ token }) })).status).toBe(200)
    expect(await broker.events()).toHaveLength(size)
  })
})

describeEngines('Revocation of many (POST /v1/revocations)', (engine) => {
  async function prepare() {
    const broker = await startBroker(engine)
    const other = await startBeside(broker)
    const [triage, night] = [await broker.register('triage-bot'), await broker.register('night-bot')]
    const tokens = {
      old: await giveToken(broker, triage, 't-1'),
      otherTask: await giveToken(broker, triage, 't-2'),
      noTask: await giveToken(broker, triage),
      sameTask: await giveToken(broker, night, 't-1'),
    }
    broker.clock.advance(1_000)
    const young = await giveToken(broker, triage, 't-1')
    const all = { ...tokens, young }
    /** Which tokens are alive, as another process sees it. */
    const alive = async () => {
      const states = Object.entries(all).map(async ([name, { token }]) => {
        const holder = decodeJwt(token).sub === night.clientId ? night : triage
        return (await isActive(other, holder, token)) ? [name] : []
      })
      return (await Promise.all(states)).flat()
    }
    return { broker, other, triage, night, all, alive, between: formatTime(broker.clock.nowMs() - 500) }
  }
  type Prepared = Awaited<ReturnType<typeof prepare>>

  const everything = ['old', 'otherTask', 'noTask', 'sameTask', 'young']
  const cases: Record<string, [(prepared: Prepared) => Record<string, unknown>, string[]]> = {
    'one grant': [({ all }) => ({ grant: all.old.grant }), ['old']],
    'a workload': [() => ({ workload: 'triage-bot' }), ['old', 'otherTask', 'noTask', 'young']],
    'a task': [() => ({ task: 't-1' }), ['old', 'sameTask', 'young']],
    'all before a time': [({ between }) => ({ before: between }), ['old', 'otherTask', 'noTask', 'sameTask']],
    'all before now': [({ broker }) => ({ before: formatTime(broker.clock.nowMs()) }), ['old', 'otherTask', 'noTask', 'sameTask']],
    'a task of a workload': [() => ({ workload: 'triage-bot', task: 't-1' }), ['old', 'young']],
    'a task before a time': [({ between }) => ({ task: 't-1', before: between }), ['old', 'sameTask']],
    'all three': [({ between }) => ({ workload: 'triage-bot', task: 't-1', before: between }), ['old']],
    'a task that nobody had': [() => ({ task: 'T-1' }), []],
  }
  // PostgreSQL compares the same texts in the same way: there, one case of each kind is enough.
  const run = Object.entries(cases).filter(([name]) => engine === 'sqlite' || ['one grant', 'a task of a workload', 'all before now'].includes(name))
  test.each(run)('%s: at once, on every process, and nothing else', async (_, [select, ended]) => {
    const prepared = await prepare()
    const { broker, alive, triage } = prepared
    expect(await alive()).toEqual(everything)
    const selector = select(prepared)
    const response = await broker.sendAsAdmin('POST', '/v1/revocations', { ...selector, reason: 'left a laptop on a train' })
    expect(response.status).toBe(200)
    expect(response.headers.get('cache-control')).toBe('no-store')
    const event = (await broker.events()).at(-1)
    const report = (await response.json()) as { grants: { grant: string; outcome: string; effect: string }[] }
    expect(report).toMatchObject({ revoked: ended.length, more: false, already_ended: 0, audit_index: event?.index })
        const revoked = report.grants.filter(({ outcome, effect }) => outcome === 'revoked' && effect === 'introspection')
    expect(revoked.map(({ grant }) => grant).toSorted()).toEqual(ended.map((name) => prepared.all[name as keyof typeof prepared.all].grant).toSorted())
    expect(response.headers.get('stint-audit-index')).toBe(String(event?.index))
    expect(event).toMatchObject({
      ...('grant' in selector ? { type: 'grant.revoked', grant: selector['grant'] } : { type: 'grants.revoked', selector }),
      actor: { kind: 'operator' },
      reason: 'left a laptop on a train',
    })
    expect(await alive()).toEqual(everything.filter((name) => !ended.includes(name)))
    // What is issued afterwards, in the same millisecond even, is not covered.
    const { token } = await giveToken(broker, triage, 't-1')
    expect(await isActive(broker, triage, token)).toBe(true)
  })

  test('again, of what has ended', async () => {
    const { broker, all, alive } = await prepare()
    const revoke = async (body: object) => (await broker.sendAsAdmin('POST', '/v1/revocations', body)).json()
    await revoke({ task: 't-1' })
    expect(await revoke({ workload: 'triage-bot' })).toMatchObject({ revoked: 2 })
    const size = (await broker.events()).length
    expect(await revoke({ grant: all.old.grant })).toMatchObject({ revoked: 0, more: false, already_ended: 1, grants: [{ grant: all.old.grant, outcome: 'already_ended', effect: 'introspection' }] })
    expect(await broker.events()).toHaveLength(size)
    expect(await alive()).toEqual([])
  })

  const refused: Record<string, [Record<string, unknown>, number, RegExp]> = {
    'nothing named': [{ reason: 'x' }, 400, /at least one of grant, workload, owner, tool, task and before/],
    'a grant and more': [{ grant: `grant_${'0'.repeat(26)}`, task: 't-1' }, 400, /a grant alone/],
    'an unknown grant': [{ grant: `grant_${'0'.repeat(26)}` }, 404, /There is no grant grant_0{26}/],
    'no grant\'s id': [{ grant: 'x' }, 400, /grant must be the id of a grant/],
    'an unknown workload': [{ workload: 'no-such-bot' }, 404, /There is no workload no-such-bot/],
    'no workload\'s name': [{ workload: '*' }, 400, /workload must be the name/],
    'an empty task': [{ task: '' }, 400, /task/],
    'a time to come': [{ before: '2026-01-15T12:00:02Z' }, 400, /before must not be in the future/],
    'no time': [{ before: 'yesterday' }, 400, /before must be a time/],
    'null': [{ workload: null }, 400, /workload/],
    'an unknown member': [{ workloads: 'triage-bot' }, 400, /workloads is not known here; did you mean workload\?/],
  }
  test('refuses what it cannot honour, and then ends nothing', async () => {
    const { broker, alive } = await prepare()
    const size = (await broker.events()).length
    for (const [name, [body, status, detail]] of Object.entries(refused)) {
      const response = await broker.sendAsAdmin('POST', '/v1/revocations', body)
      expect(await response.json(), name).toMatchObject({ status, detail: expect.stringMatching(detail) })
      expect(response.status, name).toBe(status)
    }
    expect((await broker.send('POST', '/v1/revocations', { json: { before: '2026-01-15T12:00:00Z' } })).status).toBe(401)
    expect(new Set((await broker.events()).slice(size).map(({ type }) => type))).toEqual(new Set(['change.refused']))
    expect(await alive()).toEqual(everything)
  })
})
