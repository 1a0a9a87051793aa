import { describe, expect, test } from 'vitest'
import { parseTool, type Tool } from '../../../src/policy/catalog.ts'
import { findTargetProblem } from '../../../src/policy/target.ts'

const statement = '{ actions: ["s3:GetObject"], resources: ["arn:aws:s3:::reports/{target}/*"] }'

interface Parts {
  readonly statements?: string
  readonly target?: string
  readonly config?: string
  readonly ttl?: string
}

const usualTarget = '{ name: prefix, required: true, pattern: ".*" }'
const usualConfig = '{ role: "arn:aws:iam::123456789012:role/stint-reports", region: eu-west-1, credentials: { from: "sealed:aws-root" } }'

function parse({ statements = statement, target = usualTarget, config = usualConfig, ttl = '{ default: 15m, max: 1h }' }: Parts = {}): { readonly tool: Tool } | { readonly problems: readonly string[] } {
  const file = `tool: reports
connector: aws-sts
sensitivity: medium
ttl: ${ttl}
${target === '' ? '' : `target: ${target}\n`}actions:
  s3.read: { statements: [${statements}] }
config: ${config}
`
  const parsed = parseTool('tools/reports.yaml', file)
  return 'tool' in parsed ? parsed : { problems: parsed.problems.map(({ message }) => message) }
}

const withConfig = (more: string) => usualConfig.replace(/ \}$/, `, ${more} }`)
const webIdentity = (more = '') => `{ role: "arn:aws:iam::123456789012:role/stint-reports", region: eu-west-1, web_identity: true${more} }`
const acting = (action: string) => `{ actions: ["${action}"], resources: ["arn:aws:s3:::reports/{target}"] }`
const on = (resource: string) => `{ actions: ["s3:GetObject"], resources: ["${resource}", "arn:aws:s3:::reports/{target}"] }`
const when = (conditions: string) => `{ actions: ["s3:ListBucket"], resources: ["arn:aws:s3:::reports/{target}"], conditions: ${conditions} }`
const many = Array.from({ length: 60 }, (_, i) => `"s3:GetObjectNumber${i}OfTheVeryLongKind"`).join(', ')

describe('a tool file of aws-sts', () => {
  test.each<[string, Parts]>([
    ['as it usually is', {}],
    ['with wildcards of its author', { statements: acting('s3:Get*') }],
    ['on a whole bucket, under a condition with the target', { statements: `${statement}, { actions: ["s3:ListBucket"], resources: ["arn:aws:s3:::reports"], conditions: { StringLike: { "s3:prefix": ["{target}/*", "{target}"] } } }` }],
    ['with what reads of iam, and PassRole', { statements: '{ actions: ["iam:Get*", "iam:ListRoles", "iam:SimulatePrincipalPolicy", "iam:PassRole"], resources: ["arn:aws:iam::123456789012:role/{target}"] }' }],
    ['without targets', { statements: '{ actions: ["sts:GetCallerIdentity"], resources: ["*"] }', target: '' }],
    ['with a condition', { statements: when('{ StringLike: { "s3:prefix": ["{target}/*"] }, Bool: { "aws:SecureTransport": ["true"] } }') }],
    ['with characters that would mean something else', { statements: on('arn:aws:s3:::reports/${*}/${?}/${$}{target}') }],
    ['with a web identity', { config: webIdentity() }],
    ['with an external id', { config: withConfig('external_id: "stint:1"') }],
    ['in another partition', { config: usualConfig.replace('arn:aws:', 'arn:aws-cn:').replace('eu-west-1', 'cn-north-1') }],
    ['with a kill switch', { config: withConfig('kill_switch: { policies: ["arn:aws:iam::123456789012:policy/stint-deny-1"] }') }],
    ['with 12 hours', { ttl: '{ default: 15m, max: 12h }' }],
  ])('is taken %s', (_, parts) => {
    expect(parse(parts)).toHaveProperty('tool')
  })

  test.each<[string, Parts, RegExp]>([
    ['every action', { statements: acting('*') }, /service:Action/],
    ['every action of every service', { statements: acting('*:*') }, /service:Action/],
    ['a service that is not named in full', { statements: acting('s?s:Get') }, /service:Action/],
    ['a service in capitals', { statements: acting('STS:AssumeRole') }, /service:Action/],
    ['all of sts', { statements: acting('sts:*') }, /must not be of sts/],
    ['sts:AssumeRole', { statements: acting('sts:AssumeRole') }, /must not be of sts/],
    ['sts:AssumeRole in other letters', { statements: acting('sts:assumerole') }, /must not be of sts/],
    ['a pattern that sts:AssumeRole matches', { statements: acting('sts:?ssume*') }, /must not be of sts/],
    ['another way to a credential', { statements: acting('sts:GetFederationToken') }, /must not be of sts/],
    ['a target within an action', { statements: acting('s3:{target}') }, /service:Action/],
    ['Effect', { statements: '{ effect: Deny, actions: ["s3:GetObject"], resources: ["arn:aws:s3:::reports/{target}"] }' }, /effect/],
    ['NotAction', { statements: '{ not_actions: ["s3:GetObject"], resources: ["arn:aws:s3:::reports/{target}"] }' }, /not_actions/],
    ['NotResource', { statements: '{ actions: ["s3:GetObject"], not_resources: ["arn:aws:s3:::reports/{target}"] }' }, /not_resources/],
    ['Principal', { statements: '{ actions: ["s3:GetObject"], resources: ["arn:aws:s3:::reports/{target}"], principals: ["*"] }' }, /principals/],
    ['a policy variable', { statements: on('arn:aws:s3:::reports/${aws:username}/{target}') }, /policy variables are not taken/],
    ['a policy variable that the target names', { statements: on('arn:aws:s3:::reports/${{target}}') }, /policy variables are not taken/],
    ['a target behind a dollar', { statements: on('arn:aws:s3:::reports/${target}') }, /policy variables are not taken/],
    ['a target within an escape', { statements: on('arn:aws:s3:::reports/${*{target}}') }, /policy variables are not taken/],
    ['a placeholder that is none', { statements: on('arn:aws:s3:::reports/{tagret}') }, /must have no \{/],
    ['a target as the account', { statements: on('arn:aws:s3::{target}:reports') }, /fifth colon/],
    ['a target as the whole resource', { statements: on('{target}') }, /fifth colon/],
    ['a resource that is no ARN', { statements: on('reports/*') }, /an ARN/],
    ['a resource beyond ASCII', { statements: on('arn:aws:s3:::berichte-für-{target}') }, /ASCII/],
    ['a target in a negated condition', { statements: when('{ StringNotLike: { "s3:prefix": ["{target}/*"] } }') }, /must not use \{target\}/],
    ['a target in a condition on numbers', { statements: when('{ NumericLessThan: { "s3:max-keys": ["{target}"] } }') }, /must not use \{target\}/],
    ['an operator that IAM does not know', { statements: when('{ StringMatches: { "s3:prefix": ["x"] } }') }, /condition operator/],
    ['a condition key with a placeholder', { statements: when('{ StringLike: { "aws:{target}": ["x"] } }') }, /condition key/],
    ['no condition', { statements: when('{}') }, /at least one operator/],
    ['a statement without actions', { statements: '{ actions: [], resources: ["arn:aws:s3:::reports/{target}"] }' }, /./],
    ['an action that fits into no session policy', { statements: `{ actions: [${many}], resources: ["arn:aws:s3:::reports/{target}"] }` }, /2048 characters/],
    ['a target that need not be there, and is used', { target: '{ name: prefix, required: false, pattern: ".*" }' }, /required: true/],
    ['no target, and one is used', { target: '' }, /required: true/],
    ['a target that would confine nothing', { statements: '{ actions: ["s3:GetObject"], resources: ["arn:aws:s3:::reports/*"] }' }, /would not confine/],
    ['a statement beside that the target does not confine', { statements: `${statement}, { actions: ["s3:ListAllMyBuckets"], resources: ["*"] }` }, /would not confine this statement/],
    ['a resource beside that the target does not confine', { statements: on('arn:aws:s3:::reports/*') }, /would not confine this statement/],
    ...['{ StringLikeIfExists: { "s3:prefix": ["{target}/*"] } }', '{ "ForAllValues:StringLike": { "s3:prefix": ["{target}/*"] } }', '{ "ForAnyValue:StringLike": { "s3:prefix": ["{target}/*"] } }', '{ StringLike: { "s3:prefix": ["{target}/*", "*"] } }'].map(
      (conditions): [string, Parts, RegExp] => [`a condition that holds without the target, ${conditions}`, { statements: `{ actions: ["s3:ListBucket"], resources: ["arn:aws:s3:::reports"], conditions: ${conditions} }` }, /would not confine this statement/],
    ),
    ...['iam:*', 'iam:CreatePolicyVersion', 'iam:createpolicyversion', 'iam:?reatePolicyVersion', 'iam:*PolicyVersion', 'iam:AttachRolePolicy', 'iam:PassRole*', 'iam:P*', 'iam:CreateAccessKey'].map((name): [string, Parts, RegExp] => [name, { statements: acting(name) }, /must not be of iam/]),
    ['more than 12 hours', { ttl: '{ default: 15m, max: 13h }' }, /at most 12h/],
    ['neither credentials nor web identity', { config: webIdentity().replace('true', 'false') }, /exactly one of credentials and web_identity/],
    ['both', { config: withConfig('web_identity: true') }, /exactly one of credentials and web_identity/],
    ['an external id with a web identity', { config: webIdentity(', external_id: "stint"') }, /goes with credentials/],
    ['a role of another partition', { config: usualConfig.replace('eu-west-1', 'cn-north-1') }, /own partition/],
    ['a role that is none', { config: usualConfig.replace('role/', 'user/') }, /ARN of a role/],
    ['a region that is none', { config: usualConfig.replace('eu-west-1', 'eu-west-1.evil.test') }, /region of AWS/],
    ['an endpoint elsewhere by http', { config: withConfig('endpoint: "http://aws.test"') }, /https URL/],
    ["a kill switch of AWS's own policies", { config: withConfig('kill_switch: { policies: ["arn:aws:iam::aws:policy/AdministratorAccess"] }') }, /account's own/],
  ])('is refused with %s', (_, parts, message) => {
    const parsed = parse(parts)
    expect(parsed).toHaveProperty('problems')
    expect('problems' in parsed ? parsed.problems.join('\n') : '').toMatch(message)
  })
})

describe('a target of aws-sts', () => {
  const parsed = parse()
  const rule = 'tool' in parsed ? parsed.tool.target : undefined

  test.each(['2026', '2026/01', 'dt=2026-01-15/part-0.csv', 'a b', '...', 'a..b', '.hidden', '~x', '#1'])('is taken: %s', (target) => {
    expect(findTargetProblem(rule, target)).toBeUndefined()
  })

  test.each([
    ['*', /wildcards/],
    ['2026/*', /wildcards/],
    ['202?', /wildcards/],
    ['${aws:username}', /ASCII letters/],
    ['$', /ASCII letters/],
    ['{target}', /ASCII letters/],
    ['a"b', /ASCII letters/],
    ["a'b", /ASCII letters/],
    ['a\\b', /ASCII letters/],
    ['a\nb', /control/],
    ['a\u0000b', /control/],
    ['"}],"Effect":"Allow"', /ASCII letters/],
    ['arn:aws:s3:::payroll/x', /ASCII letters/],
    ['x:y', /ASCII letters/],
    ['日本', /ASCII letters/],
    ['\u202e2026', /ASCII letters/],
    ['..', /\. or \.\./],
    ['a/../b', /\. or \.\./],
    ['a/./b', /\. or \.\./],
    ['/a', /slash/],
    ['a/', /slash/],
    ['a//b', /slash/],
    ['', /slash/],
    [' a', /space/],
    ['x'.repeat(2_048), /at most 1024/],
  ])('is refused, whatever the pattern says: %j', (target, message) => {
    expect(findTargetProblem(rule, target)).toMatch(message)
  })
})
