import type { Case } from './verify-case.ts'
import { objectOf, textOf, type Judged, type Rules, type Told } from './verify-event.ts'
import { createKnownGrants, type Renewal } from './verify-grants.ts'
import { createKnownOperators } from './verify-operators.ts'
import type { OutsideCount } from './verify-outside.ts'
import type { PieceReport, Problem } from './verify-piece.ts'
import { createKnownRotations } from './verify-rotations.ts'
import { createKnownWorkloads } from './verify-workloads.ts'

/** A checkpoint that an admin has given up, for the log went on from an older state than it states. */
export interface Abandoned {
  readonly index: number
  readonly size: number
  /** base64; absent where only the size was known. */
  readonly root?: string
}

/** The rules of the order of events: told of every entry from the first one on, without a gap, in order. */
export interface Life {
  /** The entries of a piece, which has `linesBefore` lines before it; only those of an index below `end`, and none twice. */
  addEntries(report: PieceReport, linesBefore: number, end: number): void
  /** How many of the entries were looked at. */
  readonly looked: number
  readonly issued: number
  readonly revoked: number
  /** Of what was issued, the grants in outside tools, as they are by the last entry. */
  countOutside(): OutsideCount
  readonly abandoned: readonly Abandoned[]
}

/** What holds for a case, until a time or until an entry changes what is known. */
interface Standing {
  readonly version: number
  readonly problem?: string
  readonly untilMs: number
}

/** `origin` is the name of the log that the auditor expects. */
export function createLife(origin: string, refuse: (problem: Problem) => void): Life {
  const workloads = createKnownWorkloads()
  const operators = createKnownOperators()
  const grants = createKnownGrants()
  const tokenKeys = new Map<string, { replacedBy?: number }>()
  const abandoned: Abandoned[] = []
  let inForce = { hash: '', index: -1 }
  // Raised by every entry that may change what holds for a case.
  let version = 0
  let [last, lastMs] = [-1, 0]
  let looked = 0

  const rules: Rules = {
    ...workloads.rules,
    ...operators.rules,
    ...grants.rules,
    ...createKnownRotations().rules,
    'log.opened': ({ event, index }) => {
      if (index !== 0) return 'opens the log once more'
      const own = `${textOf(event, 'trust_domain')}/log`
      return own === origin ? undefined : `opens the log ${own}, and the key is that of ${origin}`
    },
    'log.restored': ({ event, index }) => {
      const list = event['abandoned']
      for (const one of Array.isArray(list) ? list : []) {
        const { size, root } = objectOf({ one }, 'one')
        if (typeof size === 'number') abandoned.push({ index, size, ...(typeof root === 'string' && { root }) })
      }
      return undefined
    },
    'policy.applied': ({ event, index }) => {
      const [hash, previous] = [textOf(event, 'policy_set'), textOf(event, 'previous')]
      const before = inForce
      inForce = { hash, index }
      if (hash === '') return 'names no policy set'
      if (previous === before.hash) return undefined
      return `replaces the policy set ${previous || 'none'}, where ${describeSet(before)} was in force`
    },
    'key.created': ({ event }) => {
      if (event['use'] === 'token') tokenKeys.set(textOf(event, 'kid'), {})
      return undefined
    },
    'key.replaced': ({ event, index }) => {
      const kid = textOf(event, 'kid')
      const key = tokenKeys.get(kid)
      if (key === undefined) return `is about the token key ${kid}, which was not made before`
      key.replacedBy ??= index
      return undefined
    },
  }

  function judgeEvent(told: Told): Judged {
    const { event, index } = told
    const type = textOf(event, 'type')
    const actor = objectOf(event, 'actor')
    const isWorkload = textOf(actor, 'kind') === 'workload'
    if (textOf(actor, 'kind') === '') return 'has no actor'
    if (index === 0 && type !== 'log.opened') return `is of type ${type}, and the first entry of a log is log.opened`
    const byWhom = operators.judgeActor(told)
    const unknown = isWorkload && !workloads.has(textOf(actor, 'id')) ? `is by the workload ${textOf(actor, 'id')}, which was not registered before` : undefined
    // Whoever caused it, it is part of what comes after.
    const problem = Object.hasOwn(rules, type) ? rules[type]?.(told) : undefined
    // What happens to grants is looked up each time.
    if (!Object.hasOwn(grants.rules, type)) version++
    return byWhom ?? unknown ?? problem
  }

  function judgeCase({ type, workload, proofKid, proofGrant, policySet, tokenKid }: Case, timeMs: number): Standing {
    const { problem: ofWorkload, untilMs } = workloads.judge(workload, proofGrant === '' ? proofKid : undefined, timeMs)
    let problem = ofWorkload
    if (policySet !== '' && policySet !== inForce.hash) {
      problem ??= `was decided by the policy set ${policySet}, where ${describeSet(inForce)} was in force`
    }
    if (type === 'grant.issued') {
      const key = tokenKeys.get(tokenKid)
      if (key === undefined) problem ??= `is signed by the token key ${tokenKid}, which was not made before`
      else if (key.replacedBy !== undefined) problem ??= `is signed by the token key ${tokenKid}, which entry ${key.replacedBy} had replaced`
    }
    return { version, untilMs: problem === undefined ? untilMs : Infinity, ...(problem !== undefined && { problem }) }
  }

  /** Judges what an entry of a case says of grants: that by which it is proven, and that which it is about. */
  function judgeGrants(asked: Case, grant: string, about: Omit<Renewal, 'workload' | 'tool'>): Judged {
    const { type, workload, tool, proofGrant, audience, ends, renews } = asked
    const isRefused = type.endsWith('.refused')
    const unproven = proofGrant === '' ? undefined : grants.judgeProof(proofGrant, { workload, timeMs: about.timeMs, isRefused })
    if (type === 'grant.issued' || type === 'grant.minting') {
      const problem = grants.issue(grant, { ...about, workload, tool, audience, effect: ends, renews })
      return unproven ?? problem
    }
    if (type === 'grant.renewed') {
      const problem = grants.renew(grant, { ...about, workload, tool })
      return unproven ?? problem
    }
    return unproven ?? (grant === '' ? undefined : grants.judgeMention(grant, isRefused ? undefined : workload))
  }

  return {
    addEntries({ entries, cases, events }, linesBefore, end) {
      const standings: Standing[] = []
      for (let i = 0; i < entries.index.length; i++) {
        const said = entries.said[i] ?? 0
        const [index, timeMs] = [entries.index[i] ?? 0, entries.timeMs[i] ?? 0]
        if (index >= end || index <= last) continue
        last = index
        lastMs = Math.max(lastMs, timeMs)
        looked++
        let problem: Judged
        const asked = cases[said]
        if (asked === undefined) {
          problem = judgeEvent({ event: events[~said] ?? {}, index, timeMs })
        } else {
          let standing = standings[said]
          if (standing === undefined || standing.version !== version || standing.untilMs <= timeMs) {
            standing = judgeCase(asked, timeMs)
            standings[said] = standing
          }
          const about = { task: entries.task[i] ?? '', index, timeMs, expiresAtMs: entries.expiresAtMs[i] ?? 0 }
          const ofGrants = judgeGrants(asked, entries.grant[i] ?? '', about)
          problem = index === 0 ? `is of type ${asked.type}, and the first entry of a log is log.opened` : (standing.problem ?? ofGrants)
        }
        if (problem !== undefined) refuse({ line: linesBefore + (entries.line[i] ?? 0), index, what: problem })
      }
    },
    get looked() {
      return looked
    },
    get issued() {
      return grants.issued
    },
    get revoked() {
      return grants.revoked
    },
    countOutside: () => grants.countOutside(lastMs),
    abandoned,
  }
}

function describeSet({ hash, index }: { readonly hash: string; readonly index: number }): string {
  return index === -1 ? 'none' : `${hash}, of entry ${index},`
}
