import { exportJWK } from 'jose'
import { expect, test } from 'vitest'
import { dayMs, getToken, startBroker } from '../broker.ts'
import { describeEngines } from '../harness.ts'
import { answerOf, newAgent, readBot, registrationOf, unrecorded, type Body } from './admin-requests.ts'

describeEngines('A workload', (engine) => {
  test('is changed member by member, and the log says from what to what', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('bot')
    broker.clock.advance(1000)
    const change = { stage: 'production', owner: { team: 'finance', contact: 'oncall:finance' }, review_at: '2026-03-01T00:00:00+01:00' }
    const { status, body, index } = await answerOf(await broker.sendAsAdmin('PATCH', '/v1/workloads/bot', change))
    expect([status, body]).toMatchObject([200, { ...change, review_at: '2026-02-28T23:00:00.000Z', purpose: 'Runs in a test', updated_at: '2026-01-15T12:00:01.000Z' }])
    expect(await broker.lastEvent('workload.updated')).toMatchObject({
      index: Number(index),
      workload: 'bot',
      before: { stage: 'pilot', owner: { team: 'support', contact: 'oncall:support' }, review_at: '2026-04-15T12:00:00.000Z' },
      after: { stage: 'production', owner: { team: 'finance', contact: 'oncall:finance' }, review_at: '2026-02-28T23:00:00.000Z' },
    })
    expect(Object.keys((await broker.lastEvent('workload.updated'))['before'] as Body).sort()).toEqual(['owner', 'review_at', 'stage'])
    // The next decision is made by the new facts: another team, other rights.
    await expect(getToken(broker, agent, { scope: 'tickets:read' })).rejects.toThrow('access_denied')

    const again = await unrecorded(broker, async () => answerOf(await broker.sendAsAdmin('PATCH', '/v1/workloads/bot', change)))
    // The denial above is recorded; the repeated change is not.
    expect(again).toMatchObject({ status: 200, index: null, body })
  })

  test('keeps what is fixed', async () => {
    const broker = await startBroker(engine)
    await broker.register('bot')
    const before = await readBot(broker)
    const cases: readonly (readonly [unknown, string])[] = [
      [{ name: 'other' }, 'name cannot be changed: register a new workload instead'],
      [{ environment: 'prod' }, 'environment cannot be changed'],
      [{ status: 'active' }, 'suspend, resume or retire'],
      [{ jwks: { keys: [] } }, 'add and remove single keys'],
      [{ created_at: '2026-01-01' }, 'created_at is not a known field'],
      [{ stagee: 'pilot' }, 'did you mean stage?'],
      [{ review_at: '2026-01-15' }, 'must be in the future'],
      [{ tags: null }, 'tags must be an array'],
      [{}, 'Nothing to change'],
    ]
    await unrecorded(broker, async () => {
      for (const [body, detail] of cases) {
        const answer = await answerOf(await broker.sendAsAdmin('PATCH', '/v1/workloads/bot', body))
        expect([answer.status, answer.body]).toMatchObject([400, { detail: expect.stringContaining(detail) }])
      }
      expect((await broker.sendAsAdmin('PATCH', '/v1/workloads/nobody', { stage: 'pilot' })).status).toBe(404)
    })
    expect(await readBot(broker)).toEqual(before)
  })

  test('is suspended, resumed and retired, each told to the log with its reason', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('bot')
    const turn = async (verb: string, body: Body = {}) => answerOf(await broker.sendAsAdmin('POST', `/v1/workloads/bot/${verb}`, body))
    const scope = { scope: 'tickets:read' }

    const suspended = await turn('suspend', { reason: 'a leak' })
    expect(suspended).toMatchObject({ status: 200, body: { status: 'suspended' } })
    expect(await broker.lastEvent('workload.suspended')).toMatchObject({ workload: 'bot', reason: 'a leak', index: Number(suspended.index) })
    await expect(getToken(broker, agent, scope)).rejects.toThrow('invalid_client')
    expect(await unrecorded(broker, () => turn('suspend'))).toMatchObject({ status: 200, index: null, body: { status: 'suspended' } })

    expect(await turn('resume')).toMatchObject({ status: 200, body: { status: 'active' } })
    expect(await broker.lastEvent('workload.resumed')).not.toHaveProperty('reason')
    expect(await getToken(broker, agent, scope)).toMatchObject({ scope: 'tickets:read' })
    expect(await unrecorded(broker, () => turn('resume'))).toMatchObject({ status: 200, index: null })

    expect(await turn('retire')).toMatchObject({ status: 200, body: { status: 'retired' } })
    expect(await broker.lastEvent('workload.retired')).toMatchObject({ workload: 'bot' })
    await expect(getToken(broker, agent, scope)).rejects.toThrow('invalid_client')
    const fresh = await newAgent(broker)
    await unrecorded(broker, async () => {
      for (const verb of ['suspend', 'resume', 'retire']) expect([verb, (await turn(verb)).status]).toEqual([verb, 409])
      expect((await broker.sendAsAdmin('PATCH', '/v1/workloads/bot', { stage: 'sandbox' })).status).toBe(409)
      expect((await broker.sendAsAdmin('POST', '/v1/workloads/bot/keys', { jwks: { keys: [fresh.publicJwk] } })).status).toBe(409)
      expect((await broker.sendAsAdmin('DELETE', `/v1/workloads/bot/keys/${agent.kid}`)).status).toBe(409)
      const again = await answerOf(await broker.sendAsAdmin('POST', '/v1/workloads', registrationOf(fresh)))
      expect([again.status, again.body]).toMatchObject([409, { detail: expect.stringContaining('also not after retirement') }])
      for (const verb of ['suspend', 'resume', 'retire']) {
        expect((await broker.sendAsAdmin('POST', `/v1/workloads/nobody/${verb}`, {})).status).toBe(404)
      }
      for (const body of [{ reason: '' }, { reason: 'a\nb' }, { reason: 7 }, { raeson: 'x' }, { reason: 'x'.repeat(501) }]) {
        expect((await turn('suspend', body)).status).toBe(400)
      }
    })
  })

  test('whose review date has passed is not resumed before the date is moved', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('bot')
    const resume = async () => answerOf(await broker.sendAsAdmin('POST', '/v1/workloads/bot/resume', {}))
    await broker.sendAsAdmin('POST', '/v1/workloads/bot/suspend', {})
    broker.clock.advance(90 * dayMs)
    const refused = await unrecorded(broker, resume)
    expect([refused.status, refused.body]).toMatchObject([409, { detail: expect.stringContaining('stint workload update bot --review-at') }])
    expect((await broker.sendAsAdmin('PATCH', '/v1/workloads/bot', { review_at: '2026-12-31' })).status).toBe(200)
    expect((await resume()).status).toBe(200)
    expect(await getToken(broker, agent, { scope: 'tickets:read' })).toMatchObject({ token_type: 'Bearer' })
  })

  test('proves itself with a key that was added, and never again with one that was removed', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('bot')
    const spare = await newAgent(broker)
    const added = await answerOf(await broker.sendAsAdmin('POST', '/v1/workloads/bot/keys', { jwks: { keys: [spare.publicJwk] } }))
    expect([added.status, added.body]).toMatchObject([201, { keys: expect.arrayContaining([expect.objectContaining({ kid: spare.kid, status: 'active' })]) }])
    expect(await broker.lastEvent('workload.key_added')).toMatchObject({ workload: 'bot', kid: spare.kid, alg: 'ES256', index: Number(added.index) })
    await getToken(broker, spare, { scope: 'tickets:read' })

    broker.clock.advance(1000)
    const removed = await answerOf(await broker.sendAsAdmin('DELETE', `/v1/workloads/bot/keys/${agent.kid}`))
    expect(removed).toMatchObject({
      status: 200,
      body: { keys: expect.arrayContaining([expect.objectContaining({ kid: agent.kid, status: 'removed', removed_at: '2026-01-15T12:00:01.000Z' })]) },
    })
    expect(await broker.lastEvent('workload.key_removed')).toMatchObject({ workload: 'bot', kid: agent.kid, alg: 'ES256' })
    await expect(getToken(broker, agent, { scope: 'tickets:read' })).rejects.toThrow('invalid_client')
    await getToken(broker, spare, { scope: 'tickets:read' })

    await broker.register('other')
    await unrecorded(broker, async () => {
      expect(await answerOf(await broker.sendAsAdmin('DELETE', `/v1/workloads/bot/keys/${agent.kid}`))).toMatchObject({ status: 200, index: null })
      const back = { jwks: { keys: [agent.publicJwk] } }
      for (const path of ['/v1/workloads/bot/keys', '/v1/workloads/other/keys']) {
        expect((await broker.sendAsAdmin('POST', path, back)).status).toBe(409)
      }
      const third = await newAgent(broker, 'third')
      expect((await broker.sendAsAdmin('POST', '/v1/workloads', registrationOf(third, back))).status).toBe(409)
      expect((await broker.sendAsAdmin('POST', '/v1/workloads', registrationOf(third, { jwks: { keys: [third.publicJwk, spare.publicJwk] } }))).status).toBe(409)
      for (const kid of [third.kid, 'x', 'A'.repeat(44), '..%2f..', '%00']) {
        expect([kid, (await broker.sendAsAdmin('DELETE', `/v1/workloads/bot/keys/${kid}`)).status]).toEqual([kid, 404])
      }
      // Another's key is not there to be removed.
      expect((await broker.sendAsAdmin('DELETE', `/v1/workloads/other/keys/${spare.kid}`)).status).toBe(404)
      for (const body of [{}, { keys: [] }, { jwks: {} }, { jwks: { keys: [await exportJWK(spare.privateKey)] } }]) {
        expect((await broker.sendAsAdmin('POST', '/v1/workloads/bot/keys', body)).status).toBe(400)
      }
    })
  })

  test('has at most eight keys at a time', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('bot')
    const jwks = async (count: number) => ({ jwks: { keys: await Promise.all(Array.from({ length: count }, async () => (await newAgent(broker)).publicJwk)) } })
    const add = async (count: number) => answerOf(await broker.sendAsAdmin('POST', '/v1/workloads/bot/keys', await jwks(count)))
    const seven = await add(7)
    expect(seven.status).toBe(201)
    // One event for each key, and no gap.
    expect((await broker.events()).slice(-7).map((event) => [event.type, event.index])).toEqual(
      Array.from({ length: 7 }, (_, i) => ['workload.key_added', Number(seven.index) + i]),
    )
    const ninth = await unrecorded(broker, () => add(1))
    expect([ninth.status, ninth.body]).toMatchObject([409, { detail: expect.stringContaining('at most 8 keys') }])
    await broker.sendAsAdmin('DELETE', `/v1/workloads/bot/keys/${agent.kid}`)
    expect((await add(1)).status).toBe(201)
  })
})

/** Every name of a member, at every depth. */
function namesIn(value: unknown): string[] {
  if (typeof value !== 'object' || value === null) return []
  const own = Array.isArray(value) ? [] : Object.keys(value)
  return [...new Set([...own, ...Object.values(value).flatMap(namesIn)])].sort()
}

test('Nothing that a caller sends becomes a name in what the policy sees or the log holds (invariant 9)', async () => {
  const broker = await startBroker('sqlite')
  const words = ['approvals', 'constructor', 'stage:production', 'context=1']
  const plain = await broker.register('plain', { tags: ['a', 'b', 'c', 'd'] })
  const sly = await broker.register('approvals', { tags: words, team: 'support', environment: 'production' })
  const seen: string[][] = []
  for (const [agent, task] of [[plain, 't-1'], [sly, 'approvals']] as const) {
    const detail = [{ type: 'stint', actions: ['tickets:read'], task, ttl_seconds: 60 }]
    await getToken(broker, agent, { authorization_details: JSON.stringify(detail) })
    const issued = await broker.lastEvent('grant.issued')
    expect(JSON.stringify(issued)).toContain(`"${task}"`)
    seen.push(namesIn(issued))
  }
  expect(seen[1]).toEqual(seen[0])
  const registered = (await broker.events()).filter((event) => event.type === 'workload.registered')
  expect(namesIn(registered[1])).toEqual(namesIn(registered[0]))
})

describeEngines('The list of workloads', (engine) => {
  test('filters, and pages by name without a gap or a repetition while workloads come and change', async () => {
    const broker = await startBroker(engine)
    for (const name of ['b', 'd', 'f', 'h', 'j']) await broker.register(name, { stage: name < 'e' ? 'sandbox' : 'pilot', team: name < 'c' ? 'finance' : 'support' })
    await broker.sendAsAdmin('POST', '/v1/workloads/h/suspend', {})
    const list = async (query = '') => {
      const { status, body } = await answerOf(await broker.sendAsAdmin('GET', `/v1/workloads${query}`))
      expect(status).toBe(200)
      return { names: (body['workloads'] as { name: string }[]).map(({ name }) => name), next: body['next'] }
    }
    expect(await list()).toEqual({ names: ['b', 'd', 'f', 'h', 'j'] })
    expect((await list('?status=suspended')).names).toEqual(['h'])
    expect((await list('?stage=sandbox')).names).toEqual(['b', 'd'])
    expect((await list('?team=finance')).names).toEqual(['b'])
    expect((await list('?stage=sandbox&team=support&status=active')).names).toEqual(['d'])
    expect((await list('?stage=production')).names).toEqual([])

    expect(await list('?limit=2')).toEqual({ names: ['b', 'd'], next: 'd' })
    await broker.register('a')
    await broker.register('e')
    await broker.sendAsAdmin('POST', '/v1/workloads/d/retire', {})
    expect(await list('?limit=2&after=d')).toEqual({ names: ['e', 'f'], next: 'f' })
    expect(await list('?limit=2&after=f')).toEqual({ names: ['h', 'j'] })
    expect(await list('?after=j')).toEqual({ names: [] })
  })

  test('shows of each the keys that it ever had, and no other\'s', async () => {
    const broker = await startBroker(engine)
    const [a, b] = [await broker.register('a'), await broker.register('b')]
    await broker.sendAsAdmin('DELETE', `/v1/workloads/a/keys/${a.kid}`)
    const { body } = await answerOf(await broker.sendAsAdmin('GET', '/v1/workloads'))
    expect((body['workloads'] as { keys: { kid: string; status: string }[] }[]).map(({ keys }) => keys.map(({ kid, status }) => [kid, status]))).toEqual([
      [[a.kid, 'removed']],
      [[b.kid, 'active']],
    ])
  })
})

describeEngines('A change that the state of things refuses', (engine) => {
  test('is recorded with who asked for what, and one that is wrong in itself is not', async () => {
    const broker = await startBroker(engine)
    await broker.register('bot')
    await broker.sendAsAdmin('POST', '/v1/workloads/bot/retire', {})
    const size = (await broker.events()).length
    const response = await broker.sendAsAdmin('POST', '/v1/workloads/bot/resume', {})
    expect(response.status).toBe(409)
    const refused = await broker.lastEvent('change.refused')
    expect(refused).toMatchObject({
      index: size,
      actor: { kind: 'operator' },
      request_id: response.headers.get('stint-request-id'),
      method: 'POST',
      route: '/v1/workloads/:name/resume',
      code: 'conflict',
      detail: expect.stringContaining('bot is retired'),
    })
    expect((await broker.sendAsAdmin('POST', '/v1/workloads/bot/resume', { reasn: 'x' })).status).toBe(400)
    expect((await broker.sendAsAdmin('GET', '/v1/workloads/nobody')).status).toBe(404)
    expect(await broker.events()).toHaveLength(size + 1)
  })
})
