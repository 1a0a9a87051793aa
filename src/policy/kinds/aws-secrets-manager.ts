import { z } from 'zod'
import { roleArn } from './aws-kill-switch.ts'
import { awsRegion } from './aws-sts.ts'
import type { ConnectorKind, KindProblem } from './kind.ts'
import { privateNetwork, secretSource, serviceUrl } from './parts.ts'
import { environmentSchema, judgeRotation, judgeSharedSecret, mayBeSameSecret, rotationSchema } from './rotation.ts'

/** The ARN of a secret, of which the fourth part is the region. */
const secretArn = /^arn:aws[a-z-]*:secretsmanager:([a-z0-9-]+):[0-9]{12}:secret:[A-Za-z0-9/_+=.@-]{1,519}$/
const secretName = /^[A-Za-z0-9/_+=.@-]{1,512}$/

const config = z
  .strictObject({
    /** The secret's name, or its whole ARN, which no other secret ever has. */
    secret_id: z.string().refine((id) => secretArn.test(id) || secretName.test(id), 'must be the name or the ARN of a secret in AWS Secrets Manager'),
    region: awsRegion,
    /** An access key, as JSON: `{"AccessKeyId": …, "SecretAccessKey": …}`, or as `aws iam create-access-key` prints it. */
    credentials: secretSource.optional(),
    /** Whether Stint proves who it is by a token that it signs itself, and works as `role`; else by `credentials`. */
    web_identity: z.boolean().default(false),
    role: roleArn.optional(),
    /** In place of AWS's own addresses, for an emulator or a gateway. */
    endpoint: serviceUrl.optional(),
    private_network: privateNetwork,
    env: environmentSchema.optional(),
    rotation: rotationSchema.optional(),
  })
  .refine(({ credentials, web_identity: webIdentity }) => (credentials !== undefined) !== webIdentity, 'must have exactly one of credentials and web_identity: true')
  .refine(({ role, web_identity: webIdentity }) => (role !== undefined) === webIdentity, { path: ['role'], error: 'goes with web_identity: true, and is needed there: what Stint works as' })
  .refine(({ secret_id: id, region }) => (secretArn.exec(id)?.[1] ?? region) === region, { path: ['region'], error: 'must be the one in the ARN of the secret' })

export type AwsSecretsManagerConfig = z.output<typeof config>

/** A secret of AWS Secrets Manager, lent as it is: nothing can be cut out of it, so there is no target. */
export const awsSecretsManagerKind: ConnectorKind = { audience: 'optional', lendsToken: false, lendsValue: true, actionShape: {}, config, target: 'refused', judgeTool: judgeRotation, judgeBeside }

function judgeBeside(own: unknown, beside: unknown, other: string): readonly KindProblem[] {
  // The schema of this kind has parsed both.
  const [a, b] = [own as AwsSecretsManagerConfig, beside as AwsSecretsManagerConfig]
  if (a.region !== b.region || a.endpoint !== b.endpoint || !mayBeSameSecret(a.secret_id, b.secret_id)) return []
  return judgeSharedSecret(a, b, other, ['config', 'secret_id'])
}
