import { readSingle, requireOption } from './arguments.ts'
import { parseOptions, UsageError, type Command } from './command.ts'
import { adminClient, connectionHelp, connectionOptions } from './connection.ts'
import { readJwks } from './jwks-file.ts'
import { printWorkload } from './workload-show.ts'

/** `stint workload add-key`. */
export const addKeyCommand: Command = {
  name: 'add-key',
  summary: 'register further public keys of a workload',
  help: `Usage: stint workload add-key NAME --jwks FILE [--json]

Registers further public keys. To replace a key without a gap: add the new one,
let the agent use it, then remove the old one.

Options:
  --jwks FILE  the public keys; - reads standard input
  --json       print the record as JSON

${connectionHelp}
Examples:
  stint key public new.key | stint workload add-key triage-bot --jwks -
`,
  async run(args, io) {
    const command = 'workload add-key'
    const { values, positionals } = parseOptions(command, args, {
      ...connectionOptions,
      jwks: { type: 'string' },
      json: { type: 'boolean' },
    })
    const name = readSingle(command, positionals, "the workload's name")
    const jwksFile = requireOption(command, values, 'jwks')
    const client = adminClient(values, io)
    printWorkload(await client.addWorkloadKeys(name, await readJwks(jwksFile, io)), values.json === true, io)
    return 0
  },
}

/** `stint workload remove-key`. */
export const removeKeyCommand: Command = {
  name: 'remove-key',
  summary: 'take a key away from a workload',
  help: `Usage: stint workload remove-key NAME --kid ID [--json]

Takes a key away: it authenticates nobody from then on, and can never be
registered again. What was given to its holder is ended by: stint revoke

Options:
  --kid ID  the key's id, as stint workload show lists it
  --json    print the record as JSON

${connectionHelp}
Examples:
  stint workload remove-key triage-bot \\
    --kid NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs
`,
  async run(args, io) {
    const command = 'workload remove-key'
    const { values, positionals } = parseOptions(command, args, {
      ...connectionOptions,
      kid: { type: 'string' },
      json: { type: 'boolean' },
    })
    const name = readSingle(command, positionals, "the workload's name")
    const kid = requireOption(command, values, 'kid')
    if (!/^[\w-]{43}$/.test(kid)) {
      throw new UsageError("--kid must be a key's whole id, 43 characters, as stint workload show lists it.")
    }
    printWorkload(await adminClient(values, io).removeWorkloadKey(name, kid), values.json === true, io)
    return 0
  },
}
