import { isObject } from '../client/answer.ts'
import { StintError } from '../client/errors.ts'
import type { AgentKey } from '../client/key.ts'
import type { AgentToken } from '../client/token.ts'
import { formatDuration } from '../kernel/duration.ts'
import { readDuration } from './arguments.ts'
import { CommandError, parseOptions, UsageError, type Command, type Io } from './command.ts'
import { agentClient, agentHelp, agentOptions, keyFile, workloadName } from './connection.ts'
import { createKeyFile, readKeyFile } from './key-file.ts'
import { formatJson, printable } from './terminal.ts'

/** Asks for a token for some actions and prints it, and nothing else, on standard output. */
export const getTokenCommand: Command = {
  name: 'token',
  summary: 'get a token for some actions; introspect or revoke one',
  help: `Usage: stint token ACTION… [options]
       stint token introspect TOKEN|-
       stint token revoke TOKEN|-

Asks the broker for a token for these actions (tool:verb, all of one tool) and
prints it. The first call makes the key, where there is none, and says how to
have it registered.

Options:
  --target NAME   the one object that the work is about, such as a repository
  --ttl DURATION  for how long, such as 45s, 10m, 1h (else the tool's default)
  --task NAME     your own name for the piece of work
  --resource URI  the tool's audience, where the actions do not say it
  --claims        print what the token says instead of the token
  --json          print the whole answer as JSON

${agentHelp}
Examples:
  stint token tickets:read --workload triage-bot --key triage-bot.key
  stint token tickets:read tickets:comment --ttl 10m --task ticket-4711
  curl -H "Authorization: Bearer $(stint token tickets:read)" https://…
`,
  async run(args, io) {
    const { values, positionals: actions } = parseOptions('token', args, {
      ...agentOptions,
      target: { type: 'string' },
      ttl: { type: 'string' },
      task: { type: 'string' },
      resource: { type: 'string' },
      claims: { type: 'boolean' },
      json: { type: 'boolean' },
    })
    checkActions(actions)
    if (values.claims === true && values.json === true) throw new UsageError('give --claims or --json, not both.')
    const ttlSeconds = values.ttl === undefined ? undefined : readDuration(values.ttl, 'ttl')
    const { target, task, resource } = values
    const workload = workloadName(values, io)
    const path = keyFile(values, io)

    const key = await readKeyFile(path)
    if (key === undefined) throw await introduceKey(workload, path)
    const client = agentClient(values, key, io)
    try {
      const token = await client.requestToken({ actions, target, ttlSeconds, task, resource })
      if (values.json === true) io.out(formatJson(describeToken(token)))
      else if (values.claims === true) printClaims(token, io)
      else printToken(token, io)
      return 0
    } catch (error) {
      throw error instanceof StintError ? explainRefusal(error, workload, key) : error
    }
  },
}

function checkActions(actions: readonly string[]): void {
  if (actions.length === 0) throw new UsageError('name at least one action, tool:verb. See: stint token --help')
  for (const action of actions) {
    if (/^[a-z][a-z0-9-]*:[a-z][a-z0-9_.-]*$/.test(action)) continue
    // A token pasted in the wrong place must not be repeated: only what is short and plain is.
    const given = /^[\w:.-]{1,40}$/.test(action) ? `"${action}"` : 'an argument'
    throw new UsageError(`${given} is no action: write tool:verb, such as tickets:read. See: stint token --help`)
  }
}

/** Makes the key and the message that says how to go on. Standard output stays empty: what reads it expects a token. */
async function introduceKey(workload: string, path: string): Promise<CommandError> {
  const key = await createKeyFile(path, 'ES256')
  return new CommandError(`there was no key ${path}: a new one has been made, id ${key.kid}, and has to be registered first.
With a code from an admin (stint workload enroll ${workload}):
  stint enroll CODE --key ${path}
Or hand its public half to an admin:
  stint key public ${path} > ${workload}.jwks.json
who registers the workload with it:
  stint workload register ${workload} --jwks ${workload}.jwks.json … (see: stint workload register --help)
or, where the workload exists, adds the key:
  stint workload add-key ${workload} --jwks ${workload}.jwks.json
Then ask again.`)
}

/** The broker says to strangers only that they are (invariant 10); what it could be is no secret. */
function explainRefusal(error: StintError, workload: string, key: AgentKey): Error {
  if (error.code !== 'invalid_client') return error
  return new CommandError(`${printable(error.message)}
Is the workload registered and active, and its review not overdue? An admin sees: stint workload show ${workload}
Is this key one of its keys? Its id is ${key.kid}`)
}

function printToken(token: AgentToken, io: Io): void {
  io.out(`${token.accessToken}\n`)
  // Only for a person who looks on: a program reads the token alone.
  if (io.columns === undefined) return
  const entry = token.auditIndex === undefined ? '' : `, audit entry ${token.auditIndex}`
  const scope = token.scope === '' ? '' : `${printable(token.scope)}, `
  io.err(`${scope}for ${formatDuration(Math.floor(token.expiresIn))}, until ${token.expiresAt.toISOString()}${entry}\n`)
}

function printClaims(token: AgentToken, io: Io): void {
  const payload = token.accessToken.split('.')[1]
  let claims: unknown
  try {
    claims = JSON.parse(Buffer.from(payload ?? '', 'base64url').toString('utf8'))
  } catch {
    claims = undefined
  }
  if (!isObject(claims)) throw new CommandError('the token is opaque: it has no claims that could be shown')
  io.err('These are the claims of the token; its signature was not checked here.\n')
  io.out(formatJson(claims))
}

/** The answer as OAuth writes it (RFC 6749 §5.1), with the time of expiry added. */
function describeToken(token: AgentToken): Record<string, unknown> {
  return {
    access_token: token.accessToken,
    token_type: token.tokenType,
    expires_in: token.expiresIn,
    expires_at: token.expiresAt.toISOString(),
    scope: token.scope,
    authorization_details: token.authorizationDetails,
    audit_index: token.auditIndex,
  }
}
