import type * as Sdk from '@aws-sdk/client-secrets-manager'
import { z } from 'zod'
import { Secret } from '../kernel/secret.ts'
import { askAws, type AwsSettings } from './aws-client.ts'
import { explainAwsFailure, readAwsRefusal } from './aws-failure.ts'
import { ConnectorError } from './connector.ts'

/** The staging labels that Secrets Manager itself gives a meaning. */
export const stage = { current: 'AWSCURRENT', pending: 'AWSPENDING', previous: 'AWSPREVIOUS' } as const

/** A secret without its values. */
export interface DescribedSecret {
  readonly arn: string
  /** The labels of each version that has any. */
  readonly stages: ReadonlyMap<string, readonly string[]>
  /** When AWS deletes it, where it is to be deleted. */
  readonly deletedAtMs?: number
  /** Somebody rotates it in AWS: by which function, or which service, and when next. */
  readonly rotatedBy?: string
  readonly nextRotationMs?: number
  /** The region in which it can be changed, where that is another one. */
  readonly primaryRegion?: string
}

/** A version with its value. */
export interface ReadVersion {
  readonly arn: string
  readonly version: string
  readonly createdAtMs: number
  readonly value: Secret
  /** The value is bytes, as base64. */
  readonly isBinary: boolean
}

/** One secret of Secrets Manager, or another one by its ARN. Throws `ConnectorError`; a lost answer of a change is `unknown`. */
export interface SecretsCalls {
  describe(id: string, signal: AbortSignal): Promise<DescribedSecret | undefined>
  /** A version by its id or its label; `undefined` where there is none, or no such secret. */
  read(id: string, which: { readonly version: string } | { readonly stage: string }, signal: AbortSignal): Promise<ReadVersion | undefined>
  /** Makes a version of that id. `exists`: there is one already, of another value. */
  put(id: string, version: { readonly id: string; readonly value: Secret; readonly stages: readonly string[] }, signal: AbortSignal): Promise<'put' | 'exists'>
  /** Moves a label, or takes it away. `not_there`: `from` has not got it. */
  moveStage(id: string, move: { readonly stage: string; readonly from: string; readonly to?: string }, signal: AbortSignal): Promise<'moved' | 'not_there'>
}

const versionId = z.string().regex(/^[A-Za-z0-9_.:=@+-]{1,64}$/)
const arn = z.string().max(2_048).regex(/^arn:[a-z-]+:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[\x21-\x7e]+$/)
const described = z.object({
  ARN: arn,
  VersionIdsToStages: z.record(versionId, z.array(z.string())).optional(),
  DeletedDate: z.date().nullish(),
  RotationEnabled: z.boolean().nullish(),
  RotationLambdaARN: z.string().nullish(),
  OwningService: z.string().nullish(),
  NextRotationDate: z.date().nullish(),
  PrimaryRegion: z.string().nullish(),
})
const read = z.object({ ARN: arn, VersionId: versionId, CreatedDate: z.date(), SecretString: z.string().nullish(), SecretBinary: z.instanceof(Uint8Array).nullish() })

/** `settings` are asked for before each call, so that a replaced key is used from then on. */
export function createSecretsCalls(name: string, region: string, settings: (signal: AbortSignal) => Promise<AwsSettings>): SecretsCalls {
  /** One call. What AWS refuses with one of these codes is the caller's to judge. */
  async function ask<T, C extends string>(call: Call, judged: readonly C[], send: (sdk: typeof Sdk, client: Sdk.SecretsManagerClient, options: { readonly abortSignal: AbortSignal }) => Promise<T>, signal: AbortSignal): Promise<{ readonly answer: T } | { readonly refused: C }> {
    const given = await settings(signal)
    const sdk = await import('@aws-sdk/client-secrets-manager')
    const client = new sdk.SecretsManagerClient(given)
    try {
      return { answer: await askAws(signal, (options) => send(sdk, client, options)) }
    } catch (error) {
      const code = readAwsRefusal(error)?.code
      const refused = judged.find((one) => one === code)
      if (refused !== undefined) return { refused }
      throw explainSecret(error, name, call)
    }
  }

  return {
    async describe(id, signal) {
      const call = { what: `the description of the secret ${name}`, right: 'secretsmanager:DescribeSecret', reads: true }
      const outcome = await ask(call, ['ResourceNotFound'], (sdk, client, options) => client.send(new sdk.DescribeSecretCommand({ SecretId: id }), options), signal)
      return 'refused' in outcome ? undefined : readDescription(outcome.answer, name, region)
    },
    async read(id, which, signal) {
      const call = { what: `the value of the secret ${name}`, right: 'secretsmanager:GetSecretValue', reads: true }
      const version = 'version' in which ? { VersionId: which.version } : { VersionStage: which.stage }
      const outcome = await ask(call, ['ResourceNotFound'], (sdk, client, options) => client.send(new sdk.GetSecretValueCommand({ SecretId: id, ...version }), options), signal)
      return 'refused' in outcome ? undefined : readValue(outcome.answer, name)
    },
    async put(id, { id: token, value, stages }, signal) {
      const call = { what: `a new version of the secret ${name}`, right: 'secretsmanager:PutSecretValue' }
      const input = { SecretId: id, ClientRequestToken: token, SecretString: value.reveal(), VersionStages: [...stages] }
      const outcome = await ask(call, ['ResourceExists'], (sdk, client, options) => client.send(new sdk.PutSecretValueCommand(input), options), signal)
      return 'refused' in outcome ? 'exists' : 'put'
    },
    async moveStage(id, { stage: label, from, to }, signal) {
      const call = { what: `the label ${label} of the secret ${name}`, right: 'secretsmanager:UpdateSecretVersionStage' }
      const input = { SecretId: id, VersionStage: label, RemoveFromVersionId: from, ...(to !== undefined && { MoveToVersionId: to }) }
      // Which of the two it is the documentation does not say.
      const outcome = await ask(call, ['InvalidParameter', 'InvalidRequest'], (sdk, client, options) => client.send(new sdk.UpdateSecretVersionStageCommand(input), options), signal)
      return 'refused' in outcome ? 'not_there' : 'moved'
    },
  }
}

function readDescription(answer: Sdk.DescribeSecretCommandOutput, name: string, region: string): DescribedSecret {
  const parsed = described.safeParse(answer)
  if (!parsed.success) throw unreadable(`the description of the secret ${name}`)
  const { ARN, VersionIdsToStages: stages = {}, DeletedDate: deleted, RotationEnabled: rotates, RotationLambdaARN: lambda, OwningService: service, NextRotationDate: next, PrimaryRegion: primary } = parsed.data
  return {
    arn: ARN,
    stages: new Map(Object.entries(stages).filter(([, labels]) => labels.length > 0)),
    ...(deleted && { deletedAtMs: deleted.getTime() }),
    ...(rotates === true && { rotatedBy: service ?? lambda ?? 'AWS' }),
    ...(next && { nextRotationMs: next.getTime() }),
    ...(primary && primary !== region && { primaryRegion: primary }),
  }
}

function readValue(answer: Sdk.GetSecretValueCommandOutput, name: string): ReadVersion {
  const parsed = read.safeParse(answer)
  if (!parsed.success) throw unreadable(`the value of the secret ${name}`)
  const { ARN, VersionId: version, CreatedDate: created, SecretString: text, SecretBinary: bytes } = parsed.data
  const isBinary = typeof text !== 'string'
  const value = isBinary ? Buffer.from(bytes ?? []).toString('base64') : text
  if (value === '') throw new ConnectorError({ outcome: 'nothing_done', publicMessage: `The secret ${name} is empty: an admin gives it a value in AWS.` })
  return { arn: ARN, version, createdAtMs: created.getTime(), value: new Secret(value), isBinary }
}

/** Its text would quote what was answered. */
function unreadable(what: string): ConnectorError {
  return new ConnectorError({ outcome: 'nothing_done', publicMessage: `AWS answered to ${what} in a way that cannot be read.` })
}

interface Call {
  readonly what: string
  readonly right: string
  readonly reads?: boolean
}

/** What only this service says; the rest is said of all calls of AWS. */
function explainSecret(error: unknown, name: string, call: Call): ConnectorError {
  const refusal = readAwsRefusal(error)
  const refuse = (publicMessage: string) => new ConnectorError({ outcome: 'nothing_done', publicMessage, cause: new Error(refusal?.code) })
  switch (refusal?.code) {
    case 'InvalidRequest':
      if (/delet/i.test(refusal.message)) return refuse(`The secret ${name} is scheduled for deletion in AWS: an admin restores it there (aws secretsmanager restore-secret), or takes the tool out of the catalog.`)
      break
    case 'ResourceNotFound':
      return refuse(missingSentence(name))
    case 'DecryptionFailure':
    case 'EncryptionFailure':
      return refuse(`AWS cannot use the KMS key of the secret ${name}: an admin sees to it that the key is enabled, and that Stint may use it (kms:Decrypt, kms:GenerateDataKey).`)
    case 'AccessDenied':
      // Secrets Manager does not say which right, where it is the key's.
      if (/\bKMS\b|kms:/i.test(refusal.message)) return explainAwsFailure(error, { ...call, right: call.reads === true ? 'kms:Decrypt' : 'kms:GenerateDataKey' })
      break
  }
  return explainAwsFailure(error, call)
}

/** Secrets Manager says the same of a secret that is gone and of one that never was. */
export function missingSentence(name: string): string {
  return `There is no secret ${name} in AWS Secrets Manager, or it has no value in force (AWSCURRENT): an admin gives it one there, or corrects the catalog file.`
}
