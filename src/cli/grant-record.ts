import type { GrantRecord } from '../client/grant-records.ts'
import { formatDuration } from '../kernel/duration.ts'
import { formatFields, formatInstant, formatTable } from './terminal.ts'

/** One grant for people, a fact a line. */
export function formatGrant(grant: GrantRecord): string {
  const time = (text: string | undefined): string | undefined => (text === undefined ? undefined : formatInstant(text))
  return formatFields([
    ['grant', grant.grant],
    ['workload', grant.workload],
    ['tool', grant.tool],
    ['actions', grant.actions.join(' ')],
    ['target', grant.target],
    ['task', grant.task],
    ['state', describeState(grant)],
    ['issued', time(grant.issued_at)],
    ['expires', time(grant.expires_at)],
    ['ends', `${grant.ends.effect}: ${grant.ends.meaning}${describeDelay(grant.ends)}`],
    ['in the tool', grant.reference],
    ['may live until', time(grant.may_live_until)],
    ['tries to end it', grant.tries === undefined || grant.tries === 0 ? undefined : String(grant.tries)],
    ['next try', time(grant.next_try_at)],
    ['problem', grant.problem],
    ['ended', time(grant.ended_at)],
    ['everywhere by', time(grant.effective_by)],
  ])
}

/** How long the tool takes, where it says. */
function describeDelay({ delay_seconds: seconds }: GrantRecord['ends']): string {
  return seconds === undefined ? '' : ` It takes up to ${formatDuration(seconds)}.`
}

/** A list of grants for people. */
export function formatGrants(grants: readonly GrantRecord[], columns: number | undefined): string {
  const rows = grants.map((grant) => [grant.grant, grant.tool, grant.workload, grant.state.replace('_', ' '), formatInstant(grant.ended_at ?? grant.may_live_until ?? grant.expires_at), grant.problem ?? ''])
  return formatTable(['GRANT', 'TOOL', 'WORKLOAD', 'STATE', 'UNTIL', 'PROBLEM'], rows, columns)
}

/** The state, and what it means where the word alone does not say it. */
function describeState({ state }: GrantRecord): string {
  switch (state) {
    case 'minting':
      return 'minting: the tool is being asked'
    case 'ending':
      return 'ending: the tool is being told'
    case 'unknown':
      return "unknown: the tool's answer was lost, and what it may have made cannot be found"
    case 'stuck':
      return 'stuck: the tool has refused to end it, and nobody tries any more'
    case 'failed':
      return 'failed: nothing was made'
    case 'written_off':
      return 'written off: an admin has taken it upon himself'
    default:
      return state
  }
}
