import { describe, expect, test } from 'vitest'
import { parseTool, type Tool } from '../../../src/policy/catalog.ts'

const http = '{ http: { generate: {}, set: { method: POST, url: "https://api.test/key", form: { key: "{pending}" } }, test: { method: GET, url: "https://api.test/", headers: { authorization: "Bearer {pending}" } } } }'
const role = 'role: "arn:aws:iam::123456789012:role/stint"'
const arn = 'arn:aws:secretsmanager:eu-west-1:123456789012:secret:billing/api-AbCdEf'

const parse = (connector: string, config: string, more = '') =>
  parseTool(
    'tools/billing.yaml',
    `tool: billing
connector: ${connector}
sensitivity: high
ttl: { default: 10m, max: 2h }
actions: { use: {} }
config: { ${config} }
${more}`,
  )
const sealed = (config: string, more?: string) => parse('sealed-secret', config, more)
const aws = (config: string) => parse('aws-secrets-manager', `region: eu-west-1, ${config}`)

function configOf(parsed: ReturnType<typeof parse>): Tool['config'] {
  if (!('tool' in parsed)) throw new Error(JSON.stringify(parsed.problems))
  return parsed.tool.config
}

function messagesOf(parsed: ReturnType<typeof parse>): string[] {
  if (!('problems' in parsed)) throw new Error('it was taken')
  return parsed.problems.map(({ message }) => message)
}

describe('A tool that lends a sealed secret', () => {
  test('names it, and may say by which variables and how it is replaced', () => {
    expect(configOf(sealed('secret: billing-api'))).toEqual({ secret: 'billing-api' })
    expect(configOf(sealed('secret: billing-api, env: { PGUSER: user, PGPASSWORD: password }'))).toMatchObject({ env: { PGUSER: 'user', PGPASSWORD: 'password' } })
    expect(configOf(sealed(`secret: billing-api, env: API_KEY, rotation: { every: 30d, rotator: ${http} }`))).toMatchObject({ env: 'API_KEY', rotation: { every: 2_592_000 } })
    expect(configOf(sealed(`secret: billing-api, rotation: { every: 2h, rotator: ${http} }`))).toMatchObject({ rotation: { every: 7_200 } })
  })

  test.each([
    ['no name', '', /secret/],
    ['a name that is none', 'secret: Billing_API', /must be the name of a sealed secret/],
    ['a source in place of the name', 'secret: "sealed:billing-api"', /must be the name of a sealed secret/],
    ['a variable in lower case', 'secret: a, env: api_key', /must be a variable, of A-Z/],
    ["a variable of Stint's own", 'secret: a, env: STINT_URL', /none of Stint's own/],
    ["one of Stint's own among others", 'secret: a, env: { A: b, STINT_KEY: c }', /none of Stint's own/],
    ['no variables', 'secret: a, env: {}', /map of 1 to 32/],
    ['a rotation that knows no time', `secret: a, rotation: { rotator: ${http} }`, /every/],
    ['a rotation without a way', 'secret: a, rotation: { every: 30d }', /rotator/],
    ['two ways', `secret: a, rotation: { every: 30d, rotator: { command: { name: x }, aws_access_key: {} } }`, /exactly one of postgres, http, command and aws_access_key/],
    ['a rotation that never comes', `secret: a, rotation: { every: 367d, rotator: ${http} }`, /1h to 366d/],
    ['a rotation all the time', `secret: a, rotation: { every: 59m, rotator: ${http} }`, /1h to 366d/],
    ['a rotation within the life of a grant', `secret: a, rotation: { every: 119m, rotator: ${http} }`, /must be no shorter than the tool's ttl\.max \(2h\)/],
    ['what is not known', 'secret: a, value: x', /value/],
  ])('is refused with %s', (_, config, message) => {
    expect(messagesOf(sealed(config)).join('\n')).toMatch(message)
  })

  test('takes no target, which would confine nothing', () => {
    expect(messagesOf(sealed('secret: a', 'target: { name: x, required: true, pattern: ".*" }'))).toEqual([expect.stringContaining('must not be there')])
  })
})

describe('A tool that lends a secret of AWS Secrets Manager', () => {
  test('names it by its name or its ARN, and how Stint proves who it is', () => {
    expect(configOf(aws('secret_id: billing/api, credentials: { from: "sealed:aws" }'))).toEqual({ secret_id: 'billing/api', region: 'eu-west-1', credentials: { from: 'sealed:aws' }, web_identity: false, private_network: false })
    expect(configOf(aws(`secret_id: "${arn}", web_identity: true, ${role}, env: KEY, rotation: { every: 30d, rotator: ${http} }`))).toMatchObject({ secret_id: arn, web_identity: true, env: 'KEY' })
  })

  test.each([
    ['no proof', 'secret_id: a', /exactly one of credentials and web_identity/],
    ['two proofs', `secret_id: a, credentials: { from: "env:K" }, web_identity: true, ${role}`, /exactly one of credentials and web_identity/],
    ['a web identity that works as nobody', 'secret_id: a, web_identity: true', /goes with web_identity: true, and is needed there/],
    ['a role with a key', `secret_id: a, credentials: { from: "env:K" }, ${role}`, /goes with web_identity/],
    ['the ARN of another region', `secret_id: "${arn.replace('eu-west-1', 'us-east-1')}", credentials: { from: "env:K" }`, /must be the one in the ARN/],
    ['the ARN of something else', 'secret_id: "arn:aws:s3:::bucket", credentials: { from: "env:K" }', /must be the name or the ARN of a secret/],
    ['a name with a space', 'secret_id: "a b", credentials: { from: "env:K" }', /must be the name or the ARN of a secret/],
    ['a rotation within the life of a grant', `secret_id: a, credentials: { from: "env:K" }, rotation: { every: 1h, rotator: ${http} }`, /ttl\.max \(2h\)/],
  ])('is refused with %s', (_, config, message) => {
    expect(messagesOf(aws(config)).join('\n')).toMatch(message)
  })
})
