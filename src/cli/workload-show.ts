import type { Recorded, WorkloadRecord } from '../client/records.ts'
import { readCount, readSingle, refusePositionals } from './arguments.ts'
import { parseOptions, type Command, type Io } from './command.ts'
import { adminClient, connectionHelp, connectionOptions } from './connection.ts'
import { formatFields, formatJson, formatTable, printable } from './terminal.ts'

/** `stint workload show`. */
export const showCommand: Command = {
  name: 'show',
  summary: 'show one workload and its keys',
  help: `Usage: stint workload show NAME [--json]

Options:
  --json  print the record as JSON

${connectionHelp}
Examples:
  stint workload show triage-bot
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('workload show', args, { ...connectionOptions, json: { type: 'boolean' } })
    const name = readSingle('workload show', positionals, "the workload's name")
    printWorkload(await adminClient(values, io).getWorkload(name), values.json === true, io)
    return 0
  },
}

/** `stint workload list`. */
export const listCommand: Command = {
  name: 'list',
  summary: 'list the workloads',
  help: `Usage: stint workload list [options]

Options:
  --status STATUS  only these: active, suspended or retired
  --stage STAGE    only these: sandbox, pilot or production
  --team TEAM      only this team's
  --limit N        at most this many (default 100, at most 1000)
  --after NAME     go on after this one
  --json           print the list as JSON

${connectionHelp}
Examples:
  stint workload list --stage production
  stint workload list --status suspended --json
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('workload list', args, {
      ...connectionOptions,
      status: { type: 'string' },
      stage: { type: 'string' },
      team: { type: 'string' },
      limit: { type: 'string' },
      after: { type: 'string' },
      json: { type: 'boolean' },
    })
    refusePositionals('workload list', positionals)
    const limit = readCount(values.limit ?? '100', 'limit', 1000)
    const client = adminClient(values, io)
    const { status, stage, team } = values
    const workloads: WorkloadRecord[] = []
    let after = values.after
    do {
      const page = await client.listWorkloads({ status, stage, team, after, limit: Math.min(100, limit - workloads.length) })
      workloads.push(...page.workloads.slice(0, limit - workloads.length))
      // A page without progress would be asked for without end.
      after = page.workloads.length === 0 ? undefined : page.next
    } while (after !== undefined && workloads.length < limit)

    if (values.json === true) io.out(formatJson({ workloads, ...(after !== undefined && { next: after }) }))
    else if (workloads.length === 0) io.err('No workload matches.\n')
    else io.out(formatList(workloads, io.columns))
    if (after !== undefined && values.json !== true) io.err(`There are more: --after ${printable(after)}\n`)
    return 0
  },
}

/** Prints one workload, after a change with the audit entry that records it. */
export function printWorkload(workload: Recorded<WorkloadRecord>, json: boolean, io: Io): void {
  if (json) {
    io.out(formatJson(workload))
    return
  }
  const keys = workload.keys.map((key): [string, string] => {
    const removed = key.removed_at === undefined ? '' : `${key.status === 'ending' ? ' at' : ''} ${key.removed_at}`
    return ['key', `${key.kid}  ${key.alg}  ${key.status}${removed}`]
  })
  if (keys.length === 0) keys.push(['key', `none yet: stint workload enroll ${workload.name}`])
  io.out(
    formatFields([
      ['name', workload.name],
      ['client id', workload.spiffe_id],
      ['status', workload.status],
      ['stage', workload.stage],
      ['environment', workload.environment],
      ['team', workload.owner.team],
      ['contact', workload.owner.contact],
      ['purpose', workload.purpose],
      ['tags', workload.tags.length === 0 ? undefined : workload.tags.join(' ')],
      ['review at', workload.review_at],
      ['created', workload.created_at],
      ['updated', workload.updated_at],
      ...keys,
      ['audit entry', workload.audit_index === undefined ? undefined : String(workload.audit_index)],
    ]),
  )
}

function formatList(workloads: readonly WorkloadRecord[], columns: number | undefined): string {
  const header = ['NAME', 'STATUS', 'STAGE', 'ENVIRONMENT', 'TEAM', 'REVIEW AT', 'PURPOSE']
  const rows = workloads.map(({ name, status, stage, environment, owner, review_at: reviewAt, purpose }) => {
    return [name, status, stage, environment, owner.team, reviewAt.slice(0, 10), purpose]
  })
  return formatTable(header, rows, columns)
}
