import type { Stage } from '../client/records.ts'
import { systemClock } from '../kernel/clock.ts'
import { readReviewTime, readSingle, requireOption } from './arguments.ts'
import { parseOptions, type Command } from './command.ts'
import { adminClient, connectionHelp, connectionOptions } from './connection.ts'
import { readJwks } from './jwks-file.ts'
import { printWorkload } from './workload-show.ts'

const name = 'workload register'

/** `stint workload register`: a new workload with its owner and its public keys. */
export const registerCommand: Command = {
  name: 'register',
  summary: 'register a new workload',
  help: `Usage: stint ${name} NAME --environment NAME --stage STAGE
         --team TEAM --contact REF --purpose TEXT --review-at WHEN --jwks FILE
         [--tag TAG]… [--json]

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
  --jwks FILE         its public keys; - reads standard input
  --json              print the record as JSON

${connectionHelp}
Examples:
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
    const jwksFile = requireOption(name, values, 'jwks')
    const client = adminClient(values, io)
    const workload = await client.registerWorkload({ ...registration, jwks: await readJwks(jwksFile, io) })
    printWorkload(workload, values.json === true, io)
    return 0
  },
}
