import type { Tool } from '../policy/catalog.ts'
import { formatDuration } from '../kernel/duration.ts'
import { denyAllPolicy } from '../policy/kinds/aws-session-policy.ts'
import type { AwsStsConfig } from '../policy/kinds/aws-sts.ts'
import { askAws, type AwsAccess, type AwsKey } from './aws-client.ts'
import { explainAwsFailure } from './aws-failure.ts'
import { sessionSecondsMin, type AwsSessions } from './aws-sessions.ts'
import { ConnectorError, type Finding } from './connector.ts'

export interface AwsStsCheck {
  readonly tool: Tool
  readonly config: AwsStsConfig
  readonly access: AwsAccess
  readonly sessions: AwsSessions
  readonly instance: string
}

/** Whether AWS knows the root credential, and the role can be given out as the catalog says. */
export async function checkAwsSts(parts: AwsStsCheck, signal: AbortSignal): Promise<readonly Finding[]> {
  const { config, sessions } = parts
  let key: AwsKey | undefined
  try {
    key = await sessions.readKey()
  } catch (error) {
    return [say(false, messageOf(error))]
  }
  const identity = config.web_identity || key === undefined ? [] : await checkKey(parts, key, signal)
  // What refuses the key refuses all that is signed with it.
  return identity.some(({ ok }) => !ok) ? identity : [...identity, ...(await checkRole(parts, signal))]
}

async function checkKey({ config, access }: AwsStsCheck, key: AwsKey, signal: AbortSignal): Promise<Finding[]> {
  let arn: string
  try {
    const { STSClient, GetCallerIdentityCommand } = await import('@aws-sdk/client-sts')
    const client = new STSClient(access.settings('sts', key))
    const answer = await askAws(signal, (options) => client.send(new GetCallerIdentityCommand({}), options))
    arn = typeof answer.Arn === 'string' ? answer.Arn : ''
  } catch (error) {
    return [say(false, messageOf(explainAwsFailure(error, { what: 'to be told whose the root credential is', right: 'sts:GetCallerIdentity', reads: true })))]
  }
  if (arn.endsWith(':root')) return [say(false, `The root credential is the account's own (${arn}), which may do anything there and cannot be confined: an admin makes a user that may only assume the role.`)]
  const session = key.sessionToken === undefined ? '' : ' It is a session itself, which expires, and with which no session of the role lasts longer than an hour.'
  return [say(true, `AWS (${config.region}) takes the root credential: it is ${arn}.${session}`)]
}

/**
 * Opens a session that is denied everything, for that alone shows whether the role trusts Stint. It opens nothing, and is on
 * no record because of it.
 */
async function checkRole({ tool, config, sessions, instance }: AwsStsCheck, signal: AbortSignal): Promise<Finding[]> {
  const seconds = Math.max(sessionSecondsMin, tool.ttl.maxSeconds)
  const name = `stint-check-${instance}`
  try {
    await sessions.open({ what: 'a session that is denied everything', role: config.role, name, seconds, policy: denyAllPolicy, tags: { 'stint:workload': 'stint-check' } }, signal)
  } catch (error) {
    return [say(false, messageOf(error))]
  }
  return [say(true, `${config.role} trusts Stint with sessions, their source identity and their tags, for up to ${formatDuration(seconds)}.`)]
}

function messageOf(error: unknown): string {
  return error instanceof ConnectorError ? error.adminMessage : 'It failed in a way that was not foreseen.'
}

function say(ok: boolean, sentence: string): Finding {
  return { ok, sentence }
}
