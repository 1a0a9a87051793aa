import { describe, expect, test } from 'vitest'
import { isAuthorized } from '@cedar-policy/cedar-wasm/nodejs'
import { canonicalJson } from '../../src/audit/encode.ts'
import { createDecider, type Decision } from '../../src/policy/decide.ts'
import type { AccessRequest } from '../../src/policy/request.ts'
import { requestOf, setOf } from './sample.ts'

function decide(rules: string, changes: Partial<AccessRequest> = {}): Decision {
  return createDecider({ slicesMax: 10, verdictsMax: 10 }).decide(setOf(rules), requestOf(changes))
}

const readsTickets = '@id("reads") permit (principal, action == Action::"tickets:read", resource);'
const refund = { tool: 'payments', actions: ['payments:refund'], target: 'acme', ttlSeconds: 300 } as const

describe('default deny (invariant 4)', () => {
  test('nothing is allowed without a permit', () => {
    expect(decide('')).toMatchObject({ verdict: 'deny', reasons: [], errors: [] })
    expect(decide('@id("x") permit (principal == Workload::"other", action, resource);')).toMatchObject({ verdict: 'deny', reasons: [] })
  })

  test('a permit allows and is the reason', () => {
    const { policySet, cedarVersion, verdict, reasons } = decide(readsTickets)
    expect({ verdict, reasons, cedarVersion }).toEqual({ verdict: 'allow', reasons: ['reads'], cedarVersion: '4.13.0' })
    expect(policySet).toBe(setOf(readsTickets).hash)
  })

  test('any forbid wins', () => {
    expect(decide(`${readsTickets} @id("no") forbid (principal in Team::"support", action, resource);`)).toMatchObject({ verdict: 'deny', reasons: ['no'] })
  })

  test.each([
    ['of the tool', 'Action::"tickets:*"'],
    ['of the sensitivity', 'Action::"sensitivity:low"'],
  ])('a forbid on the group %s matches: the action has all its ancestors', (_, group) => {
    expect(decide(`${readsTickets} @id("no") forbid (principal, action in ${group}, resource);`)).toMatchObject({ verdict: 'deny', reasons: ['no'] })
    // Also where the scope does not say it, so that it is the handed-over entities that make it match.
    expect(decide(`${readsTickets} @id("no") forbid (principal, action, resource) when { action in ${group} };`)).toMatchObject({ verdict: 'deny', reasons: ['no'] })
  })

  test('an action’s own sensitivity decides its group, not its tool’s', () => {
    const rules = '@id("all") permit (principal, action, resource in Tool::"tickets"); @id("no") forbid (principal, action in Action::"sensitivity:high", resource);'
    expect(decide(rules, { actions: ['tickets:read'] }).verdict).toBe('allow')
    expect(decide(rules, { actions: ['tickets:purge'] })).toMatchObject({ verdict: 'deny', reasons: ['no'] })
  })

  test('the target is in its tool, and the tool is not its target', () => {
    const rules = '@id("tool") permit (principal, action == Action::"docs:read", resource in Tool::"docs"); @id("no") forbid (principal, action, resource) when { resource == Target::"docs/secret" };'
    const docs = { tool: 'docs', actions: ['docs:read'] }
    expect(decide(rules, docs).verdict).toBe('allow')
    expect(decide(rules, { ...docs, target: 'wiki' }).verdict).toBe('allow')
    expect(decide(rules, { ...docs, target: 'secret' })).toMatchObject({ verdict: 'deny', reasons: ['no'] })
  })

  test.each([
    ['overflow in a permit', `${readsTickets} @id("bad") permit (principal, action, resource) when { context.approvals + 9223372036854775807 > 0 };`, { approvals: 1 }, 'bad'],
    ['overflow in a forbid', `${readsTickets} @id("bad") forbid (principal, action, resource) when { context.depth * 9223372036854775807 < 0 };`, { depth: 2 }, 'bad'],
    ['an extension that fails', `${readsTickets} @id("bad") forbid (principal, action, resource) when { context.now.offset(duration("9223372036854775807ms")) < context.now };`, {}, 'bad'],
  ])('an error denies, whatever is permitted: %s', (_, rules, changes, id) => {
    const decision = decide(rules, changes)
    expect(decision).toMatchObject({ verdict: 'deny', reasons: [] })
    expect(decision.errors).toHaveLength(1)
    expect(decision.errors[0]).toMatch(new RegExp(`^${id}: .*(overflow|Overflow)`))
  })

  test('no approval and no shorter time heals an error', () => {
    const rules = `@id("a") permit (principal, action, resource) when { context.approvals >= 1 && context.ttl < duration("1m") };
      @id("bad") forbid (principal, action, resource) when { context.approvals == 0 && context.depth + 9223372036854775807 > 0 };`
    const { verdict, approvalsNeeded, allowedTtlSeconds } = decide(rules, { depth: 1 })
    expect({ verdict, approvalsNeeded, allowedTtlSeconds }).toEqual({ verdict: 'deny', approvalsNeeded: undefined, allowedTtlSeconds: undefined })
  })
})

describe('several actions', () => {
  const both = `${readsTickets} @id("comments") permit (principal, action == Action::"tickets:comment", resource);`
  test('all must be allowed', () => {
    expect(decide(both, { actions: ['tickets:read', 'tickets:comment'] })).toMatchObject({ verdict: 'allow', reasons: ['comments', 'reads'] })
    expect(decide(both, { actions: ['tickets:read', 'tickets:purge'] })).toMatchObject({ verdict: 'deny', reasons: [] })
  })

  test('a denial names what denied, not what would have allowed the rest', () => {
    const rules = `${both} @id("no") forbid (principal, action == Action::"tickets:comment", resource);`
    expect(decide(rules, { actions: ['tickets:read', 'tickets:comment'] })).toMatchObject({ verdict: 'deny', reasons: ['no'] })
  })
})

describe('approvals', () => {
  const needs = (condition: string): string => `@id("r") permit (principal, action == Action::"payments:refund", resource) when { ${condition} };`
  test.each<[string, number, string, number | undefined]>([
    ['context.approvals >= 1', 0, 'needs_approval', 1],
    ['context.approvals >= 3', 0, 'needs_approval', 3],
    ['context.approvals >= 3', 2, 'needs_approval', 3],
    ['context.approvals >= 3', 3, 'allow', undefined],
    ['context.approvals >= 4', 0, 'deny', undefined],
    ['context.approvals == 1', 2, 'deny', undefined],
    ['context.approvals >= 1 && principal.stage == "production"', 0, 'deny', undefined],
    ['context.depth >= 1', 0, 'deny', undefined],
  ])('%s with %i: %s', (condition, approvals, verdict, approvalsNeeded) => {
    const decision = decide(needs(condition), { ...refund, approvals })
    expect({ verdict: decision.verdict, approvalsNeeded: decision.approvalsNeeded }).toEqual({ verdict, approvalsNeeded })
    expect(decision.reasons).toEqual(verdict === 'deny' ? [] : ['r'])
  })

  test('all actions together need as many as the most demanding one', () => {
    const rules = `${needs('context.approvals >= 2')} @id("l") permit (principal, action == Action::"payments:read", resource) when { context.approvals >= 1 };`
    expect(decide(rules, { ...refund, actions: ['payments:refund', 'payments:read'] })).toMatchObject({ verdict: 'needs_approval', approvalsNeeded: 2, reasons: ['l', 'r'] })
  })

  test('the input tells the approvals that there were', () => {
    expect(decide(needs('context.approvals >= 1'), refund).input).toMatchObject({ context: { approvals: 0 } })
  })
})

describe('a shorter time', () => {
  const within = (condition: string): string => `@id("r") permit (principal, action == Action::"tickets:read", resource) when { ${condition} };`
  test.each<[string, number, number | undefined]>([
    ['context.ttl <= duration("15m")', 3600, 900],
    ['context.ttl < duration("15m")', 3600, 899],
    ['context.ttl < duration("15m")', 900, 899],
    ['context.ttl <= duration("1h") && context.ttl <= duration("5m")', 3600, 300],
    ['context.ttl <= duration("1m30s500ms")', 3600, 90],
    ['context.ttl < duration("1s")', 3600, undefined],
    ['context.ttl <= duration("15m") && context.depth > 0', 3600, undefined],
    ['context.depth > 0 && duration("15m") > duration("1m")', 3600, undefined],
  ])('%s at %i s: %s', (condition, ttlSeconds, allowedTtlSeconds) => {
    const decision = decide(within(condition), { ttlSeconds })
    expect({ verdict: decision.verdict, hint: decision.allowedTtlSeconds }).toEqual({ verdict: 'deny', hint: allowedTtlSeconds })
  })

  test('is not offered where no time would do as the request stands', () => {
    const decision = decide(`${within('context.ttl <= duration("15m")')} @id("no") forbid (principal, action, resource) when { principal.stage == "pilot" };`, { ttlSeconds: 3600 })
    expect(decision).toMatchObject({ verdict: 'deny', reasons: ['no'] })
    expect(decision.allowedTtlSeconds).toBeUndefined()
  })
})

describe('callers give values, never names (invariant 9)', () => {
  const rules = `@id("task") permit (principal, action == Action::"tickets:read", resource) when { context has task && context.task == "good" };
    @id("space") permit (principal, action == Action::"docs:read", resource) when { resource is Target && resource.name like "*" };`
  test.each([
    '{"__entity":{"type":"Workload","id":"root"}}',
    '{"__extn":{"fn":"duration","arg":"1s"}}',
    '__entity',
    'good"; permit (principal, action, resource);//',
    'good" || true || "',
    'Workload::"root"',
    '__proto__',
    'good\u0000',
    '𝔤𝔬𝔬𝔡',
  ])('the task %j stays a string', (task) => {
    const decision = decide(rules, { task })
    expect(decision).toMatchObject({ verdict: 'deny', reasons: [], errors: [] })
    expect(decision.input).toMatchObject({ context: { task } })
    expect(decide(rules.replace('"good"', JSON.stringify(task).replace('\\u0000', '\\0')), { task }).verdict).toBe('allow')
  })

  test.each(['docs/x"; //', '__entity', '{"__entity":1}', 'constructor', 'x/../y'])('the target %j is its entity’s name and nothing else', (target) => {
    const set = setOf(rules, [['tools/docs.yaml', `tool: docs\nconnector: jwt\naudience: https://d.example\nsensitivity: low\nttl: { default: 1m, max: 1m }\ntarget: { name: x, required: false, pattern: ".*" }\nactions: { read: {} }\n`]])
    const decision = createDecider({ slicesMax: 1, verdictsMax: 1 }).decide(set, requestOf({ tool: 'docs', actions: ['docs:read'], target }))
    expect(decision).toMatchObject({ verdict: 'allow', errors: [] })
    expect(decision.input).toMatchObject({ resource: { type: 'Target', id: `docs/${target}` } })
    const names = new Set<string>()
    collectKeys(decision.input, names)
    expect([...names].filter((name) => name.includes(target))).toEqual([])
  })

  test.each<[string, Partial<AccessRequest>, string]>([
    ['unknown tool', { tool: 'nothing' }, 'invalid_target'],
    ['no action', { actions: [] }, 'invalid_scope'],
    ['an action twice', { actions: ['tickets:read', 'tickets:read'] }, 'invalid_scope'],
    ['an action of another tool', { actions: ['docs:read'] }, 'invalid_scope'],
    ['a group as an action', { actions: ['tickets:*'] }, 'invalid_scope'],
    ['a target where there are none', { target: 'x' }, 'invalid_target'],
    ['a target that does not match', { tool: 'docs', actions: ['docs:read'], target: 'X' }, 'invalid_target'],
    ['no target where one is needed', { tool: 'payments', actions: ['payments:refund'] }, 'invalid_target'],
    ['half a character in the task', { task: '\ud800' }, 'invalid_request'],
  ])('refused before anything is decided: %s', (_, changes, code) => {
    expect(() => decide(rules, changes)).toThrow(expect.objectContaining({ code }))
  })

  test.each<Partial<AccessRequest>>([{ ttlSeconds: 0 }, { ttlSeconds: 1.5 }, { ttlSeconds: Number.NaN }, { approvals: -1 }, { depth: 0.5 }])('a number that only a bug can make throws: %j', (changes) => {
    expect(() => decide(rules, changes)).toThrow('whole number')
  })
})

describe('what the policy saw', () => {
  test('is enough to evaluate again by Cedar alone (invariant 5)', () => {
    const rules = `@id("r") permit (principal in Team::"support", action in Action::"docs:*", resource in Tool::"docs") when { context.ttl <= duration("10m") && context.task == "t" };`.replace('context.task', 'context has task && context.task')
    const set = setOf(rules)
    const decision = createDecider({ slicesMax: 1, verdictsMax: 1 }).decide(set, requestOf({ tool: 'docs', actions: ['docs:read', 'docs:write'], target: 'wiki', task: 't' }))
    expect(decision.verdict).toBe('allow')
    const input = JSON.parse(canonicalJson(decision.input))
    for (const action of input.actions) {
      const { principal, resource, context, entities } = input
      const answer = isAuthorized({ principal, action, resource, context, entities, policies: { staticPolicies: rules } })
      expect(answer).toMatchObject({ type: 'success', response: { decision: 'allow' } })
    }
    expect(input).toMatchInlineSnapshot(`
      {
        "actions": [
          {
            "id": "docs:read",
            "type": "Action",
          },
          {
            "id": "docs:write",
            "type": "Action",
          },
        ],
        "context": {
          "approvals": 0,
          "boundKey": false,
          "depth": 0,
          "now": {
            "__extn": {
              "arg": "2026-11-21T12:00:00.000Z",
              "fn": "datetime",
            },
          },
          "proof": "private_key_jwt",
          "task": "t",
          "ttl": {
            "__extn": {
              "arg": "600s",
              "fn": "duration",
            },
          },
        },
        "entities": [
          {
            "attrs": {
              "environment": "prod",
              "owner": "support",
              "stage": "pilot",
              "tags": [
                "bot",
              ],
            },
            "parents": [
              {
                "id": "support",
                "type": "Team",
              },
            ],
            "uid": {
              "id": "triage-bot",
              "type": "Workload",
            },
          },
          {
            "attrs": {},
            "parents": [],
            "uid": {
              "id": "support",
              "type": "Team",
            },
          },
          {
            "attrs": {
              "sensitivity": "low",
            },
            "parents": [],
            "uid": {
              "id": "docs",
              "type": "Tool",
            },
          },
          {
            "attrs": {
              "name": "wiki",
            },
            "parents": [
              {
                "id": "docs",
                "type": "Tool",
              },
            ],
            "uid": {
              "id": "docs/wiki",
              "type": "Target",
            },
          },
          {
            "attrs": {},
            "parents": [
              {
                "id": "docs:*",
                "type": "Action",
              },
              {
                "id": "sensitivity:low",
                "type": "Action",
              },
            ],
            "uid": {
              "id": "docs:read",
              "type": "Action",
            },
          },
          {
            "attrs": {},
            "parents": [
              {
                "id": "docs:*",
                "type": "Action",
              },
              {
                "id": "sensitivity:low",
                "type": "Action",
              },
            ],
            "uid": {
              "id": "docs:write",
              "type": "Action",
            },
          },
          {
            "attrs": {},
            "parents": [],
            "uid": {
              "id": "docs:*",
              "type": "Action",
            },
          },
          {
            "attrs": {},
            "parents": [],
            "uid": {
              "id": "sensitivity:low",
              "type": "Action",
            },
          },
        ],
        "principal": {
          "id": "triage-bot",
          "type": "Workload",
        },
        "resource": {
          "id": "docs/wiki",
          "type": "Target",
        },
      }
    `)
  })

  test('is this request’s own, also where the verdict is remembered', () => {
    const decider = createDecider({ slicesMax: 1, verdictsMax: 1 })
    const set = setOf(readsTickets)
    const first = decider.decide(set, requestOf({ task: 'a', nowMs: 0 }))
    const second = decider.decide(set, requestOf({ task: 'b', nowMs: 1000, ttlSeconds: 60 }))
    expect(second).toMatchObject({ verdict: first.verdict, reasons: first.reasons })
    expect(second.input).toMatchObject({
      context: { task: 'b', ttl: { __extn: { fn: 'duration', arg: '60s' } }, now: { __extn: { fn: 'datetime', arg: '1970-01-01T00:00:01.000Z' } } },
    })
  })
})

describe('facts that change by themselves', () => {
  const pause = '@id("pause") forbid (principal == Workload::"triage-bot", action, resource) when { context.recentDenials >= 3 };'
  test('are asked for only where a rule for the request reads them', () => {
    const decider = createDecider({ slicesMax: 2, verdictsMax: 2 })
    const set = setOf(`${readsTickets} ${pause}`)
    expect([...decider.factsRead(set, requestOf())]).toEqual(['recentDenials'])
    expect([...decider.factsRead(set, requestOf({ workload: { ...requestOf().workload, name: 'other' } }))]).toEqual([])
  })

  test('are needed then, and never guessed', () => {
    expect(() => decide(`${readsTickets} ${pause}`)).toThrow('recentDenials')
    expect(() => decide(`${readsTickets} ${pause}`, { recentGrants: 0 })).toThrow('recentDenials')
  })

  test('are evaluated each time', () => {
    const decider = createDecider({ slicesMax: 2, verdictsMax: 10 })
    const set = setOf(`${readsTickets} ${pause}`)
    expect([0, 3, 2, 5].map((recentDenials) => decider.decide(set, requestOf({ recentDenials })).verdict)).toEqual(['allow', 'deny', 'allow', 'deny'])
  })

  test('are left out of the input where nothing reads them', () => {
    expect(decide(readsTickets, { recentDenials: 7, recentGrants: 7 }).input).not.toHaveProperty('context.recentDenials')
    expect(decide(`${readsTickets} ${pause}`, { recentDenials: 1, recentGrants: 7 }).input).toMatchObject({ context: { recentDenials: 1 } })
  })

  test('a rule on the time is evaluated each time', () => {
    const decider = createDecider({ slicesMax: 2, verdictsMax: 10 })
    const set = setOf('@id("night") permit (principal, action == Action::"tickets:read", resource) when { context.now < datetime("1970-01-02") };')
    expect([0, 86_400_000, 86_399_999].map((nowMs) => decider.decide(set, requestOf({ nowMs })).verdict)).toEqual(['allow', 'deny', 'allow'])
  })
})

test('two sets and two deciders do not mix up their slices', () => {
  // A rule on the time is evaluated each time, in the slot where the decider believes its slice to be.
  const read = readsTickets.replace(';', ' when { context.now > datetime("2000-01-01") };')
  const [allow, deny] = [setOf(read), setOf(read.replace('permit', 'forbid'))]
  const [one, other] = [createDecider({ slicesMax: 1, verdictsMax: 5 }), createDecider({ slicesMax: 1, verdictsMax: 5 })]
  const verdicts = [one.decide(allow, requestOf()), other.decide(deny, requestOf()), one.decide(allow, requestOf()), one.decide(deny, requestOf()), other.decide(allow, requestOf())]
  expect(verdicts.map(({ verdict }) => verdict)).toEqual(['allow', 'deny', 'allow', 'deny', 'allow'])
})

describe('a verdict is remembered for requests that no rule can tell apart, and for no others', () => {
  const docs = { tool: 'docs', actions: ['docs:read'] } as const
  const { workload } = requestOf()
  test.each<[string, string, Partial<AccessRequest>, Partial<AccessRequest>]>([
    ['workload', 'principal == Workload::"triage-bot"', {}, { workload: { ...workload, name: 'other' } }],
    ['team', 'principal in Team::"support"', {}, { workload: { ...workload, team: 'finance' } }],
    ['owner', 'principal.owner == "support"', {}, { workload: { ...workload, team: 'finance' } }],
    ['stage', 'principal.stage == "pilot"', {}, { workload: { ...workload, stage: 'sandbox' } }],
    ['environment', 'principal.environment == "prod"', {}, { workload: { ...workload, environment: 'test' } }],
    ['tags', 'principal.tags.contains("bot")', {}, { workload: { ...workload, tags: ['b', 'ot'] } }],
    ['attribute behind an if', '(if context.boundKey then Workload::"x" else principal) == Workload::"triage-bot"', {}, { workload: { ...workload, name: 'other' } }],
    ['record', '{p: principal}.p.stage == "pilot"', {}, { workload: { ...workload, stage: 'sandbox' } }],
    ['action', 'action == Action::"tickets:read"', {}, { actions: ['tickets:comment'] }],
    ['action group', 'action in Action::"sensitivity:low"', {}, { actions: ['tickets:comment'] }],
    ['target', 'resource == Target::"docs/wiki"', { ...docs, target: 'wiki' }, { ...docs, target: 'other' }],
    ['target name', 'resource is Target && resource.name like "w*"', { ...docs, target: 'wiki' }, { ...docs, target: 'other' }],
    ['no target', 'resource is Tool', docs, { ...docs, target: 'wiki' }],
    ['no target, by attribute', 'resource has sensitivity', docs, { ...docs, target: 'wiki' }],
    ['ttl', 'context.ttl <= duration("10m")', {}, { ttlSeconds: 601 }],
    ['approvals', 'context.approvals > 4', { approvals: 5 }, { approvals: 4 }],
    ['task', 'context has task && context.task == "t"', { task: 't' }, { task: 'u' }],
    ['presence of a task', 'context has task', { task: '-' }, {}],
    ['on behalf of', 'context has onBehalfOf && context.onBehalfOf == "a"', { onBehalfOf: 'a' }, { onBehalfOf: 'b' }],
    ['depth', 'context.depth == 0', {}, { depth: 1 }],
    ['bound key', '!context.boundKey', {}, { boundKey: true }],
    ['time', 'context.now <= datetime("2026-11-21T12:00:00Z")', {}, { nowMs: requestOf().nowMs + 1 }],
  ])('%s', (_, condition, allowed, denied) => {
    const decider = createDecider({ slicesMax: 3, verdictsMax: 10 })
    const set = setOf(`@id("x") permit (principal, action in [Action::"tickets:read", Action::"tickets:comment", Action::"docs:read"], resource) when { ${condition} };`)
    const verdicts = [allowed, denied, allowed, denied].map((changes) => {
      // What is not understood counts as reading everything, and so asks for these.
      return decider.decide(set, requestOf({ recentGrants: 0, recentDenials: 0, ...changes })).verdict
    })
    expect(verdicts).toEqual(['allow', 'deny', 'allow', 'deny'])
  })

  test('text that runs into its neighbour is not taken for it', () => {
    const decider = createDecider({ slicesMax: 2, verdictsMax: 20 })
    const set = setOf('@id("x") permit (principal, action == Action::"tickets:read", resource) when { context has task && context.task == "a" && context has onBehalfOf && context.onBehalfOf == "x;task;y" };')
    const verdicts = [['a', 'x;task;y'], ['a;task;x', 'y'], ['a', 'x;task;y']].map(([task = '', onBehalfOf = '']) => {
      return decider.decide(set, requestOf({ task, onBehalfOf })).verdict
    })
    expect(verdicts).toEqual(['allow', 'deny', 'allow'])
  })
})

function collectKeys(value: unknown, into: Set<string>): void {
  if (typeof value !== 'object' || value === null) return
  for (const [key, inner] of Object.entries(value)) {
    into.add(key)
    collectKeys(inner, into)
  }
}
