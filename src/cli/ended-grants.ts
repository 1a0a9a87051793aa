import type { EndedGrant } from '../client/grant-records.ts'
import { formatInstant, formatTable, printable } from './terminal.ts'

const rowsMax = 20

/** Whether nothing more has to be done about it: it has ended, or an admin has taken it upon himself. */
export function isOver({ outcome }: EndedGrant): boolean {
  return outcome === 'revoked' || outcome === 'already_ended' || outcome === 'written_off'
}

/** The exit code of whatever was to end all of these: 1 where one of them has not ended. */
export function exitCodeOf(grants: readonly EndedGrant[]): 0 | 1 {
  return grants.every(isOver) ? 0 : 1
}

/** What became of one grant, and no more than can be claimed (invariant 8). */
export function describeEnded({ outcome, effect, until, effective_by: effectiveBy, problem }: EndedGrant): string {
  const why = problem === undefined ? '' : `: ${problem}`
  switch (outcome) {
    case 'revoked':
      return describeEffect(effect, effectiveBy)
    case 'already_ended':
      return effectiveBy === undefined ? 'had ended before' : `had ended before; the tool takes until ${formatInstant(effectiveBy)} to carry it out`
    case 'retrying':
      return `not ended yet, the tool is asked again${why}`
    case 'lives_until':
      return `lives until ${formatInstant(until ?? 'its own time')}, nobody can end it before${why}`
    case 'stuck':
      return `stuck, nobody tries any more (see: stint grants retry --help)${why}`
    case 'written_off':
      return 'written off: it may live, as an admin has decided'
    default:
      return printable(String(outcome))
  }
}

function describeEffect(effect: EndedGrant['effect'], effectiveBy: string | undefined): string {
  switch (effect) {
    case 'immediate':
      return 'ended, the tool has confirmed it'
    case 'propagating':
      return effectiveBy === undefined ? "ended, once the tool's own delay is over" : `ended: the tool has confirmed it, and takes until ${formatInstant(effectiveBy)} to carry it out everywhere`
    case 'introspection':
      return 'ended for whoever introspects; who verifies it offline accepts it until it expires'
    case 'expiry':
      return 'usable until it expires'
    default:
      return `ended: ${printable(String(effect))}`
  }
}

/** Each grant with what became of it, first those that have not ended; long lists are cut, and say so. */
export function formatEnded(grants: readonly EndedGrant[]): string {
  const sorted = [...grants.filter((grant) => !isOver(grant)), ...grants.filter(isOver)]
  const rows = sorted.slice(0, rowsMax).map((ended) => [ended.grant, ended.tool, ended.workload, describeEnded(ended)])
  const rest = sorted.length - rows.length
  // Not cut to the terminal: what went wrong stands at the end of the line.
  return `${formatTable(['GRANT', 'TOOL', 'WORKLOAD', 'WHAT BECAME OF IT'], rows, undefined)}${rest === 0 ? '' : `… and ${rest} more: --json lists them\n`}`
}
