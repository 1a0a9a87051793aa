import { isActive } from '../http/oauth-requests.ts'
import type { TestAgent, TestBroker } from '../broker.ts'
import { describeConnector, type Prepare } from './contract.ts'
import type { Lent } from '../broker/lending.ts'

const file = `tool: tickets
connector: jwt
audience: https://tickets.test
sensitivity: low
ttl: { default: 10m, max: 1h }
actions: { read: {}, comment: {} }
introspectors: [tickets-api]
`

const apis = new WeakMap<TestBroker['database'], TestAgent>()

/** The tool's own side: an API that asks the broker about each token. */
async function introspect(broker: TestBroker, { credential }: Lent): Promise<{ readonly active: boolean; readonly scope?: string }> {
  const api = apis.get(broker.database) ?? (await broker.register('tickets-api', { team: 'tickets' }))
  apis.set(broker.database, api)
  const token = String(credential['access_token'])
  const active = await isActive(broker, api, token)
  return { active, scope: String(credential['scope']) }
}

const prepare: Prepare = async () => ({
  tool: 'tickets',
  file,
  env: {},
  rootSecrets: [],
  actions: ['read'],
  effect: 'introspection',
  use: async (lent, broker) => (await introspect(broker, lent)).active,
  useMore: async (lent, broker) => (await introspect(broker, lent)).scope?.includes('comment') ?? true,
  secretsOf: ({ credential, environment }) => [String(credential['access_token']), String(environment['TICKETS_TOKEN'])],
  lists: false,
})

describeConnector('jwt', prepare)
