import type { AdminClient } from '../client/admin.ts'
import type { CreatedEnrolment, Recorded } from '../client/records.ts'
import { brokerUrlDefault } from '../client/url.ts'
import { readCount, readSingle, requireOption } from './arguments.ts'
import { parseOptions, type Command, type Io } from './command.ts'
import { adminClient, brokerOf, connectionHelp, connectionOptions } from './connection.ts'
import { formatFields, formatJson, formatTable, printable } from './terminal.ts'

/** `stint workload enroll`: a one-time code for an agent. */
export const enrollWorkloadCommand: Command = {
  name: 'enroll',
  summary: 'make a one-time code with which an agent registers its key',
  help: `Usage: stint workload enroll NAME [--json]

Makes a code with which the agent registers a key of its own, and prints it,
alone, on standard output. It works once and for 15 minutes; an earlier one of
this workload that was not used is cancelled. The agent runs: stint enroll

Options:
  --json  print the whole answer as JSON

${connectionHelp}
Examples:
  stint workload enroll triage-bot
  stint workload enroll triage-bot | ssh agent-host stint enroll - \\
    --key triage-bot.key --url https://stint.example.com
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('workload enroll', args, { ...connectionOptions, json: { type: 'boolean' } })
    const name = readSingle('workload enroll', positionals, "the workload's name")
    const client = adminClient(values, io)
    const created = await client.createEnrolment(name)
    if (values.json === true) io.out(formatJson(created))
    else await printCode(client, created, brokerOf(values, io).url, io)
    return 0
  },
}

/** Prints the code alone on standard output, and what to do with it on standard error. `url` is where the admin reaches the broker. */
export async function printCode(client: AdminClient, created: Recorded<CreatedEnrolment>, url: string, io: Io): Promise<void> {
  const { workload, enrolment, code, expires_at: expiresAt } = created
  // The code is good, whatever becomes of a hint.
  const issuer = await client.getIssuer().catch(() => url)
  const option = issuer === brokerUrlDefault ? '' : ` --url ${printable(issuer)}`
  io.err(`The code for ${printable(workload)}, shown this once, until ${printable(expiresAt)} (enrolment ${printable(enrolment)}).
On the agent's machine: stint enroll CODE --key ${printable(workload)}.key${option}
`)
  io.out(`${printable(code)}\n`)
}

/** `stint workload enrolments`. */
export const enrolmentsCommand: Command = {
  name: 'enrolments',
  summary: "list a workload's enrolments",
  help: `Usage: stint workload enrolments NAME [--limit N] [--after ID] [--json]

Lists the codes that were made for a workload, the newest first, and what became
of them. The codes themselves are kept nowhere.

Options:
  --limit N   at most this many (default 20, at most 500)
  --after ID  go on after this one
  --json      print the list as JSON

${connectionHelp}
Examples:
  stint workload enrolments triage-bot
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('workload enrolments', args, {
      ...connectionOptions,
      limit: { type: 'string' },
      after: { type: 'string' },
      json: { type: 'boolean' },
    })
    const name = readSingle('workload enrolments', positionals, "the workload's name")
    const limit = readCount(values.limit ?? '20', 'limit', 500)
    const page = await adminClient(values, io).listEnrolments(name, { limit, after: values.after })
    if (values.json === true) {
      io.out(formatJson(page))
      return 0
    }
    if (page.enrolments.length === 0) io.err(`No code was made for ${printable(name)}.\n`)
    else {
      const rows = page.enrolments.map(({ enrolment, status, created_at: createdAt, expires_at: expiresAt, kid }) => {
        return [enrolment, status, createdAt, expiresAt, kid ?? '-']
      })
      io.out(formatTable(['ENROLMENT', 'STATUS', 'CREATED', 'EXPIRES', 'KEY'], rows, io.columns))
    }
    if (page.next !== undefined) io.err(`There are more: --after ${printable(page.next)}\n`)
    return 0
  },
}

/** `stint workload cancel-enrolment`. */
export const cancelEnrolmentCommand: Command = {
  name: 'cancel-enrolment',
  summary: 'make a code that was not used useless',
  help: `Usage: stint workload cancel-enrolment NAME --enrolment ID [--json]

Cancels a code that was not redeemed. One that was has left a key, which is
taken away by: stint workload remove-key

Options:
  --enrolment ID  which one, as stint workload enrolments lists it
  --json          print the enrolment as JSON

${connectionHelp}
Examples:
  stint workload cancel-enrolment triage-bot --enrolment 0123456789abcdef
`,
  async run(args, io) {
    const command = 'workload cancel-enrolment'
    const { values, positionals } = parseOptions(command, args, {
      ...connectionOptions,
      enrolment: { type: 'string' },
      json: { type: 'boolean' },
    })
    const name = readSingle(command, positionals, "the workload's name")
    const id = requireOption(command, values, 'enrolment')
    const cancelled = await adminClient(values, io).cancelEnrolment(name, id)
    if (values.json === true) io.out(formatJson(cancelled))
    else {
      io.out(
        formatFields([
          ['enrolment', cancelled.enrolment],
          ['workload', cancelled.workload],
          ['status', cancelled.status],
          ['ended', cancelled.ended_at],
          ['audit entry', cancelled.audit_index === undefined ? undefined : String(cancelled.audit_index)],
        ]),
      )
    }
    return 0
  },
}
