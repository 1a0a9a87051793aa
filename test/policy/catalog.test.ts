import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { builtInConnectorKinds, parseTool, type ConnectorKinds } from '../../src/policy/catalog.ts'
import { formatProblem } from '../../src/policy/problem.ts'
import { compileTargetPattern, findTargetProblem, targetLengthMax } from '../../src/policy/target.ts'

const sound = `tool: github
connector: jwt
audience: https://api.example.com/git
description: Code host
sensitivity: medium
ttl: { default: 10m, max: 1h }
approvals_max: 2
target: { name: repository, required: true, pattern: "[\\\\w.-]+/[\\\\w.-]+" }
actions:
  issues.read: {}
  contents.write: { sensitivity: high, description: Change code }
introspectors: [git-api]
`

function problemsOf(text: string, kinds?: ConnectorKinds): string[] {
  const parsed = parseTool('tools/x.yaml', text, kinds)
  return 'problems' in parsed ? parsed.problems.map(formatProblem) : []
}

test('a tool file becomes a tool: seconds, full action names, resolved sensitivity', () => {
  const parsed = parseTool('tools/github.yaml', sound)
  if ('problems' in parsed) throw new Error(parsed.problems.map(formatProblem).join('\n'))
  const { actions, target, ...rest } = parsed.tool
  expect(rest).toEqual({
    name: 'github',
    file: 'tools/github.yaml',
    connector: 'jwt',
    audience: 'https://api.example.com/git',
    description: 'Code host',
    sensitivity: 'medium',
    ttl: { defaultSeconds: 600, maxSeconds: 3600 },
    approvalsMax: 2,
    introspectors: ['git-api'],
  })
  expect([...actions.values()]).toEqual([
    { name: 'github:issues.read', verb: 'issues.read', sensitivity: 'medium', settings: {} },
    { name: 'github:contents.write', verb: 'contents.write', sensitivity: 'high', description: 'Change code', settings: {} },
  ])
  expect(findTargetProblem(target, 'acme/website')).toBeUndefined()
})

test.each([
  ['unknown key, with the nearest', 'sensitivity: medium', 'sensitivty: medium', [
    'tools/x.yaml:5:1 unknown field "sensitivty": known here are tool, connector, audience, description, sensitivity, ttl, approvals_max, target, actions, introspectors (did you mean sensitivity?)',
    'tools/x.yaml:1:1 sensitivity must be one of low, medium, high',
  ]],
  ['unknown key of an action', '{ sensitivity: high, description', '{ sensitivity: high, desciption', [
    'tools/x.yaml:11:40 unknown field "desciption": known here are sensitivity, description (did you mean description?)',
  ]],
  ['unknown key of ttl', 'max: 1h', 'maximum: 1h', [
    'tools/x.yaml:6:6 ttl.max: is missing',
    'tools/x.yaml:6:22 unknown field "maximum": known here are default, max',
  ]],
  ['config where the connector has none', 'introspectors: [git-api]', 'config: {}', [
    'tools/x.yaml:12:1 unknown field "config": known here are tool, connector, audience, description, sensitivity, ttl, approvals_max, target, actions, introspectors',
  ]],
  ['unknown connector', 'connector: jwt', 'connector: jtw', [`tools/x.yaml:2:12 connector must be one of ${[...builtInConnectorKinds.keys()].join(', ')}`]],
  ['the name of a rotation', 'tool: github', 'tool: sealing-keys', ["tools/x.yaml:1:7 tool: must not be signing-keys or sealing-keys: those name the rotations of the broker's own keys"]],
  ['reserved name', 'tool: github', 'tool: sensitivity', ['tools/x.yaml:1:7 tool: must not be "sensitivity": that names the groups of actions']],
  ['name', 'tool: github', 'tool: GitHub', ['tools/x.yaml:1:7 tool: must be lower-case letters, digits and hyphens, at most 63, beginning with a letter']],
  ['audience missing', 'audience: https://api.example.com/git\n', '', ['tools/x.yaml:1:1 audience: is missing']],
  ['audience with a fragment', 'com/git', 'com/git#x', ['tools/x.yaml:3:11 audience: must be an absolute https or http URI, or a urn, without a fragment']],
  ['audience with an empty fragment', 'com/git', 'com/git#', ['tools/x.yaml:3:11 audience: must be an absolute https or http URI, or a urn, without a fragment']],
  ['audience relative', 'https://api.example.com/git', '/git', ['tools/x.yaml:3:11 audience: must be an absolute https or http URI, or a urn, without a fragment']],
  ['audience of another scheme', 'https://api', 'ftp://api', ['tools/x.yaml:3:11 audience: must be an absolute https or http URI, or a urn, without a fragment']],
  ['audience with credentials', 'https://api', 'https://u:p@api', ['tools/x.yaml:3:11 audience: must be an absolute https or http URI, or a urn, without a fragment']],
  ['default over max', 'default: 10m', 'default: 2h', ['tools/x.yaml:6:17 ttl.default: must not be longer than max']],
  ['max over a day', 'max: 1h', 'max: 25h', ['tools/x.yaml:6:27 ttl.max: must be at most 1d']],
  ['duration without a unit', 'max: 1h', 'max: "60"', ['tools/x.yaml:6:27 ttl.max: must be a duration such as 45s, 10m or 1h']],
  ['too many approvals', 'approvals_max: 2', 'approvals_max: 11', ['tools/x.yaml:7:16 approvals_max: Too big: expected number to be <=10']],
  ['verb', 'issues.read:', 'Issues.read:', ['tools/x.yaml:10:3 "Issues.read" must be lower-case letters, digits, ".", "_" and "-", at most 63']],
  ['verb that looks like a group', 'issues.read:', '"*":', ['tools/x.yaml:10:3 "*" must be lower-case letters, digits, ".", "_" and "-", at most 63']],
  ['prototype as a verb', 'issues.read:', '__proto__:', ['tools/x.yaml:10:3 is not a valid key']],
  ['introspector', '[git-api]', '[Git_API]', ['tools/x.yaml:12:17 introspectors.0: must be the name of a workload']],
  ['duplicate key', 'sensitivity: medium', 'sensitivity: medium\nsensitivity: low', ['tools/x.yaml:6:1 is a key that stands here twice']],
  ['anchor and alias', '[git-api]', '[&a git-api, *a]', [
    'tools/x.yaml:12:20 uses an anchor or alias: write the value out',
    'tools/x.yaml:12:29 uses an anchor or alias: write the value out',
  ]],
  ['tag', 'sensitivity: medium', 'sensitivity: !!str medium', ['tools/x.yaml:5:20 has the tag "tag:yaml.org,2002:str": leave it out']],
  ['key that is not text', 'issues.read:', '1:', ['tools/x.yaml:10:3 is a key that is not text: put it in quotes']],
])('refused: %s', (_, from, to, expected) => {
  expect(sound).toContain(from)
  expect(problemsOf(sound.replace(from, to))).toEqual(expected.toSorted((a, b) => Number(a.split(':')[1]) - Number(b.split(':')[1])))
})

test.each([
  ['two documents', `${sound}---\n${sound}`, 'holds more than one document: one file, one document'],
  ['directive', `%YAML 1.1\n---\n${sound}`, 'has a YAML directive: leave the line that begins with % out'],
  ['empty', '# nothing\n', 'is empty'],
  ['a list', '- a\n', 'the file: must be a map, as in { name: value }'],
  ['depth', '['.repeat(100_000), 'is nested too deeply'],
  ['depth of lists', '- '.repeat(100_000), 'is nested too deeply'],
  ['no action', sound.replace(/actions:[^]*introspectors/, 'actions: {}\nintrospectors'), 'actions: must name at least one action'],
])('refused as a whole: %s', (_, text, message) => {
  expect(problemsOf(text).some((problem) => problem.endsWith(message)), problemsOf(text).join('\n').slice(0, 2000)).toBe(true)
})

test('a connector kind brings its own fields, which are strict too', () => {
  const kinds: ConnectorKinds = new Map([
    ...builtInConnectorKinds,
    ['app', { audience: 'optional', lendsToken: true, actionShape: { permissions: z.record(z.string(), z.string()) }, config: z.strictObject({ app_id: z.string() }) }],
  ])
  const text = sound
    .replace('connector: jwt', 'connector: app')
    .replace('issues.read: {}', 'issues.read: { permissions: { issues: read } }')
    .replace(/ {2}contents.*\n/, '')
  const parsed = parseTool('tools/x.yaml', `${text}config: { app_id: "1" }\n`, kinds)
  if ('problems' in parsed) throw new Error(parsed.problems.map(formatProblem).join('\n'))
  expect(parsed.tool.config).toEqual({ app_id: '1' })
  expect(parsed.tool.actions.get('github:issues.read')?.settings).toEqual({ permissions: { issues: 'read' } })
  expect(problemsOf(`${text}config: { app: "1" }\n`, kinds)).toHaveLength(2)
  expect(problemsOf(text, builtInConnectorKinds)).toEqual([`tools/x.yaml:2:12 connector must be one of ${[...builtInConnectorKinds.keys()].join(', ')}`])
})

describe('targets', () => {
  test.each([
    ['a|b', 'a', true],
    ['a|b', 'ab', false],
    ['a|b', 'xb', false],
    ['[a-z]+', 'abc\n', false],
    ['.+', 'a\u0000b', false],
    ['.+', 'a\u0085b', false],
    ['.+', '\ud800', false],
    ['.+', 'x'.repeat(targetLengthMax), true],
    ['.+', 'x'.repeat(targetLengthMax + 1), false],
    ['[\\w.-]+/[\\w.-]+', 'acme/website', true],
    ['[\\w.-]+/[\\w.-]+', 'acme/web/site', false],
    ['\\p{L}+', 'größe', true],
  ])('%s on %j: %s', (pattern, target, accepted) => {
    const expression = compileTargetPattern(pattern)
    if (typeof expression === 'string') throw new Error(expression)
    expect(findTargetProblem({ name: 'x', required: true, pattern, expression }, target) === undefined).toBe(accepted)
  })

  test.each(['a)|(b', '(a', '[z-a]', '(a)\\1', '(?=a)a', '(?<!a)b', '((a{100}){100}){100}'])('pattern %s is refused', (pattern) => {
    expect(compileTargetPattern(pattern)).toEqual(expect.stringContaining('is not a valid RE2 expression'))
  })

  // Each of these keeps a matcher that backtracks busy for longer than anybody would wait.
  test.each([
    '(a+)+b',
    '(?:a|a)*b',
    '.*.*.*.*.*.*.*.*b',
    `${'(?:a?)'.repeat(40)}${'a'.repeat(40)}b`,
    '(?i:[A-Z]+)a(?i:[A-Z]+)a(?i:[A-Z]+)a(?i:[A-Z]+)a(?i:[A-Z]+)b',
  ])('pattern %s takes no longer than others', (pattern) => {
    const expression = compileTargetPattern(pattern)
    if (typeof expression === 'string') throw new Error(expression)
    expect(expression.matches('a'.repeat(targetLengthMax))).toBe(false)
  })

  test.each([
    '[a-z][a-z0-9-]{0,62}',
    '[a-z]+(?:/[a-z]+)?',
    '[^/]+/[^/]+/[^/]+',
    '\\w+-\\w+-\\w+-\\w+',
    '(?:prod|test)/[a-z]+',
    '[a-z]{2}-[0-9]{4,12}',
    '(?:ab)+',
    '.+/.+',
    '[[\\]]+',
  ])('pattern %s is accepted', (pattern) => {
    expect(compileTargetPattern(pattern)).not.toBeTypeOf('string')
  })
})
