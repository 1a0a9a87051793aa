import { z } from 'zod'
import type { Stage } from '../identity/workload.ts'
import { formatTime, parseTime } from '../kernel/clock.ts'
import { parseDuration } from '../kernel/duration.ts'
import { BrokerError } from '../kernel/errors.ts'
import { nearestName } from '../kernel/nearest.ts'
import type { Decider, Decision } from './decide.ts'
import type { AccessRequest } from './request.ts'
import { kindOfFile, type PolicyFiles, type PolicySet } from './policy-set.ts'
import { compareText, orderProblems, quote, type PolicyProblem } from './problem.ts'
import { parseYamlFile } from './yaml-file.ts'

/** What came of one test. */
export interface PolicyTestResult {
  readonly file: string
  readonly line: number
  readonly name: string
  /** `allow`, `deny`, or `needs-approval` with the number where the test names one. */
  readonly expected: string
  readonly actual: string
  readonly passed: boolean
  /** Ids of the deciding policies. */
  readonly reasons: readonly string[]
  /** Why it did not pass, or what went wrong. */
  readonly message?: string
}

const stages = ['sandbox', 'pilot', 'production'] as const satisfies readonly Stage[]
const label = z.string().regex(/^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/, 'must be lower-case letters, digits and hyphens')

const duration = z.string().transform((text, context) => {
  const seconds = parseDuration(text)
  if (seconds !== undefined) return seconds
  context.addIssue('must be a duration such as 45s, 10m or 1h')
  return z.NEVER
})

const time = z.string().transform((text, context) => {
  const ms = parseTime(text)
  if (ms !== undefined) return ms
  context.addIssue('must be an RFC 3339 time such as 2026-11-21T12:00:00Z')
  return z.NEVER
})

const workloadSchema = z.strictObject({
  team: label,
  stage: z.enum(stages),
  environment: label.default('test'),
  tags: z.array(z.string().min(1).max(64)).max(32).default([]),
})

const testSchema = z.strictObject({
  name: z.string().min(1).max(200),
  workload: z.string(),
  actions: z.array(z.string()).min(1),
  target: z.string().optional(),
  ttl: duration.optional(),
  task: z.string().optional(),
  approvals: z.int().min(0).max(10).default(0),
  at: time.optional(),
  recent_grants: z.int().min(0).default(0),
  recent_denials: z.int().min(0).default(0),
  expect: z.enum(['allow', 'deny', 'needs-approval']),
  approvals_needed: z.int().min(1).max(10).optional(),
  by: z.array(z.string()).optional(),
})

const fileSchema = z.strictObject({
  workloads: z.record(label, workloadSchema),
  tests: z.array(testSchema).min(1),
})

type PolicyTest = z.infer<typeof testSchema>

interface Case {
  readonly file: string
  readonly line: number
  readonly test: PolicyTest
  readonly request: AccessRequest
}

// A fixed time, so that a test says the same every day; a test of rules on time names its own.
const atMsDefault = Date.UTC(2026, 0, 15, 12)

/**
 * Runs the tests of `tests/*.yaml` against a set, through the same decider that serves requests. Either every file is
 * well-formed and names only what exists, or nothing runs and the problems are returned.
 */
export function runPolicyTests(
  set: PolicySet,
  decider: Decider,
  files: PolicyFiles,
): { results: PolicyTestResult[] } | { problems: PolicyProblem[] } {
  const problems: PolicyProblem[] = []
  const cases: Case[] = []
  for (const [file, text] of [...files].sort(([a], [b]) => compareText(a, b))) {
    if (kindOfFile(file) !== 'test') continue
    const parsed = parseYamlFile(file, text, () => fileSchema)
    if ('problems' in parsed) {
      problems.push(...parsed.problems)
      continue
    }
    const { workloads, tests } = parsed.value
    for (const [i, test] of tests.entries()) {
      const found = findMistakes(set, test, Object.keys(workloads))
      problems.push(...found.map(({ path, message, suggestion }) => parsed.problemAt(['tests', i, ...path], message, suggestion)))
      const request = found.length === 0 ? requestOf(set, test, workloads) : undefined
      if (request !== undefined) cases.push({ file, line: parsed.locate(['tests', i, 'name']).line, test, request })
    }
  }
  if (problems.length > 0) return { problems: orderProblems(problems) }
  return { results: cases.map((one) => runCase(set, decider, one)) }
}

interface Mistake {
  readonly path: readonly (string | number)[]
  readonly message: string
  readonly suggestion?: string | undefined
}

/** Names that do not exist: a test of them would say `deny` for a reason of its own. */
function findMistakes(set: PolicySet, test: PolicyTest, workloads: readonly string[]): Mistake[] {
  const mistakes: Mistake[] = []
  if (!workloads.includes(test.workload)) {
    const suggestion = nearestName(test.workload, workloads)
    mistakes.push({ path: ['workload'], message: `${quote(test.workload)} is not among the workloads of this file`, suggestion })
  }
  const known = [...set.catalog.values()].flatMap((tool) => [...tool.actions.keys()])
  for (const [i, action] of test.actions.entries()) {
    if (known.includes(action)) continue
    mistakes.push({ path: ['actions', i], message: `no action is named ${quote(action)}`, suggestion: nearestName(action, known) })
  }
  if (new Set(test.actions.map(toolOf)).size > 1) mistakes.push({ path: ['actions'], message: 'one request is about one tool' })
  const ids = set.policies.map((policy) => policy.id)
  for (const [i, id] of (test.by ?? []).entries()) {
    if (ids.includes(id)) continue
    mistakes.push({ path: ['by', i], message: `no policy has the @id ${quote(id)}`, suggestion: nearestName(id, ids) })
  }
  if (test.approvals_needed !== undefined && test.expect !== 'needs-approval') {
    mistakes.push({ path: ['approvals_needed'], message: 'goes with expect: needs-approval only' })
  }
  return mistakes
}

function requestOf(
  set: PolicySet,
  test: PolicyTest,
  workloads: Readonly<Record<string, z.infer<typeof workloadSchema>>>,
): AccessRequest | undefined {
  const tool = toolOf(test.actions[0] ?? '')
  const workload = workloads[test.workload]
  if (workload === undefined) return undefined
  return {
    workload: { name: test.workload, ...workload },
    tool,
    actions: test.actions,
    ttlSeconds: test.ttl ?? set.catalog.get(tool)?.ttl.defaultSeconds ?? 60,
    proof: 'private_key_jwt',
    boundKey: false,
    depth: 0,
    approvals: test.approvals,
    nowMs: test.at ?? atMsDefault,
    recentGrants: test.recent_grants,
    recentDenials: test.recent_denials,
    ...(test.target === undefined ? {} : { target: test.target }),
    ...(test.task === undefined ? {} : { task: test.task }),
  }
}

function runCase(set: PolicySet, decider: Decider, { file, line, test, request }: Case): PolicyTestResult {
  const place = { file, line, name: test.name }
  const { expect, approvals_needed: needed } = test
  const expected = needed === undefined ? expect : `${expect} (${needed})`
  const refusal = findRefusal(set, request)
  const decision = refusal === undefined ? tryDecide(set, decider, request) : refusal
  if (typeof decision === 'string') return { ...place, expected, actual: 'refused', passed: false, reasons: [], message: decision }

  const verdict = decision.verdict === 'needs_approval' ? 'needs-approval' : decision.verdict
  const actual = needed === undefined || decision.approvalsNeeded === undefined ? verdict : `${verdict} (${decision.approvalsNeeded})`
  const { reasons, errors } = decision
  const by = test.by === undefined ? undefined : [...new Set(test.by)].sort().join(', ')
  const message =
    errors.length > 0
      ? `evaluation failed: ${errors.join('; ')}`
      : expected !== actual
        ? describeActual(decision, request)
        : by !== undefined && by !== reasons.join(', ')
          ? `decided by ${reasons.join(', ') || 'no policy'}, not by ${by || 'none'}`
          : undefined
  return { ...place, expected, actual, passed: message === undefined, reasons, ...(message === undefined ? {} : { message }) }
}

/** What the broker refuses before it asks the policy. */
function findRefusal(set: PolicySet, request: AccessRequest): string | undefined {
  const max = set.catalog.get(request.tool)?.ttl.maxSeconds ?? 0
  return request.ttlSeconds > max ? `the tool ${request.tool} gives at most ${max} seconds` : undefined
}

function tryDecide(set: PolicySet, decider: Decider, request: AccessRequest): Decision | string {
  try {
    return decider.decide(set, request)
  } catch (error) {
    if (error instanceof BrokerError) return error.publicMessage
    throw error
  }
}

function describeActual(decision: Decision, request: AccessRequest): string {
  const by = decision.reasons.length === 0 ? 'no permit matches' : `decided by ${decision.reasons.join(', ')}`
  const hint = decision.allowedTtlSeconds === undefined ? '' : `; ${decision.allowedTtlSeconds} seconds would be allowed`
  return `${by}${hint} (at ${formatTime(request.nowMs)})`
}

function toolOf(action: string): string {
  return action.slice(0, Math.max(action.indexOf(':'), 0))
}
