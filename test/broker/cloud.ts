import { randomBytes } from 'node:crypto'
import { CreatePolicyCommand, CreatePolicyVersionCommand, CreateRoleCommand, AttachRolePolicyCommand, DeletePolicyVersionCommand, GetPolicyCommand, GetPolicyVersionCommand, IAMClient, ListPolicyVersionsCommand } from '@aws-sdk/client-iam'
import { expect } from 'vitest'
import type { Engine } from '../../src/storage/engine.ts'
import { rootCredentials, type Aws } from '../aws/moto.ts'
import { evaluate } from '../aws/deny-matcher.ts'
import { startBroker, type BrokerOptions, type TestAgent, type TestBroker } from '../broker.ts'
import { createTestClock } from '../harness.ts'
import { call, lend, type Lent } from './lending.ts'

/** A broker that lends sessions of a role with a kill switch. */
export interface Cloud {
  readonly aws: Aws
  readonly broker: TestBroker
  readonly agent: TestAgent
  readonly role: string
  /** ARNs of the deny policies. */
  readonly policies: readonly string[]
  readonly env: Record<string, string>
  /** An admin of the account, past the broker. */
  readonly admin: IAMClient
}

/** What a deny policy says before Stint has written it: the document of the README. */
export const unusedDocument = JSON.stringify({
  Version: '2012-10-17',
  Statement: [{ Sid: 'StintUnused', Effect: 'Deny', Action: '*', Resource: '*', Condition: { StringEquals: { 'aws:SourceIdentity': 'stint:nobody' } } }],
})

export interface CloudOptions extends Pick<BrokerOptions, 'pass'> {
  readonly policies?: number
  /** More files of the policy set, made with the role and the policies. */
  readonly more?: (role: string, policies: readonly string[], url: string) => Readonly<Record<string, string>>
}

export function writeTool(tool: string, role: string, policies: readonly string[], url: string, killSwitch = ''): string {
  return `tool: ${tool}
connector: aws-sts
sensitivity: medium
ttl: { default: 10m, max: 1h }
actions:
  read: { statements: [{ actions: ["s3:GetObject"], resources: ["arn:aws:s3:::reports/*"] }] }
config:
  role: "${role}"
  region: eu-west-1
  endpoint: "${url}"
  private_network: true
  credentials: { from: "env:AWS_ROOT" }
  kill_switch: { policies: ${JSON.stringify(policies)}${killSwitch} }
`
}

export const rules = `@id("support-works")
permit (principal in Team::"support", action, resource);
`

export function openAdmin(aws: Aws): IAMClient {
  return new IAMClient({ endpoint: aws.url, region: 'us-east-1', credentials: { accessKeyId: rootCredentials.AccessKeyId, secretAccessKey: rootCredentials.SecretAccessKey } })
}

/** A role with so many deny policies of its own, as an admin sets them up. */
export async function createRole(aws: Aws, count: number): Promise<Pick<Cloud, 'role' | 'policies' | 'admin'>> {
  const admin = openAdmin(aws)
  const name = `reports-${randomBytes(4).toString('hex')}`
  const { Role } = await admin.send(new CreateRoleCommand({ RoleName: name, AssumeRolePolicyDocument: JSON.stringify({ Version: '2012-10-17', Statement: [] }) }))
  const policies: string[] = []
  for (let n = 1; n <= count; n++) {
    const { Policy } = await admin.send(new CreatePolicyCommand({ PolicyName: `${name}-deny-${n}`, PolicyDocument: unusedDocument }))
    policies.push(Policy?.Arn ?? '')
    await admin.send(new AttachRolePolicyCommand({ RoleName: name, PolicyArn: Policy?.Arn }))
  }
  return { role: Role?.Arn ?? '', policies, admin }
}

export async function startCloud(engine: Engine, aws: Aws, { policies: count = 2, more = () => ({}), ...options }: CloudOptions = {}): Promise<Cloud> {
  const site = await createRole(aws, count)
  const env: Record<string, string> = { AWS_ROOT: JSON.stringify(rootCredentials) }
  const files = { 'tools/reports.yaml': writeTool('reports', site.role, site.policies, aws.url), 'rules.cedar': rules, ...more(site.role, site.policies, aws.url) }
  // What the emulator answers bears its own time.
  const broker = await startBroker(engine, { policies: new Map(Object.entries(files)), env, testClock: createTestClock(Date.now()), ...options })
  aws.forget()
  return { aws, broker, agent: await broker.register('bot'), env, ...site }
}

export const read = { tool: 'reports', actions: ['read'] }

export async function lendMany({ broker, agent }: Pick<Cloud, 'broker' | 'agent'>, count: number): Promise<Lent[]> {
  const lent: Lent[] = []
  while (lent.length < count) {
    const some = Math.min(20, count - lent.length)
    lent.push(...(await Promise.all(Array.from({ length: some }, () => lend(broker, agent, read)))))
  }
  return lent
}

/** What the deny policies say now, in their order. */
export async function readDocuments({ admin, policies }: Pick<Cloud, 'admin' | 'policies'>): Promise<string[]> {
  return Promise.all(
    policies.map(async (PolicyArn) => {
      const { Policy } = await admin.send(new GetPolicyCommand({ PolicyArn }))
      const { PolicyVersion } = await admin.send(new GetPolicyVersionCommand({ PolicyArn, VersionId: Policy?.DefaultVersionId }))
      return decodeURIComponent(PolicyVersion?.Document ?? '')
    }),
  )
}

/** Those of the grants whose session is denied, by what the policies say. */
export async function listDenied(cloud: Pick<Cloud, 'admin' | 'policies'>, grants: readonly string[], tokenIssueMs = 0): Promise<string[]> {
  const documents = await readDocuments(cloud)
  for (const document of documents) expect(document.length).toBeLessThanOrEqual(6_144)
  return grants.filter((sourceIdentity) => evaluate(documents, { sourceIdentity, tokenIssueMs: tokenIssueMs || Date.now() }) === 'denied')
}

/** Puts a document in force by hand, past the broker. */
export async function writeByHand({ admin }: Pick<Cloud, 'admin'>, PolicyArn: string, PolicyDocument: string): Promise<void> {
  const { Versions = [] } = await admin.send(new ListPolicyVersionsCommand({ PolicyArn }))
  const old = Versions.findLast(({ IsDefaultVersion }) => IsDefaultVersion !== true)
  if (Versions.length >= 5 && old !== undefined) await admin.send(new DeletePolicyVersionCommand({ PolicyArn, VersionId: old.VersionId }))
  await admin.send(new CreatePolicyVersionCommand({ PolicyArn, PolicyDocument, SetAsDefault: true }))
}

export async function revoke({ broker }: Pick<Cloud, 'broker'>, selector: unknown) {
  const response = await broker.sendAsAdmin('POST', '/v1/revocations', selector)
  // What is looked at is compared with what it must be.
  // oxlint-disable-next-line typescript/no-explicit-any
  return { status: response.status, body: (await response.json()) as any }
}

export async function stateOf({ broker, agent }: Pick<Cloud, 'broker' | 'agent'>, grant: string): Promise<string> {
  return (await call(broker, agent, 'GET', `/v1/grants/${grant}`)).body.state as string
}
