import type { ToolCutOff } from '../client/grant-records.ts'
import { readSingle } from './arguments.ts'
import { CommandError, parseOptions, UsageError, type Command, type Io } from './command.ts'
import { adminClient, connectionHelp, connectionOptions } from './connection.ts'
import { formatInstant, formatJson, printable } from './terminal.ts'

export const cutOffCommand: Command = {
  name: 'cut-off',
  summary: 'end every session of the role behind a tool, whoever opened it',
  help: `Usage: stint tool cut-off NAME --reason TEXT [--dry-run] [--yes] [--json]

For a tool whose sessions can only be denied (aws-sts): denies every session of
its role that was opened until now, when there is no room left to deny them one
by one, or nobody knows which of them is in wrong hands. It ends bystanders: all
grants of all tools that share the role, and every session of the role that
somebody opened without Stint. Nothing is lent there for the five minutes by
which the clock of the tool may be ahead.

It says what it would end, and asks, before it does anything.

Options:
  --reason TEXT  why, for the log
  --dry-run      only say what it would end
  --yes          do not ask
  --json         print the answer as JSON

Exit codes: 0 done and confirmed by the tool, 1 refused, or the tool has not
confirmed it yet and is asked again by the broker itself, 2 wrong usage.

${connectionHelp}
Examples:
  stint tool cut-off reports --reason "too many to deny one by one" --dry-run
  stint tool cut-off reports --reason "the build runner was broken into"
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('tool cut-off', args, {
      ...connectionOptions,
      reason: { type: 'string' },
      'dry-run': { type: 'boolean' },
      yes: { type: 'boolean' },
      json: { type: 'boolean' },
    })
    const name = readSingle('tool cut-off', positionals, "the tool's name")
    const { reason = '', yes = false } = values
    const dryRun = values['dry-run'] === true
    if (reason === '') throw new UsageError('why? Give --reason TEXT, which the log keeps.')
    if (dryRun && yes) throw new UsageError('--yes goes without --dry-run, with which nothing is done.')
    const client = adminClient(values, io)
    if (dryRun || !yes) {
      const ahead = await client.cutOffTool(name, { reason, dryRun: true })
      if (!dryRun) await confirm(describeExtent(ahead), io)
      else {
        io.out(values.json === true ? formatJson(ahead) : `${describeExtent(ahead)}\nNothing was changed.\n`)
        return 0
      }
    }
    const done = await client.cutOffTool(name, { reason })
    io.out(values.json === true ? formatJson(done) : describeDone(done))
    return done.confirmed === true ? 0 : 1
  },
}

/** What it ends, before anybody agrees to it. */
function describeExtent({ tools, bystanders }: ToolCutOff): string {
  const grants = bystanders === 1 ? '1 grant that lives' : `${bystanders} grants that live`
  return `This ends ${grants} and that nobody has revoked (of ${tools.map(printable).join(', ')}), and every session of the role that somebody opened without Stint, whatever it is doing.`
}

async function confirm(consequence: string, io: Io): Promise<void> {
  if (io.ask === undefined) throw new UsageError(`${consequence} Give --yes if that is what you want.`)
  const answer = await io.ask(`${consequence} Go on? [y/N] `)
  if (!/^y(?:es)?$/i.test(answer.trim())) throw new CommandError('nothing was changed.')
}

/** Says no more than can be claimed (invariant 8). */
function describeDone({ tools, bystanders, before = '', confirmed, problem = '', audit_index: index }: ToolCutOff): string {
  const told = confirmed === true ? 'The tool has confirmed it, and carries it out within its own delay.' : `The tool has not confirmed it yet, and is asked again by the broker itself: ${printable(problem)}`
  return `Every session of the role that was opened before ${formatInstant(before)} ${confirmed === true ? 'is denied' : 'is to be denied'}, and all grants of ${tools.map(printable).join(', ')} are revoked.
${bystanders} ${bystanders === 1 ? 'grant' : 'grants'} lived that nobody had revoked. ${told}
Nothing is lent there until then. Audit entry ${index ?? '-'}.
`
}
