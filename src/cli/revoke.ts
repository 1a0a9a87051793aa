import type { RevocationResult } from '../client/records.ts'
import { readTime, refusePositionals } from './arguments.ts'
import { parseOptions, UsageError, type Command } from './command.ts'
import { adminClient, connectionHelp, connectionOptions } from './connection.ts'
import { formatJson, printable } from './terminal.ts'

/** `stint revoke`: an operator ends grants, by what they were given to, for or when. */
export const revokeCommand: Command = {
  name: 'revoke',
  summary: 'end grants at once',
  help: `Usage: stint revoke --grant ID | [--workload NAME] [--task NAME] [--before TIME]

Ends all grants that match everything given. Nobody can introspect their tokens
as active from then on; the output says how the end reaches the others.
To keep a workload from getting new ones: stint workload suspend NAME

Options:
  --grant ID       this one grant (stands alone)
  --workload NAME  what was given to this workload
  --task NAME      what was given for this task
  --before TIME    what was given before, YYYY-MM-DD or YYYY-MM-DDThh:mm:ssZ in
                   UTC; alone, of all workloads
  --reason TEXT    why, for the log
  --json           print the answer as JSON

${connectionHelp}
Examples:
  stint revoke --grant grant_01kb2m4… --reason "token in a public log"
  stint revoke --workload triage-bot --task ticket-4711
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('revoke', args, {
      ...connectionOptions,
      grant: { type: 'string' },
      workload: { type: 'string' },
      task: { type: 'string' },
      before: { type: 'string' },
      reason: { type: 'string' },
      json: { type: 'boolean' },
    })
    refusePositionals('revoke', positionals)
    const { grant, workload, task, before, reason } = values
    const others = [workload, task, before].filter((value) => value !== undefined)
    if (grant === undefined && others.length === 0) {
      throw new UsageError('what shall end? Give --grant, or --workload, --task or --before. See: stint revoke --help')
    }
    if (grant !== undefined && others.length > 0) throw new UsageError('--grant names one grant and stands alone.')
    // An empty selector, most often an unset variable of a script, would make the rest match far more than was meant.
    if ([grant, ...others].includes('')) throw new UsageError('an option has an empty value: nothing was revoked.')
    const beforeTime = before === undefined ? undefined : readTime(before, 'before')
    const result = await adminClient(values, io).revokeGrants({ grant, workload, task, before: beforeTime, reason })
    io.out(values.json === true ? formatJson(result) : describeResult(result))
    return 0
  },
}

/** Says what happened and no more than can be claimed (invariant 8). */
function describeResult(result: RevocationResult): string {
  const { revoked, more, already_ended: alreadyEnded, effect, audit_index: index } = result
  const before = alreadyEnded === 0 ? '' : ` (${alreadyEnded} had ended already)`
  const entry = index === undefined ? '' : ` Audit entry ${index}.`
  const ended = `Ended ${more ? 'more than ' : ''}${revoked} ${revoked === 1 ? 'grant' : 'grants'}${before}.`
  return `${ended}${revoked === 0 ? '' : ` ${describeEffect(effect)}`}${entry}\n`
}

function describeEffect(effect: string): string {
  switch (effect) {
    case 'immediate':
      return 'The outside system has confirmed it.'
    case 'introspection':
      return 'Whoever introspects the tokens is told from now on; who verifies them offline accepts them until they expire.'
    case 'expiry':
      return 'What was given stays usable until it expires.'
    default:
      return `How the end takes effect: ${printable(effect)}.`
  }
}
