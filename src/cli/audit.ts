import type { AdminClient } from '../client/admin.ts'
import type { AuditEntry, AuditQuery } from '../client/log-records.ts'
import { readCount, readPeriod, readSingle, refusePositionals } from './arguments.ts'
import { checkpointCommand } from './audit-checkpoint.ts'
import { acceptRestoredCommand } from './audit-accept.ts'
import { exportCommand } from './audit-export.ts'
import { keyCommand } from './audit-key.ts'
import { formatEntries } from './audit-line.ts'
import { receiptCommand } from './audit-receipt.ts'
import { verifyCommand } from './audit-verify.ts'
import { CommandError, parseOptions, UsageError, type Command } from './command.ts'
import { adminClient, connectionHelp, connectionOptions } from './connection.ts'
import { createGroup } from './group.ts'
import { formatFields, formatJson } from './terminal.ts'

const pageMax = 100

const listCommand: Command = {
  name: 'list',
  summary: 'list entries of the log, the newest last',
  help: `Usage: stint audit list [options]

Lists the newest entries that fit all of the options, the newest last. One line
each, cut to the width of the terminal; --json and audit show tell everything.

Options:
  --type TYPE      such as grant.issued, grant.denied, workload.registered
  --workload NAME  about this workload
  --tool NAME      about this tool
  --grant ID       about this grant
  --task NAME      about this task
  --from TIME      from then on, YYYY-MM-DD or YYYY-MM-DDThh:mm:ssZ in UTC
  --to TIME        before then
  --limit N        at most this many (default 20, at most 10000)
  --json           print the entries as JSON, the newest last

${connectionHelp}
Examples:
  stint audit list --type grant.denied --limit 100
  stint audit list --grant grant_01kb2m4…
  stint audit list --task ticket-4711 --json | jq '.entries[].event.actions'
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('audit list', args, {
      ...connectionOptions,
      type: { type: 'string' },
      workload: { type: 'string' },
      tool: { type: 'string' },
      grant: { type: 'string' },
      task: { type: 'string' },
      from: { type: 'string' },
      to: { type: 'string' },
      limit: { type: 'string' },
      json: { type: 'boolean' },
    })
    refusePositionals('audit list', positionals)
    const limit = readCount(values.limit ?? '20', 'limit', 10_000)
    const { type, workload, tool, grant, task } = values
    const { from, to } = readPeriod(values)
    const query = { type, workload, tool, grant, task, since: from, until: to }
    const { entries, treeSize } = await listNewest(adminClient(values, io), query, limit)
    entries.reverse()
    if (values.json === true) io.out(formatJson({ entries, tree_size: treeSize }))
    else if (entries.length === 0) io.err('No entry fits.\n')
    else io.out(formatEntries(entries, io.columns))
    return 0
  },
}

const showCommand: Command = {
  name: 'show',
  summary: 'show one entry whole',
  help: `Usage: stint audit show INDEX [--json]

Shows one entry of the log with everything that it records: for a decision also
the whole request as the rules saw it, and which rules decided.

Options:
  --json  print the entry as JSON

${connectionHelp}
Examples:
  stint audit show 4711
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('audit show', args, { ...connectionOptions, json: { type: 'boolean' } })
    const text = readSingle('audit show', positionals, 'the index of the entry')
    if (!/^\d{1,15}$/.test(text)) {
      throw new UsageError('the index of an entry is a whole number. See: stint audit show --help')
    }
    const index = Number(text)
    const { entries, tree_size: size } = await adminClient(values, io).listAudit({ before: index + 1, limit: 1 })
    const entry = entries.find((candidate) => candidate.index === index)
    if (entry === undefined) throw new CommandError(`there is no entry ${index}: the log has ${size}, counted from 0`)
    io.out(values.json === true ? formatJson(entry) : formatEntry(entry))
    return 0
  },
}

/** `stint audit list|show|export`. */
export const auditCommand: Command = createGroup({
  name: 'audit',
  summary: 'Read the log: who got what, when and why',
  commands: [listCommand, showCommand, exportCommand, receiptCommand, verifyCommand, keyCommand, checkpointCommand, acceptRestoredCommand],
  examples: `  stint audit list --workload triage-bot --limit 50
  stint audit show 4711
  stint audit export --output log.jsonl
`,
})

/** The newest entries that fit, newest first, page by page. */
async function listNewest(
  client: AdminClient,
  query: AuditQuery,
  limit: number,
): Promise<{ readonly entries: AuditEntry[]; readonly treeSize: number }> {
  const entries: AuditEntry[] = []
  let before: number | undefined
  let treeSize = 0
  do {
    const page = await client.listAudit({ ...query, before, limit: Math.min(pageMax, limit - entries.length) })
    if (before === undefined) treeSize = page.tree_size
    entries.push(...page.entries.slice(0, limit - entries.length))
    // A page that does not lead further down would be asked for without end.
    before = page.next !== undefined && page.next < (before ?? Infinity) ? page.next : undefined
  } while (before !== undefined && entries.length < limit)
  return { entries, treeSize }
}

function formatEntry(entry: AuditEntry): string {
  const head = formatFields([
    ['index', String(entry.index)],
    ['time', entry.time],
    ['type', entry.type],
    ['leaf hash', entry.leaf_hash],
  ])
  return `${head}\n${formatJson(entry.event)}`
}
