import { startUpstream } from '../upstream.ts'
import { describeConnector, type Prepare } from './contract.ts'

const endpoints = ['/token', '/token/revocation', '/.well-known/oauth-authorization-server', '/.well-known/openid-configuration']

const prepare = (checked: boolean): Prepare => async () => {
  const upstream = await startUpstream({ accessTokenSeconds: 3_600 })
  return {
    tool: 'crm',
    file: `tool: crm
connector: oauth-client
sensitivity: medium
ttl: { default: 10m, max: 1h }
actions:
  contacts.read: { scopes: [contacts.read] }
  contacts.write: { scopes: [contacts.write] }
config:
  issuer: ${upstream.issuer}
  client_id: by-basic
  client_secret: { from: "env:CRM_SECRET" }
  token_seconds_max: 3600
  tokens_are_checked: ${checked}
  private_network: true
`,
    env: { CRM_SECRET: upstream.clientSecret },
    rootSecrets: [upstream.clientSecret],
    actions: ['contacts.read'],
    effect: checked ? 'immediate' : 'expiry',
    use: ({ credential }) => upstream.isActive(String(credential['access_token'])),
    // What a token is good for is its scope: an API asks for no more than that.
    useMore: async ({ credential }) => credential['scope'] !== 'contacts.read',
    secretsOf: ({ credential, environment }) => [String(credential['access_token']), String(environment['CRM_TOKEN'])],
    outage: {
      begin: () => endpoints.forEach((path) => upstream.intercept(path, async () => ({ status: 500, body: 'out of order' }))),
      end: () => endpoints.forEach((path) => upstream.intercept(path, undefined)),
    },
    // Whose tokens nobody asks about are good for as long as the upstream says.
    outlives: !checked,
    lists: false,
  }
}

describeConnector('oauth-client', prepare(true))
describeConnector('oauth-client, of whose upstream nobody asks about tokens,', prepare(false))
