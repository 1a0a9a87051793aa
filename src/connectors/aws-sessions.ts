import type { AssumeRoleCommandOutput, AssumeRoleWithWebIdentityCommandOutput } from '@aws-sdk/client-sts'
import { z } from 'zod'
import { clockMsMax } from '../grant/lifetime.ts'
import { formatDuration } from '../kernel/duration.ts'
import type { AwsStsConfig } from '../policy/kinds/aws-sts.ts'
import { askAws, type AwsAccess, type AwsKey } from './aws-client.ts'
import { readAwsKey } from './aws-credentials.ts'
import { explainAwsFailure, readAwsRefusal, readMissingRight } from './aws-failure.ts'
import { ConnectorError, type ToolContext } from './connector.ts'

/** STS gives no shorter session than this. */
export const sessionSecondsMin = 900

/** What AWS says of times is right by as much. */
export const clockSecondsMax = clockMsMax / 1000

/** A session of a role, as it is asked for. */
export interface SessionWish {
  /** To stand behind `AWS refuses`. Callers read it. */
  readonly what: string
  /** The ARN. */
  readonly role: string
  /** Names the session, and is its source identity: 2 to 64 characters of `[\w+=,.@-]`. */
  readonly name: string
  readonly seconds: number
  /** The session policy, as JSON. */
  readonly policy: string
  /** Session tags, each key and value of the characters that AWS takes in them. */
  readonly tags: Readonly<Record<string, string>>
}

/** A session of a role. */
export interface AwsSession {
  readonly key: Required<AwsKey>
  /** The session's own ARN, `arn:aws:sts::…:assumed-role/role/name`. */
  readonly arn: string
  /** When it was opened and when it expires, by the clock of AWS. */
  readonly issuedAtMs: number
  readonly expiresAtMs: number
  /** When it is dead by our clock, wherever that of AWS is. */
  readonly diesAtMs: number
}

export interface AwsSessions {
  /** Opens one. Throws `ConnectorError`; `unknown` where there may be one of that name and nobody has its key. */
  open(wish: SessionWish, signal: AbortSignal): Promise<AwsSession>
  /** The access key behind `credentials`, as it is now; `undefined` with web identity. Throws `ConnectorError`. */
  readKey(): Promise<AwsKey | undefined>
}

export interface AwsSessionsOptions {
  /** The tool's name, for the subject of Stint's own token. */
  readonly tool: string
  readonly config: Pick<AwsStsConfig, 'credentials' | 'web_identity' | 'external_id' | 'region'>
  readonly access: AwsAccess
  readonly context: Pick<ToolContext, 'nowMs' | 'readSecret' | 'signWebIdentity'>
}

/** Opens sessions of roles that trust Stint, by its access key or by a token that it signs itself. */
export function createAwsSessions({ tool, config, access, context }: AwsSessionsOptions): AwsSessions {
  async function readKey(): Promise<AwsKey | undefined> {
    const what = 'the AWS access key'
    return config.credentials && readAwsKey(await context.readSecret(config.credentials.from, what), what)
  }

  async function assume({ role, name, seconds, policy, tags }: SessionWish, signal: AbortSignal): Promise<AssumeRoleCommandOutput> {
    const key = await readKey()
    const { STSClient, AssumeRoleCommand } = await import('@aws-sdk/client-sts')
    const client = new STSClient(access.settings('sts', key))
    const command = new AssumeRoleCommand({
      RoleArn: role,
      RoleSessionName: name,
      DurationSeconds: seconds,
      Policy: policy,
      SourceIdentity: name,
      Tags: Object.entries(tags).map(([Key, Value]) => ({ Key, Value })),
      ...(config.external_id !== undefined && { ExternalId: config.external_id }),
    })
    return askAws(signal, (options) => client.send(command, options))
  }

  async function assumeByToken({ role, name, seconds, policy, tags }: SessionWish, signal: AbortSignal): Promise<AssumeRoleWithWebIdentityCommandOutput> {
    // What AWS reads in a token: IAM User Guide, "Pass session tags in AWS STS" and "Monitor and control actions taken with
    // assumed roles". The subject is no workload's SPIFFE ID, so that no access token passes for this one.
    const token = await context.signWebIdentity({
      subject: `tool:${tool}`,
      audience: 'sts.amazonaws.com',
      seconds: clockSecondsMax,
      claims: {
        'https://aws.amazon.com/tags': { principal_tags: Object.fromEntries(Object.entries(tags).map(([key, value]) => [key, [value]])) },
        'https://aws.amazon.com/source_identity': name,
      },
    })
    const { STSClient, AssumeRoleWithWebIdentityCommand } = await import('@aws-sdk/client-sts')
    const client = new STSClient(access.settings('sts', undefined))
    const command = new AssumeRoleWithWebIdentityCommand({ RoleArn: role, RoleSessionName: name, DurationSeconds: seconds, Policy: policy, WebIdentityToken: token.reveal() })
    return askAws(signal, (options) => client.send(command, options))
  }

  return {
    readKey,
    async open(wish, signal) {
      const askedAtMs = context.nowMs()
      let answer: AssumeRoleCommandOutput | AssumeRoleWithWebIdentityCommandOutput
      try {
        answer = await (config.web_identity ? assumeByToken(wish, signal) : assume(wish, signal))
      } catch (error) {
        throw explainSession(error, wish, config)
      }
      return readSession(answer, wish, askedAtMs, context.nowMs())
    },
  }
}

const session = z.object({
  Credentials: z.object({
    AccessKeyId: z.string().regex(/^[A-Z0-9]{16,128}$/),
    SecretAccessKey: z.string().regex(/^[\x21-\x7e]{16,256}$/),
    SessionToken: z.string().regex(/^[\x21-\x7e]{16,16384}$/),
    Expiration: z.date(),
  }),
  AssumedRoleUser: z.object({ Arn: z.string() }),
  // The kill switch denies it by that: what has another one, or none, it cannot end.
  SourceIdentity: z.string().optional(),
})

/** What AWS answered, if it is what was asked for: else there is a session that nobody may be given. */
function readSession(answer: unknown, { what, role, name, seconds }: SessionWish, askedAtMs: number, nowMs: number): AwsSession {
  const parsed = session.safeParse(answer)
  if (!parsed.success) throw lost(`AWS answered to ${what} without the credentials of a session.`)
  const { Credentials: found, AssumedRoleUser: user, SourceIdentity: source } = parsed.data
  if (source === undefined) throw lost(`AWS answered to ${what} with a session that has no source identity: nothing could deny it.`)
  if (user.Arn !== sessionArnOf(role, name) || source !== name) throw lost(`AWS answered to ${what} with the session of somebody else.`)
  const expiresAtMs = found.Expiration.getTime()
  const livesMs = expiresAtMs - nowMs
  if (!(livesMs > 0)) throw lost(`AWS answered to ${what} with a session that has expired by Stint's clock: one of the clocks is wrong.`)
  if (livesMs > (seconds + clockSecondsMax) * 1000) throw lost(`AWS answered to ${what} with a session that lives longer than was asked for, or one of the clocks is wrong.`)
  // Where the clock of AWS is behind ours, by more than the second that it leaves out, it has its seconds from now at most.
  const diesAtMs = expiresAtMs < askedAtMs + (seconds - 1) * 1000 ? nowMs + seconds * 1000 : expiresAtMs
  return { key: { accessKeyId: found.AccessKeyId, secretAccessKey: found.SecretAccessKey, sessionToken: found.SessionToken }, arn: user.Arn, issuedAtMs: expiresAtMs - seconds * 1000, expiresAtMs, diesAtMs }
}

/** A session is known by the last part of its role's name: without the path. */
function sessionArnOf(role: string, name: string): string {
  const [, partition = '', , , account = '', path = ''] = role.split(':')
  return `arn:${partition}:sts::${account}:assumed-role/${path.slice(path.lastIndexOf('/') + 1)}/${name}`
}

function explainSession(error: unknown, { what, role, seconds }: SessionWish, { web_identity: webIdentity, region }: AwsSessionsOptions['config']): ConnectorError {
  const call = { what, right: webIdentity ? 'sts:AssumeRoleWithWebIdentity' : 'sts:AssumeRole' }
  const refusal = readAwsRefusal(error)
  if (refusal === undefined) return explainAwsFailure(error, call)
  const { code, message } = refusal
  const roleName = role.slice(role.lastIndexOf('/') + 1)
  const refuse = (publicMessage: string, retryAfterSeconds?: number) => new ConnectorError({ outcome: 'nothing_done', publicMessage, cause: new Error(code), ...(retryAfterSeconds !== undefined && { retryAfterSeconds }) })
  switch (code) {
    case 'AccessDenied': {
      const right = readMissingRight(refusal) ?? call.right
      const who = webIdentity ? "Stint's issuer" : "Stint's own user or role"
      if (/explicit deny/i.test(message)) return refuse(`A policy denies Stint ${right} on the role ${roleName}: an admin looks for it among those of ${who}, of the role and of the organisation.`)
      const also = webIdentity || right.endsWith('WithWebIdentity') ? '' : `, and allows ${who} the same`
      return refuse(`The role ${roleName} does not trust Stint with ${right}: an admin adds that for ${who} to the role's trust policy${also}.`)
    }
    case 'PackedPolicyTooLarge':
      return refuse(`AWS refuses ${what}: its session policy and tags are too large once packed. Ask for fewer actions at a time, or for a shorter target.`)
    case 'MalformedPolicyDocument':
      return refuse(`AWS refuses ${what}: it does not take the session policy that the tool's catalog file makes. An admin corrects the statements of these actions.`)
    case 'ValidationError':
      if (/role chaining/i.test(message)) return refuse(`AWS refuses ${what} for ${formatDuration(seconds)}: Stint's credentials are a session themselves, and then an hour is the longest. Ask for a shorter time.`)
      if (/MaxSessionDuration/i.test(message)) return refuse(`AWS refuses ${what} for ${formatDuration(seconds)}: sessions of the role ${roleName} may not last as long. Ask for a shorter time; an admin raises the role's MaxSessionDuration or lowers the tool's ttl.`)
      break
    case 'RegionDisabled':
      return refuse(`AWS refuses ${what}: STS is not active in ${region} for the account of Stint's credentials. An admin activates it there, or names another region.`)
    case 'IDPCommunicationError':
      return refuse(`AWS could not fetch the keys of Stint's issuer for ${what}: its metadata must be reachable from the internet.`, 5)
    case 'InvalidIdentityToken':
    case 'IDPRejectedClaim':
      return refuse(`AWS does not accept Stint's token for ${what} (${code}): the role's account needs an OpenID Connect provider for Stint's issuer with the audience sts.amazonaws.com, and must reach the issuer's metadata and keys.`)
    case 'ExpiredToken':
      if (webIdentity) return refuse(`AWS takes Stint's token for ${what} to have expired: the clock of Stint's machine is wrong.`)
      break
  }
  return explainAwsFailure(error, call)
}

function lost(publicMessage: string): ConnectorError {
  return new ConnectorError({ outcome: 'unknown', publicMessage })
}
