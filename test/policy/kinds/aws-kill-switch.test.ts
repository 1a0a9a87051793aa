import { describe, expect, it } from 'vitest'
import { loadPolicySet } from '../../../src/policy/policy-set.ts'

const role = 'arn:aws:iam::123456789012:role/agents/reports'
const policy = (n: number | string) => `arn:aws:iam::123456789012:policy/stint/deny-${n}`

function tool(name: string, config: string): [string, string] {
  return [
    `tools/${name}.yaml`,
    `tool: ${name}
connector: aws-sts
sensitivity: medium
ttl: { default: 10m, max: 1h }
actions:
  read: { statements: [{ actions: ["s3:GetObject"], resources: ["*"] }] }
config: { region: eu-west-1, ${config} }
`,
  ]
}

function load(...tools: readonly [string, string][]): string[] {
  const loaded = loadPolicySet(new Map([...tools, ['rules.cedar', '@id("none")\nforbid (principal, action, resource);\n']]))
  return 'problems' in loaded ? loaded.problems.map(({ file, message }) => `${file}: ${message}`) : []
}

const key = 'credentials: { from: "env:AWS_ROOT" }'
const withPolicies = (...arns: readonly string[]) => `role: "${role}", ${key}, kill_switch: { policies: ${JSON.stringify(arns)} }`

describe('the kill switch of a role', () => {
  it.each<[string, string]>([
    ['one policy', withPolicies(policy(1))],
    ['ten policies', withPolicies(...Array.from({ length: 10 }, (_, n) => policy(n)))],
    ['a delay of its own', `role: "${role}", ${key}, kill_switch: { policies: ["${policy(1)}"], propagation_seconds: 60 }`],
    ['a role that writes it, by web identity', `role: "${role}", web_identity: true, kill_switch: { policies: ["${policy(1)}"], role: "arn:aws:iam::123456789012:role/stint-writer" }`],
  ])('may have %s', (_, config) => expect(load(tool('reports', config))).toEqual([]))

  it.each<[string, string, RegExp]>([
    ['no policy', withPolicies(), /kill_switch|policies|at least|>=/],
    ['more than ten', withPolicies(...Array.from({ length: 11 }, (_, n) => policy(n))), /10/],
    ['one twice', withPolicies(policy(1), policy(1)), /each policy once/],
    ['a policy of AWS itself', withPolicies('arn:aws:iam::aws:policy/AWSDenyAll'), /the account's own/],
    ['one of another account', withPolicies('arn:aws:iam::999999999999:policy/deny'), /the role's own account/],
    ['one of another partition', withPolicies('arn:aws-cn:iam::123456789012:policy/deny'), /the role's own account/],
    ['something else than a policy', withPolicies('arn:aws:iam::123456789012:role/deny'), /ARN of a managed policy/],
    ['a pattern', withPolicies('arn:aws:iam::123456789012:policy/deny-*'), /ARN of a managed policy/],
    ['a policy in a path that goes up', withPolicies('arn:aws:iam::123456789012:policy//deny'), /ARN of a managed policy/],
    ['a writing role beside an access key', `role: "${role}", ${key}, kill_switch: { policies: ["${policy(1)}"], role: "arn:aws:iam::123456789012:role/w" }`, /goes with web_identity/],
    ['no writing role without one', `role: "${role}", web_identity: true, kill_switch: { policies: ["${policy(1)}"] }`, /must name the role that writes/],
    ['the given role as the writing one', `role: "${role}", web_identity: true, kill_switch: { policies: ["${policy(1)}"], role: "${role}" }`, /another role/],
    ['policies of names too long to be written by web identity', `role: "${role}", web_identity: true, kill_switch: { policies: ${JSON.stringify(Array.from({ length: 10 }, (_, n) => policy(`${'x'.repeat(120)}${n}`)))}, role: "arn:aws:iam::123456789012:role/w" }`, /session policy of 2048 characters/],
    ['a delay of nothing', `role: "${role}", ${key}, kill_switch: { policies: ["${policy(1)}"], propagation_seconds: 0 }`, /propagation_seconds|1/],
  ])('may not have %s', (_, config, message) => {
    expect(load(tool('reports', config))).toEqual([expect.stringMatching(message)])
  })
})

describe('tools that share a role', () => {
  const other = (config: string) => tool('archive', config)

  it('name the same policies, in any order', () => {
    expect(load(tool('reports', withPolicies(policy(1), policy(2))), other(withPolicies(policy(2), policy(1))))).toEqual([])
  })

  it.each<[string, string]>([
    ['others', withPolicies(policy(3))],
    ['one more', withPolicies(policy(1), policy(2), policy(3))],
    ['none', `role: "${role}", ${key}`],
  ])('cannot name %s', (_, config) => {
    expect(load(tool('reports', withPolicies(policy(1), policy(2))), other(config))).toEqual([expect.stringMatching(/^tools\/reports.yaml: must have the same kill switch policies as archive/)])
  })

  it('cannot be the role that writes the deny policies of another one', () => {
    const writer = 'arn:aws:iam::123456789012:role/stint-writer'
    const writing = tool('reports', `role: "${role}", web_identity: true, kill_switch: { policies: ["${policy(1)}"], role: "${writer}" }`)
    const lending = (name: string) => tool(name, `role: "${writer}", ${key}`)
    expect(load(lending('archive'), writing)).toEqual([expect.stringMatching(/must not be the role whose sessions archive gives out/)])
    expect(load(writing, lending('vault'))).toEqual([expect.stringMatching(/must not be the role that writes the deny policies of reports/)])
  })

  it('cannot lend a policy to another role', () => {
    const elsewhere = withPolicies(policy(2), policy(3)).replace('role/agents/reports', 'role/agents/archive')
    expect(load(tool('reports', withPolicies(policy(1), policy(2))), other(elsewhere))).toEqual([expect.stringMatching(/^tools\/reports.yaml: is a policy by which archive denies sessions of another role/)])
    expect(load(tool('reports', withPolicies(policy(1))), other(elsewhere))).toEqual([])
  })
})
