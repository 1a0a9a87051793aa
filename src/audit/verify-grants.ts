import { createCoverings, type Covered } from './verify-coverings.ts'
import { objectOf, textOf, type Judged, type Rules, type Told } from './verify-event.ts'
import { createIdSet } from './verify-ids.ts'
import { beginOutside, createOutsideCount, describeMisplaced, isOutsideOver, outsideTypes, stepOutside, type OutsideCount, type OutsideLife } from './verify-outside.ts'

/** What an entry says that issued a grant. */
export interface NewGrant extends Covered {
  readonly expiresAtMs: number
  /** Whom the token is for that Stint signed; empty for a credential of an outside tool. */
  readonly audience: string
  /** How a credential in an outside tool is to end, which this entry is the intent to make; empty for a token. */
  readonly effect: string
  /** The first grant of which this one is a renewal; empty where it is none. */
  readonly renews: string
}

/** What an entry says that renewed one. */
export interface Renewal extends Covered {
  readonly expiresAtMs: number
}

/** What is known of a grant until it is over: what ends it must belong to it. */
interface LiveGrant extends Covered {
  readonly id: string
  readonly audience: string
  readonly outside: OutsideLife | undefined
  expiresAtMs: number
  endedBy?: number
}

/** The grants and what has ended them, as the log has told of them so far. */
export interface KnownGrants {
  readonly rules: Rules
  issue(id: string, grant: NewGrant): Judged
  renew(id: string, renewal: Renewal): Judged
  /** Of an entry that only names a grant; where it is to be the workload's own, that too. */
  judgeMention(id: string, owner?: string): Judged
  /**
   * Whether a token of that grant proves the workload. What was refused is recorded without another look at the token, so
   * that it may be over by then.
   */
  judgeProof(id: string, by: { readonly workload: string; readonly timeMs: number; readonly isRefused: boolean }): Judged
  readonly issued: number
  /** Revocations of one grant. */
  readonly revoked: number
  /** Of the grants in outside tools, by that time. */
  countOutside(timeMs: number): OutsideCount
}

/** Whom a token is for that proves a workload to Stint itself. */
const ownAudience = 'urn:stint:broker'

/**
 * Keeps a few bytes of each grant for ever, and the rest of a token until it expires, of a credential in an outside tool until
 * it has ended there.
 */
export function createKnownGrants(): KnownGrants {
  const ids = createIdSet()
  const live = new Map<string, LiveGrant>()
  const coverings = createCoverings()
  const outsideCount = createOutsideCount()
  let [issued, revoked, sweepAt] = [0, 0, 10_000]

  function sweep(timeMs: number): void {
    for (const [id, { outside, expiresAtMs }] of live) {
      if (outside === undefined ? expiresAtMs <= timeMs : isOutsideOver(outside)) live.delete(id)
    }
    sweepAt = Math.max(10_000, 2 * live.size)
  }

  /** The grant, or what is wrong with an entry about it. */
  function find(id: string): LiveGrant | string {
    if (!ids.has(id)) return `is about the grant ${id}, which was not issued before`
    return live.get(id) ?? `is about the grant ${id}, which was over`
  }

  function findOther(grant: LiveGrant, named: Pick<Covered, 'workload' | 'tool' | 'task'>): string | undefined {
    const other = (['workload', 'tool', 'task'] as const).find((member) => named[member] !== grant[member])
    return other && `the grant ${grant.id} with another ${other} than entry ${grant.index} issued it with`
  }

  const findEnd = (grant: LiveGrant): number | undefined => grant.endedBy ?? coverings.find(grant)

  const readNamed = (event: Told['event']) => ({ workload: textOf(event, 'workload'), tool: textOf(event, 'tool'), task: textOf(event, 'task') })

  function judgeMention(id: string, owner?: string): Judged {
    if (!ids.has(id)) return `is about the grant ${id}, which was not issued before`
    const grant = live.get(id)
    return owner === undefined || grant === undefined || grant.workload === owner ? undefined : `is about the grant ${id}, which was ${grant.workload}'s`
  }

  function judgeOutside(told: Told): Judged {
    const grant = find(textOf(told.event, 'grant'))
    if (typeof grant === 'string') return grant
    if (!isOutside(grant)) return `has no place in the life of the grant ${grant.id}, a token that entry ${grant.index} issued`
    const before = grant.outside.state
    const problem = stepOutside(grant, told, findEnd(grant))
    if (grant.outside.state !== before) outsideCount.note(grant.outside)
    const other = findOther(grant, readNamed(told.event))
    return problem ?? (other && `is about ${other}`)
  }

  function judgeRevoked(told: Told): Judged {
    const { event, index, timeMs } = told
    const id = textOf(event, 'grant')
    if (!ids.has(id)) return `ends the grant ${id}, which was not issued before`
    const grant = live.get(id)
    if (grant === undefined) return `ends the grant ${id}, which was over`
    const endedBy = findEnd(grant)
    const wrong = isOutside(grant) ? stepOutside(grant, told, endedBy) : judgeTokenEnd(grant, timeMs, endedBy)
    if (wrong !== undefined) return wrong
    grant.endedBy = index
    revoked++
    const actor = objectOf(event, 'actor')
    if (textOf(actor, 'kind') === 'workload' && textOf(actor, 'id') !== grant.workload) return `ends the grant ${id} by the word of another workload`
    const other = findOther(grant, readNamed(event))
    return other && `ends ${other}`
  }

  return {
    issue(id, { effect, renews, audience, expiresAtMs, workload, tool, task, index, timeMs }) {
      const first = renews === '' ? undefined : judgeMention(renews, workload)
      if (!ids.add(id)) return `issues the grant ${id} once more`
      issued++
      if (live.size >= sweepAt) sweep(timeMs)
      const outside = effect === '' ? undefined : beginOutside(effect, index)
      if (outside !== undefined) outsideCount.add()
      live.set(id, { id, audience, outside, expiresAtMs, workload, tool, task, index, timeMs })
      return first
    },
    renew(id, { expiresAtMs, timeMs, ...named }) {
      const grant = find(id)
      if (typeof grant === 'string') return grant
      const endedBy = findEnd(grant)
      if (!isOutside(grant)) return `has no place in the life of the grant ${id}, a token that entry ${grant.index} issued`
      if (endedBy !== undefined) return `renews the grant ${id}, which entry ${endedBy} had ended`
      if (grant.outside.state !== 'active') return describeMisplaced(grant)
      if (grant.expiresAtMs <= timeMs) return `renews the grant ${id}, which had expired`
      if (expiresAtMs <= grant.expiresAtMs) return `renews the grant ${id} until no later than it would have expired`
      grant.expiresAtMs = expiresAtMs
      const other = findOther(grant, named)
      return other && `renews ${other}`
    },
    judgeMention,
    judgeProof(id, { workload, timeMs, isRefused }) {
      const what = `is proven by a token of the grant ${id}`
      if (!ids.has(id)) return `${what}, which was not issued before`
      const grant = live.get(id)
      if (grant === undefined) return isRefused ? undefined : `${what}, which was over`
      if (grant.workload !== workload) return `${what}, which was ${grant.workload}'s`
      if (grant.audience !== ownAudience) return `${what}, which was not for asking Stint`
      if (isRefused) return undefined
      const endedBy = findEnd(grant)
      if (endedBy !== undefined) return `${what}, which entry ${endedBy} had ended`
      return grant.expiresAtMs <= timeMs ? `${what}, which was over` : undefined
    },
    rules: {
      ...Object.fromEntries(outsideTypes.map((type) => [type, judgeOutside])),
      'grant.revoked': judgeRevoked,
      'grants.revoked': coverings.add,
      'orphan.ended': ({ event }) => {
        // What is not known here may be of a database that was lost.
        const grant = live.get(textOf(event, 'grant'))
        if (grant === undefined || !isOutside(grant) || isOutsideOver(grant.outside)) return undefined
        return `ends the grant ${grant.id} as one that nobody looks after, which was ${grant.outside.state} since entry ${grant.outside.since}`
      },
    },
    get issued() {
      return issued
    },
    get revoked() {
      return revoked
    },
    countOutside(timeMs) {
      return outsideCount.count([...live.values()].filter(isOutside), timeMs)
    },
  }
}

function judgeTokenEnd({ id, expiresAtMs }: LiveGrant, timeMs: number, endedBy: number | undefined): Judged {
  if (expiresAtMs <= timeMs) return `ends the grant ${id}, which was over`
  return endedBy === undefined ? undefined : `ends the grant ${id}, which entry ${endedBy} had ended`
}

function isOutside(grant: LiveGrant): grant is LiveGrant & { readonly outside: OutsideLife } {
  return grant.outside !== undefined
}
