import { expect, test } from 'vitest'
import { parseTool } from '../../../src/policy/catalog.ts'

const usual: Readonly<Record<string, string>> = {
  issuer: 'https://id.crm.test',
  client_id: 'stint',
  client_secret: '{ from: "env:CRM_SECRET" }',
  token_seconds_max: '3600',
}

function parse(changes: Readonly<Record<string, string | undefined>> = {}, scopes = '[contacts.read]') {
  const config = Object.entries({ ...usual, ...changes }).flatMap(([name, value]) => (value === undefined ? [] : [`  ${name}: ${value}\n`]))
  return parseTool(
    'tools/crm.yaml',
    `tool: crm
connector: oauth-client
sensitivity: low
ttl: { default: 5m, max: 10m }
actions: { read: { scopes: ${scopes} } }
config:
${config.join('')}`,
  )
}

const problemsOf = (parsed: ReturnType<typeof parse>): string => ('problems' in parsed ? JSON.stringify(parsed.problems) : '')
const configOf = (parsed: ReturnType<typeof parse>): unknown => ('tool' in parsed ? parsed.tool.config : parsed.problems)
const key = { private_key: '{ from: "file:/run/key.pem" }', client_secret: undefined }
const refresh = { refresh_token: '{ from: "sealed:crm-refresh" }' }

test.each([
  ['a secret', {}, { revocation: true, tokens_are_checked: false, private_network: false, hosts: [] }],
  ['a key', key, { private_key: { from: 'file:/run/key.pem' } }],
  // An upstream may end the refresh token together with the access token.
  ['a refresh token, whose access tokens are not revoked', refresh, { revocation: false }],
  ['a refresh token, whose access tokens are', { ...refresh, revocation: 'true', tokens_are_checked: 'true' }, { revocation: true, tokens_are_checked: true }],
  ['no revocation', { revocation: 'false' }, { revocation: false }],
  ['further hosts', { hosts: '["api.crm.test", "id.crm.test:8443", "[2001:4860::1]:8443"]' }, { hosts: ['api.crm.test', 'id.crm.test:8443', '[2001:4860::1]:8443'] }],
  ['a loopback issuer', { issuer: 'http://127.0.0.1:4000', private_network: 'true' }, { issuer: 'http://127.0.0.1:4000', private_network: true }],
])('takes %s', (_, changes, config) => {
  expect(configOf(parse(changes))).toMatchObject(config)
})

test.each([
  ['neither key nor secret', { client_secret: undefined }, 'exactly one of private_key and client_secret'],
  ['both', { private_key: key.private_key }, 'exactly one of private_key and client_secret'],
  ['a refresh token that cannot be replaced', { refresh_token: '{ from: "env:CRM_REFRESH" }' }, 'must be sealed:name'],
  ['the promise of revoked tokens that nobody revokes', { revocation: 'false', tokens_are_checked: 'true' }, 'must not be true without revocation: true'],
  ['the same with a refresh token', { ...refresh, tokens_are_checked: 'true' }, 'must not be true without revocation: true'],
  ['an issuer without TLS', { issuer: 'http://id.crm.test' }, 'must be an https URL'],
  ['an issuer with a query', { issuer: 'https://id.crm.test/?x=1' }, 'must be an https URL'],
  ['no longest life', { token_seconds_max: undefined }, 'token_seconds_max'],
  ['a host with a path', { hosts: '["api.crm.test/x"]' }, 'must be a host'],
  ['a host with its scheme', { hosts: '["https://api.crm.test"]' }, 'must be a host'],
  ['a host with the usual port', { hosts: '["api.crm.test:443"]' }, 'must be a host'],
  ['a host with a user', { hosts: '["me@api.crm.test"]' }, 'must be a host'],
  ["Stint's own variable", { client_secret: '{ from: "env:STINT_ROOT_KEY" }' }, 'of Stint itself'],
  ['a member that is not known', { scope: 'x' }, 'scope'],
  ['a client id with a line break', { client_id: '"a\\nb"' }, 'printable'],
])('refuses %s', (_, changes, sentence) => {
  expect(problemsOf(parse(changes))).toContain(sentence)
})

test.each(['[]', '["two words"]', '["quote\\""]', '[""]'])('refuses the scopes %s', (scopes) => {
  expect(problemsOf(parse({}, scopes))).not.toBe('')
})
