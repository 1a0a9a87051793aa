import { randomUUID } from 'node:crypto'
import { chmodSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { AttachRolePolicyCommand, CreatePolicyCommand, CreateRoleCommand, GetPolicyCommand, GetPolicyVersionCommand, IAMClient } from '@aws-sdk/client-iam'
import { CreateSecretCommand, GetSecretValueCommand, ListSecretVersionIdsCommand, SecretsManagerClient } from '@aws-sdk/client-secrets-manager'
import { rootCredentials, type Aws, type AwsFault, type AwsRequest } from '../aws/emulator.ts'
import type { Random } from './random.ts'

/** An account of AWS with what Stint works with there, seen past Stint, its clock being the broker's. */
export interface Cloud {
  /** Lines of a catalog file that say where it is, and as whom. */
  readonly place: string
  readonly role: string
  readonly policies: readonly string[]
  /** Sessions of the role that were asked for and made: the source identity, and when the last of them dies. */
  readonly sessions: ReadonlyMap<string, { readonly diesAtMs: number; readonly count: number }>
  /** Returns once no call is under way any more, with nothing that goes wrong from then on. */
  settle(): Promise<void>
  /** Has some next call that changes something lose its answer, or not arrive. */
  disturb(random: Random): void
  readDenials(): Promise<Denials>
  readVersions(): Promise<StagedVersions>
}

/** What the role is denied, by what stands in its policies. */
export interface Denials {
  /** Source identities of which everything is denied. */
  readonly identities: ReadonlySet<string>
  /** What is wrong with a policy, whatever it denies. */
  readonly problems: readonly string[]
}

/** The versions of the secret that are in a stage. */
export interface StagedVersions {
  readonly current: readonly string[]
  readonly pending: readonly string[]
  readonly previous: readonly string[]
  /** The value of the one that is current. */
  readonly value: string
}

export const vaultSecret = 'crash/vault'
const region = 'eu-west-1'
const policyCharactersMax = 6_144
const disturbed = ['AssumeRole', 'CreatePolicyVersion', 'PutSecretValue', 'UpdateSecretVersionStage'] as const
const cuts = ['before', 'after', 'half'] as const satisfies readonly AwsFault['cut'][]

/** Empties the emulator and sets up an account as an admin does for Stint; `nowMs` is the broker's clock. The root credential goes to a file in `folder`. */
export async function createCloud(aws: Aws, { folder, secret, nowMs }: { readonly folder: string; readonly secret: string; nowMs(): number }): Promise<Cloud> {
  aws.mend()
  delete aws.rewrite
  delete aws.onAnswer
  await fetch(`${aws.url}/moto-api/reset`, { method: 'POST' })
  aws.forget()
  const file = join(folder, 'aws.json')
  writeFileSync(file, JSON.stringify(rootCredentials), { mode: 0o600 })
  chmodSync(file, 0o600)
  const options = { endpoint: aws.url, region, credentials: { accessKeyId: rootCredentials.AccessKeyId, secretAccessKey: rootCredentials.SecretAccessKey } }
  const iam = new IAMClient(options)
  const secrets = new SecretsManagerClient(options)

  const { Role } = await iam.send(new CreateRoleCommand({ RoleName: 'stint-reports', AssumeRolePolicyDocument: JSON.stringify(trust) }))
  const policies: string[] = []
  for (const n of [1, 2, 3]) {
    const { Policy } = await iam.send(new CreatePolicyCommand({ PolicyName: `stint-deny-${n}`, PolicyDocument: JSON.stringify(denyNobody) }))
    const arn = Policy?.Arn ?? ''
    await iam.send(new AttachRolePolicyCommand({ RoleName: 'stint-reports', PolicyArn: arn }))
    policies.push(arn)
  }
  await secrets.send(new CreateSecretCommand({ Name: vaultSecret, SecretString: secret, ClientRequestToken: randomUUID() }))

  const sessions = new Map<string, { readonly diesAtMs: number; readonly count: number }>()
  /** By how much the broker's clock was ahead when a version was made. */
  const aheadMs = new Map<string, number>()
  let answered = 0
  aws.onAnswer = ({ action, parameters }: AwsRequest) => {
    answered++
    const token = parameters['ClientRequestToken']
    if (action === 'PutSecretValue' && typeof token === 'string' && !aheadMs.has(token)) aheadMs.set(token, nowMs() - Date.now())
    if (action !== 'AssumeRole') return
    const identity = String(parameters['SourceIdentity'])
    const diesAtMs = nowMs() + Number(parameters['DurationSeconds']) * 1000
    const before = sessions.get(identity)
    sessions.set(identity, { diesAtMs: Math.max(diesAtMs, before?.diesAtMs ?? 0), count: (before?.count ?? 0) + 1 })
  }
  // The emulator knows the machine's clock alone.
  aws.rewrite = ({ service }, body) => {
    const ahead = nowMs() - Date.now()
    if (service === 'sts') return body.replace(/(?<=<Expiration>)[^<]+/, (time) => new Date(Date.parse(time) + ahead).toISOString())
    return service === 'secretsmanager' ? moveCreation(body, aheadMs) : body
  }

  return {
    place: `region: ${region}, endpoint: "${aws.url}", private_network: true, credentials: { from: "file:${file}" }`,
    role: Role?.Arn ?? '',
    policies,
    sessions,
    async settle() {
      aws.mend()
      const giveUpMs = performance.now() + 5_000
      // What its process has sent arrives although that is gone; a call that was cut before is never answered.
      for (let seen = -1; seen !== aws.requests.length + answered && performance.now() < giveUpMs; ) {
        seen = aws.requests.length + answered
        await new Promise((resolve) => setTimeout(resolve, 25))
      }
      aws.forget()
    },
    disturb(random) {
      aws.fail(random.pick(disturbed) ?? 'AssumeRole', { cut: random.pick(cuts) ?? 'after' }, 1 + random.below(3))
    },
    async readDenials() {
      const documents = await Promise.all(
        policies.map(async (arn) => {
          const { Policy } = await iam.send(new GetPolicyCommand({ PolicyArn: arn }))
          const { PolicyVersion } = await iam.send(new GetPolicyVersionCommand({ PolicyArn: arn, VersionId: Policy?.DefaultVersionId ?? '' }))
          return { arn, text: decodeURIComponent(PolicyVersion?.Document ?? '') }
        }),
      )
      return judgePolicies(documents)
    },
    async readVersions() {
      const { Versions = [] } = await secrets.send(new ListSecretVersionIdsCommand({ SecretId: vaultSecret }))
      const of = (stage: string): string[] => Versions.filter(({ VersionStages = [] }) => VersionStages.includes(stage)).map(({ VersionId = '' }) => VersionId)
      const { SecretString = '' } = await secrets.send(new GetSecretValueCommand({ SecretId: vaultSecret, VersionStage: 'AWSCURRENT' }))
      return { current: of('AWSCURRENT'), pending: of('AWSPENDING'), previous: of('AWSPREVIOUS'), value: SecretString }
    },
  }
}

const trust = {
  Version: '2012-10-17',
  Statement: [{ Effect: 'Allow', Principal: { AWS: 'arn:aws:iam::123456789012:root' }, Action: ['sts:AssumeRole', 'sts:SetSourceIdentity', 'sts:TagSession'] }],
}

const denyNobody = {
  Version: '2012-10-17',
  Statement: [{ Sid: 'StintUnused', Effect: 'Deny', Action: '*', Resource: '*', Condition: { StringEquals: { 'aws:SourceIdentity': 'stint:nobody' } } }],
}

/** A statement of the language that Stint's documents are written in (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements.html). */
interface Statement {
  readonly Sid?: string
  readonly Effect?: string
  readonly Action?: unknown
  readonly Resource?: unknown
  readonly Condition?: Readonly<Record<string, Readonly<Record<string, string | readonly string[]>>>>
}

/** Reads what documents deny, by itself: whether they say what Stint means is the question. */
export function judgePolicies(documents: readonly { readonly arn: string; readonly text: string }[]): Denials {
  const identities = new Set<string>()
  const problems: string[] = []
  for (const { arn, text } of documents) {
    if (text.replaceAll(/\s/g, '').length > policyCharactersMax) problems.push(`${arn} has ${text.length} characters`)
    const { Statement = [] } = JSON.parse(text) as { readonly Statement?: Statement | readonly Statement[] }
    for (const { Sid = '', Effect, Action, Resource, Condition = {} } of [Statement].flat()) {
      if (!Sid.startsWith('Stint') || Effect !== 'Deny') problems.push(`${arn} has a statement that is not Stint's: ${Sid} ${String(Effect)}`)
      const [operator, ...others] = Object.keys(Condition)
      const values = Condition['StringEquals']?.['aws:SourceIdentity']
      // Any other condition beside it would let something through.
      const isWhole = operator === 'StringEquals' && others.length === 0 && Object.keys(Condition['StringEquals'] ?? {}).length === 1
      if (isWhole && values !== undefined && Effect === 'Deny' && Action === '*' && Resource === '*') for (const value of [values].flat()) identities.add(value)
    }
  }
  return { identities, problems }
}

function moveCreation(body: string, aheadMs: ReadonlyMap<string, number>): string {
  const move = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(move)
    if (typeof value !== 'object' || value === null) return value
    const moved = Object.fromEntries(Object.entries(value).map(([name, member]) => [name, move(member)]))
    const { VersionId: version, CreatedDate: created } = moved
    return typeof version === 'string' && typeof created === 'number' ? { ...moved, CreatedDate: created + (aheadMs.get(version) ?? 0) / 1000 } : moved
  }
  return body.startsWith('{') ? JSON.stringify(move(JSON.parse(body))) : body
}
