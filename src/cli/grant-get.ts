import { readDuration } from './arguments.ts'
import { actAsWorkload } from './as-workload.ts'
import { parseOptions, UsageError, type Command } from './command.ts'
import { agentHelp, agentOptions } from './connection.ts'
import { printLent } from './grant-print.ts'
import { runWithGrant } from './grant-run.ts'

/** Asks for a credential, and prints it or runs a command with it. */
export const getGrantCommand: Command = {
  name: 'grant',
  summary: 'get a credential for a tool, or run a command with one',
  help: `Usage: stint grant TOOL ACTION… [options]
       stint grant TOOL ACTION… [options] -- COMMAND [ARGUMENT…]
       stint grant show|renew GRANT
       stint grant give-back GRANT…

Asks the broker for a credential for these actions on a tool (verbs, as in
stint grant warehouse read, or whole names, as in stint grant warehouse:read)
and prints it. It ends at its time, or when you give it back.

With a command: runs it with the credential in its environment, as the tool's
own programs take it, and with STINT_GRANT, the grant's id; variables that such
a program would take instead, as AWS_PROFILE, are taken away. When the command
ends, however it ends, the credential is given back. The exit code is the
command's, 128 and the signal's number where a signal ended it, 126 or 127 where
it could not be run. Signals are passed on; a command that has not ended 5 s
after SIGTERM or SIGHUP is killed. Where the tool can let the same credential
last longer, it is renewed while the command runs, as far as policy allows; else
a warning comes before it ends. If stint itself is killed (kill -9), the
credential ends at its time.

Options:
  --target NAME   the one object that the work is about, such as a repository
  --ttl DURATION  for how long, such as 45s, 10m, 1h (else the tool's default)
  --task NAME     your own name for the piece of work: stint task complete NAME
                  ends all that was granted under it
  --reason TEXT   why, for the log
  --env           print it as lines for a shell: export NAME='value',
                  and unset NAME for what would be taken instead
  --json          print the whole answer as JSON
  --no-renew      with a command: do not renew it

${agentHelp}
Examples:
  stint grant warehouse read --ttl 15m -- psql
  stint grant github issues.read --target acme/website -- gh issue list
  eval "$(stint grant warehouse read --env)"
  stint grant give-back "$STINT_GRANT"
`,
  async run(args, io) {
    const end = args.indexOf('--')
    const command = end === -1 ? undefined : args.slice(end + 1)
    const { values, positionals } = parseOptions('grant', end === -1 ? args : args.slice(0, end), {
      ...agentOptions,
      target: { type: 'string' },
      ttl: { type: 'string' },
      task: { type: 'string' },
      reason: { type: 'string' },
      env: { type: 'boolean' },
      json: { type: 'boolean' },
      'no-renew': { type: 'boolean' },
    })
    const { tool, actions } = readAccess('grant', positionals)
    const { target, task, reason, env = false, json = false } = values
    if (env && json) throw new UsageError('give --env or --json, not both.')
    if (command !== undefined && (env || json)) throw new UsageError('--env and --json print the credential: with a command nothing is printed.')
    if (command === undefined && values['no-renew'] === true) throw new UsageError('--no-renew goes with a command: without one nothing is renewed.')
    const [file, ...rest] = command ?? []
    if (command !== undefined && (file === undefined || file === '')) throw new UsageError('which command? It follows behind --. See: stint grant --help')
    const ttlSeconds = values.ttl === undefined ? undefined : readDuration(values.ttl, 'ttl')
    const request = { tool, actions, target, ttlSeconds, task, reason }
    return actAsWorkload(values, io, async (client) => {
      if (file !== undefined) return runWithGrant(client, request, { file, args: rest, renew: values['no-renew'] !== true }, values, io)
      printLent(await client.requestGrant(request), json ? 'json' : env ? 'env' : 'fields', values, io)
      return 0
    })
  },
}

/** `TOOL ACTION…` of a command, or whole names alone, the first of which names the tool. Throws a `UsageError`. */
export function readAccess(command: string, positionals: readonly string[]): { readonly tool: string; readonly actions: readonly string[] } {
  const [first, ...rest] = positionals
  if (first === undefined) throw new UsageError(`which tool, and which actions? Write stint ${command} TOOL ACTION…. See: stint ${command} --help`)
  const [tool = ''] = first.split(':')
  const actions = first.includes(':') ? positionals : rest
  for (const name of [tool, ...actions]) {
    if (/^(?:[a-z][a-z0-9-]*:)?[a-z][a-z0-9_.-]*$/.test(name)) continue
    // A secret pasted in the wrong place must not be repeated: only what is short and plain is.
    const given = /^[\w:.-]{1,40}$/.test(name) ? `"${name}"` : 'an argument'
    throw new UsageError(`${given} is no tool or action: write stint ${command} warehouse read. See: stint ${command} --help`)
  }
  if (actions.length === 0) throw new UsageError(`name at least one action of ${tool}: stint ${command} ${tool} ACTION…. See: stint ${command} --help`)
  return { tool, actions }
}
