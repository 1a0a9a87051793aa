import type { AdminClient } from '../client/admin.ts'
import type { CreatedEnrolment, Recorded, Stage, WorkloadRecord } from '../client/records.ts'
import { systemClock } from '../kernel/clock.ts'
import { readReviewTime, readSingle, requireOption } from './arguments.ts'
import { parseOptions, UsageError, type Command, type Io } from './command.ts'
import { adminClient, brokerOf, connectionHelp, connectionOptions } from './connection.ts'
import { readJwks } from './jwks-file.ts'
import { formatJson, printable } from './terminal.ts'
import { printCode } from './workload-enrolment.ts'
import { printWorkload } from './workload-show.ts'

const name = 'workload register'

/** `stint workload register`: a new workload with its owner and its public keys. */
export const registerCommand: Command = {
  name: 'register',
  summary: 'register a new workload',
  help: `Usage: stint ${name} NAME --environment NAME --stage STAGE
         --team TEAM --contact REF --purpose TEXT --review-at WHEN
         --enroll | --jwks FILE [--tag TAG]… [--json]

Registers a workload: one agent in one environment, with one accountable owner.
A name is never used twice.

Options:
  --environment NAME  where it runs, such as prod; cannot be changed later
  --stage STAGE       how far it may be trusted: sandbox, pilot or production
  --team TEAM         the team that owns it
  --contact REF       where to reach a person, by reference: oncall:support
  --purpose TEXT      what it is for, in a sentence
  --tag TAG           a fact for the rules to use; may be given several times
  --review-at WHEN    from then on it is refused until somebody has reviewed it:
                      a duration such as 90d (at most 400d) or a YYYY-MM-DD
  --enroll            make a one-time code, too, with which the agent registers
                      a key of its own; the code is printed, alone, on standard
                      output (stint enroll --help)
  --jwks FILE         its public keys, instead; - reads standard input
  --json              print the record as JSON

${connectionHelp}
Examples:
  stint ${name} triage-bot --environment prod --stage pilot \\
    --team support --contact oncall:support --review-at 90d --enroll \\
    --purpose "Labels and answers tickets"
  stint key public triage-bot.key | stint ${name} triage-bot \\
    --environment prod --stage pilot --team support --contact oncall:support \\
    --purpose "Labels and answers tickets" --review-at 90d --jwks -
`,
  async run(args, io) {
    const { values, positionals } = parseOptions(name, args, {
      ...connectionOptions,
      environment: { type: 'string' },
      stage: { type: 'string' },
      team: { type: 'string' },
      contact: { type: 'string' },
      purpose: { type: 'string' },
      tag: { type: 'string', multiple: true },
      'review-at': { type: 'string' },
      jwks: { type: 'string' },
      enroll: { type: 'boolean' },
      json: { type: 'boolean' },
    })
    const registration = {
      name: readSingle(name, positionals, "the workload's name"),
      environment: requireOption(name, values, 'environment'),
      // Which stages there are is the broker's to say; a wrong one is refused with the list.
      stage: requireOption(name, values, 'stage') as Stage,
      owner: { team: requireOption(name, values, 'team'), contact: requireOption(name, values, 'contact') },
      purpose: requireOption(name, values, 'purpose'),
      ...(values.tag !== undefined && { tags: values.tag }),
      review_at: readReviewTime(requireOption(name, values, 'review-at'), 'review-at', systemClock.nowMs()),
    }
    const enrolls = values.enroll === true
    if (enrolls && values.jwks !== undefined) throw new UsageError('give --enroll or --jwks, not both.')
    const jwks = enrolls ? undefined : await readJwks(requireOption(name, values, 'jwks'), io)
    const client = adminClient(values, io)
    const workload = await client.registerWorkload({ ...registration, ...(jwks !== undefined && { jwks }) })
    if (!enrolls) printWorkload(workload, values.json === true, io)
    else await printEnrolled(client, workload, { url: brokerOf(values, io).url, json: values.json === true }, io)
    return 0
  },
}

/** The workload is there and harmless, whatever becomes of its code: without a key it can do nothing. */
async function printEnrolled(
  client: AdminClient,
  workload: Recorded<WorkloadRecord>,
  { url, json }: { readonly url: string; readonly json: boolean },
  io: Io,
): Promise<void> {
  let created: Recorded<CreatedEnrolment>
  try {
    created = await client.createEnrolment(workload.name)
  } catch (error) {
    io.err(`${printable(workload.name)} is registered, but no code was made. For one: stint workload enroll ${printable(workload.name)}\n`)
    throw error
  }
  if (json) {
    io.out(formatJson({ ...workload, enrolment: created }))
    return
  }
  io.err(`${printable(workload.name)} is registered (audit entry ${workload.audit_index ?? '?'}).\n`)
  await printCode(client, created, url, io)
}
