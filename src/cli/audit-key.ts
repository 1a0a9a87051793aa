import { createLogClient } from '../client/log.ts'
import { refusePositionals } from './arguments.ts'
import { parseOptions, type Command } from './command.ts'
import { brokerHelp, brokerOf, brokerOptions } from './connection.ts'
import { formatJson } from './terminal.ts'

/** `stint audit key`: the public key of the log. */
export const keyCommand: Command = {
  name: 'key',
  summary: "the log's public key, for stint audit verify",
  help: `Usage: stint audit key [--json]

Prints the public key of the log, one line: name+hash+key, as any tool for C2SP
signed notes takes it. It never changes. Needs no credential.

All that an auditor proves rests on this key: take it once, and compare it with
what an admin sees on the broker's own machine, by another way than this
connection, all of it: the 8 digits behind the first + are no fingerprint, and
easily forged. There, this command shows it, and the broker's log at each start.

Options:
  --json  print it as JSON

Connection:
${brokerHelp}
Examples:
  stint audit key > log.key
  stint audit verify log.jsonl --key log.key
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('audit key', args, { ...brokerOptions, json: { type: 'boolean' } })
    refusePositionals('audit key', positionals)
    const key = await createLogClient(brokerOf(values, io)).readKey()
    io.out(values.json === true ? formatJson({ key }) : `${key}\n`)
    return 0
  },
}
