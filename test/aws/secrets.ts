import { randomUUID } from 'node:crypto'
import {
  CreateSecretCommand,
  DeleteSecretCommand,
  DescribeSecretCommand,
  GetSecretValueCommand,
  PutSecretValueCommand,
  SecretsManagerClient,
  UpdateSecretVersionStageCommand,
} from '@aws-sdk/client-secrets-manager'
import { onTestFinished } from 'vitest'
import { rootCredentials, type Aws } from './moto.ts'

export const awsRegion = 'eu-west-1'

/** A secret of the emulator, as somebody with an AWS console has it. */
export interface TestSecret {
  readonly name: string
  readonly arn: string
  /** The versions that have labels, with these and their values, the labels in order. */
  versions(): Promise<Readonly<Record<string, readonly [value: string, ...labels: string[]]>>>
  /** What is in force. */
  current(): Promise<string>
  /** Puts another value in force by hand, and returns its version. */
  change(value: string): Promise<string>
  /** Begins to rotate it, as somebody else would: a version that is AWSPENDING. */
  begin(value: string): Promise<string>
  /** Puts a label from one version to another, or away. */
  label(stage: string, from: string, to?: string): Promise<void>
  remove(days?: number): Promise<void>
}

export interface SecretOptions {
  readonly value?: string | Uint8Array | 'none'
  readonly name?: string
}

/** Makes one, straight at the emulator's proxy. */
export async function createAwsSecret(aws: Aws, { value = 'first value', name = `billing/${randomUUID()}` }: SecretOptions = {}): Promise<TestSecret> {
  const client = new SecretsManagerClient({ region: awsRegion, endpoint: aws.url, credentials: { accessKeyId: rootCredentials.AccessKeyId, secretAccessKey: rootCredentials.SecretAccessKey } })
  onTestFinished(() => client.destroy())
  const given = value === 'none' ? {} : typeof value === 'string' ? { SecretString: value } : { SecretBinary: value }
  const { ARN: arn = '' } = await client.send(new CreateSecretCommand({ Name: name, ...given }))
  const SecretId = name
  const put = async (text: string, stages: string[]) => (await client.send(new PutSecretValueCommand({ SecretId, SecretString: text, VersionStages: stages, ClientRequestToken: randomUUID() }))).VersionId ?? ''
  return {
    name,
    arn,
    async versions() {
      const { VersionIdsToStages: found = {} } = await client.send(new DescribeSecretCommand({ SecretId }))
      const read = async (VersionId: string) => (await client.send(new GetSecretValueCommand({ SecretId, VersionId }))).SecretString ?? ''
      const labelled = Object.entries(found).filter(([, labels]) => labels.length > 0)
      return Object.fromEntries(await Promise.all(labelled.map(async ([version, labels]) => [version, [await read(version), ...labels.toSorted()]] as const)))
    },
    current: async () => (await client.send(new GetSecretValueCommand({ SecretId, VersionStage: 'AWSCURRENT' }))).SecretString ?? '',
    change: (text) => put(text, ['AWSCURRENT']),
    begin: (text) => put(text, ['AWSPENDING']),
    async label(stage, from, to) {
      await client.send(new UpdateSecretVersionStageCommand({ SecretId, VersionStage: stage, RemoveFromVersionId: from, ...(to !== undefined && { MoveToVersionId: to }) }))
    },
    async remove(days) {
      await client.send(new DeleteSecretCommand({ SecretId, ...(days === undefined ? { ForceDeleteWithoutRecovery: true } : { RecoveryWindowInDays: days }) }))
    },
  }
}

/** How Secrets Manager refuses. */
export function secretsError(code: string, message: string, status = 400) {
  return { status, headers: { 'content-type': 'application/x-amz-json-1.1' }, body: JSON.stringify({ __type: code, message }) }
}
