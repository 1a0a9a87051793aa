import type { Covered } from './verify-coverings.ts'
import { objectOf, textOf, timeOf, type Judged, type Told } from './verify-event.ts'

/** How far a grant in an outside tool has come, as the log tells: the states of the grant, where each has an entry. */
type OutsideState = 'minting' | 'active' | 'unknown' | 'ending' | 'stuck' | 'ended' | 'failed' | 'written_off'

/** What the log has told of a grant's life in an outside tool. */
export interface OutsideLife {
  /** How it ends before its time, as it was promised. */
  readonly effect: string
  state: OutsideState
  /** The entry from which on it was in that state. */
  since: number
  /** Whether the credential was recorded as made, and so may have been given out. */
  wasGiven: boolean
  /** From then on the tool has ended it by itself. */
  diesAtMs: number
}

/** A grant whose credential lives in an outside tool. */
export interface OutsideGrant extends Covered {
  readonly id: string
  readonly expiresAtMs: number
  readonly outside: OutsideLife
}

/** How many grants in outside tools there were by the end of the entries, and what became of them. */
export interface OutsideCount {
  readonly issued: number
  /** Of which nothing was ever made. */
  readonly failed: number
  readonly ended: number
  /** Neither ended nor given up; and those of them whose time is over. */
  readonly open: number
  readonly overdue: number
  /** Given up for now, and for good. */
  readonly stuck: number
  readonly writtenOff: number
}

const open = ['minting', 'active', 'unknown', 'ending'] as const

/** Which entry may stand where in such a life, and what comes of it. The end may be ordered without an entry of its own. */
const places: Readonly<Record<string, { readonly from: readonly OutsideState[]; readonly to: OutsideState }>> = {
  'grant.activated': { from: ['minting'], to: 'active' },
  'grant.failed': { from: ['minting', 'ending'], to: 'failed' },
  'grant.unknown': { from: ['minting'], to: 'unknown' },
  // What is stuck is tried again then.
  'grant.revoked': { from: [...open, 'stuck'], to: 'ending' },
  'grant.outlives': { from: open, to: 'ending' },
  'grant.stuck': { from: open, to: 'stuck' },
  'grant.retried': { from: ['stuck'], to: 'ending' },
  'grant.written_off': { from: ['stuck'], to: 'written_off' },
  'grant.ended': { from: open, to: 'ended' },
}

export const outsideTypes: readonly string[] = Object.keys(places).filter((type) => type !== 'grant.revoked')

// The first claims the most: an end may come to less than was promised, and never to more (invariant 8).
const effects: readonly string[] = ['immediate', 'propagating', 'introspection', 'expiry']

/** The life of a grant from its intent on. */
export function beginOutside(effect: string, index: number): OutsideLife {
  return { effect, state: 'minting', since: index, wasGiven: false, diesAtMs: Infinity }
}

/** Whether nothing can follow any more. */
export function isOutsideOver({ state }: OutsideLife): boolean {
  return state === 'ended' || state === 'failed' || state === 'written_off'
}

/** What stands behind an entry that has no place in the grant's life. */
export function describeMisplaced({ id, outside: { state, since } }: OutsideGrant): string {
  return `has no place in the life of the grant ${id}, which was ${state.replace('_', ' ')} since entry ${since}`
}

/**
 * Judges an entry about the life of such a grant, and takes note of it. `endedBy` is the entry by which somebody had ended
 * the grant before; what has no place changes nothing.
 */
export function stepOutside(grant: OutsideGrant, told: Told, endedBy: number | undefined): Judged {
  const { outside } = grant
  const { event, index } = told
  const type = textOf(event, 'type')
  const place = places[type]
  if (place?.from.includes(outside.state) !== true) return describeMisplaced(grant)
  const problem = judgeStep(grant, told, endedBy)
  outside.diesAtMs = Math.min(outside.diesAtMs, timeOf(event, 'dies_at') ?? timeOf(event, 'may_live_until') ?? Infinity)
  // What cannot be found lives for its time, whoever revokes it; and what was revoked before is not revoked once more.
  if (type !== 'grant.revoked' || (outside.state !== 'unknown' && endedBy === undefined)) [outside.state, outside.since] = [place.to, index]
  outside.wasGiven ||= place.to === 'active'
  return problem
}

function judgeStep(grant: OutsideGrant, { event, timeMs }: Told, endedBy: number | undefined): Judged {
  const { id, outside, expiresAtMs } = grant
  const { wasGiven } = outside
  const isExpired = Math.min(expiresAtMs, outside.diesAtMs) <= timeMs
  switch (event['type']) {
    case 'grant.activated':
      if (endedBy !== undefined) return `gives out the grant ${id}, which entry ${endedBy} had ended`
      return expiresAtMs <= timeMs ? `gives out the grant ${id}, which had expired` : undefined
    case 'grant.failed':
      return wasGiven ? `says that nothing was made for the grant ${id}, which had been given out` : undefined
    case 'grant.revoked':
      return endedBy === undefined ? undefined : `ends the grant ${id}, which entry ${endedBy} had ended`
    case 'grant.outlives':
    case 'grant.stuck':
      return wasGiven && endedBy === undefined && !isExpired ? `says that the grant ${id} could not be ended, and nothing had ended it` : undefined
    case 'grant.written_off':
      return textOf(objectOf(event, 'actor'), 'kind') === 'operator' ? undefined : `writes off the grant ${id}, and not by the word of an operator`
    case 'grant.ended': {
      const [promised, claimed] = [effects.indexOf(outside.effect), effects.indexOf(textOf(event, 'effect'))]
      if (claimed === -1 || claimed < promised) return `claims another effect for the end of the grant ${id} than entry ${grant.index} promised`
      return judgeCause(textOf(event, 'cause'), { id, wasGiven, isExpired, isRevoked: endedBy !== undefined })
    }
    default:
      return undefined
  }
}

interface Causes {
  readonly id: string
  readonly wasGiven: boolean
  readonly isExpired: boolean
  readonly isRevoked: boolean
}

function judgeCause(cause: string, { id, wasGiven, isExpired, isRevoked }: Causes): Judged {
  switch (cause) {
    case 'revoked':
      return isRevoked ? undefined : `ends the grant ${id} as revoked, which nobody had revoked`
    case 'expired':
      return isExpired ? undefined : `ends the grant ${id} as expired, before its time`
    case 'undone':
      return wasGiven ? `undoes the grant ${id}, which had been given out` : undefined
    default:
      return `ends the grant ${id} for no cause that this program knows`
  }
}

/** Counts lives; of those that are over only the number is known. */
export function createOutsideCount(): { add(): void; note(life: OutsideLife): void; count(rest: Iterable<OutsideGrant>, timeMs: number): OutsideCount } {
  const over = { ended: 0, failed: 0, written_off: 0 }
  let issued = 0
  return {
    add() {
      issued++
    },
    note({ state }) {
      if (state === 'ended' || state === 'failed' || state === 'written_off') over[state]++
    },
    count(rest, timeMs) {
      let [open, overdue, stuck] = [0, 0, 0]
      for (const { outside, expiresAtMs } of rest) {
        if (outside.state === 'stuck') stuck++
        else if (!isOutsideOver(outside)) {
          open++
          if (expiresAtMs <= timeMs) overdue++
        }
      }
      return { issued, failed: over.failed, ended: over.ended, open, overdue, stuck, writtenOff: over.written_off }
    },
  }
}
