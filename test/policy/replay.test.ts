import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { canonicalJson, type JsonObject, type JsonValue } from '../../src/audit/encode.ts'
import { createDecider } from '../../src/policy/decide.ts'
import type { PolicySet } from '../../src/policy/policy-set.ts'
import { describeDecision } from '../../src/policy/record.ts'
import { replayDecision } from '../../src/policy/replay.ts'
import type { AccessRequest } from '../../src/policy/request.ts'
import { loadSound, policy, request } from './random.ts'
import { requestOf, setOf } from './sample.ts'

const limits = { slicesMax: 10, verdictsMax: 100 }

/** The entry that a broker writes about a request, as it is read back from the log. */
function entryOf(set: PolicySet, asked: AccessRequest): JsonObject {
  const decision = describeDecision(createDecider(limits).decide(set, asked))
  const { workload, tool, actions, target, task, ttlSeconds } = asked
  const issued = decision.verdict === 'allow'
  const event = {
    type: issued ? 'grant.issued' : 'grant.denied',
    actor: { kind: 'workload', id: workload.name },
    workload: workload.name,
    tool,
    actions,
    target,
    task,
    ttl_seconds: ttlSeconds,
    decision,
    ...(issued && { grant: 'grant_1', audience: set.catalog.get(tool)?.audience }),
  }
  return JSON.parse(canonicalJson(event)) as JsonObject
}

/** A copy with the member at a path replaced; taken out where there is no value. */
function replaced(entry: JsonObject, path: string, value: JsonValue | undefined): JsonObject {
  const copy = structuredClone(entry)
  const keys = path.split('.')
  let at = copy as Record<string, unknown>
  for (const key of keys.slice(0, -1)) at = at[key] as Record<string, unknown>
  const last = keys.at(-1) ?? ''
  if (value === undefined) delete at[last]
  else at[last] = value
  return copy
}

test('whatever a set decides comes out the same again, and nothing else does', () => {
  const seen = new Set<string>()
  fc.assert(
    fc.property(fc.array(policy, { minLength: 1, maxLength: 14 }), fc.array(request, { minLength: 4, maxLength: 8 }), (rules, requests) => {
      const { set } = loadSound(rules)
      const decider = createDecider(limits)
      for (const asked of requests) {
        const ttlSeconds = Math.min(asked.ttlSeconds, set.catalog.get(asked.tool)?.ttl.maxSeconds ?? 0)
        const entry = entryOf(set, { ...asked, ttlSeconds })
        expect(replayDecision(decider, set, entry)).toEqual([])
        const { decision } = entry as { decision: { verdict: string; errors: readonly string[] } }
        seen.add(decision.errors.length > 0 ? 'error' : decision.verdict)
        for (const verdict of ['allow', 'deny', 'needs_approval']) {
          if (verdict === decision.verdict) continue
          const [mismatch] = replayDecision(decider, set, replaced(entry, 'decision.verdict', verdict))
          expect(mismatch).toEqual({ path: 'decision.verdict', recorded: verdict, replayed: decision.verdict })
        }
        expect(replayDecision(decider, set, replaced(entry, 'decision.reasons', ['p99']))[0]?.path).toBe('decision.reasons')
      }
    }),
    {
      numRuns: 25,
      examples: [
        [[['permit', 'principal', 'action', 'resource', 'when { context.approvals >= 1 }']], [requestOf()]],
        [[['permit', 'principal', 'action', 'resource', '']], [requestOf()]],
        [[['permit', 'principal', 'action', 'resource', 'when { context.approvals + 9223372036854775807 > 0 }']], [requestOf({ approvals: 1 })]],
      ],
    },
  )
  expect([...seen].sort()).toEqual(['allow', 'deny', 'error', 'needs_approval'])
}, 60_000)

const rules = `
@id("support-reads") permit (principal in Team::"support", action, resource) when { context.ttl <= duration("30m") };
@id("not-in-sandbox") forbid (principal, action in Action::"sensitivity:high", resource) when { principal.stage == "sandbox" };
@id("not-too-many") forbid (principal, action == Action::"tickets:comment", resource) when { context.recentGrants >= 3 };
@id("approved") permit (principal in Team::"finance", action, resource) when { context.approvals >= 2 };
`

describe('A record that was changed', () => {
  const set = setOf(rules)
  const replay = (entry: JsonObject) => replayDecision(createDecider(limits), set, entry)
  const read = requestOf({ task: 't1' })
  const purge = requestOf({ actions: ['tickets:purge'], workload: { name: 'ada', stage: 'sandbox', environment: 'test', team: 'support', tags: ['b', 'a'] } })
  const comment = requestOf({ actions: ['tickets:comment'], recentGrants: 2 })
  const write = requestOf({ tool: 'docs', actions: ['docs:write'], target: 'wiki', workload: { ...purge.workload, team: 'finance' } })

  test.each([read, purge, comment, { ...comment, recentGrants: 3 }, write])('is no record that was not', (asked) => {
    expect(replay(entryOf(set, asked))).toEqual([])
  })

  test.each<[string, AccessRequest, string, JsonValue | undefined, string[]]>([
    ['the verdict', purge, 'decision.verdict', 'allow', ['decision.verdict']],
    ['the type of the entry', purge, 'type', 'grant.issued', ['type']],
    ['a reason', read, 'decision.reasons', ['approved'], ['decision.reasons']],
    ['no reasons', purge, 'decision.reasons', [], ['decision.reasons']],
    ['a count of more reasons', read, 'decision.reasons_more', 1, ['decision.reasons_more']],
    ['the number of approvals', write, 'decision.approvals_needed', 1, ['decision.approvals_needed']],
    ['no number of approvals', write, 'decision.approvals_needed', undefined, ['decision.approvals_needed']],
    ['an error', read, 'decision.errors', ['support-reads: overflow'], ['decision.errors']],
    ['a member that no record has', read, 'decision.note', 'x', ['decision.note']],
    ['another stage', purge, 'decision.input.entities.0.attrs.stage', 'pilot', ['type', 'audience', 'decision.verdict', 'decision.reasons']],
    ['a stage that there is not', purge, 'decision.input.entities.0.attrs.stage', 'admin', ['decision.input.entities.0.attrs.stage']],
    ['another owner', read, 'decision.input.entities.0.attrs.owner', 'finance', ['type', 'audience', 'decision.verdict', 'decision.approvals_needed', 'decision.reasons', 'decision.input.entities.0.parents.0.id', 'decision.input.entities.1.uid.id']],
    ['another team', read, 'decision.input.entities.0.parents.0.id', 'finance', ['decision.input.entities.0.parents.0.id']],
    ['tags in another order', purge, 'decision.input.entities.0.attrs.tags', ['b', 'a'], ['decision.input.entities.0.attrs.tags']],
    ['an action without its groups', purge, 'decision.input.entities.3.parents', [], ['decision.input.entities.3.parents']],
    ['another sensitivity', purge, 'decision.input.entities.3.parents.1.id', 'sensitivity:low', ['decision.input.entities.3.parents.1.id']],
    ['one entity less', read, 'decision.input.entities', [], ['decision.input.entities.0']],
    ['an entity more', read, 'decision.input.entities.7', { uid: { type: 'Team', id: 'x' }, attrs: {}, parents: [] }, ['decision.input.entities']],
    ['another workload', read, 'workload', 'ada', ['workload']],
    ['another action that was asked for', read, 'actions', ['tickets:purge'], ['actions']],
    ['another tool', read, 'tool', 'docs', ['tool']],
    ['another target', write, 'target', 'other', ['target']],
    ['a target that was not decided on', read, 'target', 'other', ['target']],
    ['no task', read, 'task', undefined, ['task']],
    ['a longer time', read, 'ttl_seconds', 3600, ['ttl_seconds']],
    ['another audience', read, 'audience', 'https://evil.example', ['audience']],
    ['a longer time in the context', read, 'decision.input.context.ttl.__extn.arg', '1900s', ['type', 'ttl_seconds', 'audience', 'decision.verdict', 'decision.reasons']],
    ['a time that is none', read, 'decision.input.context.ttl.__extn.arg', '10m', ['decision.input.context.ttl.__extn.arg']],
    ['a now in another form', read, 'decision.input.context.now.__extn.arg', '2026-11-21', ['decision.input.context.now.__extn.arg']],
    ['another function', read, 'decision.input.context.now.__extn.fn', 'ip', ['decision.input.context.now.__extn.fn']],
    ['a count that no rule reads', read, 'decision.input.context.recentGrants', 0, ['decision.input.context.recentGrants']],
    ['no count where a rule reads it', comment, 'decision.input.context.recentGrants', undefined, ['decision.input.context.recentGrants']],
    ['a higher count', comment, 'decision.input.context.recentGrants', 3, ['type', 'audience', 'decision.verdict', 'decision.reasons']],
    ['a fact that rules do not know', read, 'decision.input.context.admin', true, ['decision.input.context.admin']],
    ['another resource', write, 'decision.input.resource.id', 'docs/other', ['target', 'decision.input.entities.3.uid.id', 'decision.input.entities.3.attrs.name']],
    ['a tool that the catalog has not', read, 'decision.input.resource.id', 'mail', ['decision.input']],
    ['an action that the catalog has not', read, 'decision.input.actions.0.id', 'tickets:own', ['decision.input']],
    ['no input', read, 'decision.input', undefined, ['decision.input']],
    ['no decision', read, 'decision', undefined, ['decision']],
  ])('is told: %s', (_, asked, path, value, paths) => {
    const mismatches = replay(replaced(entryOf(set, asked), path, value))
    expect(mismatches.map((mismatch) => mismatch.path)).toEqual(paths)
  })

  test('by another set is told', () => {
    const entry = entryOf(set, read)
    const other = setOf(rules.replace('30m', '5m'))
    expect(replayDecision(createDecider(limits), other, entry)).toEqual([
      { path: 'type', recorded: 'grant.issued', replayed: 'grant.denied' },
      { path: 'audience', recorded: 'https://tickets.example.com', replayed: undefined },
      { path: 'decision.verdict', recorded: 'allow', replayed: 'deny' },
      { path: 'decision.reasons', recorded: ['support-reads'], replayed: [] },
      { path: 'decision.policy_set', recorded: set.hash, replayed: other.hash },
    ])
  })

  test('for longer than the catalog allows is told, though a rule would allow it', () => {
    const entry = entryOf(setOf('@id("all") permit (principal, action, resource);'), requestOf({ ttlSeconds: 7200 }))
    const mismatches = replayDecision(createDecider(limits), setOf('@id("all") permit (principal, action, resource);'), entry)
    expect(mismatches).toEqual([{ path: 'ttl_seconds', recorded: 7200, replayed: 3600 }])
  })
})

describe('A record about an outside tool', () => {
  const databaseYaml = `tool: orders
connector: postgres
sensitivity: low
ttl: { default: 10m, max: 1h }
actions:
  read: { roles: [readers] }
  purge: { roles: [owners], sensitivity: high }
config:
  url: { from: "env:ORDERS_URL" }
  reassign_to: leavings
`
  const set = setOf(rules, [['tools/orders.yaml', databaseYaml]])
  const replay = (entry: JsonObject) => replayDecision(createDecider(limits), set, entry)
  const asked = requestOf({ tool: 'orders', actions: ['orders:read'], proof: 'stint_token' })
  /** What the broker writes about it, before anything is made. */
  const intent = { ...replaced(entryOf(set, asked), 'audience', undefined), type: 'grant.minting', connector: 'postgres', ends: 'immediate' }
  const { connector: _connector, ends: _ends, ...renewed } = { ...intent, type: 'grant.renewed' }
  const denied = entryOf(set, { ...asked, actions: ['orders:purge'], workload: { ...asked.workload, stage: 'sandbox' } })

  test.each([intent, renewed, { ...intent, renews: 'grant_0' }, denied])('comes out the same: %#', (entry) => {
    expect(replay(entry)).toEqual([])
  })

  test.each<[string, JsonObject, string[]]>([
    ['a token for it', { ...intent, type: 'grant.issued' }, ['type']],
    ['through another connector', { ...intent, connector: 'github-app' }, ['connector']],
    ['through none', { ...renewed, type: 'grant.minting' }, ['connector']],
    ['for an audience', { ...intent, audience: 'https://orders.example' }, ['audience']],
    ['renewed through a connector', { ...renewed, connector: 'postgres' }, ['connector']],
    ['that was to be denied', { ...denied, type: 'grant.minting', connector: 'postgres' }, ['type', 'connector']],
    ['that was to be denied again', { ...denied, type: 'grant.renewed' }, ['type']],
    ['that was to be allowed', { ...intent, type: 'grant.denied' }, ['type']],
    ['by another proof', replaced(intent, 'decision.input.context.proof', 'password'), ['decision.input.context.proof']],
  ])('is told: %s', (_, entry, paths) => {
    expect(replay(entry).map(({ path }) => path)).toEqual(paths)
  })

  test('of a tool whose tokens Stint signs is told', () => {
    const entry = entryOf(set, requestOf({ task: 't1' }))
    expect(replay({ ...entry, type: 'grant.minting' }).map(({ path }) => path)).toEqual(['type'])
    expect(replay({ ...entry, type: 'grant.renewed' }).map(({ path }) => path)).toEqual(['type'])
  })
})
