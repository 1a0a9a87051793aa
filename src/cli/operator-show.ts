import type { OperatorRecord, Recorded } from '../client/records.ts'
import { readCount, readSingle, refusePositionals } from './arguments.ts'
import { parseOptions, type Command, type Io } from './command.ts'
import { adminClient, connectionHelp, connectionOptions } from './connection.ts'
import { formatFields, formatJson, formatTable, printable } from './terminal.ts'

/** `stint operator show`. */
export const showCommand: Command = {
  name: 'show',
  summary: 'show one operator',
  help: `Usage: stint operator show NAME [--json]

Shows an operator's role, and until when its credential lasts. The credential
itself was shown when it was made; nobody can show it again.

Options:
  --json  print the record as JSON

${connectionHelp}
Examples:
  stint operator show ada
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('operator show', args, { ...connectionOptions, json: { type: 'boolean' } })
    const name = readSingle('operator show', positionals, "the operator's name")
    printOperator(await adminClient(values, io).getOperator(name), values.json === true, io)
    return 0
  },
}

/** `stint operator list`. */
export const listCommand: Command = {
  name: 'list',
  summary: 'list the operators',
  help: `Usage: stint operator list [options]

Options:
  --status STATUS  only these: active, expired or revoked
  --role ROLE      only these: admin, approver or auditor
  --limit N        at most this many (default 100, at most 1000)
  --after NAME     go on after this one
  --json           print the list as JSON

${connectionHelp}
Examples:
  stint operator list --status active
  stint operator list --role admin --json
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('operator list', args, {
      ...connectionOptions,
      status: { type: 'string' },
      role: { type: 'string' },
      limit: { type: 'string' },
      after: { type: 'string' },
      json: { type: 'boolean' },
    })
    refusePositionals('operator list', positionals)
    const limit = readCount(values.limit ?? '100', 'limit', 1000)
    const client = adminClient(values, io)
    const { status, role } = values
    const operators: OperatorRecord[] = []
    let after = values.after
    do {
      const page = await client.listOperators({ status, role, after, limit: Math.min(100, limit - operators.length) })
      operators.push(...page.operators.slice(0, limit - operators.length))
      // A page without progress would be asked for without end.
      after = page.operators.length === 0 ? undefined : page.next
    } while (after !== undefined && operators.length < limit)

    if (values.json === true) io.out(formatJson({ operators, ...(after !== undefined && { next: after }) }))
    else if (operators.length === 0) io.err('No operator matches.\n')
    else io.out(formatList(operators, io.columns))
    if (after !== undefined && values.json !== true) io.err(`There are more: --after ${printable(after)}\n`)
    return 0
  },
}

/** Prints one operator, after a change with the audit entry that records it. */
export function printOperator(operator: Recorded<OperatorRecord>, json: boolean, io: Io): void {
  if (json) {
    io.out(formatJson(operator))
    return
  }
  io.out(
    formatFields([
      ['name', operator.name],
      ['id', operator.id],
      ['role', operator.role],
      ['status', operator.status],
      ['created', operator.created_at],
      ['expires', operator.expires_at ?? 'never'],
      ['revoked', operator.revoked_at],
      ['audit entry', operator.audit_index === undefined ? undefined : String(operator.audit_index)],
    ]),
  )
}

function formatList(operators: readonly OperatorRecord[], columns: number | undefined): string {
  const header = ['NAME', 'ROLE', 'STATUS', 'EXPIRES', 'CREATED', 'ID']
  const rows = operators.map(({ name, role, status, expires_at: expiresAt = 'never', created_at: createdAt, id }) => {
    return [name, role, status, expiresAt.slice(0, 10), createdAt.slice(0, 10), id]
  })
  return formatTable(header, rows, columns)
}
