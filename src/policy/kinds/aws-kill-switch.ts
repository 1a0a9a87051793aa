import { z } from 'zod'
import { compileDenyingPolicy, sessionPolicyLengthMax } from './aws-session-policy.ts'
import type { KindProblem } from './kind.ts'

/** The partitions of AWS, each with accounts of its own. */
const partition = '(?:aws|aws-cn|aws-us-gov|aws-eusc)'

const policyArn = z
  .string()
  .max(512)
  .refine((arn) => !/^arn:[a-z-]+:iam::aws:/.test(arn), { error: "must be a policy of the account's own: nobody can write those of AWS", abort: true })
  .regex(new RegExp(`^arn:${partition}:iam::[0-9]{12}:policy/(?:[\\x21-\\x2e\\x30-\\x7e]+/)*[A-Za-z0-9_+=,.@-]{1,128}$`), 'must be the ARN of a managed policy, arn:aws:iam::123456789012:policy/name')

/** The ARN of a role, as its account and its name. */
export const roleArn = z
  .string()
  .max(640)
  .regex(new RegExp(`^arn:${partition}:iam::[0-9]{12}:role/(?:[\\x21-\\x2e\\x30-\\x7e]+/)*[A-Za-z0-9_+=,.@-]{1,64}$`), 'must be the ARN of a role, arn:aws:iam::123456789012:role/name')

/** How sessions of the role are denied that are over: by managed policies that are attached to it and that Stint alone writes. */
export const killSwitch = z.strictObject({
  /** One is full with some 160 sessions that are over and not dead yet. */
  policies: z.array(policyArn).min(1).max(10).refine((arns) => new Set(arns).size === arns.length, 'must name each policy once'),
  /**
   * How long AWS takes to carry out everywhere what a policy says. AWS itself speaks of a few minutes (IAM User Guide,
   * "Disabling permissions for temporary security credentials"), and others have measured some seconds.
   */
  propagation_seconds: z.int().min(1).max(3_600).default(300),
  /** The role that writes the policies, where Stint has no AWS key and proves who it is by `web_identity`. */
  role: roleArn.optional(),
})

export type KillSwitchConfig = z.output<typeof killSwitch>

/** The account behind an ARN of IAM, with its partition. */
export function accountOf(arn: string): string {
  const [, partition = '', , , account = ''] = arn.split(':')
  return `${partition}:${account}`
}

interface RoleSettings {
  readonly role: string
  readonly kill_switch?: KillSwitchConfig | undefined
}

/** What is wrong with the kill switch of a role, and where in `config`. */
export function judgeKillSwitch({ role, kill_switch: found, web_identity: webIdentity }: RoleSettings & { readonly web_identity: boolean }): readonly KindProblem[] {
  if (found === undefined) return []
  const foreign = found.policies.flatMap((arn, i) => (accountOf(arn) === accountOf(role) ? [] : [{ path: ['kill_switch', 'policies', i], message: "must be a policy of the role's own account: no other can be attached to it" }]))
  const writer =
    webIdentity && found.role === undefined ? [{ path: ['kill_switch', 'role'], message: 'must name the role that writes the policies, for with web_identity there is no key that could' }]
    : !webIdentity && found.role !== undefined ? [{ path: ['kill_switch', 'role'], message: 'goes with web_identity: otherwise the policies are written with the credentials' }]
    : webIdentity && found.role === role ? [{ path: ['kill_switch', 'role'], message: 'must be another role than the one that agents are given: it could write its own way out' }]
    : []
  const long =
    webIdentity && compileDenyingPolicy(found.policies, role).length > sessionPolicyLengthMax ? [{ path: ['kill_switch', 'policies'], message: `must fit into the session policy of ${sessionPolicyLengthMax} characters with which they are written: name fewer, or give them shorter names` }]
    : []
  return [...foreign, ...writer, ...long]
}

/**
 * A role has one list of what is denied, written whole: tools that share it must name the same policies, and no policy can
 * hold the lists of two roles.
 */
export function judgeSharedRole(own: RoleSettings, beside: RoleSettings, other: string): readonly KindProblem[] {
  if (own.kill_switch?.role === beside.role) return [{ path: ['config', 'kill_switch', 'role'], message: `must not be the role whose sessions ${other} gives out: they could write their own way out` }]
  if (beside.kill_switch?.role === own.role) return [{ path: ['config', 'role'], message: `must not be the role that writes the deny policies of ${other}: a session could write its own way out` }]
  const [policies, others] = [own.kill_switch?.policies ?? [], beside.kill_switch?.policies ?? []]
  if (own.role === beside.role) {
    if (JSON.stringify(policies.toSorted()) === JSON.stringify(others.toSorted())) return []
    return [{ path: ['config', own.kill_switch === undefined ? 'role' : 'kill_switch'], message: `must have the same kill switch policies as ${other}, which gives out sessions of the same role` }]
  }
  return policies.flatMap((arn, i) => (others.includes(arn) ? [{ path: ['config', 'kill_switch', 'policies', i], message: `is a policy by which ${other} denies sessions of another role: each role has its own` }] : []))
}
