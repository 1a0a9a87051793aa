import fc from 'fast-check'
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
/** Effect, scopes and condition of one rule. */
export const policy = fc.tuple(fc.constantFrom('permit', 'permit', 'forbid'), principalScope, actionScope, resourceScope, condition)

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
/** A request about the tools of the samples. */
export const request = fc
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
export const nearRequests = fc
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

/**
 * The files of these rules, one a line. Random scopes often exclude each other, which the loader refuses: such rules are left
 * out.
 */
export function loadSound(rules: readonly (readonly string[])[]): { readonly files: ReadonlyMap<string, string>; readonly set: PolicySet } {
  const texts = rules.map(([effect, principal, action, resource, when], i) => {
    return `@id("p${i}") ${effect} (${principal}, ${action}, ${resource}) ${when};`
  })
  const tried = loadPolicySet(new Map([...tools, ['r.cedar', texts.join('\n')]]))
  const refused = new Set('problems' in tried ? tried.problems.map(({ line }) => line) : [])
  const files = new Map([...tools, ['r.cedar', texts.filter((_, i) => !refused.has(i + 1)).join('\n')]])
  const loaded = loadPolicySet(files)
  if ('problems' in loaded) throw new Error(loaded.problems.map(formatProblem).join('\n'))
  return { files, set: loaded.set }
}
