import { describeAws, rootCredentials, useAws } from '../aws/moto.ts'
import { awsRegion, createAwsSecret, secretsError } from '../aws/secrets.ts'
import { describeConnector, type Prepare } from './contract.ts'

describeAws('aws-secrets-manager', () => {
  const start = useAws()

  const prepare: Prepare = async () => {
    const aws = await start()
    // Some tests end while it is out of order.
    aws.mend()
    let accepted = 'sk_live_first_0123456789'
    const secret = await createAwsSecret(aws, { value: accepted })
    return {
      tool: 'billing',
      file: `tool: billing
connector: aws-secrets-manager
sensitivity: high
ttl: { default: 10m, max: 1h }
actions: { use: {}, other: {} }
config:
  secret_id: ${secret.name}
  region: ${awsRegion}
  credentials: { from: "env:AWS_ROOT" }
  env: BILLING_API_KEY
  endpoint: ${aws.url}
  private_network: true
`,
      env: { AWS_ROOT: JSON.stringify(rootCredentials) },
      rootSecrets: [rootCredentials.SecretAccessKey],
      actions: ['use'],
      effect: 'expiry',
      use: async ({ credential, environment }) => credential['value'] === accepted && environment['BILLING_API_KEY'] === accepted,
      // There is but one value, and no way to cut something out of it.
      useMore: async () => false,
      secretsOf: ({ credential }) => [String(credential['value'])],
      outage: { begin: () => aws.fail(/./, secretsError('InternalServiceError', 'out of order', 500)), end: aws.mend },
      lists: false,
      async replace() {
        // Twice: what is AWSPREVIOUS may still open something.
        for (const value of ['sk_live_second_987654321', 'sk_live_third_0192837465']) {
          accepted = value
          await secret.change(value)
        }
      },
    }
  }

  describeConnector('aws-secrets-manager', prepare)
})
