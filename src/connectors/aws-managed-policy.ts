import type { IAMClient } from '@aws-sdk/client-iam'
import { askAws, type AwsAccess, type AwsKey } from './aws-client.ts'
import { explainAwsFailure, readAwsRefusal, type AwsCall } from './aws-failure.ts'
import { ConnectorError } from './connector.ts'

/** The managed policies of an account, one at a time. All throw `ConnectorError`. */
export interface ManagedPolicies {
  /** The document in force. Throws also where the policy is attached to nothing, so that it says nothing. */
  read(arn: string, signal: AbortSignal): Promise<string>
  /** Puts another document in force; of the five versions that a policy can have the oldest goes. */
  write(arn: string, document: string, signal: AbortSignal): Promise<void>
  /** The ARNs of the policies that are attached to the role. */
  listAttached(role: string, signal: AbortSignal): Promise<ReadonlySet<string>>
  /** The ARN of the role's permissions boundary. */
  findBoundary(role: string, signal: AbortSignal): Promise<string | undefined>
}

const versionsMax = 5
/** How often a write is begun anew where others change the versions of the policy meanwhile. */
const triesMax = 3
/** How long a change waits that IAM cannot take while it is at another one. */
const busySeconds = 5

export async function openManagedPolicies(aws: AwsAccess, key: AwsKey): Promise<ManagedPolicies> {
  const sdk = await import('@aws-sdk/client-iam')
  const client = new sdk.IAMClient(aws.settings('iam', key))

  function ask<T>(call: AwsCall & { readonly arn: string }, signal: AbortSignal, send: (client: IAMClient, options: { readonly abortSignal: AbortSignal }) => Promise<T>): Promise<T> {
    return askAws(signal, (options) => send(client, options)).catch((error: unknown) => {
      throw explain(error, call)
    })
  }

  async function makeRoom(arn: string, signal: AbortSignal): Promise<void> {
    const versions = await ask({ arn, what: 'the versions of a deny policy', right: 'iam:ListPolicyVersions', reads: true }, signal, (client, options) =>
      client.send(new sdk.ListPolicyVersionsCommand({ PolicyArn: arn }), options),
    )
    const ids = (versions.Versions ?? []).filter(({ IsDefaultVersion }) => IsDefaultVersion !== true).flatMap(({ VersionId }) => VersionId ?? [])
    if ((versions.Versions?.length ?? 0) < versionsMax) return
    const [oldest] = ids.toSorted((a, b) => Number(a.slice(1)) - Number(b.slice(1)))
    if (oldest === undefined) return
    try {
      await ask({ arn, what: 'the deletion of an old version of a deny policy', right: 'iam:DeletePolicyVersion' }, signal, (client, options) =>
        client.send(new sdk.DeletePolicyVersionCommand({ PolicyArn: arn, VersionId: oldest }), options),
      )
    } catch (error) {
      // Somebody else has deleted it, or put it in force: it is seen anew with the next try.
      if (!isRefusal(error, /^(?:NoSuchEntity|DeleteConflict)$/)) throw error
    }
  }

  return {
    async read(arn, signal) {
      const call = { arn, what: 'the reading of a deny policy', right: 'iam:GetPolicy', reads: true }
      const { Policy } = await ask(call, signal, (client, options) => client.send(new sdk.GetPolicyCommand({ PolicyArn: arn }), options))
      if (Policy?.AttachmentCount === 0) throw unattached(arn)
      const input = { PolicyArn: arn, VersionId: Policy?.DefaultVersionId }
      const { PolicyVersion } = await ask({ ...call, right: 'iam:GetPolicyVersion' }, signal, (client, options) => client.send(new sdk.GetPolicyVersionCommand(input), options))
      return decode(PolicyVersion?.Document ?? '')
    },
    async write(arn, document, signal) {
      for (let tries = 1; ; tries++) {
        try {
          await makeRoom(arn, signal)
          // A call that was held up until its time was over must not put what is old by now over what another process wrote.
          signal.throwIfAborted()
          await ask({ arn, what: 'the writing of a deny policy', right: 'iam:CreatePolicyVersion' }, signal, (client, options) =>
            client.send(new sdk.CreatePolicyVersionCommand({ PolicyArn: arn, PolicyDocument: document, SetAsDefault: true }), options),
          )
          return
        } catch (error) {
          if (signal.aborted || tries === triesMax || !isRefusal(error, /^(?:LimitExceeded|DeleteConflict)$/)) throw error
        }
      }
    },
    async listAttached(role, signal) {
      const attached = new Set<string>()
      const call = { arn: role, what: 'the list of the policies of the role', right: 'iam:ListAttachedRolePolicies', reads: true }
      for (let marker: string | undefined, pages = 0; pages < 10; pages++) {
        const input = { RoleName: nameOf(role), ...(marker !== undefined && { Marker: marker }) }
        const page = await ask(call, signal, (client, options) => client.send(new sdk.ListAttachedRolePoliciesCommand(input), options))
        for (const { PolicyArn } of page.AttachedPolicies ?? []) if (PolicyArn !== undefined) attached.add(PolicyArn)
        if (page.IsTruncated !== true || page.Marker === undefined) break
        marker = page.Marker
      }
      return attached
    },
    async findBoundary(role, signal) {
      const call = { arn: role, what: 'a look at the role', right: 'iam:GetRole', reads: true }
      const { Role } = await ask(call, signal, (client, options) => client.send(new sdk.GetRoleCommand({ RoleName: nameOf(role) }), options))
      return Role?.PermissionsBoundary?.PermissionsBoundaryArn
    },
  }
}

/** What stands behind the last slash of an ARN. */
export function nameOf(arn: string): string {
  return arn.slice(arn.lastIndexOf('/') + 1)
}

/** The error of AWS is kept behind the one that says it in words, for whoever can do something about it. */
class Refused extends ConnectorError {
  readonly code: string

  constructor(code: string, error: ConnectorError) {
    const { outcome, publicMessage, adminMessage, retryAfterSeconds, cause } = error
    super({ outcome, publicMessage, adminMessage, cause, ...(retryAfterSeconds !== undefined && { retryAfterSeconds }) })
    this.code = code
  }
}

function isRefusal(error: unknown, codes: RegExp): boolean {
  return error instanceof Refused && codes.test(error.code)
}

function explain(error: unknown, call: AwsCall & { readonly arn: string }): ConnectorError {
  const code = readAwsRefusal(error)?.code
  const name = nameOf(call.arn)
  if (code === 'NoSuchEntity') {
    const publicMessage = `There is no ${call.arn.includes(':role/') ? 'role' : 'policy'} ${name} at AWS, by which sessions are denied: an admin makes it, or names another in the catalog file.`
    return new Refused(code, new ConnectorError({ outcome: 'nothing_done', publicMessage, adminMessage: publicMessage.replace(name, call.arn) }))
  }
  if (code !== undefined && /^(?:EntityTemporarilyUnmodifiable|ConcurrentModification)$/.test(code)) {
    const publicMessage = `AWS is still at an earlier change of the policy ${name}: it is worth another try in ${busySeconds} seconds.`
    return new ConnectorError({ outcome: 'nothing_done', publicMessage, retryAfterSeconds: busySeconds })
  }
  const explained = explainAwsFailure(error, call)
  return code === undefined ? explained : new Refused(code, explained)
}

function unattached(arn: string): ConnectorError {
  const publicMessage = `The policy ${nameOf(arn)} is attached to no role, so that it denies nothing: an admin attaches it to the role, or names another in the catalog file.`
  return new ConnectorError({ outcome: 'nothing_done', publicMessage, adminMessage: publicMessage.replace(nameOf(arn), arn) })
}

/** IAM answers documents percent-encoded (RFC 3986). */
function decode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}
