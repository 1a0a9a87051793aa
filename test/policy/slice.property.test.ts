import fc from 'fast-check'
import { isAuthorized } from '@cedar-policy/cedar-wasm/nodejs'
import { expect, test } from 'vitest'
import { createDecider, type Decision } from '../../src/policy/decide.ts'
import type { AccessRequest } from '../../src/policy/request.ts'
import type { PolicySet } from '../../src/policy/policy-set.ts'
import { loadSound, nearRequests, policy } from './random.ts'

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
      const { set } = loadSound(rules)
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
