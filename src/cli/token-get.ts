import { isObject } from '../client/answer.ts'
import type { AgentToken } from '../client/token.ts'
import { formatDuration } from '../kernel/duration.ts'
import { readDuration } from './arguments.ts'
import { actAsWorkload } from './as-workload.ts'
import { CommandError, parseOptions, UsageError, type Command, type Io } from './command.ts'
import { agentHelp, agentOptions } from './connection.ts'
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
    return actAsWorkload(values, io, async (client) => {
      const token = await client.requestToken({ actions, target, ttlSeconds, task, resource })
      if (values.json === true) io.out(formatJson(describeToken(token)))
      else if (values.claims === true) printClaims(token, io)
      else printToken(token, io)
      return 0
    })
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
