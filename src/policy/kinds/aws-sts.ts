import { z } from 'zod'
import { judgeKillSwitch, judgeSharedRole, killSwitch, roleArn } from './aws-kill-switch.ts'
import { compileSessionPolicy, findAwsTargetProblem, isConfined, sessionPolicyLengthMax, targetPlaceholder, usesTarget, type AwsStatement } from './aws-session-policy.ts'
import type { ConnectorKind, KindProblem } from './kind.ts'
import { privateNetwork, secretSource, serviceUrl } from './parts.ts'

/** The longest session that STS gives of any role. */
const sessionSecondsMax = 43_200

/** A region of the partitions that Stint knows. */
export const awsRegion = z.string().regex(/^(?!us-iso|eu-iso)[a-z]{2,4}(?:-[a-z]{2,12}){1,3}-[0-9]{1,2}$/, 'must be a region of AWS, such as eu-west-1')

const config = z
  .strictObject({
    /** The role whose sessions agents are given. It trusts Stint with sts:AssumeRole, sts:SetSourceIdentity and sts:TagSession. */
    role: roleArn,
    region: awsRegion,
    /** An access key, as JSON: `{"AccessKeyId": …, "SecretAccessKey": …}`, or as `aws iam create-access-key` prints it. */
    credentials: secretSource.optional(),
    /** Whether Stint proves who it is by a token that it signs itself, so that it holds no AWS key; else by `credentials`. */
    web_identity: z.boolean().default(false),
    /** What the role's trust policy may ask of Stint (`sts:ExternalId`). */
    external_id: z.string().regex(/^[\w+=,.@:/-]{2,1224}$/, 'must be 2 to 1224 letters, digits and _ + = , . @ : / -').optional(),
    /** In place of AWS's own addresses, for an emulator or a gateway. */
    endpoint: serviceUrl.optional(),
    private_network: privateNetwork,
    /** How sessions are denied whose grant is over. Without it each lives until it expires. */
    kill_switch: killSwitch.optional(),
  })
  .refine(({ credentials, web_identity: webIdentity }) => (credentials !== undefined) !== webIdentity, 'must have exactly one of credentials and web_identity: true')
  .refine(({ external_id: id, web_identity: webIdentity }) => id === undefined || !webIdentity, { path: ['external_id'], error: 'goes with credentials: AWS takes none with a web identity' })
  .refine(({ role, region }) => partitionOf(region) === role.split(':')[1], { path: ['region'], error: "must be in the role's own partition of AWS" })
  .superRefine((found, context) => {
    for (const { path, message } of judgeKillSwitch(found)) context.addIssue({ code: 'custom', path: [...path], message })
  })

/** The one thing of STS that a session may be allowed beside nothing: what tells it who it is. */
const harmlessOfSts = /^sts:(?:GetCallerIdentity|GetAccessKeyInfo|DecodeAuthorizationMessage)$/

/**
 * Of IAM only what reads: whoever writes there can write a way round the session policy, and out of the kill switch. PassRole
 * by its name, for what runs under another role is not this session.
 */
const harmlessOfIam = /^iam:(?:(?:Get|List|Simulate)[A-Za-z0-9*?]*|PassRole)$/

const actionPattern = z
  .string()
  .max(128)
  // The service is always named in full, so that no pattern reaches into another one.
  .regex(/^[a-z0-9][a-z0-9-]*:[A-Za-z0-9*?]+$/, 'must be service:Action, the service in full and in lower case; * and ? may stand in the action')
  // With the session of another role it would shed the denial of its source identity; and other calls give credentials, too.
  .refine((action) => !action.startsWith('sts:') || harmlessOfSts.test(action), 'must not be of sts but sts:GetCallerIdentity: a session never opens another one')
  .refine((action) => !action.startsWith('iam:') || harmlessOfIam.test(action), 'must not be of iam but iam:Get…, iam:List…, iam:Simulate… and iam:PassRole: with others a session could lift what confines it')

const text = z
  .string()
  .min(1)
  .max(1_024)
  .regex(/^[\x20-\x7e]+$/, 'must be printable ASCII')
  .refine(isPlain, `must have no { or } but in ${targetPlaceholder} and in \${*}, \${?} and \${$}, which stand for the characters themselves: policy variables are not taken`)

const resource = text.refine(isResource, `must be *, or an ARN with ${targetPlaceholder} behind its fifth colon only`)

/** Those with which a filled value says what is allowed; a negated one says what is not. */
const takesTarget = /^(?:ForAllValues:|ForAnyValue:)?(?:String(?:Equals|EqualsIgnoreCase|Like)|Arn(?:Equals|Like))(?:IfExists)?$/
const operator = z
  .string()
  .regex(
    /^(?:(?:ForAllValues:|ForAnyValue:)?(?:String(?:Not)?(?:Equals|EqualsIgnoreCase|Like)|(?:Numeric|Date)(?:(?:Not)?Equals|(?:Less|Greater)Than(?:Equals)?)|Bool|BinaryEquals|(?:Not)?IpAddress|Arn(?:Not)?(?:Equals|Like))(?:IfExists)?|Null)$/,
    'must be a condition operator of IAM, such as StringLike',
  )
const conditionKey = z.string().regex(/^[A-Za-z0-9-]{1,64}:[\w.:/=+@-]{1,256}$/, 'must be a condition key, such as s3:prefix')

const conditions = z.record(operator, z.record(conditionKey, z.array(text).min(1).max(32)).refine(isFilled, 'must name at least one condition key')).refine(isFilled, 'must name at least one operator')
  .superRefine((found, context) => {
    for (const [name, keys] of Object.entries(found)) {
      if (!takesTarget.test(name) && JSON.stringify(keys).includes(targetPlaceholder)) {
        context.addIssue({ code: 'custom', path: [name], message: `must not use ${targetPlaceholder}: it goes with StringEquals, StringLike, ArnEquals and ArnLike, which say what is allowed` })
      }
    }
  })

const statement = z.strictObject({
  actions: z.array(actionPattern).min(1).max(64),
  resources: z.array(resource).min(1).max(32),
  conditions: conditions.optional(),
})

const action = {
  statements: z
    .array(statement)
    .min(1)
    .max(16)
    // With the shortest target that there is.
    .refine((statements) => compileSessionPolicy(statements, 'x').length <= sessionPolicyLengthMax, `must fit into a session policy of ${sessionPolicyLengthMax} characters: leave some out, or make two actions of it`),
}

export type AwsStsConfig = z.output<typeof config>
export interface AwsStsAction {
  readonly statements: readonly AwsStatement[]
}

/** A session of a role, cut down to the statements of the actions and to the target. */
export const awsStsKind: ConnectorKind = { audience: 'optional', lendsToken: false, actionShape: action, config, judgeTarget: findAwsTargetProblem, judgeTool, judgeBeside }

/** A target confines each action of its tool, or there is none: one that is sent is never ignored (invariant 6). */
function judgeTool({ target, actions, ttl }: Parameters<NonNullable<ConnectorKind['judgeTool']>>[0]): KindProblem[] {
  const problems: KindProblem[] = []
  if (ttl.maxSeconds > sessionSecondsMax) problems.push({ path: ['ttl', 'max'], message: 'must be at most 12h: no session of a role lives longer' })
  for (const { verb, settings } of actions.values()) {
    const path = ['actions', verb, 'statements']
    // The schema of this kind has parsed it.
    const statements = settings['statements'] as AwsStsAction['statements']
    if (usesTarget(statements) && target?.required !== true) problems.push({ path, message: `use ${targetPlaceholder}, so that the tool must have a target, with required: true` })
    for (const [i, statement] of target === undefined ? [] : statements.entries()) {
      if (!isConfined(statement)) problems.push({ path: [...path, i], message: `must use ${targetPlaceholder} in each of its resources, or in each value of a condition by StringEquals, StringLike, ArnEquals or ArnLike itself: the tool takes a target, which would not confine this statement` })
    }
  }
  return problems
}

function judgeBeside(own: unknown, beside: unknown, other: string): readonly KindProblem[] {
  // The schema of this kind has parsed both.
  return judgeSharedRole(own as AwsStsConfig, beside as AwsStsConfig, other)
}

function isFilled(record: object): boolean {
  return Object.keys(record).length > 0
}

/** Whether it is made of text, the placeholder, and escaped characters that would mean something else. */
function isPlain(found: string): boolean {
  return /^(?:[^{}$]|\$(?!\{)|\$\{[*?$]\}|\{target\})*$/.test(found)
}

function isResource(found: string): boolean {
  if (found === '*') return true
  const parts = found.split(':')
  return parts.length >= 6 && parts[0] === 'arn' && !parts.slice(0, 5).some((part) => part.includes(targetPlaceholder)) && parts.slice(5).join(':') !== ''
}

function partitionOf(region: string): string {
  return region.startsWith('cn-') ? 'aws-cn' : region.startsWith('us-gov-') ? 'aws-us-gov' : region.startsWith('eusc-') ? 'aws-eusc' : 'aws'
}
