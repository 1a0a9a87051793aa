import type { AdminClient } from '../client/admin.ts'
import type { Recorded, Stage, WorkloadChange, WorkloadRecord } from '../client/records.ts'
import { systemClock } from '../kernel/clock.ts'
import { readReviewTime, readSingle } from './arguments.ts'
import { parseOptions, UsageError, type Command } from './command.ts'
import { adminClient, connectionHelp, connectionOptions } from './connection.ts'
import { printWorkload } from './workload-show.ts'

/** `stint workload update`. */
export const updateCommand: Command = {
  name: 'update',
  summary: 'change stage, owner, purpose, tags or review date',
  help: `Usage: stint workload update NAME [options]

Changes what is given and leaves the rest. Name and environment cannot change:
register another workload for that.

Options:
  --stage STAGE     sandbox, pilot or production
  --team TEAM       the owner: team and contact are given together
  --contact REF
  --purpose TEXT
  --tag TAG         replaces all tags; may be given several times
  --no-tags         removes all tags
  --review-at WHEN  moves the review, to a duration from now such as 90d or to a
                    date, YYYY-MM-DD; do so after having reviewed it
  --json            print the record as JSON

${connectionHelp}
Examples:
  stint workload update triage-bot --stage production
  stint workload update triage-bot --review-at 90d
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('workload update', args, {
      ...connectionOptions,
      stage: { type: 'string' },
      team: { type: 'string' },
      contact: { type: 'string' },
      purpose: { type: 'string' },
      tag: { type: 'string', multiple: true },
      'no-tags': { type: 'boolean' },
      'review-at': { type: 'string' },
      json: { type: 'boolean' },
    })
    const name = readSingle('workload update', positionals, "the workload's name")
    const { stage, team, contact, purpose, tag } = values
    if ((team === undefined) !== (contact === undefined)) {
      throw new UsageError('give --team and --contact together: the owner is both.')
    }
    if (tag !== undefined && values['no-tags'] === true) throw new UsageError('give --tag or --no-tags, not both.')
    const tags = values['no-tags'] === true ? [] : tag
    const change: WorkloadChange = {
      // Which stages there are is the broker's to say; a wrong one is refused with the list.
      ...(stage !== undefined && { stage: stage as Stage }),
      ...(team !== undefined && contact !== undefined && { owner: { team, contact } }),
      ...(purpose !== undefined && { purpose }),
      ...(tags !== undefined && { tags }),
      ...(values['review-at'] !== undefined && { review_at: readReviewTime(values['review-at'], 'review-at', systemClock.nowMs()) }),
    }
    if (Object.keys(change).length === 0) throw new UsageError('what shall change? See: stint workload update --help')
    printWorkload(await adminClient(values, io).updateWorkload(name, change), values.json === true, io)
    return 0
  },
}

/** `stint workload suspend`. */
export const suspendCommand = createStateCommand({
  name: 'suspend',
  summary: 'refuse a workload until it is resumed',
  text: `Refuses the workload everything until it is resumed. What it already holds is
ended by: stint revoke --workload NAME`,
  change: (client, name, reason) => client.suspendWorkload(name, reason),
})

/** `stint workload resume`. */
export const resumeCommand = createStateCommand({
  name: 'resume',
  summary: 'end a suspension',
  text: 'Lets a suspended workload ask again.',
  change: (client, name, reason) => client.resumeWorkload(name, reason),
})

/** `stint workload retire`. */
export const retireCommand = createStateCommand({
  name: 'retire',
  summary: 'refuse a workload for ever',
  text: 'Ends the life of a workload. It cannot be undone, and its name stays taken.',
  change: (client, name, reason) => client.retireWorkload(name, reason),
})

function createStateCommand(init: {
  readonly name: string
  readonly summary: string
  readonly text: string
  readonly change: (client: AdminClient, name: string, reason: string | undefined) => Promise<Recorded<WorkloadRecord>>
}): Command {
  const command = `workload ${init.name}`
  return {
    name: init.name,
    summary: init.summary,
    help: `Usage: stint ${command} NAME [--reason TEXT] [--json]

${init.text}

Options:
  --reason TEXT  why, for the log
  --json         print the record as JSON

${connectionHelp}
Examples:
  stint ${command} triage-bot --reason "asked for by its team"
`,
    async run(args, io) {
      const { values, positionals } = parseOptions(command, args, {
        ...connectionOptions,
        reason: { type: 'string' },
        json: { type: 'boolean' },
      })
      const name = readSingle(command, positionals, "the workload's name")
      printWorkload(await init.change(adminClient(values, io), name, values.reason), values.json === true, io)
      return 0
    },
  }
}
