import type { AuditExport, AuditExportQuery } from '../client/records.ts'
import { readPeriod, refusePositionals } from './arguments.ts'
import { parseOptions, UsageError, type Command, type Io } from './command.ts'
import { adminClient, brokerOf, connectionHelp, connectionOptions } from './connection.ts'
import { createExportFile, reopenExportFile, type ExportFile } from './export-file.ts'
import { createProgress } from './progress.ts'
import { formatJson, printable } from './terminal.ts'

/** `stint audit export`: takes the log away, or a part of it. */
export const exportCommand: Command = {
  name: 'export',
  summary: 'take the log away, as JSON Lines or CSV',
  help: `Usage: stint audit export [options]

Writes the entries that fit all of the options, the oldest first, one a line, up
to the newest one of this moment. A lost connection is taken up again behind the
last entry. The export is recorded in the log.

As jsonl each line is the very bytes that were hashed: SHA-256 of a zero byte
and the line is the entry's leaf in the tree. As csv it is for spreadsheets:
what one of them could take for a formula is made harmless.

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
    const written = await writeExport(() => client.exportAudit(file?.query ?? query, { retriesMax }), file, io)
    const { first, last, entries, audit_index: index } = written
    const summary = `${entries} ${entries === 1 ? 'entry' : 'entries'} of ${first} to ${last}; audit entry ${index}`
    if (output === undefined) {
      if (io.errColumns !== undefined) io.err(`${summary}\n`)
    } else if (values.json === true) io.out(formatJson({ file: output, first, last, entries, audit_index: index }))
    else io.out(`${printable(output)}: ${summary}\n`)
    return 0
  },
}

interface Written {
  readonly first: number
  readonly last: number
  /** How many this run has written. */
  readonly entries: number
  readonly audit_index: number
}

/** Writes all of an export to the file, or to standard output. What does not end well is left for another run. */
async function writeExport(begin: () => Promise<AuditExport>, file: ExportFile | undefined, io: Io): Promise<Written> {
  const progress = createProgress(io)
  const startedAt = performance.now()
  let entries = 0
  let reached: number | undefined
  try {
    const { first, last, audit_index, lines } = await begin()
    await file?.begin({ first, last })
    for await (const { bytes, entries: added, last_index: index } of lines) {
      await (file?.write(bytes) ?? io.write(bytes))
      entries += added
      reached = index ?? reached
      progress.show(() => {
        const perSecond = Math.round(entries / ((performance.now() - startedAt) / 1000))
        return `${entries} entries, at ${reached ?? first} of ${first} to ${last}, ${perSecond}/s`
      })
    }
    await file?.finish()
    progress.clear()
    return { first, last, entries, audit_index }
  } catch (error) {
    progress.clear()
    const left = await file?.leave()
    if (left === true) io.err('The export is not complete: run the same command with --resume to go on.\n')
    else if (reached !== undefined) io.err(`The export is not complete: it ends with entry ${reached}.\n`)
    throw error
  }
}

function readFormat(text: string): 'jsonl' | 'csv' {
  if (text === 'jsonl' || text === 'csv') return text
  throw new UsageError('--format must be jsonl or csv.')
}

function readRetries(text: string): number {
  if (/^\d{1,3}$/.test(text)) return Number(text)
  throw new UsageError('--retries must be a whole number, 0 to 999.')
}
