import { createAdminClient, type AdminClient } from '../client/admin.ts'
import { createAgentClient, type AgentClient } from '../client/agent.ts'
import type { AgentKey } from '../client/key.ts'
import { CommandError, UsageError, type Io } from './command.ts'
import { brokerUrlDefault, readBrokerUrl } from '../client/url.ts'
import { formatTime, systemClock } from '../kernel/clock.ts'
import { readPrivateFile } from '../kernel/private-file.ts'
import { readSession } from './session-file.ts'

/** Where the broker is: options of every command that talks to one. */
export const brokerOptions = {
  url: { type: 'string' },
  'allow-insecure': { type: 'boolean' },
} as const

/** Options of every command that an operator runs against a broker, for `parseOptions`. */
export const connectionOptions = {
  ...brokerOptions,
  'operator-token-file': { type: 'string' },
} as const

/** Options of every command that acts as a workload, for `parseOptions`. */
export const agentOptions = {
  ...brokerOptions,
  workload: { type: 'string' },
  key: { type: 'string' },
} as const

/** The part of a command's help that tells of `brokerOptions`. */
export const brokerHelp = `  --url URL         the broker (else STINT_URL, else ${brokerUrlDefault})
  --allow-insecure  allow plain http to another machine
`

/** The part of a command's help that tells of `connectionOptions`. */
export const connectionHelp = `Connection:
${brokerHelp}  --operator-token-file FILE
                    your credential, in a file of mode 0600; else it is taken
                    from the environment, STINT_OPERATOR_TOKEN, or else from
                    the session of stint login
`

/** The part of a command's help that tells of `agentOptions`. */
export const agentHelp = `Identity and connection:
  --workload NAME   who asks (else STINT_WORKLOAD)
  --key FILE        its private key, mode 0600 (else STINT_KEY_FILE)
${brokerHelp}`

/** What `parseOptions` makes of `brokerOptions`. */
export interface BrokerValues {
  readonly url?: string | undefined
  readonly 'allow-insecure'?: boolean | undefined
}

/** What `parseOptions` makes of `connectionOptions`. */
export interface ConnectionValues extends BrokerValues {
  readonly 'operator-token-file'?: string | undefined
}

/** What `parseOptions` makes of `agentOptions`. */
export interface AgentValues extends BrokerValues {
  readonly workload?: string | undefined
  readonly key?: string | undefined
}

/** A client that acts as the operator whose credential the environment or a file holds, or whose session `stint login` began. */
export function adminClient(values: ConnectionValues, io: Io): AdminClient {
  const broker = brokerOf(values, io)
  return createAdminClient({ ...broker, ...(readOperatorToken(values['operator-token-file'], io) ?? readSessionToken(broker.url, io)) })
}

/** A client that acts as the workload of the options or the environment. */
export function agentClient(values: AgentValues, key: AgentKey, io: Io): AgentClient {
  return createAgentClient({ ...brokerOf(values, io), workload: workloadName(values, io), key })
}

/** The name of the workload that acts. Throws a `UsageError` where none is given. */
export function workloadName(values: AgentValues, io: Io): string {
  const name = pick(values.workload, io.env['STINT_WORKLOAD'])
  if (name === undefined) throw new UsageError('which workload? Give --workload NAME or set STINT_WORKLOAD.')
  return name
}

/** The path of the workload's private key. Throws a `UsageError` where none is given. */
export function keyFile(values: Pick<AgentValues, 'key'>, io: Io): string {
  const path = pick(values.key, io.env['STINT_KEY_FILE'])
  if (path === undefined) throw new UsageError('which key? Give --key FILE or set STINT_KEY_FILE.')
  return path
}

/** The origin of the broker of the options, the environment, or this machine. Throws `invalid_option` for what is none. */
export function brokerOf(values: BrokerValues, io: Io): { readonly url: string; readonly allowInsecure: boolean } {
  const allowInsecure = values['allow-insecure'] === true
  const text = pick(values.url, io.env['STINT_URL']) ?? brokerUrlDefault
  return { url: readBrokerUrl(text, allowInsecure, '--allow-insecure'), allowInsecure }
}

/** A credential, and what it is from, in words for when it is not accepted. */
interface FoundToken {
  readonly token: string
  readonly tokenFrom: string
}

/** The credential is never an argument: every user of the machine can read those. */
function readOperatorToken(file: string | undefined, io: Io): FoundToken | undefined {
  const path = pick(file, undefined)
  const variable = pick(undefined, io.env['STINT_OPERATOR_TOKEN'])
  const text = path === undefined ? variable : readPrivateFile(path, "the operator's credential").toString('utf8')
  if (text === undefined) return undefined
  const token = text.trim()
  const place = path ?? 'STINT_OPERATOR_TOKEN'
  if (!/^stint_o[ps]_[\w-]{1,200}$/.test(token)) {
    throw new CommandError(`${place} holds no operator's credential: one begins with stint_op_ or stint_os_ and is a single word`)
  }
  return { token, tokenFrom: place }
}

/** The credential of the session at that broker, and of no other. */
function readSessionToken(origin: string, io: Io): FoundToken {
  const saved = readSession(origin, io)
  if (saved === undefined) {
    throw new CommandError('this needs an operator: run stint login, or set STINT_OPERATOR_TOKEN or give --operator-token-file FILE')
  }
  if (saved.expiresAtMs > systemClock.nowMs()) return { token: saved.credential, tokenFrom: 'the session of stint login' }
  throw new CommandError(`your session at ${origin} ended at ${formatTime(saved.expiresAtMs)}: run stint login`)
}

/** An option before a variable. An option that is given empty is a mistake; an empty variable counts as not set. */
function pick(option: string | undefined, variable: string | undefined): string | undefined {
  if (option === '') throw new UsageError('an option has an empty value: leave the option out, or give it a value.')
  return option ?? (variable === '' ? undefined : variable)
}
