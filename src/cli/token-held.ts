import type { Introspection } from '../client/agent.ts'
import { readSingle } from './arguments.ts'
import { openAsWorkload } from './as-workload.ts'
import { CommandError, parseOptions, type Command, type Io } from './command.ts'
import { agentHelp, agentOptions } from './connection.ts'
import { formatFields, formatJson } from './terminal.ts'

/** `stint token introspect`: what the broker says of a token. */
export const introspectCommand: Command = {
  name: 'introspect',
  summary: 'ask whether a token is active, and what for',
  help: `Usage: stint token introspect TOKEN|- [--json]

Asks the broker whether a token is active; - reads it from standard input, which
keeps it out of the list of processes. A workload may ask about its own
tokens, and about those of tools that name it as introspector; of any other
token it is told that it is not active. Exit code 1: not active.

Options:
  --json  print the whole answer as JSON

${agentHelp}
Examples:
  stint token introspect - < token.txt
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('token introspect', args, { ...agentOptions, json: { type: 'boolean' } })
    const argument = readSingle('token introspect', positionals, 'the token, or - for standard input')
    const client = await openAsWorkload(values, io)
    const found = await client.introspect(await readToken(argument, io))
    io.out(values.json === true ? formatJson(found) : formatIntrospection(found))
    return found.active ? 0 : 1
  },
}

/** `stint token revoke`: a workload ends a token of its own. */
export const revokeTokenCommand: Command = {
  name: 'revoke',
  summary: 'end a token of your own',
  help: `Usage: stint token revoke TOKEN|- [--json]

Ends a token that this workload holds; - reads it from standard input, which
keeps it out of the list of processes. Whoever introspects it is told from then
on; who verifies it offline goes on accepting it until it expires. To end other
grants, as an admin: stint revoke --help

Options:
  --json  print {"done": true}

${agentHelp}
Examples:
  stint token revoke - < token.txt
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('token revoke', args, { ...agentOptions, json: { type: 'boolean' } })
    const argument = readSingle('token revoke', positionals, 'the token, or - for standard input')
    const client = await openAsWorkload(values, io)
    await client.revoke(await readToken(argument, io))
    // RFC 7009 §2.2: the answer is the same for a token that was never one, so no more can be claimed.
    io.out(values.json === true ? formatJson({ done: true }) : 'If it was a live token of this workload, it has ended.\n')
    return 0
  },
}

async function readToken(argument: string, io: Io): Promise<string> {
  const token = (argument === '-' ? await io.readInput() : argument).trim()
  if (token === '') throw new CommandError('standard input holds no token')
  return token
}

function formatIntrospection(found: Introspection): string {
  const text = (name: string): string | undefined => {
    const value = found[name]
    return value === undefined ? undefined : typeof value === 'string' ? value : JSON.stringify(value)
  }
  // NumericDate (RFC 7519 §2) is readable to programs alone.
  const time = (name: string): string | undefined => {
    const seconds = found[name]
    return typeof seconds === 'number' && Math.abs(seconds) < 1e11 ? new Date(seconds * 1000).toISOString() : undefined
  }
  return formatFields([
    ['active', found.active ? 'yes' : 'no'],
    ['workload', text('sub') ?? text('client_id')],
    ['scope', text('scope')],
    ['audience', text('aud')],
    ['details', text('authorization_details')],
    ['issued', time('iat')],
    ['expires', time('exp')],
    ['id', text('jti')],
  ])
}
