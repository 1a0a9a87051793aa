import { createLogClient } from '../client/log.ts'
import { refusePositionals } from './arguments.ts'
import { CommandError, parseOptions, type Command } from './command.ts'
import { brokerHelp, brokerOf, brokerOptions } from './connection.ts'
import { readOutput, writeNewFile } from './new-file.ts'
import { formatJson, printable, printableLines } from './terminal.ts'

/** `stint audit checkpoint`: what an auditor keeps between two visits. */
export const checkpointCommand: Command = {
  name: 'checkpoint',
  summary: "the log's newest signed checkpoint, to be kept",
  help: `Usage: stint audit checkpoint [--output FILE] [--json]

Prints the newest checkpoint: the signed statement of how many entries the log
has and of the root of their tree. Needs no credential.

Keep one where nobody can change it who can change the log. Whoever has kept a
checkpoint notices whatever is done to the entries before it, for ever: stint
audit verify takes it with --checkpoint, for an export and for the live log.
Nothing is verified here; there it is.

Options:
  --output FILE  write to this new file
  --json         print it as JSON

Connection:
${brokerHelp}
Examples:
  stint audit checkpoint --output kept.checkpoint
  stint audit verify --live --checkpoint kept.checkpoint --key log.key
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('audit checkpoint', args, {
      ...brokerOptions,
      output: { type: 'string' },
      json: { type: 'boolean' },
    })
    refusePositionals('audit checkpoint', positionals)
    const output = readOutput(values.output)
    const broker = brokerOf(values, io)
    const note = await createLogClient(broker).readCheckpoint()
    const [, size] = /^[^\n]+\n(\d{1,16})\n[A-Za-z0-9+/]{43}=\n(?:[^\n]+\n)*\n(?:\u2014 [^\n]+\n)+$/.exec(note) ?? []
    if (size === undefined) throw new CommandError(`${broker.url} answered with something that is no checkpoint: is that the broker's URL?`)
    if (output !== undefined) writeNewFile(output, note, 0o644)
    if (values.json === true) io.out(formatJson({ ...(output !== undefined && { file: output }), size: Number(size), checkpoint: note }))
    else io.out(output === undefined ? printableLines(note) : `${printable(output)}: the checkpoint of ${size} entries\n`)
    return 0
  },
}
