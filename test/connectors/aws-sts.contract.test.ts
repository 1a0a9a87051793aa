import { GetCallerIdentityCommand, STSClient } from '@aws-sdk/client-sts'
import { describeAws, rootCredentials, useAws } from '../aws/moto.ts'
import { createRole, listDenied } from '../broker/cloud.ts'
import { describeConnector, type Prepare } from './contract.ts'

const account = '123456789012'

describeAws('aws-sts in an emulator', () => {
  const start = useAws()

  const prepare = (withSwitch: boolean): Prepare => async (clock) => {
    const aws = await start()
    // A test may end in the middle of an outage.
    aws.mend()
    const cloud = await createRole(aws, 1)
    const roleName = cloud.role.slice(cloud.role.lastIndexOf('/') + 1)
    /** What AWS was asked for, by grant: moto keeps the key of a session, and neither its policy nor its end. */
    const sessions = new Map<string, { readonly policy: string; readonly diesAtMs: number }>()
    aws.onAnswer = ({ action, parameters }) => {
      if (action !== 'AssumeRole') return
      sessions.set(String(parameters['SourceIdentity']), { policy: String(parameters['Policy']), diesAtMs: clock.nowMs() + Number(parameters['DurationSeconds']) * 1_000 })
    }
    const setTime = (body: string): string => {
      const [, name = ''] = /assumed-role\/[^/]+\/([^<]+)</.exec(body) ?? []
      const diesAtMs = sessions.get(name)?.diesAtMs
      return diesAtMs === undefined ? body : body.replace(/<Expiration>.*<\/Expiration>/, `<Expiration>${new Date(diesAtMs).toISOString()}</Expiration>`)
    }
    const begin = () => {
      aws.mend()
      aws.fail('AssumeRole', { change: setTime })
    }
    begin()
    const identify = async (environment: Readonly<Record<string, unknown>>): Promise<string | undefined> => {
      const client = new STSClient({
        endpoint: aws.url,
        region: String(environment['AWS_REGION']),
        credentials: { accessKeyId: String(environment['AWS_ACCESS_KEY_ID']), secretAccessKey: String(environment['AWS_SECRET_ACCESS_KEY']), sessionToken: String(environment['AWS_SESSION_TOKEN']) },
      })
      return (await client.send(new GetCallerIdentityCommand({}))).Arn
    }
    return {
      tool: 'reports',
      file: `tool: reports
connector: aws-sts
sensitivity: medium
ttl: { default: 10m, max: 1h }
target: { name: prefix, required: true, pattern: "[a-z0-9-]+(/[A-Za-z0-9._-]+)*" }
actions:
  s3.read: { statements: [{ actions: ["s3:GetObject"], resources: ["arn:aws:s3:::reports/{target}/*"] }] }
  s3.write: { statements: [{ actions: ["s3:PutObject"], resources: ["arn:aws:s3:::reports/{target}/*"] }] }
config:
  role: ${cloud.role}
  region: eu-west-1
  credentials: { from: "env:AWS_ROOT" }
  endpoint: ${aws.url}
  private_network: true
${withSwitch ? `  kill_switch: { policies: ${JSON.stringify(cloud.policies)}, propagation_seconds: 60 }\n` : ''}`,
      env: { AWS_ROOT: JSON.stringify(rootCredentials) },
      rootSecrets: [rootCredentials.SecretAccessKey],
      actions: ['s3.read'],
      target: '2026',
      ...(withSwitch ? { effect: 'propagating', delaySeconds: 60 } : { effect: 'expiry' }),
      // A real client is known to the emulator by the session; that AWS ends it at its time, and by its policies, is not tried here.
      async use({ grant, environment }) {
        const known = sessions.get(grant)
        const arn = await identify(environment)
        return known !== undefined && known.diesAtMs > clock.nowMs() && arn === `arn:aws:sts::${account}:assumed-role/${roleName}/${grant}` && (await listDenied(cloud, [grant])).length === 0
      },
      // The emulator enforces no policy: that nothing more was asked for than this has to do.
      async useMore({ grant }) {
        const allowed = '{"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::reports/2026/*"}'
        return sessions.get(grant)?.policy !== `{"Version":"2012-10-17","Statement":[${allowed},{"Effect":"Deny","Action":"sts:Assume*","Resource":"*"}]}`
      },
      secretsOf: ({ environment }) => [String(environment['AWS_SECRET_ACCESS_KEY']), String(environment['AWS_SESSION_TOKEN'])],
      outage: {
        begin() {
          aws.mend()
          aws.fail(/./, { status: 500, body: '' })
        },
        end: begin,
      },
      outlives: true,
      lists: false,
    }
  }

  describeConnector('aws-sts without a kill switch', prepare(false))
  describeConnector('aws-sts with a kill switch', prepare(true))
})
