import { objectOf, textOf, textsOf, timeOf, type Judged, type Rules, type Told } from './verify-event.ts'

interface KnownWorkload {
  status: 'active' | 'suspended' | 'retired'
  /** The entry that says so. */
  since: number
  reviewAtMs: number
}

interface KnownKey {
  readonly workload: string
  /** From then on it proves nothing, by that entry. */
  untilMs: number
  endedBy: number
}

interface KnownEnrolment {
  readonly workload: string
  readonly expiresAtMs: number
  endedBy?: number
}

/** The workloads, their keys and their codes, as the log has told of them so far. */
export interface KnownWorkloads {
  readonly rules: Rules
  has(name: string): boolean
  /** Whether the workload may ask then, by this key if by one; and until when that is so, as far as nothing else happens. */
  judge(name: string, kid: string | undefined, timeMs: number): { readonly problem?: string; readonly untilMs: number }
}

/** A request is decided before it is recorded; its assertion, which it must not outlive, lives 5 min, its clock 5 s ahead. */
const decidedBeforeMsMax = 305_000

export function createKnownWorkloads(): KnownWorkloads {
  const workloads = new Map<string, KnownWorkload>()
  const keys = new Map<string, KnownKey>()
  const enrolments = new Map<string, KnownEnrolment>()

  /** Judges an event about a workload that was registered and not retired, and hands it over. */
  function ofWorkload(rule: (workload: KnownWorkload, told: Told, name: string) => Judged): (told: Told) => Judged {
    return (told) => {
      const name = textOf(told.event, 'workload')
      const workload = workloads.get(name)
      if (workload === undefined) return `is about the workload ${name}, which was not registered before`
      if (workload.status === 'retired') return `is about the workload ${name}, which entry ${workload.since} had retired`
      return rule(workload, told, name)
    }
  }

  function addKey(workload: string, kid: string): Judged {
    const known = keys.get(kid)
    if (known !== undefined) return `registers the key ${kid} once more, which was ${known.workload}'s`
    if (kid === '') return 'names no key'
    keys.set(kid, { workload, untilMs: Infinity, endedBy: -1 })
    return undefined
  }

  function endKey(workload: string, kid: string, { index, timeMs }: Told, untilMs: number): Judged {
    const key = keys.get(kid)
    if (key?.workload !== workload) return `ends the key ${kid}, which ${workload} did not have`
    if (key.untilMs <= timeMs) return `ends the key ${kid}, which entry ${key.endedBy} had ended`
    key.untilMs = untilMs
    key.endedBy = index
    return undefined
  }

  function changeStatus(to: KnownWorkload['status']) {
    return ofWorkload((workload, { index, timeMs }, name) => {
      if (workload.status === to) return `says that ${name} is ${to}, which it was since entry ${workload.since}`
      if (to === 'active' && workload.reviewAtMs <= timeMs) return `resumes ${name}, whose review date had passed`
      workload.status = to
      workload.since = index
      return undefined
    })
  }

  function requireActive({ status, since }: KnownWorkload, name: string): Judged {
    return status === 'active' ? undefined : `is by the workload ${name}, which entry ${since} had ${status}`
  }

  /** The enrolment that an event names, if it is this workload's and open; else what is wrong. */
  function openEnrolment(event: Told['event'], name: string): KnownEnrolment | string {
    const id = textOf(event, 'enrolment')
    const enrolment = enrolments.get(id)
    if (enrolment?.workload !== name) return `is about the enrolment ${id}, which ${name} did not have`
    return enrolment.endedBy === undefined ? enrolment : `is about the enrolment ${id}, which entry ${enrolment.endedBy} had ended`
  }

  const rules: Rules = {
    'workload.registered': ({ event, index }) => {
      const name = textOf(event, 'workload')
      if (workloads.has(name)) return `registers the workload ${name} once more`
      workloads.set(name, { status: 'active', since: index, reviewAtMs: timeOf(event, 'review_at') ?? Infinity })
      return textsOf(event, 'kids').map((kid) => addKey(name, kid)).find((problem) => problem !== undefined)
    },
    'workload.updated': ofWorkload((workload, { event }) => {
      workload.reviewAtMs = timeOf(objectOf(event, 'after'), 'review_at') ?? workload.reviewAtMs
      return undefined
    }),
    'workload.suspended': changeStatus('suspended'),
    'workload.resumed': changeStatus('active'),
    'workload.retired': changeStatus('retired'),
    'workload.key_added': ofWorkload((_, { event }, name) => addKey(name, textOf(event, 'kid'))),
    'workload.key_removed': ofWorkload((_, told, name) => endKey(name, textOf(told.event, 'kid'), told, told.timeMs)),
    'workload.key_rotated': ofWorkload((workload, told, name) => {
      const untilMs = timeOf(told.event, 'until') ?? -Infinity
      const ended = endKey(name, textOf(told.event, 'replaces'), told, untilMs)
      return requireActive(workload, name) ?? ended ?? addKey(name, textOf(told.event, 'kid'))
    }),
    'workload.review_due': ofWorkload(() => undefined),
    'enrolment.created': ofWorkload((_, { event }, name) => {
      const id = textOf(event, 'enrolment')
      if (id === '' || enrolments.has(id)) return `makes the enrolment ${id} once more`
      enrolments.set(id, { workload: name, expiresAtMs: timeOf(event, 'expires_at') ?? Infinity })
      return undefined
    }),
    'enrolment.redeemed': ofWorkload((workload, { event, index, timeMs }, name) => {
      const enrolment = openEnrolment(event, name)
      if (typeof enrolment === 'string') return enrolment
      enrolment.endedBy = index
      if (enrolment.expiresAtMs <= timeMs) return `redeems the enrolment ${textOf(event, 'enrolment')} after its time`
      return requireActive(workload, name) ?? addKey(name, textOf(event, 'kid'))
    }),
    'enrolment.cancelled': ({ event, index }) => {
      // Also of a workload that was retired just before, by the same change.
      const enrolment = openEnrolment(event, textOf(event, 'workload'))
      if (typeof enrolment === 'string') return enrolment
      enrolment.endedBy = index
      return undefined
    },
  }

  return {
    rules,
    has: (name) => workloads.has(name),
    judge(name, kid, timeMs) {
      const never = (problem: string) => ({ problem, untilMs: Infinity })
      const workload = workloads.get(name)
      if (workload === undefined) return never(`is by the workload ${name}, which was not registered before`)
      const idle = requireActive(workload, name)
      if (idle !== undefined) return never(idle)
      const key = kid === undefined ? undefined : keys.get(kid)
      if (kid !== undefined && key?.workload !== name) return never(`is proven by the key ${kid}, which ${name} did not have`)
      if (key !== undefined && key.untilMs <= timeMs) return never(`is proven by the key ${kid}, which entry ${key.endedBy} had ended`)
      const reviewMs = workload.reviewAtMs + decidedBeforeMsMax
      if (reviewMs <= timeMs) return never(`is by the workload ${name}, whose review date had passed`)
      return { untilMs: Math.min(key?.untilMs ?? Infinity, reviewMs) }
    },
  }
}
