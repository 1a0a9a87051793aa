import type { TestBroker } from '../broker.ts'
import { admin } from '../broker/lending.ts'
import { describeConnector, type Prepare } from './contract.ts'

/** A secret that stands for access to a system which accepts one value. */
const prepare: Prepare = async () => {
  let accepted = 'sk_live_first_0123456789'
  const put = async (broker: TestBroker) => void (await admin(broker, 'PUT', '/v1/secrets/billing-api', { value: accepted }))
  return {
    tool: 'billing',
    file: `tool: billing
connector: sealed-secret
sensitivity: high
ttl: { default: 10m, max: 1h }
actions: { use: {}, other: {} }
config:
  secret: billing-api
  env: BILLING_API_KEY
`,
    env: {},
    rootSecrets: [],
    actions: ['use'],
    effect: 'expiry',
    use: async ({ credential, environment }) => credential['value'] === accepted && environment['BILLING_API_KEY'] === accepted,
    // There is but one value, and no way to cut something out of it.
    useMore: async () => false,
    secretsOf: ({ credential }) => [String(credential['value'])],
    lists: false,
    furnish: put,
    async replace(broker) {
      accepted = 'sk_live_second_987654321'
      await put(broker)
    },
  }
}

describeConnector('sealed-secret', prepare)
describeConnector('sealed-secret', prepare, 'postgres')
