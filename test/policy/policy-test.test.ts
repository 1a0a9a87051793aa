import { describe, expect, test } from 'vitest'
import { createDecider } from '../../src/policy/decide.ts'
import { loadPolicySet } from '../../src/policy/policy-set.ts'
import { runPolicyTests } from '../../src/policy/policy-test.ts'
import { formatProblem } from '../../src/policy/problem.ts'
import { readPolicyFolder } from '../../src/storage/policy-folder.ts'
import { setOf } from './sample.ts'

const rules = `
@id("reads") permit (principal in Team::"support", action == Action::"tickets:read", resource) when { context.ttl <= duration("15m") };
@id("refunds") permit (principal, action == Action::"payments:refund", resource) when { context.approvals >= 2 };
@id("night") forbid (principal, action, resource) when { context.now >= datetime("2026-06-01") };
@id("pause") forbid (principal, action, resource) when { context.recentDenials > 3 };
@id("task") permit (principal, action == Action::"tickets:comment", resource) when { context has task };`

function run(tests: string, workloads = 'ada: { team: support, stage: pilot }') {
  const text = `workloads:\n  ${workloads}\ntests:\n${tests}`
  return runPolicyTests(setOf(rules), createDecider({ slicesMax: 10, verdictsMax: 10 }), new Map([['tests/x.yaml', text]]))
}

describe('one test', () => {
  test.each<[string, string, boolean, string | undefined]>([
    ['allow', 'actions: [tickets:read], expect: allow', true, undefined],
    ['allow by', 'actions: [tickets:read], expect: allow, by: [reads]', true, undefined],
    ['allow by another', 'actions: [tickets:read], expect: allow, by: [task]', false, 'decided by reads, not by task'],
    ['default deny by none', 'actions: [tickets:purge], expect: deny, by: []', true, undefined],
    ['deny expected', 'actions: [tickets:read], expect: deny', false, 'decided by reads (at 2026-01-15T12:00:00.000Z)'],
    ['ttl', 'actions: [tickets:read], ttl: 1h, expect: deny', true, undefined],
    ['ttl hint', 'actions: [tickets:read], ttl: 1h, expect: allow', false, 'no permit matches; 900 seconds would be allowed (at 2026-01-15T12:00:00.000Z)'],
    ['ttl over the tool’s', 'actions: [tickets:read], ttl: 2h, expect: deny', false, 'the tool tickets gives at most 3600 seconds'],
    ['needs approval', 'actions: [payments:refund], target: acme, expect: needs-approval', true, undefined],
    ['needs two', 'actions: [payments:refund], target: acme, expect: needs-approval, approvals_needed: 2', true, undefined],
    ['needs one', 'actions: [payments:refund], target: acme, expect: needs-approval, approvals_needed: 1', false, 'decided by refunds (at 2026-01-15T12:00:00.000Z)'],
    ['has two', 'actions: [payments:refund], target: acme, approvals: 2, expect: allow', true, undefined],
    ['target refused', 'actions: [payments:refund], target: "A/B", expect: deny', false, 'The tool payments takes a target (account) that matches [a-z0-9-]+.'],
    ['at', 'actions: [tickets:read], at: 2026-06-01T00:00:00Z, expect: deny, by: [night]', true, undefined],
    ['recent denials', 'actions: [tickets:read], recent_denials: 4, expect: deny, by: [pause]', true, undefined],
    ['task', 'actions: [tickets:comment], task: t-1, expect: allow', true, undefined],
  ])('%s', (_, fields, passed, message) => {
    const ran = run(`  - { name: x, workload: ada, ${fields} }\n`)
    if ('problems' in ran) throw new Error(ran.problems.map(formatProblem).join('\n'))
    expect(ran.results.map((result) => ({ passed: result.passed, message: result.message }))).toEqual([{ passed, message }])
    expect(ran.results[0]).toMatchObject({ file: 'tests/x.yaml', line: 4, name: 'x' })
  })
})

describe('a file of tests is strict', () => {
  test.each<[string, string, string]>([
    ['unknown field', '{ name: x, workload: ada, actions: [tickets:read], expect: allow, expct: deny }', '4:71 unknown field "expct": known here are name, workload, actions, target, ttl, task, approvals, at, recent_grants, recent_denials, expect, approvals_needed, by (did you mean expect?)'],
    ['unknown verdict', '{ name: x, workload: ada, actions: [tickets:read], expect: allowed }', '4:64 tests.0.expect must be one of allow, deny, needs-approval'],
    ['unknown workload', '{ name: x, workload: adda, actions: [tickets:read], expect: allow }', '4:26 "adda" is not among the workloads of this file (did you mean ada?)'],
    ['unknown action', '{ name: x, workload: ada, actions: [tickets:raed], expect: deny }', '4:41 no action is named "tickets:raed" (did you mean tickets:read?)'],
    ['two tools', '{ name: x, workload: ada, actions: [tickets:read, docs:read], expect: deny }', '4:40 one request is about one tool'],
    ['unknown policy', '{ name: x, workload: ada, actions: [tickets:read], expect: allow, by: [red] }', '4:76 no policy has the @id "red"'],
    ['approvals without need', '{ name: x, workload: ada, actions: [tickets:read], expect: allow, approvals_needed: 1 }', '4:89 goes with expect: needs-approval only'],
    ['time', '{ name: x, workload: ada, actions: [tickets:read], expect: allow, at: yesterday }', '4:75 tests.0.at: must be an RFC 3339 time such as 2026-11-21T12:00:00Z'],
  ])('%s', (_, line, expected) => {
    const ran = run(`  - ${line}\n`)
    expect('problems' in ran ? ran.problems.map(formatProblem) : []).toEqual([`tests/x.yaml:${expected}`])
  })
})

test('the sample set: sound, all its tests pass, and they cover every verdict', async () => {
  const files = await readPolicyFolder('policies')
  const loaded = loadPolicySet(files)
  if ('problems' in loaded) throw new Error(loaded.problems.map(formatProblem).join('\n'))
  const ran = runPolicyTests(loaded.set, createDecider({ slicesMax: 100, verdictsMax: 100 }), files)
  if ('problems' in ran) throw new Error(ran.problems.map(formatProblem).join('\n'))
  expect(ran.results.filter((result) => !result.passed)).toEqual([])
  expect([...new Set(ran.results.map((result) => result.actual.split(' ')[0]))].sort()).toEqual(['allow', 'deny', 'needs-approval'])
  // Every rule decides at least one test.
  const decided = new Set(ran.results.flatMap((result) => result.reasons))
  expect(loaded.set.policies.map(({ id }) => id).filter((id) => !decided.has(id))).toEqual([])
})
