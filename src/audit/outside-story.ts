import { z } from 'zod'
import { actorMember, tellBy, tellDecision, type Chapter, type Opening, type StoryEntry } from './story.ts'

const common = { grant: z.string(), workload: z.string(), tool: z.string() }
const effect = z.enum(['immediate', 'propagating', 'introspection', 'expiry'])
// What each entry must say to be told; what else it has is no part of the story.
const members = {
  'grant.activated': z.looseObject({ ...common, reference: z.string().optional(), dies_at: z.string().optional() }),
  'grant.failed': z.looseObject({ ...common, detail: z.string() }),
  'grant.unknown': z.looseObject({ ...common, detail: z.string(), may_live_until: z.string() }),
  'grant.renewed': z.looseObject({
    ...common,
    expires_at: z.string(),
    decision: z.looseObject({ verdict: z.literal('allow'), policy_set: z.string(), reasons: z.array(z.string()) }),
  }),
  'grant.outlives': z.looseObject({ ...common, may_live_until: z.string() }),
  'grant.stuck': z.looseObject({ ...common, tries: z.int(), detail: z.string() }),
  'grant.retried': z.looseObject({ ...common, actor: actorMember, reason: z.string() }),
  'grant.written_off': z.looseObject({ ...common, actor: actorMember, reason: z.string() }),
  'grant.ended': z.looseObject({ ...common, cause: z.enum(['revoked', 'expired', 'undone']), effect, effective_by: z.string().optional() }),
  'orphan.ended': z.looseObject({ grant: z.string(), tool: z.string(), reference: z.string(), actor: actorMember }),
}

type LifeType = keyof typeof members
type Effect = z.output<typeof effect>

const promises: Readonly<Record<Effect, string>> = {
  immediate: 'could be ended at once',
  propagating: 'could be ended, with the delay that the tool takes',
  introspection: 'could be ended for whoever asks Stint',
  expiry: 'could not be ended',
}
const causes = { revoked: 'it was revoked', expired: 'its time was over', undone: 'it was undone, for nobody was given it' } as const

/** The last that was heard of it. */
interface Last {
  readonly index: number
  readonly state: 'open' | 'stuck' | 'failed' | 'written_off' | 'ended'
  readonly effect?: Effect
}

/** The story of a credential in an outside tool, told entry by entry. `add` returns what is wrong with an entry. */
export function createOutsideStory(opening: Opening) {
  const { grant, workload, tool, ends, connector } = opening
  const sentences: string[] = []
  const once = new Set<string>()
  let last: Last = { index: opening.index, state: 'open' }
  let diesAt: string | undefined
  // Of several renewals the last one is told.
  let [renewals, renewed] = [0, '']
  let isRevoked = false

  function tell(entry: StoryEntry): string | undefined {
    const { index, time } = entry
    const at = `Entry ${index}, ${time}:`
    const note = (state: Last['state'], sentence: string, known?: Effect): undefined => {
      last = { index, state, ...(known && { effect: known }) }
      sentences.push(sentence)
      return undefined
    }
    switch (entry.type) {
      case 'grant.activated': {
        const { reference, dies_at: dies } = members[entry.type].parse(entry)
        diesAt = dies ?? diesAt
        return note('open', `${at} it was made, to be given out${reference === undefined ? '' : `; ${tool} calls it ${reference}`}${dies === undefined ? '' : `; it dies there by itself at ${dies}`}.`)
      }
      case 'grant.failed':
        return note('failed', `${at} nothing was made: ${stop(members[entry.type].parse(entry).detail)}`)
      case 'grant.unknown': {
        const { detail, may_live_until: until } = members[entry.type].parse(entry)
        diesAt = until
        return note('open', `${at} whether anything was made is not known, and until ${until} it may live: ${stop(detail)}`)
      }
      case 'grant.renewed': {
        const data = members[entry.type].parse(entry)
        const { policy_set: set, reasons } = data.decision
        if (renewals++ > 0) sentences.splice(sentences.indexOf(renewed), 1)
        renewed = `${at} it was renewed${renewals === 1 ? '' : `, ${renewals} times by then`}, until ${data.expires_at}, by ${reasons.join(', ')} of the policy set ${set}.`
        sentences.push(renewed)
        return undefined
      }
      case 'grant.outlives':
        diesAt = members[entry.type].parse(entry).may_live_until
        return note('open', `${at} it cannot be ended before ${diesAt}, whatever is done.`)
      case 'grant.stuck': {
        const { tries, detail } = members[entry.type].parse(entry)
        return note('stuck', `${at} ${tool} would not end it, in ${tries} ${tries === 1 ? 'try' : 'tries'}: ${stop(detail)}`)
      }
      case 'grant.retried':
        return note('open', tellBy(entry, members[entry.type].parse(entry), 'another try to end it was ordered'))
      case 'grant.written_off':
        return note('written_off', tellBy(entry, members[entry.type].parse(entry), 'it was written off, whether or not it lives,'))
      case 'grant.ended': {
        const { cause, effect: known, effective_by: by } = members[entry.type].parse(entry)
        return note('ended', `${at} ${causes[cause]}, and ${tellEffect(known, diesAt !== undefined && diesAt <= time)}${by === undefined ? '' : `: at ${by} at the latest`}.`, known)
      }
      case 'orphan.ended': {
        const data = members[entry.type].parse(entry)
        sentences.push(tellBy(entry, data, `what was left of it in ${tool}, ${data.reference}, was found and ended`))
        return undefined
      }
      default:
        return `is ${entry.type}, which has no place in the life of a grant`
    }
  }

  return {
    add({ kind, sentence }: Chapter, entry: StoryEntry): string | undefined {
      const isOver = last.state === 'failed' || last.state === 'written_off' || last.state === 'ended'
      if (kind === 'revoked') {
        // Revocations of many go on to fit what is over; of several that fit the first has ended it.
        if (isOver) return entry.type === 'grant.revoked' ? `comes after entry ${last.index}, by which the grant was over` : undefined
        if (!isRevoked && sentence !== undefined) sentences.push(sentence)
        isRevoked = true
        return undefined
      }
      if (!isLifeType(entry.type)) return `is ${entry.type} and not about this grant`
      const { data } = members[entry.type].safeParse(entry)
      if (data?.grant !== grant || data.tool !== tool || ('workload' in data && data['workload'] !== workload)) return `is ${entry.type} and not about this grant`
      if (isOver && entry.type !== 'orphan.ended') return `comes after entry ${last.index}, by which the grant was over`
      if (happensOnce.includes(entry.type)) {
        if (once.has(entry.type)) return `is ${entry.type} a second time`
        once.add(entry.type)
      }
      return tell(entry)
    },
    finish() {
      const known = effect.safeParse(ends).data
      const promise = known === undefined ? '' : ` Before its time it ${promises[known]}.`
      const first = `Entry ${opening.index}, ${opening.time}: ${tellDecision(opening, 'was to be given')}; ${connector ?? tool} was to make it.${promise}`
      return { proven: [first, ...sentences], unproven: tellOpen(last, diesAt) }
    },
  }
}

const happensOnce: readonly string[] = ['grant.activated', 'grant.unknown'] satisfies LifeType[]

function isLifeType(type: string): type is LifeType {
  return Object.hasOwn(members, type)
}

/** `isDead`: by then it had died by itself, so that nobody can tell whether the tool was told before. */
function tellEffect(known: Effect, isDead: boolean): string {
  if (isDead) return 'it opens nothing any more: the tool was told, or it has died there by itself'
  switch (known) {
    case 'immediate':
      return 'it opens nothing any more: the tool has confirmed it'
    case 'propagating':
      return 'the tool has confirmed that, and takes a delay of its own until it opens nothing'
    case 'introspection':
      return 'whoever asks Stint is told'
    case 'expiry':
      return 'it opens nothing any more'
  }
}

/** What nobody can say by these entries alone. */
function tellOpen({ index, state, effect: known }: Last, diesAt: string | undefined): string[] {
  const elsewhere = 'its end may stand in an entry that is not in this receipt'
  switch (state) {
    case 'failed':
      return []
    case 'written_off':
      return [`That it opens nothing any more: entry ${index} only says that nobody looks after it.`]
    case 'stuck':
      return [`That it has ended: entry ${index} says that the tool would not end it, and ${elsewhere}.`]
    case 'open':
      return [`That it has ended${diesAt === undefined ? '' : `, or that it lived until ${diesAt}`}: ${elsewhere}.`]
    case 'ended':
      if (known === 'propagating') return ['That it opened nothing from that moment on: the tool takes a delay of its own.']
      return known === 'introspection' ? ['That it opens nothing where nobody asks Stint.'] : []
  }
}

/** A sentence that somebody else has written, with one full stop behind it. */
function stop(text: string): string {
  return `${text.replace(/\.$/, '')}.`
}
