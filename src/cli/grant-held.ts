import type { EndedGrant, ProlongedGrant } from '../client/grant-records.ts'
import { readDuration, readSingle } from './arguments.ts'
import { openAsWorkload } from './as-workload.ts'
import { parseOptions, UsageError, type Command, type Io } from './command.ts'
import { agentHelp, agentOptions } from './connection.ts'
import { exitCodeOf, formatEnded } from './ended-grants.ts'
import { reportFailure } from './failure.ts'
import { formatGrant } from './grant-record.ts'
import { printLent } from './grant-print.ts'
import { formatInstant, formatJson } from './terminal.ts'

/** `stint grant show`: how a grant of one's own stands. */
export const showCommand: Command = {
  name: 'show',
  summary: 'show how a grant of your own stands',
  help: `Usage: stint grant show GRANT [--json]

Shows a grant of this workload, without its credential, which was answered once.

Options:
  --json  print the record as JSON

${agentHelp}
Examples:
  stint grant show grant_01kb2m4…
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('grant show', args, { ...agentOptions, json: { type: 'boolean' } })
    const id = readSingle('grant show', positionals, "the grant's id")
    const client = await openAsWorkload(values, io)
    const grant = await client.showGrant(id)
    io.out(values.json === true ? formatJson(grant) : formatGrant(grant))
    return 0
  },
}

/** `stint grant renew`: lets a grant of one's own go on. */
export const renewCommand: Command = {
  name: 'renew',
  summary: 'let a grant of your own go on',
  help: `Usage: stint grant renew GRANT [--ttl DURATION] [--env|--json]

Lets a grant go on, if the policy allows the same again now, and never past the
longest life that the tool gives, counted from the first grant. Where the tool's
credential can last longer it is the same one, and only its new end is printed;
else a new one is printed, and the old one ends at its own time.

Options:
  --ttl DURATION  for how long from now, such as 10m (else the tool's default)
  --env           print a new credential as lines for a shell
  --json          print the whole answer as JSON

${agentHelp}
Examples:
  stint grant renew grant_01kb2m4… --ttl 30m
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('grant renew', args, {
      ...agentOptions,
      ttl: { type: 'string' },
      env: { type: 'boolean' },
      json: { type: 'boolean' },
    })
    const id = readSingle('grant renew', positionals, "the grant's id")
    if (values.env === true && values.json === true) throw new UsageError('give --env or --json, not both.')
    const ttlSeconds = values.ttl === undefined ? undefined : readDuration(values.ttl, 'ttl')
    const client = await openAsWorkload(values, io)
    const renewed = await client.renewGrant(id, { ttlSeconds })
    if ('credential' in renewed) printLent(renewed, values.json === true ? 'json' : values.env === true ? 'env' : 'fields', values, io)
    else printProlonged(renewed, values.json === true, io)
    return 0
  },
}

function printProlonged({ grant, expiresAt, renewableUntil, auditIndex }: ProlongedGrant, json: boolean, io: Io): void {
  const [expires, renewable] = [expiresAt.toISOString(), renewableUntil.toISOString()]
  if (json) io.out(formatJson({ grant, expires_at: expires, renewable_until: renewable, audit_index: auditIndex }))
  // On standard error, where a new credential would be told of: what a shell evaluates stays empty.
  else io.err(`The same credential goes on until ${formatInstant(expires)}, and can be renewed until ${formatInstant(renewable)}. Audit entry ${auditIndex}.\n`)
}

/** `stint grant give-back`: ends grants of one's own. */
export const giveBackCommand: Command = {
  name: 'give-back',
  summary: 'end grants of your own that you do not need any more',
  help: `Usage: stint grant give-back GRANT… [--json]

Ends grants of this workload, and says of each what became of it.

Options:
  --json  print what became of them as JSON

Exit codes: 0 all of them have ended, 1 refused, or one has not ended yet (the
broker goes on trying by itself), 2 wrong usage.

${agentHelp}
Examples:
  stint grant give-back grant_01kb2m4…
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('grant give-back', args, { ...agentOptions, json: { type: 'boolean' } })
    if (positionals.length === 0 || positionals.includes('')) throw new UsageError('the id of a grant is missing. See: stint grant give-back --help')
    const client = await openAsWorkload(values, io)
    const ended: EndedGrant[] = []
    let failed = false
    for (const id of positionals) {
      try {
        ended.push(await client.giveBackGrant(id))
      } catch (error) {
        // The others are to end all the same.
        reportFailure(error, io)
        failed = true
      }
    }
    if (values.json === true) io.out(formatJson({ grants: ended }))
    else if (ended.length > 0) io.out(formatEnded(ended))
    return failed ? 1 : exitCodeOf(ended)
  },
}
