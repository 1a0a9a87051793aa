import type { SessionRecord } from '../client/records.ts'
import { readCount, readSingle, refusePositionals } from './arguments.ts'
import { parseOptions, UsageError, type Command, type Io } from './command.ts'
import { adminClient, connectionHelp, connectionOptions } from './connection.ts'
import { createGroup } from './group.ts'
import { formatJson, formatTable, printable } from './terminal.ts'

const listCommand: Command = {
  name: 'list',
  summary: 'show who is signed in',
  help: `Usage: stint session list [options]

Lists sessions, the newest first; those that are over for a week or so.

Options:
  --status STATUS  live (default), ended, expired or all
  --subject NAME   only this person's, as the list shows it
  --limit N        at most so many (default 100)
  --after ID       go on behind this session, as the page before says
  --json           print the list as JSON

${connectionHelp}
Examples:
  stint session list
  stint session list --status all --subject 00u1a2b3 --json
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('session list', args, {
      ...connectionOptions,
      status: { type: 'string' },
      subject: { type: 'string' },
      limit: { type: 'string' },
      after: { type: 'string' },
      json: { type: 'boolean' },
    })
    refusePositionals('session list', positionals)
    const limit = readCount(values.limit ?? '100', 'limit', 500)
    const { status = 'live', subject, after } = values
    const page = await adminClient(values, io).listSessions({ subject, after, limit, status: status === 'all' ? undefined : status })
    if (values.json === true) io.out(formatJson(page))
    else if (page.sessions.length === 0) io.err('No session matches.\n')
    else io.out(formatList(page.sessions, io.columns))
    if (page.next !== undefined && values.json !== true) io.err(`There are more: --after ${printable(page.next)}\n`)
    return 0
  },
}

const endCommand: Command = {
  name: 'end',
  summary: 'end a session, or all sessions of one person',
  help: `Usage: stint session end ID | --subject NAME [--reason TEXT] [--json]

Ends a session at once, or all that a person has. The person can sign in again:
to keep them out, take them out of the group at your company's issuer first.

Options:
  --subject NAME  all sessions of this person, as the list shows them
  --reason TEXT   why, for the log
  --json          print the outcome as JSON

${connectionHelp}
Examples:
  stint session end 0123456789abcdef --reason "lost laptop"
  stint session end --subject 00u1a2b3 --reason "has left"
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('session end', args, {
      ...connectionOptions,
      subject: { type: 'string' },
      reason: { type: 'string' },
      json: { type: 'boolean' },
    })
    const { subject, reason } = values
    if (subject === undefined) return endOne(readSingle('session end', positionals, "the session's id, or --subject NAME,"), values, io)
    if (positionals.length > 0) throw new UsageError('give the id of a session or --subject NAME, not both.')
    if (subject === '') throw new UsageError('--subject has an empty value: nothing was ended.')
    const ended = await adminClient(values, io).endSessionsOf(subject, reason)
    io.out(values.json === true ? formatJson({ ended }) : `Ended ${ended} ${ended === 1 ? 'session' : 'sessions'}.\n`)
    return 0
  },
}

type EndValues = Parameters<typeof adminClient>[0] & { readonly reason?: string | undefined; readonly json?: boolean | undefined }

async function endOne(id: string, values: EndValues, io: Io): Promise<number> {
  const session = await adminClient(values, io).endSession(id, values.reason)
  if (values.json === true) io.out(formatJson(session))
  // Without an entry nothing has changed: it was over already.
  else io.out(session.audit_index === undefined ? `The session was over already.\n` : `Ended the session of ${printable(session.subject)}. Audit entry ${session.audit_index}.\n`)
  return 0
}

function formatList(sessions: readonly SessionRecord[], columns: number | undefined): string {
  const header = ['SESSION', 'SUBJECT', 'ROLE', 'STATUS', 'SINCE', 'UNTIL']
  const rows = sessions.map(({ session, subject, role, status, created_at: since, expires_at: until, ended_at: ended }) => {
    return [session, subject, role, status, since.replace(/\.\d+Z$/, 'Z'), (ended ?? until).replace(/\.\d+Z$/, 'Z')]
  })
  return formatTable(header, rows, columns)
}

/** `stint session …`: the sessions of people who signed in. */
export const sessionCommand: Command = createGroup({
  name: 'session',
  summary: 'List and end the sessions of people who signed in',
  commands: [listCommand, endCommand],
  examples: `  stint session list
  stint session end --subject 00u1a2b3 --reason "has left"
`,
})
