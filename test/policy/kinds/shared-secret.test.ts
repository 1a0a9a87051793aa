import { expect, test } from 'vitest'
import { loadPolicySet } from '../../../src/policy/policy-set.ts'

const rotation = '  rotation: { every: 30d, rotator: { command: { name: turn } } }\n'
const sealed = (tool: string, secret: string, more = '') => [`tools/${tool}.yaml`, `tool: ${tool}\nconnector: sealed-secret\nsensitivity: low\nttl: { default: 10m, max: 1h }\nactions: { use: {} }\nconfig:\n  secret: ${secret}\n${more}`] as const
const aws = (tool: string, id: string, more = '') => [`tools/${tool}.yaml`, `tool: ${tool}\nconnector: aws-secrets-manager\nsensitivity: low\nttl: { default: 10m, max: 1h }\nactions: { use: {} }\nconfig:\n  secret_id: ${id}\n  region: eu-central-1\n  credentials: { from: "env:KEY" }\n${more}`] as const
const rules = ['rules.cedar', '@id("all")\npermit (principal, action, resource);\n'] as const
const arn = 'arn:aws:secretsmanager:eu-central-1:123456789012:secret:app/key-AbC123'

test.each<[string, (readonly [string, string])[], boolean]>([
  ['two tools that rotate it', [sealed('one', 'api', rotation), sealed('two', 'api', rotation)], true],
  ['one that does, and one that only lends it', [sealed('one', 'api'), sealed('two', 'api', rotation)], true],
  ['two that only lend it', [sealed('one', 'api'), sealed('two', 'api')], false],
  ['two of two secrets', [sealed('one', 'api', rotation), sealed('two', 'other', rotation)], false],
  ['two of one in AWS, by name and ARN', [aws('one', 'app/key', rotation), aws('two', arn)], true],
  ['two of two in AWS', [aws('one', 'app/key', rotation), aws('two', 'app/other')], false],
])('A secret of %s', (_, files, isRefused) => {
  const loaded = loadPolicySet(new Map([rules, ...files]))
  const messages = 'problems' in loaded ? loaded.problems.map(({ message }) => message) : []
  expect(messages).toEqual(isRefused ? [expect.stringContaining('is lent by one tool alone')] : [])
})
