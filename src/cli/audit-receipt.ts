import type { Receipt } from '../client/log-records.ts'
import { readSingle } from './arguments.ts'
import { parseOptions, UsageError, type Command } from './command.ts'
import { adminClient, connectionHelp, connectionOptions } from './connection.ts'
import { readOutput, writeNewFile } from './new-file.ts'
import { formatJson, printable } from './terminal.ts'

/** `stint audit receipt`: what the log says about one grant, with its proof. */
export const receiptCommand: Command = {
  name: 'receipt',
  summary: "one grant's entries, with the proof that they are in the log",
  help: `Usage: stint audit receipt GRANT [--output FILE] [--json]

Gives one file with all that the log says about a grant: that it was issued, by
which decision, how it was ended and by whom, and of a credential in an outside
tool whether the tool has confirmed that. It verifies alone, with nothing but
the public key of the log: see stint audit verify. Who has no other log than
this file can be sure that its entries are in the log, word for word; not that
the log has no others about the grant.

Options:
  --output FILE  write to this new file, mode 0600. Without it, to standard
                 output
  --json         with --output: print what was written as JSON

GRANT is the grant's id, grant_…: in the answer that gave it, in each entry about
it, and the jti of a token that Stint signed. Of very many that have asked about
it the receipt has the first and the last, and says how many are left out.

${connectionHelp}
Examples:
  stint audit receipt grant_01kb2m4… --output receipt.json
  stint audit verify receipt.json --key log.key
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('audit receipt', args, {
      ...connectionOptions,
      output: { type: 'string' },
      json: { type: 'boolean' },
    })
    const grant = readSingle('audit receipt', positionals, 'the id of the grant')
    const output = readOutput(values.output)
    if (output === undefined && values.json === true) throw new UsageError('a receipt is JSON already: --json tells of a file, give --output FILE.')
    const receipt = await adminClient(values, io).getReceipt(grant)
    if (output === undefined) {
      io.out(formatJson(receipt))
      return 0
    }
    writeNewFile(output, formatJson(receipt), 0o600)
    const indexes = receipt.entries.map(({ index }) => index)
    if (values.json === true) io.out(formatJson({ file: output, grant, entries: indexes, left_out: receipt.left_out ?? 0 }))
    else io.out(`${printable(output)}: ${describeReceipt(receipt)}\n`)
    return 0
  },
}

function describeReceipt({ entries, left_out: leftOut, checkpoint }: Receipt): string {
  const indexes = entries.map(({ index }) => index)
  const shown = indexes.length <= 6 ? indexes.join(', ') : `${indexes.slice(0, 3).join(', ')} … ${indexes.at(-1)}`
  const rest = leftOut === undefined ? '' : `, ${leftOut} more left out`
  // The second line of a checkpoint is the size of the tree (https://c2sp.org/tlog-checkpoint).
  return `${indexes.length === 1 ? 'entry' : 'entries'} ${shown}${rest}, under the checkpoint of ${printable(checkpoint.split('\n')[1] ?? '?')} entries`
}
