import { formatTime } from '../kernel/clock.ts'
import { Secret } from '../kernel/secret.ts'
import { compileDenyingPolicy, compileSessionPolicy, sessionPolicyLengthMax } from '../policy/kinds/aws-session-policy.ts'
import type { AwsStsAction, AwsStsConfig } from '../policy/kinds/aws-sts.ts'
import { openAws, type AwsKey } from './aws-client.ts'
import { openKillSwitch } from './aws-kill-switch.ts'
import { clockSecondsMax, createAwsSessions, sessionSecondsMin, type AwsSession, type AwsSessions } from './aws-sessions.ts'
import { checkAwsSts } from './aws-sts-check.ts'
import { ConnectorError, type Connector, type Ended, type Ending, type MintRequest, type Minted } from './connector.ts'

/** A session that dies within this of now is let die: its denial would be written after it. */
const letDieMs = 5_000

/** Nothing is lent where more of the places are taken in which sessions can be denied. */
const placesLentShare = 0.8

/** Sessions of a role, each cut down by a session policy to the actions and the target of its grant. */
export const awsStsConnector: Connector = {
  kind: 'aws-sts',
  open(tool, context) {
    // The catalog has parsed it by the schema of this kind.
    const config = tool.config as AwsStsConfig
    const access = openAws(config, ['sts', 'iam'])
    const sessions = createAwsSessions({ tool: tool.name, config, access, context })
    const livesSecondsMax = Math.max(sessionSecondsMin, tool.ttl.maxSeconds) + clockSecondsMax

    const killSwitch =
      config.kill_switch &&
      openKillSwitch({ tool: tool.name, role: config.role, config: config.kill_switch, aws: access, context, secondsMax: livesSecondsMax, readKey: (signal) => readWritingKey(sessions, config, context.instance, signal) })

    async function mint({ grant, workload, owner, task, actions, target, expiresAtMs }: MintRequest, signal: AbortSignal): Promise<Minted> {
      const what = `a session for ${actions.map(({ verb }) => verb).join(', ')}`
      const policy = compileSessionPolicy(actions.flatMap(readStatements), target)
      if (policy.length > sessionPolicyLengthMax) {
        throw refuse(`The session policy for ${actions.map(({ verb }) => verb).join(', ')} would have ${policy.length} characters, and AWS takes ${sessionPolicyLengthMax}: ask for fewer actions at a time, or for a shorter target.`)
      }
      const cutOffMs = await waitOutCutOff()
      await requireRoom()
      const tags = writeTags({ workload, owner, ...(task !== undefined && { task }) })
      // Whole seconds, and none after the grant's end where STS gives as short a session.
      const leftSeconds = Math.floor((expiresAtMs - context.nowMs()) / 1000)
      const session = await sessions.open({ what, role: config.role, name: grant, seconds: Math.max(sessionSecondsMin, leftSeconds), policy, tags }, signal)
      if (session.issuedAtMs < cutOffMs) throw new ConnectorError({ outcome: 'unknown', publicMessage: 'An admin has cut off all sessions of the role, and by the clock of AWS this one came too early.', retryAfterSeconds: Math.ceil((cutOffMs - session.issuedAtMs) / 1000) })
      return writeMinted(session, config.region, expiresAtMs)
    }

    /** What is made before then is denied as soon as it is there. Returns when that was, for the clock of AWS may be behind ours. */
    async function waitOutCutOff(): Promise<number> {
      const untilMs = (killSwitch && (await context.denyLists.findCutOff(killSwitch.denying.list))) ?? -Infinity
      const seconds = Math.ceil((untilMs - context.nowMs()) / 1000)
      if (seconds > 0) throw refuse(`An admin has cut off all sessions of the role: there are new ones in ${seconds} seconds.`, seconds)
      return untilMs
    }

    /** The last places are kept for revocations: what was lent must find one. */
    async function requireRoom(): Promise<void> {
      if (killSwitch === undefined) return
      const { list, grantsMax } = killSwitch.denying
      if ((await context.denyLists.countNamed(list)) < grantsMax * placesLentShare) return
      throw refuse(`The kill switch of the role is nearly full: there are new sessions as soon as some of those have died that it denies. An admin who cannot wait gives the role one more deny policy.`, 60)
    }

    async function revoke({ grant, diesAtMs }: Ending, signal: AbortSignal): Promise<Ended> {
      const nowMs = context.nowMs()
      if (diesAtMs !== undefined && diesAtMs <= nowMs) return { status: 'ended' }
      const untilMs = diesAtMs ?? nowMs + livesSecondsMax * 1000
      if (killSwitch === undefined || untilMs <= nowMs + letDieMs) return { status: 'lives_until', untilMs }
      return killSwitch.deny([grant], signal)
    }

    return {
      ...(killSwitch === undefined
        ? { effect: 'expiry', undo: { livesSecondsMax } }
        : { effect: 'propagating', undo: 'by_grant', delaySeconds: killSwitch.delaySeconds, denying: killSwitch.denying }),
      mint,
      revoke,
      ...(killSwitch && { disable: async (endings: readonly Ending[], signal: AbortSignal) => void (await killSwitch.deny(endings.map(({ grant }) => grant), signal)) }),
      async check(signal) {
        const findings = await checkAwsSts({ tool, config, access, sessions, instance: context.instance }, signal)
        if (killSwitch !== undefined) return [...findings, ...(await killSwitch.check(signal))]
        return [...findings, { ok: true, sentence: 'There is no kill switch: a session whose grant is revoked lives until it expires.' }]
      },
      close: () => access.close(),
    }
  },
}

/**
 * The key that writes the deny policies: the one that opens sessions, or, where Stint has none, that of a session of the role
 * for it, which may do just that whatever else the role may.
 */
async function readWritingKey(sessions: AwsSessions, config: AwsStsConfig, instance: string, signal: AbortSignal): Promise<AwsKey> {
  const key = await sessions.readKey()
  if (key !== undefined) return key
  const { role = '', policies = [] } = config.kill_switch ?? {}
  const wish = { what: 'a session to write the deny policies', role, name: `stint-deny-${instance}`, seconds: sessionSecondsMin, policy: compileDenyingPolicy(policies, config.role), tags: {} }
  return (await sessions.open(wish, signal)).key
}

function readStatements({ settings }: MintRequest['actions'][number]): AwsStsAction['statements'] {
  // The catalog has parsed them by the schema of this kind.
  return settings['statements'] as AwsStsAction['statements']
}

/** The longest value of a session tag. */
const tagLengthMax = 256

/**
 * Session tags. A character that AWS takes in none (of those that a task may have, only #) is written as = and two hexadecimal
 * digits for each byte, so that no two names become one.
 */
function writeTags(values: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  return Object.fromEntries(
    Object.entries(values).map(([name, value]) => {
      const written = value.replaceAll(/[^A-Za-z0-9 _.:/+@-]/gu, (character) => Array.from(Buffer.from(character), (byte) => `=${byte.toString(16).toUpperCase().padStart(2, '0')}`).join(''))
      if (written.length > tagLengthMax) throw refuse(`The ${name} does not fit into a session tag: give it fewer characters that are no letters or digits.`)
      return [`stint:${name}`, written]
    }),
  )
}

/**
 * What some AWS program takes before a key in the environment, or along with it: a profile, a role by a token in a file, the
 * token's former name, a token of one service, whose account it is and where it holds. Also the time at which a key ends: a
 * grant that is renewed keeps its key, and a program that was told of the first end would give it up then.
 */
const conceals = [
  'AWS_PROFILE',
  'AWS_DEFAULT_PROFILE',
  'AWS_SECURITY_TOKEN',
  'AWS_ACCESS_KEY',
  'AWS_SECRET_KEY',
  'AWS_WEB_IDENTITY_TOKEN_FILE',
  'AWS_ROLE_ARN',
  'AWS_ROLE_SESSION_NAME',
  'AWS_BEARER_TOKEN_BEDROCK',
  'AWS_ACCOUNT_ID',
  'AWS_CREDENTIAL_SCOPE',
  'AWS_CREDENTIAL_EXPIRATION',
] as const

function writeMinted({ key, arn, expiresAtMs: sessionEndsMs, diesAtMs }: AwsSession, region: string, expiresAtMs: number): Minted {
  const [secret, token] = [new Secret(key.secretAccessKey), new Secret(key.sessionToken)]
  // For programs that ask for another in time: the session may live on where the grant is over.
  const expiration = formatTime(Math.min(sessionEndsMs, expiresAtMs))
  return {
    credential: { AccessKeyId: key.accessKeyId, SecretAccessKey: secret, SessionToken: token, Expiration: expiration },
    environment: {
      AWS_ACCESS_KEY_ID: key.accessKeyId,
      AWS_SECRET_ACCESS_KEY: secret,
      AWS_SESSION_TOKEN: token,
      AWS_REGION: region,
      AWS_DEFAULT_REGION: region,
    },
    conceals,
    reference: arn,
    diesAtMs,
  }
}

function refuse(publicMessage: string, retryAfterSeconds?: number): ConnectorError {
  return new ConnectorError({ outcome: 'nothing_done', publicMessage, ...(retryAfterSeconds !== undefined && { retryAfterSeconds }) })
}
