import { nameOf, type ManagedPolicies } from './aws-managed-policy.ts'
import { ConnectorError, type Denying, type DenyLists, type Finding } from './connector.ts'

interface KillSwitchParts {
  readonly tool: string
  readonly role: string
  readonly policies: readonly string[]
  readonly denying: Denying
  readonly denyLists: Pick<DenyLists, 'rewrite'>
  open(): Promise<ManagedPolicies>
}

/** Whether sessions of the role can be denied, in sentences. Does not throw. */
export async function checkKillSwitch({ tool, role, policies: arns, denying, denyLists, open }: KillSwitchParts, signal: AbortSignal): Promise<readonly Finding[]> {
  let policies: ManagedPolicies
  try {
    policies = await open()
  } catch (error) {
    return [{ ok: false, sentence: `The kill switch cannot be looked at: ${describe(error)}` }]
  }
  return [
    ...(await checkWriting(denying, denyLists, tool, signal)),
    ...(await checkAttached(policies, role, arns, signal)),
    await checkBoundary(policies, role, signal),
  ]
}

/** Through the list's own lease, so that nothing old is put over something new. */
async function checkWriting(denying: Denying, denyLists: Pick<DenyLists, 'rewrite'>, tool: string, signal: AbortSignal): Promise<Finding[]> {
  try {
    const { named, problem } = await denyLists.rewrite(denying, signal)
    const share = `${named} of ${denying.grantsMax} places are taken.`
    const isTight = named > denying.grantsMax * 0.8
    const capacity = isTight ? `${share} Add another policy to the role and to the catalog file; where they are full, stint tool cut-off ${tool} ends every session of the role.` : share
    return [
      problem === undefined
        ? { ok: true, sentence: 'The kill switch works: its policies are of Stint alone, were written anew, and say what they ought to say.' }
        : { ok: false, sentence: `The kill switch works without a part of its policies: ${problem}` },
      { ok: !isTight, sentence: `Of the sessions that can be denied at a time, ${capacity}` },
    ]
  } catch (error) {
    return [{ ok: false, sentence: `The kill switch does not work: ${describe(error)}` }]
  }
}

async function checkAttached(policies: ManagedPolicies, role: string, arns: readonly string[], signal: AbortSignal): Promise<Finding[]> {
  try {
    const attached = await policies.listAttached(role, signal)
    const missing = arns.filter((arn) => !attached.has(arn))
    if (missing.length === 0) return [{ ok: true, sentence: `The deny policies are attached to the role ${nameOf(role)}.` }]
    return missing.map((arn) => ({ ok: false, sentence: `The policy ${arn} is not attached to the role ${nameOf(role)}, so that it denies nothing: attach it.` }))
  } catch (error) {
    return [{ ok: false, sentence: `Whether the deny policies are attached to the role cannot be seen: ${describe(error)}` }]
  }
}

/** Who writes a policy of a role can give it any right, unless a boundary holds it: an admin ought to know in either case. */
async function checkBoundary(policies: ManagedPolicies, role: string, signal: AbortSignal): Promise<Finding> {
  const risk = `Stint's right to write these policies is a right to give the role any other`
  try {
    const boundary = await policies.findBoundary(role, signal)
    if (boundary !== undefined) return { ok: true, sentence: `${risk}, up to its permissions boundary ${nameOf(boundary)}.` }
    return { ok: true, sentence: `${risk}: nothing holds it, for the role has no permissions boundary. Give it one.` }
  } catch {
    return { ok: true, sentence: `${risk}. Whether a permissions boundary holds it cannot be seen without iam:GetRole on the role: see that it has one.` }
  }
}

function describe(error: unknown): string {
  return error instanceof ConnectorError ? error.adminMessage : 'it failed in a way that was not foreseen.'
}
