import type { RevocationResult } from '../client/grant-records.ts'
import { readTime, refusePositionals } from './arguments.ts'
import { parseOptions, UsageError, type Command } from './command.ts'
import { adminClient, connectionHelp, connectionOptions } from './connection.ts'
import { exitCodeOf, formatEnded, isOver } from './ended-grants.ts'
import { formatJson } from './terminal.ts'

/** `stint revoke`: an operator ends grants, by what they were given to, for or when. */
export const revokeCommand: Command = {
  name: 'revoke',
  summary: 'end grants at once',
  help: `Usage: stint revoke --grant ID | [--workload NAME [--suspend]] [--owner TEAM]
                    [--tool NAME] [--task NAME] [--before TIME]

Ends all grants that match everything given, and tells the tools. Nobody can
introspect their tokens as active from then on; the output says of each grant
whether the tool has confirmed its end, and how it reaches the others.

Options:
  --grant ID       this one grant (stands alone)
  --workload NAME  what was given to this workload
  --suspend        with --workload alone: suspend it too, in the same step, so
                   that it gets nothing new until stint workload resume NAME
  --owner TEAM     what was given to the workloads of this team
  --tool NAME      what was given for this tool
  --task NAME      what was given for this task
  --before TIME    what was given before, YYYY-MM-DD or YYYY-MM-DDThh:mm:ssZ in
                   UTC; alone, of all workloads
  --reason TEXT    why, for the log
  --json           print the answer as JSON

Exit codes: 0 everything has ended, 1 refused, or some of it has not ended yet
(the broker goes on trying by itself, and the output says what lives until
when), 2 wrong usage.

${connectionHelp}
Examples:
  stint revoke --grant grant_01kb2m4… --reason "token in a public log"
  stint revoke --workload triage-bot --task ticket-4711
  stint revoke --workload triage-bot --suspend --reason "behaves oddly"
  stint revoke --tool warehouse --reason "maintenance"
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('revoke', args, {
      ...connectionOptions,
      grant: { type: 'string' },
      workload: { type: 'string' },
      suspend: { type: 'boolean' },
      owner: { type: 'string' },
      tool: { type: 'string' },
      task: { type: 'string' },
      before: { type: 'string' },
      reason: { type: 'string' },
      json: { type: 'boolean' },
    })
    refusePositionals('revoke', positionals)
    const { grant, workload, owner, tool, task, before, reason } = values
    const others = [workload, owner, tool, task, before].filter((value) => value !== undefined)
    if (grant === undefined && others.length === 0) {
      throw new UsageError('what shall end? Give --grant, or --workload, --owner, --tool, --task or --before. See: stint revoke --help')
    }
    if (grant !== undefined && others.length > 0) throw new UsageError('--grant names one grant and stands alone.')
    // An empty selector, most often an unset variable of a script, would make the rest match far more than was meant.
    if ([grant, ...others].includes('')) throw new UsageError('an option has an empty value: nothing was revoked.')
    const suspend = values.suspend === true ? true : undefined
    if (suspend && (workload === undefined || others.length > 1)) throw new UsageError('--suspend goes with --workload alone: nothing was revoked.')
    const beforeTime = before === undefined ? undefined : readTime(before, 'before')
    const result = await adminClient(values, io).revokeGrants({ grant, workload, owner, tool, task, before: beforeTime, suspend, reason })
    if (values.json === true) io.out(formatJson(result))
    else io.out(`${describeResult(result, suspend === true)}${result.grants.length === 0 ? '' : formatEnded(result.grants)}`)
    return exitCodeOf(result.grants)
  },
}

/** Says what happened and no more than can be claimed (invariant 8). */
function describeResult({ revoked, more, already_ended: alreadyEnded, grants, audit_index: index }: RevocationResult, suspended: boolean): string {
  const open = grants.filter((grant) => !isOver(grant)).length
  const ended = Math.max(0, revoked - open)
  const before = alreadyEnded === 0 ? '' : ` (${alreadyEnded} had ended already)`
  const rest = open === 0 ? '' : ` ${open} ${open === 1 ? 'has' : 'have'} not ended yet.`
  const unlisted = more ? ' Not all of them are listed: the broker goes on with the others by itself, see stint grants --state ending.' : ''
  const entry = index === undefined ? '' : ` Audit entry ${index}.`
  return `Ended ${more ? 'more than ' : ''}${ended} ${ended === 1 ? 'grant' : 'grants'}${before}.${rest}${unlisted}${suspended ? ' The workload is suspended.' : ''}${entry}\n`
}
