import { loadPolicySet, type PolicySet } from '../../src/policy/policy-set.ts'
import { formatProblem } from '../../src/policy/problem.ts'
import type { AccessRequest } from '../../src/policy/request.ts'

export const ticketsYaml = `tool: tickets
connector: jwt
audience: https://tickets.example.com
sensitivity: low
ttl: { default: 10m, max: 1h }
actions:
  read: {}
  comment: { sensitivity: medium }
  purge: { sensitivity: high }
`

export const docsYaml = `tool: docs
connector: jwt
audience: https://docs.example.com
sensitivity: low
ttl: { default: 10m, max: 1h }
target: { name: space, required: false, pattern: "[a-z-]+" }
actions:
  read: {}
  write: {}
`

export const paymentsYaml = `tool: payments
connector: jwt
audience: https://payments.example.com
sensitivity: high
ttl: { default: 5m, max: 15m }
approvals_max: 3
target: { name: account, required: true, pattern: "[a-z0-9-]+" }
actions:
  refund: {}
  read: { sensitivity: medium }
`

export const tools: readonly (readonly [string, string])[] = [
  ['tools/tickets.yaml', ticketsYaml],
  ['tools/docs.yaml', docsYaml],
  ['tools/payments.yaml', paymentsYaml],
]

/** The three tools with these rules. */
export function filesWith(rules: string, more: readonly (readonly [string, string])[] = []): Map<string, string> {
  return new Map([['rules.cedar', rules], ...tools, ...more])
}

/** The set of these rules; throws with the problems if there are any. */
export function setOf(rules: string, more: readonly (readonly [string, string])[] = []): PolicySet {
  const loaded = loadPolicySet(filesWith(rules, more))
  if ('problems' in loaded) throw new Error(loaded.problems.map(formatProblem).join('\n'))
  return loaded.set
}

/** The problems of these rules, one line each; none if the set loads. */
export function problemsOf(rules: string, more: readonly (readonly [string, string])[] = []): string[] {
  const loaded = loadPolicySet(filesWith(rules, more))
  return 'problems' in loaded ? loaded.problems.map(formatProblem) : []
}

/** A request of `triage-bot` to read tickets for ten minutes, with changes. */
export function requestOf(changes: Partial<AccessRequest> = {}): AccessRequest {
  return {
    workload: { name: 'triage-bot', stage: 'pilot', environment: 'prod', team: 'support', tags: ['bot'] },
    tool: 'tickets',
    actions: ['tickets:read'],
    ttlSeconds: 600,
    proof: 'private_key_jwt',
    boundKey: false,
    depth: 0,
    approvals: 0,
    nowMs: Date.UTC(2026, 10, 21, 12),
    ...changes,
  }
}
