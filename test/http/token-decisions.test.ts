import { isAuthorized, type Context, type Entities } from '@cedar-policy/cedar-wasm/nodejs'
import { describe, expect, test } from 'vitest'
import type { AuditEvent, DecisionRecord } from '../../src/audit/event.ts'
import { readPolicyFiles } from '../../src/storage/policy-sets.ts'
import { startBroker, testPolicies, type TestBroker } from '../broker.ts'
import { describeEngines } from '../harness.ts'
import { askToken, countGrants, details, eventsOf, type OAuthAnswer } from './oauth-requests.ts'

const refund = details({ actions: ['payments:refund'], target: 'acct-1' })

interface Denial {
  readonly workload: { readonly team: string; readonly stage?: string }
  readonly parameters: Record<string, string>
  /** The whole description: it must not tell more of the policy than this. */
  readonly told: string
  readonly decision: Partial<DecisionRecord>
}

const denials: Record<string, Denial> = {
  'what no rule permits': {
    workload: { team: 'marketing' },
    parameters: { scope: 'tickets:read' },
    told: 'The policy does not allow this.',
    decision: { verdict: 'deny', reasons: [] },
  },
  'one action of two that no rule permits': {
    workload: { team: 'support' },
    parameters: { scope: 'tickets:read tickets:purge' },
    told: 'The policy does not allow this.',
    decision: { verdict: 'deny', reasons: [] },
  },
  'what a rule forbids, though another permits it': {
    workload: { team: 'finance', stage: 'sandbox' },
    parameters: { authorization_details: details({ actions: ['payments:read'], target: 'acct-1' }) },
    told: 'The policy does not allow this.',
    decision: { verdict: 'deny', reasons: ['sandbox-keeps-away'] },
  },
  'what a rule permits for a shorter time': {
    workload: { team: 'support' },
    parameters: { authorization_details: details({ actions: ['tickets:read'], ttl_seconds: 3600 }) },
    told: 'The policy does not allow this for so long; ttl_seconds up to 1800 would be allowed.',
    decision: { verdict: 'deny', reasons: [] },
  },
  'what needs an approval': {
    workload: { team: 'finance' },
    parameters: { authorization_details: refund },
    told: 'This needs an approval by a person, which this broker cannot ask for yet.',
    decision: { verdict: 'needs_approval', approvals_needed: 1, reasons: ['refunds-need-a-person'] },
  },
  'what no approval would allow': {
    workload: { team: 'finance', stage: 'sandbox' },
    parameters: { authorization_details: refund },
    told: 'The policy does not allow this.',
    decision: { verdict: 'deny', reasons: ['sandbox-keeps-away'] },
  },
}

function decisionOf(event: AuditEvent | undefined): DecisionRecord {
  if (event === undefined || !('decision' in event)) throw new Error('no decision in this event')
  return event.decision
}

/** Every rule of the set in the decision, by its id, as the database has kept it. */
async function readRules(broker: TestBroker, { policy_set: hash }: DecisionRecord): Promise<Record<string, string>> {
  const files = (await readPolicyFiles(broker.broker.database.read, hash)) ?? new Map<string, string>()
  const texts = [...files].filter(([path]) => path.endsWith('.cedar')).flatMap(([, text]) => text.split(/(?<=;)\s*(?=@id)/))
  return Object.fromEntries(texts.map((text) => [/@id\("([^"]+)"\)/.exec(text)?.[1] ?? '', text]))
}

/** Decides again with Cedar alone, from the event and the kept rules. `approvals` replaces that in the recorded context. */
function decideAgain(rules: Record<string, string>, { input }: DecisionRecord, approvals?: number) {
  // As the event's text was parsed; Cedar itself refuses what has not its form.
  const { principal, actions, resource, context, entities } = input as unknown as {
    principal: { type: string; id: string }
    actions: { type: string; id: string }[]
    resource: { type: string; id: string }
    context: Context
    entities: Entities
  }
  const answers = actions.map((action) => {
    const tried = approvals === undefined ? context : { ...context, approvals }
    const answer = isAuthorized({ principal, action, resource, context: tried, entities, policies: { staticPolicies: rules } })
    if (answer.type !== 'success') throw new Error(JSON.stringify(answer.errors))
    expect(answer.response.diagnostics.errors).toEqual([])
    return { allowed: answer.response.decision === 'allow', reasons: answer.response.diagnostics.reason }
  })
  const allowed = answers.every((answer) => answer.allowed)
  return { allowed, reasons: [...new Set(answers.filter((answer) => answer.allowed === allowed).flatMap(({ reasons }) => reasons))].sort() }
}

describeEngines('A decision', (engine) => {
  test('denies with no more than concerns the request, records the rest, and can be made again by Cedar alone', async () => {
    const broker = await startBroker(engine)
    const policy = (await (await broker.sendAsAdmin('GET', '/v1/policy')).json()) as { hash: string; cedar_version: string }
    for (const [i, [name, { workload, parameters, told, decision }]] of Object.entries(denials).entries()) {
      const agent = await broker.register(`bot-${i}`, workload)
      const answer = await askToken(broker, agent, parameters)
      expect(answer, name).toMatchObject({ status: 400, body: { error: 'access_denied', error_description: told } })
      const [event, ...more] = await eventsOf(broker, answer)
      expect(more).toEqual([])
      expect(event, name).toMatchObject({ type: 'grant.denied', workload: agent.name, proof_kid: agent.kid, decision })
      const recorded = decisionOf(event)
      expect(recorded, name).toMatchObject({ errors: [], policy_set: policy.hash, cedar_version: policy.cedar_version })
      const rules = await readRules(broker, recorded)
      expect(Object.keys(rules)).toHaveLength(4)
      const again = decideAgain(rules, recorded)
      expect(again.allowed, name).toBe(false)
      if (recorded.verdict === 'deny') expect(again.reasons, name).toEqual(recorded.reasons)
      else expect(decideAgain(rules, recorded, recorded.approvals_needed), name).toEqual({ allowed: true, reasons: recorded.reasons })
    }
    expect(await countGrants(broker)).toBe(0)
  })

  test('that allows can be made again by Cedar alone, also where the verdict was remembered', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('triage-bot', { tags: ['eu', 'night'] })
    for (const scope of ['tickets:read tickets:comment', 'tickets:read', 'tickets:read']) {
      const answer = await askToken(broker, agent, { scope })
      expect(answer.status).toBe(200)
      const recorded = decisionOf((await eventsOf(broker, answer))[0])
      expect(recorded.input).toMatchObject({
        principal: { type: 'Workload', id: 'triage-bot' },
        context: { approvals: 0, proof: 'private_key_jwt', now: { __extn: { arg: '2026-01-15T12:00:00.000Z' } } },
      })
      expect(JSON.stringify(recorded.input)).toContain('"tags":["eu","night"]')
      expect(decideAgain(await readRules(broker, recorded), recorded)).toEqual({ allowed: true, reasons: ['support-works-on-tickets'] })
    }
  })

  test('is made by the set in force, and the event of an older one still leads to its rules', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('triage-bot')
    const first = await askToken(broker, agent, { scope: 'tickets:read' })
    const closed = new Map([...testPolicies].filter(([path]) => path !== 'rules.cedar'))
    closed.set('rules.cedar', '@id("closed-for-today")\nforbid (principal, action, resource);\n')
    const applied = await broker.sendAsAdmin('PUT', '/v1/policy', { files: Object.fromEntries(closed) })
    expect(applied.status).toBe(200)
    const second = await askToken(broker, agent, { scope: 'tickets:read' })
    expect(second.body).toMatchObject({ error: 'access_denied' })
    const [before, after] = [decisionOf((await eventsOf(broker, first))[0]), decisionOf((await eventsOf(broker, second))[0])]
    expect(after.reasons).toEqual(['closed-for-today'])
    expect(after.policy_set).not.toBe(before.policy_set)
    expect(decideAgain(await readRules(broker, before), before)).toEqual({ allowed: true, reasons: ['support-works-on-tickets'] })
    expect(decideAgain(await readRules(broker, after), after)).toEqual({ allowed: false, reasons: ['closed-for-today'] })
  })

  test('denies everything where the set has tools and no rules', async () => {
    const tools = new Map([...testPolicies].filter(([path]) => path.startsWith('tools/')))
    const broker = await startBroker(engine, { policies: tools })
    const agent = await broker.register('triage-bot')
    expect((await askToken(broker, agent, { scope: 'tickets:read' })).body).toMatchObject({ error: 'access_denied' })
    expect(await broker.lastEvent('grant.denied')).toMatchObject({ decision: { verdict: 'deny', reasons: [] } })
  })
})

const hourMs = 3_600_000

/** The test policies with these rules in place of their own. */
function withRules(rules: string): Map<string, string> {
  return new Map([...testPolicies, ['rules.cedar', rules]])
}

const threeAnHour = withRules(`@id("three-an-hour")
permit (principal in Team::"support", action == Action::"tickets:read", resource in Tool::"tickets")
when { context.recentGrants < 3 };
`)

const threeStrikes = withRules(`@id("read")
permit (principal in Team::"support", action == Action::"tickets:read", resource in Tool::"tickets");

@id("three-strikes")
forbid (principal, action, resource) when { context.recentDenials >= 3 };
`)

const tally = (answers: readonly OAuthAnswer[]) =>
  Object.fromEntries([...Map.groupBy(answers, ({ status, body }) => String(body['error'] ?? status))].map(([name, all]) => [name, all.length]))

describeEngines('A rule that counts', (engine) => {
  test('at most three grants an hour holds exactly, however many ask at once', async () => {
    const broker = await startBroker(engine, { policies: threeAnHour })
    const brokers = engine === 'postgres' ? [broker, await startBroker(engine, { beside: broker })] : [broker]
    const agent = await broker.register('triage-bot')
    const other = await broker.register('other-bot')
    const askOne = (i: number) => askToken(brokers[i % brokers.length] ?? broker, agent, { scope: 'tickets:read' })
    const ask = (count: number) => Promise.all(Array.from({ length: count }, (_, i) => askOne(i)))
    expect(tally(await ask(20))).toEqual({ 200: 3, access_denied: 17 })
    const decisions = (await broker.events()).filter((event) => event.type === 'grant.issued').map(decisionOf)
    expect(decisions.map(({ input }) => (input['context'] as { recentGrants?: number }).recentGrants)).toEqual([0, 1, 2])
    // The count is each workload's own, and of the last hour.
    expect((await askToken(broker, other, { scope: 'tickets:read' })).status).toBe(200)
    broker.clock.advance(hourMs)
    expect((await askToken(broker, agent, { scope: 'tickets:read' })).status).toBe(400)
    broker.clock.advance(1)
    expect(tally(await ask(5))).toEqual({ 200: 3, access_denied: 2 })
  })

  test('a limit above what is asked for at once refuses nobody', async () => {
    const policies = withRules((threeAnHour.get('rules.cedar') ?? '').replace('< 3', '< 100'))
    const broker = await startBroker(engine, { policies })
    const agent = await broker.register('triage-bot')
    const answers = await Promise.all(Array.from({ length: 30 }, () => askToken(broker, agent, { scope: 'tickets:read' })))
    expect(tally(answers)).toEqual({ 200: 30 })
  })

  test('three denials an hour shut a workload out, and each denial of many at once counts', async () => {
    const broker = await startBroker(engine, { policies: threeStrikes })
    const brokers = engine === 'postgres' ? [broker, await startBroker(engine, { beside: broker })] : [broker]
    const agent = await broker.register('triage-bot')
    expect((await askToken(broker, agent, { scope: 'tickets:read' })).status).toBe(200)
    const deny = (i: number) => askToken(brokers[i % brokers.length] ?? broker, agent, { scope: 'tickets:comment' })
    const answers = await Promise.all(Array.from({ length: 12 }, (_, i) => deny(i)))
    expect(tally(answers)).toEqual({ access_denied: 12 })
    const reasons = (await broker.events()).filter(({ type }) => type === 'grant.denied').map((event) => decisionOf(event).reasons[0])
    expect(reasons).toEqual([undefined, undefined, undefined, ...Array.from({ length: 9 }, () => 'three-strikes')])
    expect((await askToken(broker, agent, { scope: 'tickets:read' })).status).toBe(400)
    broker.clock.advance(hourMs + 1)
    expect((await askToken(broker, agent, { scope: 'tickets:read' })).status).toBe(200)
  })
})

describe('A rule that reads the time', () => {
  test('sees the ledger\'s, not a remembered one', async () => {
    const noon = `@id("mornings")
permit (principal, action == Action::"tickets:read", resource)
when { context.now < datetime("2026-01-15T13:00:00Z") };
`
    const broker = await startBroker('sqlite', { policies: withRules(noon) })
    const agent = await broker.register('triage-bot')
    expect((await askToken(broker, agent, { scope: 'tickets:read' })).status).toBe(200)
    broker.clock.advance(hourMs)
    expect((await askToken(broker, agent, { scope: 'tickets:read' })).status).toBe(400)
    // Invariant 12: a clock that is set back does not open the door again.
    broker.clock.advance(-hourMs)
    expect((await askToken(broker, agent, { scope: 'tickets:read' })).status).toBe(401)
  })
})

test('A decision by more rules than an entry can name is recorded all the same', async () => {
  const rules = Array.from({ length: 1_000 }, (_, i) => `@id("${String(i).padStart(64, 'r')}") permit (principal, action, resource);`)
  const broker = await startBroker('sqlite', { policies: new Map([...testPolicies, ['many.cedar', rules.join('\n')]]) })
  const agent = await broker.register('triage-bot')
  expect((await askToken(broker, agent, { scope: 'tickets:read' })).status).toBe(200)
  const { decision } = (await broker.lastEvent('grant.issued')) as { decision?: DecisionRecord }
  expect(decision?.reasons).toHaveLength(100)
  expect(decision?.reasons_more).toBe(901)
})
