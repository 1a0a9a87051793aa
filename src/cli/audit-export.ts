import type { AuditExportQuery } from '../client/log-records.ts'
import { readPeriod, refusePositionals } from './arguments.ts'
import { parseOptions, UsageError, type Command } from './command.ts'
import { adminClient, brokerOf, connectionHelp, connectionOptions } from './connection.ts'
import { createExportFile, reopenExportFile } from './export-file.ts'
import { formatJson, printable } from './terminal.ts'
import { writeExport, type WrittenExport } from './write-export.ts'

/** `stint audit export`: takes the log away, or a part of it. */
export const exportCommand: Command = {
  name: 'export',
  summary: 'take the log away, as JSON Lines or CSV',
  help: `Usage: stint audit export [options]

Writes the entries that fit all of the options, the oldest first, one a line, up
to the newest one of this moment. A lost connection is taken up again behind the
last entry. The export is recorded in the log.

As jsonl each entry's line is the very bytes that were hashed: SHA-256 of a
zero byte and the line is its leaf in the tree. The last lines are the proof:
the policy sets that were in force (policy_set, files), the hashes of the
entries, by which one that is changed can be named (leaves), the hashes of
what was left out of the tree (gap, hashes), and the signed checkpoint
(checkpoint). With the log's public key, kept from before, stint audit verify
FILE checks all of it without the broker. As csv it is for spreadsheets,
without a proof: what one of them could take for a formula is made harmless.

Options:
  --from TIME      from then on, YYYY-MM-DD or YYYY-MM-DDThh:mm:ssZ in UTC
  --to TIME        before then
  --workload NAME  about this workload
  --tool NAME      about this tool
  --type TYPE      such as grant.issued, grant.denied, workload.registered
  --grant ID       about this grant
  --task NAME      about this task
  --format FORMAT  jsonl (default) or csv
  --output FILE    write to this new file, mode 0600: FILE.part until it is
                   complete. Without it, to standard output
  --resume         go on with the FILE.part of a run with the same options
  --retries N      take up a lost connection this many times in a row; 5 unless
                   given
  --json           with --output: print what was written as JSON

${connectionHelp}
Examples:
  stint audit export --output log.jsonl
  stint audit export --from YYYY-MM-DD --to YYYY-MM-DD --output month.jsonl
  stint audit export --workload triage-bot --format csv > triage-bot.csv
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('audit export', args, {
      ...connectionOptions,
      from: { type: 'string' },
      to: { type: 'string' },
      workload: { type: 'string' },
      tool: { type: 'string' },
      type: { type: 'string' },
      grant: { type: 'string' },
      task: { type: 'string' },
      format: { type: 'string' },
      output: { type: 'string' },
      resume: { type: 'boolean' },
      retries: { type: 'string' },
      json: { type: 'boolean' },
    })
    refusePositionals('audit export', positionals)
    const { workload, tool, type, grant, task, output } = values
    if (output === '') throw new UsageError('--output is empty: give it the name of a file.')
    if (output === undefined && values.resume === true) throw new UsageError('--resume goes on with a file: give --output FILE.')
    if (output === undefined && values.json === true) throw new UsageError('--json tells of a file: give --output FILE.')
    const query: AuditExportQuery = {
      format: readFormat(values.format ?? 'jsonl'),
      ...readPeriod(values),
      workload,
      tool,
      type,
      grant,
      task,
    }
    const retriesMax = readRetries(values.retries ?? '5')
    const client = adminClient(values, io)
    const plan = { url: brokerOf(values, io).url, query }
    const file = output === undefined ? undefined : await (values.resume === true ? reopenExportFile : createExportFile)(output, plan)
    const written = await writeExport({ client, query, file, retriesMax }, io)
    if (output === undefined) {
      if (io.errColumns !== undefined) io.err(`${summarize(written)}\n`)
    } else if (values.json === true) io.out(formatJson({ file: output, ...written }))
    else io.out(`${printable(output)}: ${summarize(written)}\n`)
    return 0
  },
}

function summarize({ first, last, entries, audit_index: index, checkpoint_size: size }: WrittenExport): string {
  return [
    `${entries} ${entries === 1 ? 'entry' : 'entries'} of ${first} to ${last}`,
    ...(index === undefined ? [] : [`audit entry ${index}`]),
    ...(size === undefined ? [] : [`with its proof, to the checkpoint of ${size} entries`]),
  ].join('; ')
}

function readFormat(text: string): 'jsonl' | 'csv' {
  if (text === 'jsonl' || text === 'csv') return text
  throw new UsageError('--format must be jsonl or csv.')
}

function readRetries(text: string): number {
  if (/^\d{1,3}$/.test(text)) return Number(text)
  throw new UsageError('--retries must be a whole number, 0 to 999.')
}
