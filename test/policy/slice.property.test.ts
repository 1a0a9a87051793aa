import fc from 'fast-check'
import { isAuthorized } from '@cedar-policy/cedar-wasm/nodejs'
import { expect, test } from 'vitest'
import { createDecider, type Decision } from '../../src/policy/decide.ts'
import type { AccessRequest } from '../../src/policy/request.ts'
import { loadPolicySet, type PolicySet } from '../../src/policy/policy-set.ts'
import { formatProblem } from '../../src/policy/problem.ts'
import { tools } from './sample.ts'

// Every form of each constraint, over small worlds, so that scopes meet often.
const principalScope = fc.constantFrom(
  'principal',
  'principal == Workload::"ada"',
  'principal == Workload::"bob"',
  'principal in Workload::"ada"',
  'principal in Team::"support"',
  'principal in Team::"finance"',
  'principal is Workload',
  'principal is Workload in Team::"finance"',
  'principal is Workload in Workload::"bob"',
)
const actionScope = fc.constantFrom(
  'action',
  'action == Action::"tickets:read"',
  'action == Action::"docs:write"',
  'action in Action::"payments:refund"',
  'action in [Action::"tickets:read", Action::"docs:read", Action::"payments:read"]',
  'action in [Action::"docs:*", Action::"sensitivity:medium"]',
  'action in Action::"tickets:*"',
  'action in Action::"docs:*"',
  'action in Action::"payments:*"',
  'action in Action::"sensitivity:high"',
  'action in Action::"sensitivity:low"',
)
const resourceScope = fc.constantFrom(
  'resource',
  'resource == Tool::"tickets"',
  'resource == Tool::"docs"',
  'resource == Target::"docs/wiki"',
  'resource == Target::"payments/acme"',
  'resource in Target::"docs/wiki"',
  'resource in Tool::"docs"',
  'resource in Tool::"payments"',
  'resource in Tool::"tickets"',
  'resource is Target',
  'resource is Tool',
  'resource is Target in Tool::"docs"',
  'resource is Target in Target::"docs/wiki"',
  'resource is Tool in Tool::"docs"',
)
const condition = fc.constantFrom(
  '',
  '',
  '',
  'when { context.ttl <= duration("15m") }',
  'when { context.ttl < duration("1h") }',
  'unless { context.ttl > duration("5m") }',
  'when { context.approvals >= 1 }',
  'when { context.approvals == 2 }',
  'unless { context.approvals >= 2 }',
  'when { principal.stage == "production" }',
  'when { ["pilot", "sandbox"].contains(principal.stage) }',
  'when { principal.tags.contains("bot") }',
  'when { principal.tags == ["bot", "eu"] }',
  'when { context.now < datetime("2026-01-01") }',
  'when { context has task && context.task == "t1" }',
  'unless { context has task }',
  'when { context has onBehalfOf && context.onBehalfOf like "a*" }',
  'when { context.depth < 1 }',
  'when { context.boundKey }',
  'when { context.recentDenials < 2 }',
  'when { context.recentGrants > 1 && context.ttl < duration("1h") }',
  'when { context.approvals + 9223372036854775807 > 0 }',
  'when { principal in Team::"support" }',
  'when { principal == Workload::"ada" || action == Action::"docs:read" }',
  'when { action in Action::"sensitivity:low" }',
  'when { resource in Tool::"docs" && resource == Target::"docs/wiki" }',
  'when { resource is Tool && resource.sensitivity == "low" }',
  'when { resource is Target && resource.name like "w*" }',
  'when { (if context.boundKey then principal else Workload::"ada") == principal }',
  'when { {a: context.ttl}.a <= duration("10m") }',
  'when { context.now.offset(context.ttl) < datetime("2026-06-01") }',
  'when { [context.ttl, duration("15m")].contains(duration("15m")) && principal has stage }',
)
const policy = fc.tuple(fc.constantFrom('permit', 'permit', 'forbid'), principalScope, actionScope, resourceScope, condition)

const requestShape = fc.constantFrom<Pick<AccessRequest, 'tool' | 'actions' | 'target'>>(
  { tool: 'tickets', actions: ['tickets:read'] },
  { tool: 'tickets', actions: ['tickets:purge'] },
  { tool: 'tickets', actions: ['tickets:read', 'tickets:comment'] },
  { tool: 'docs', actions: ['docs:read'] },
  { tool: 'docs', actions: ['docs:write'], target: 'wiki' },
  { tool: 'docs', actions: ['docs:read', 'docs:write'], target: 'wiki' },
  { tool: 'docs', actions: ['docs:read'], target: 'other' },
  { tool: 'payments', actions: ['payments:refund'], target: 'acme' },
  { tool: 'payments', actions: ['payments:refund', 'payments:read'], target: 'beta' },
)
const request = fc
  .record({
    shape: requestShape,
    workload: fc.record({
      name: fc.constantFrom('ada', 'bob', 'cyd'),
      stage: fc.constantFrom('sandbox' as const, 'pilot' as const, 'production' as const),
      environment: fc.constantFrom('prod', 'test'),
      team: fc.constantFrom('support', 'finance', 'legal'),
      tags: fc.constantFrom<readonly string[]>([], ['bot'], ['eu', 'bot'], ['boteu']),
    }),
    ttlSeconds: fc.constantFrom(60, 300, 600, 900, 3600),
    task: fc.constantFrom(undefined, 't1', 't2'),
    onBehalfOf: fc.constantFrom(undefined, 'ada', 'bob'),
    boundKey: fc.boolean(),
    depth: fc.constantFrom(0, 1),
    approvals: fc.constantFrom(0, 0, 1, 2),
    nowMs: fc.constantFrom(Date.UTC(2025, 11, 31, 23, 59), Date.UTC(2026, 4, 31, 23, 55), Date.UTC(2026, 10, 21)),
    recentGrants: fc.constantFrom(0, 5),
    recentDenials: fc.constantFrom(0, 5),
  })
  .map(({ shape, task, onBehalfOf, ...rest }): AccessRequest => ({
    ...rest,
    ...shape,
    proof: 'private_key_jwt',
    ...(task === undefined ? {} : { task }),
    ...(onBehalfOf === undefined ? {} : { onBehalfOf }),
  }))

/** A request and others that differ from it in one thing: what a remembered verdict could mistake for it. */
const nearRequests = fc
  .tuple(request, fc.array(fc.tuple(fc.nat(12), request), { minLength: 4, maxLength: 8 }))
  .map(([first, others]) => [first, ...others.map(([field, other]) => takeOne(first, other, field))])

function takeOne(first: AccessRequest, other: AccessRequest, field: number): AccessRequest {
  const { tool, actions, target, task, onBehalfOf, ...rest } = first
  const optional = { ...(task === undefined ? {} : { task }), ...(onBehalfOf === undefined ? {} : { onBehalfOf }) }
  const shape = { tool, actions, ...(target === undefined ? {} : { target }) }
  const whole = { ...rest, ...shape, ...optional }
  const { workload } = other
  switch (field) {
    case 0:
      return { ...whole, workload: { ...rest.workload, name: workload.name } }
    case 1:
      return { ...whole, workload: { ...rest.workload, team: workload.team } }
    case 2:
      return { ...whole, workload: { ...rest.workload, stage: workload.stage } }
    case 3:
      return { ...whole, workload: { ...rest.workload, tags: workload.tags } }
    case 4:
      return { ...whole, ttlSeconds: other.ttlSeconds }
    case 5:
      return { ...rest, ...shape, ...(other.task === undefined ? {} : { task: other.task }) }
    case 6:
      return { ...whole, boundKey: !rest.boundKey }
    case 7:
      return { ...whole, depth: 1 - rest.depth }
    case 8:
      return { ...whole, approvals: other.approvals }
    case 9:
      return { ...whole, nowMs: other.nowMs, recentGrants: other.recentGrants ?? 0, recentDenials: other.recentDenials ?? 0 }
    case 10:
      return { ...rest, ...optional, tool, actions, ...(tool === other.tool && other.target !== undefined ? { target: other.target } : shape) }
    case 11:
      return tool === other.tool ? { ...whole, actions: other.actions } : whole
    default:
      return other
  }
}

/** What Cedar itself says, given the whole set and every fact: the entities are written here a second time on purpose. */
function decideWithWholeSet(set: PolicySet, asked: AccessRequest): Pick<Decision, 'verdict' | 'reasons' | 'errors'> {
  const tool = set.catalog.get(asked.tool)
  const { workload } = asked
  const resource = asked.target === undefined ? { type: 'Tool', id: asked.tool } : { type: 'Target', id: `${asked.tool}/${asked.target}` }
  const groups = [`${asked.tool}:*`, 'sensitivity:low', 'sensitivity:medium', 'sensitivity:high']
  const ask = (approvals: number) => {
    const answers = asked.actions.map((id) => {
      const answer = isAuthorized({
        principal: { type: 'Workload', id: workload.name },
        action: { type: 'Action', id },
        resource,
        context: {
          ttl: { __extn: { fn: 'duration', arg: `${asked.ttlSeconds}s` } },
          approvals,
          now: { __extn: { fn: 'datetime', arg: new Date(asked.nowMs).toISOString() } },
          ...(asked.task === undefined ? {} : { task: asked.task }),
          ...(asked.onBehalfOf === undefined ? {} : { onBehalfOf: asked.onBehalfOf }),
          depth: asked.depth,
          proof: asked.proof,
          boundKey: asked.boundKey,
          recentGrants: asked.recentGrants ?? 0,
          recentDenials: asked.recentDenials ?? 0,
        },
        policies: { staticPolicies: Object.fromEntries(set.policies.map((one) => [one.id, one.text])) },
        entities: [
          {
            uid: { type: 'Workload', id: workload.name },
            attrs: { stage: workload.stage, environment: workload.environment, owner: workload.team, tags: [...workload.tags] },
            parents: [{ type: 'Team', id: workload.team }],
          },
          { uid: { type: 'Team', id: workload.team }, attrs: {}, parents: [] },
          { uid: { type: 'Tool', id: asked.tool }, attrs: { sensitivity: tool?.sensitivity ?? '' }, parents: [] },
          ...(asked.target === undefined ? [] : [{ uid: resource, attrs: { name: asked.target }, parents: [{ type: 'Tool', id: asked.tool }] }]),
          ...groups.map((group) => ({ uid: { type: 'Action', id: group }, attrs: {}, parents: [] })),
          {
            uid: { type: 'Action', id },
            attrs: {},
            parents: [`${asked.tool}:*`, `sensitivity:${tool?.actions.get(id)?.sensitivity ?? ''}`].map((group) => ({ type: 'Action', id: group })),
          },
        ],
      })
      if (answer.type === 'failure') throw new Error(answer.errors[0]?.message)
      return answer.response
    })
    const errors = [...new Set(answers.flatMap((answer) => answer.diagnostics.errors.map((error) => error.policyId)))].sort()
    const allowed = errors.length === 0 && answers.every((answer) => answer.decision === 'allow')
    const deciding = answers.filter((answer) => (answer.decision === 'allow' && answer.diagnostics.errors.length === 0) === allowed)
    // An allow that an error turned into a denial was not decided by its permits.
    const reasons = deciding.flatMap((answer) => (answer.decision === 'allow' && !allowed ? [] : answer.diagnostics.reason))
    return { allowed, errors, reasons: [...new Set(reasons)].sort() }
  }
  const first = ask(asked.approvals)
  if (first.allowed || first.errors.length > 0) return { verdict: first.allowed ? 'allow' : 'deny', reasons: first.reasons, errors: first.errors }
  for (let n = asked.approvals + 1; n <= (tool?.approvalsMax ?? 0); n++) {
    const tried = ask(n)
    if (tried.allowed) return { verdict: 'needs_approval', reasons: tried.reasons, errors: [] }
  }
  return { verdict: 'deny', reasons: first.reasons, errors: [] }
}

const plainRequest: AccessRequest = {
  workload: { name: 'ada', stage: 'pilot', environment: 'test', team: 'support', tags: [] },
  tool: 'tickets',
  actions: ['tickets:read'],
  ttlSeconds: 60,
  proof: 'private_key_jwt',
  boundKey: false,
  depth: 0,
  approvals: 0,
  nowMs: 0,
  recentGrants: 0,
  recentDenials: 0,
}

test('slices and remembered verdicts always say what Cedar says of the whole set', () => {
  let compared = 0
  const seen = new Set<string>()
  fc.assert(
    fc.property(fc.array(policy, { minLength: 1, maxLength: 14 }), nearRequests, (rules, requests) => {
      // Random scopes often exclude each other, which the loader refuses: such rules, one a line, are left out.
      const texts = rules.map(([effect, principal, action, resource, when], i) => {
        return `@id("p${i}") ${effect} (${principal}, ${action}, ${resource}) ${when};`
      })
      const tried = loadPolicySet(new Map([...tools, ['r.cedar', texts.join('\n')]]))
      const refused = new Set('problems' in tried ? tried.problems.map(({ line }) => line) : [])
      const sound = texts.filter((_, i) => !refused.has(i + 1))
      const loaded = loadPolicySet(new Map([...tools, ['r.cedar', sound.join('\n')]]))
      if ('problems' in loaded) throw new Error(loaded.problems.map(formatProblem).join('\n'))
      const { set } = loaded
      // Two slots, so that slices push each other out all the time.
      const decider = createDecider({ slicesMax: 2, verdictsMax: 50 })
      for (const asked of [...requests, ...requests.toReversed()]) {
        const expected = decideWithWholeSet(set, asked)
        const decision = decider.decide(set, asked)
        const errors = [...new Set(decision.errors.map((error) => error.split(':', 1)[0]))]
        expect({ verdict: decision.verdict, reasons: decision.reasons, errors }).toEqual(expected)
        compared += 1
        seen.add(decision.errors.length > 0 ? 'error' : decision.verdict)
      }
    }),
    {
      numRuns: 100,
      // Chance alone would now and then leave out a verdict that must have been seen below.
      examples: [
        [[['permit', 'principal', 'action', 'resource', 'when { context.approvals >= 1 }']], [plainRequest]],
        [[['permit', 'principal', 'action', 'resource', 'when { context.approvals + 9223372036854775807 > 0 }']], [{ ...plainRequest, approvals: 1 }]],
      ],
    },
  )
  expect(compared).toBeGreaterThan(1000)
  expect([...seen].sort()).toEqual(['allow', 'deny', 'error', 'needs_approval'])
}, 60_000)
