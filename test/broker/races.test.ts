import { expect, test } from 'vitest'
import type { Ledger } from '../../src/storage/ledger.ts'
import { createAgent, getToken, issuer, startBroker, testPolicies, type TestBroker } from '../broker.ts'
import { describeEngines } from '../harness.ts'
import { askToken, countGrants, eventsOf, isActive, post } from '../http/oauth-requests.ts'

/** Lets `change` be committed between a decision and its record: just before the ledger gets the next `method` call. */
function interfere(broker: TestBroker, method: 'append' | 'spend' | 'transact', change: () => Promise<unknown>, times = 1): void {
  const { ledger } = broker.broker
  let left = times
  const hooked = async (given: never) => {
    if (left > 0) {
      left--
      await change()
    }
    // Handed on as it came: the three methods differ in what they take, and this does not look at it.
    return (ledger[method] as (given: never) => Promise<never>)(given)
  }
  // The app reads `broker.ledger` anew for each request. The change itself takes the way of any other process.
  Object.assign(broker.broker, { ledger: { ...ledger, [method]: hooked } satisfies Ledger })
}

const closedSet = { files: Object.fromEntries([...testPolicies, ['rules.cedar', '@id("closed")\nforbid (principal, action, resource);\n']]) }

async function prepare(engine: 'sqlite' | 'postgres') {
  const broker = await startBroker(engine)
  const elsewhere = engine === 'postgres' ? await startBroker(engine, { beside: broker }) : broker
  const agent = await broker.register('triage-bot')
  // So that everything is remembered before the race begins.
  const { access_token: token } = await getToken(broker, agent, { scope: 'tickets:read' })
  const grants = await countGrants(broker)
  const change = (method: string, path: string, json?: unknown) => async () => {
    const { status } = await elsewhere.sendAsAdmin(method, path, json)
    expect(status).toBe(200)
  }
  return { broker, elsewhere, agent, token, grants, change }
}

describeEngines('Between a decision and its record (invariant 13),', (engine) => {
  test.each(['suspend', 'retire'])('a %s stops the token', async (verb) => {
    const { broker, agent, grants, change } = await prepare(engine)
    interfere(broker, 'append', change('POST', `/v1/workloads/triage-bot/${verb}`, {}))
    const answer = await askToken(broker, agent, { scope: 'tickets:read' })
    expect(answer).toMatchObject({ status: 401, body: { error: 'invalid_client' } })
    expect(await eventsOf(broker, answer)).toEqual([])
    expect(await countGrants(broker)).toBe(grants)
    await broker.broker.refusals.flush(true)
    const reason = verb === 'retire' ? 'workload_retired' : 'workload_suspended'
    expect(await broker.lastEvent('authentication.refused')).toMatchObject({ reason, count: 1 })
  })

  test('the removal of its key stops the token', async () => {
    const { broker, agent, grants, change } = await prepare(engine)
    interfere(broker, 'append', change('DELETE', `/v1/workloads/triage-bot/keys/${agent.kid}`))
    expect(await askToken(broker, agent, { scope: 'tickets:read' })).toMatchObject({ status: 401 })
    expect(await countGrants(broker)).toBe(grants)
    await broker.broker.refusals.flush(true)
    expect(await broker.lastEvent('authentication.refused')).toMatchObject({ reason: 'key_removed' })
  })

  test('a stricter policy set turns the token into a denial by the new set', async () => {
    const { broker, agent, grants, change } = await prepare(engine)
    interfere(broker, 'append', change('PUT', '/v1/policy', closedSet))
    const answer = await askToken(broker, agent, { scope: 'tickets:read' })
    expect(answer).toMatchObject({ status: 400, body: { error: 'access_denied' } })
    const { hash } = (await (await broker.sendAsAdmin('GET', '/v1/policy')).json()) as { hash: string }
    expect(await eventsOf(broker, answer)).toMatchObject([{ type: 'grant.denied', decision: { policy_set: hash, reasons: ['closed'] } }])
    expect(await countGrants(broker)).toBe(grants)
  })

  test('a wider policy set turns the denial into a token by the new set', async () => {
    const { broker, agent, grants, change } = await prepare(engine)
    const files = { ...closedSet.files, 'rules.cedar': '@id("open")\npermit (principal, action, resource);\n' }
    interfere(broker, 'append', change('PUT', '/v1/policy', { files }))
    const answer = await askToken(broker, agent, { scope: 'tickets:purge' })
    expect(answer.status).toBe(200)
    expect(await eventsOf(broker, answer)).toMatchObject([{ type: 'grant.issued', decision: { reasons: ['open'] } }])
    expect(await countGrants(broker)).toBe(grants + 1)
  })

  test('a change of the workload is what the policy sees', async () => {
    const { broker, agent, change } = await prepare(engine)
    interfere(broker, 'append', change('PATCH', '/v1/workloads/triage-bot', { owner: { team: 'marketing', contact: 'oncall:marketing' } }))
    const answer = await askToken(broker, agent, { scope: 'tickets:read' })
    expect(answer).toMatchObject({ status: 400, body: { error: 'access_denied' } })
    expect(JSON.stringify(await eventsOf(broker, answer))).toContain('"owner":"marketing"')
  })

  test('a tool that is taken out of the catalog turns the token into a refusal', async () => {
    const { broker, agent, grants, change } = await prepare(engine)
    const files = Object.fromEntries([...testPolicies].filter(([path]) => path === 'tools/payments.yaml'))
    interfere(broker, 'append', change('PUT', '/v1/policy', { files }))
    const answer = await askToken(broker, agent, { scope: 'tickets:read' })
    expect(answer).toMatchObject({ status: 400, body: { error: 'invalid_scope' } })
    expect(await eventsOf(broker, answer)).toMatchObject([{ type: 'grant.refused', code: 'invalid_scope' }])
    expect(await countGrants(broker)).toBe(grants)
  })

  test('a key that is registered turns a refusal into a token', async () => {
    const { broker, elsewhere, grants } = await prepare(engine)
    const newcomer = await createAgent('triage-bot', issuer, broker.clock)
    const { isNewest } = broker.broker.knowledge
    let added = false
    const knowledge = {
      ...broker.broker.knowledge,
      // Nothing is committed for a refusal: this question takes the place of the commit.
      async isNewest(view: Parameters<typeof isNewest>[0]) {
        if (!added) {
          added = true
          await elsewhere.sendAsAdmin('POST', '/v1/workloads/triage-bot/keys', { jwks: { keys: [newcomer.publicJwk] } })
        }
        return isNewest(view)
      },
    }
    Object.assign(broker.broker, { knowledge })
    expect(await askToken(broker, newcomer, { scope: 'tickets:read' })).toMatchObject({ status: 200 })
    expect(await countGrants(broker)).toBe(grants + 1)
  })

  // One process lets such requests take turns: only another can come between.
  const counts = [
    ['recentGrants', 'tickets:read', '@id("once")\npermit (principal, action, resource) when { context.recentGrants < 1 };\n'],
    ['recentDenials', 'tickets:read', '@id("strike")\nforbid (principal, action, resource) when { context.recentDenials >= 1 };\n'],
  ] as const
  if (engine === 'postgres') test.each(counts)('a change of %s elsewhere is seen', async (count, scope, rules) => {
    const broker = await startBroker(engine, { policies: new Map([...testPolicies, ['rules.cedar', rules]]) })
    const elsewhere = await startBroker(engine, { beside: broker })
    const agent = await broker.register('triage-bot')
    const there: Awaited<ReturnType<typeof askToken>>[] = []
    interfere(broker, 'append', async () => void there.push(await askToken(elsewhere, agent, { scope })))
    const here = await askToken(broker, agent, { scope })
    const decisions = await Promise.all([...there, here].map(async (answer) => (await eventsOf(broker, answer))[0]))
    // As if the two had come one after the other.
    expect(decisions).toMatchObject([0, 1].map((value) => ({ decision: { input: { context: { [count]: value } } } })))
    expect(await countGrants(broker)).toBe(count === 'recentGrants' ? 1 : 0)
  })

  test('without end, changes end in 503 and nothing given', async () => {
    const { broker, elsewhere, agent, grants } = await prepare(engine)
    let version = 0
    const rename = () => elsewhere.sendAsAdmin('PATCH', '/v1/workloads/triage-bot', { purpose: `Version ${version++}` })
    interfere(broker, 'append', rename, Infinity)
    const answer = await askToken(broker, agent, { scope: 'tickets:read' })
    expect(answer).toMatchObject({ status: 503, body: { error: 'temporarily_unavailable' } })
    expect(answer.headers.get('retry-after')).toBe('2')
    expect(version).toBeGreaterThan(3)
    expect(await countGrants(broker)).toBe(grants)
    expect(await eventsOf(broker, answer)).toEqual([])
  })
})

describeEngines('Between a look and its answer (invariant 13),', (engine) => {
  test('a suspension of the asker stops the introspection', async () => {
    const { broker, agent, token, change } = await prepare(engine)
    interfere(broker, 'spend', change('POST', '/v1/workloads/triage-bot/suspend', {}))
    expect(await post(broker, 'introspect', { form: agent.form({ token }) })).toMatchObject({ status: 401 })
  })

  test('a revocation shows in the introspection that is under way', async () => {
    const { broker, agent, token, change } = await prepare(engine)
    interfere(broker, 'spend', change('POST', '/v1/revocations', { workload: 'triage-bot' }))
    expect(await isActive(broker, agent, token)).toBe(false)
  })

  test('a suspension of the holder shows in the introspection that is under way', async () => {
    const { broker, token, change } = await prepare(engine)
    const introspector = await broker.register('tickets-api')
    interfere(broker, 'spend', change('POST', '/v1/workloads/triage-bot/suspend', {}))
    expect(await isActive(broker, introspector, token)).toBe(false)
  })

  test('an introspector who is one no more is told nothing', async () => {
    const { broker, token, change } = await prepare(engine)
    const introspector = await broker.register('tickets-api')
    expect(await isActive(broker, introspector, token)).toBe(true)
    const tickets = (testPolicies.get('tools/tickets.yaml') ?? '').replace('[tickets-api]', '[]')
    interfere(broker, 'spend', change('PUT', '/v1/policy', { files: Object.fromEntries([...testPolicies, ['tools/tickets.yaml', tickets]]) }))
    expect(await isActive(broker, introspector, token)).toBe(false)
    expect(await broker.lastEvent('introspection.refused')).toMatchObject({ workload: 'tickets-api' })
  })

  test('a suspension stops the holder\'s revocation', async () => {
    const { broker, agent, token, change } = await prepare(engine)
    interfere(broker, 'transact', change('POST', '/v1/workloads/triage-bot/suspend', {}))
    // On SQLite the suspension itself takes the hooked way; it finds the hook used up.
    expect(await post(broker, 'revoke', { form: agent.form({ token }) })).toMatchObject({ status: 401 })
    expect((await broker.events()).filter(({ type }) => type === 'grant.revoked')).toEqual([])
  })
})
