import { z } from 'zod'
import { createOutsideStory } from './outside-story.ts'
import { actorMember, tellBy, tellDecision, type Chapter, type Opening, type StoryEntry } from './story.ts'

/** What the entries of a receipt say about its grant. */
export interface GrantStory {
  readonly problems: readonly { readonly index: number; readonly problem: string }[]
  /** What they say, and what they leave open: a sentence each. */
  readonly proven: readonly string[]
  readonly unproven: readonly string[]
}

const openingMembers = z.looseObject({
  index: z.int(),
  time: z.string(),
  grant: z.string(),
  workload: z.string(),
  tool: z.string(),
  actions: z.array(z.string()).min(1),
  target: z.string().optional(),
  task: z.string().optional(),
  expires_at: z.string(),
  connector: z.string().optional(),
  ends: z.string().optional(),
  renews: z.string().optional(),
  decision: z.looseObject({ verdict: z.literal('allow'), policy_set: z.string(), reasons: z.array(z.string()) }),
})
const revokedMembers = z.looseObject({ actor: actorMember, grant: z.string(), workload: z.string(), tool: z.string(), reason: z.string().optional() })
const manyRevokedMembers = z.looseObject({
  actor: actorMember,
  // A member that is not known here may narrow what was revoked: then it is not known whether the grant was.
  selector: z.strictObject({ workload: z.string().optional(), tool: z.string().optional(), task: z.string().optional(), before: z.string().optional() }),
  owner: z.string().optional(),
  reason: z.string().optional(),
})
const mentionMembers = z.looseObject({ grant: z.string(), workload: z.string() })

/** Judges whether entries, in order of index, are the story of one grant: given by a decision, and what became of it. */
export function judgeGrantStory(grant: string, entries: readonly StoryEntry[]): GrantStory {
  const [first, ...rest] = entries
  if (first === undefined) return { problems: [], proven: [], unproven: [] }
  const opening = readOpening(grant, first)
  if (typeof opening === 'string') return { problems: [{ index: first.index, problem: opening }], proven: [], unproven: [] }
  const story = first.type === 'grant.minting' ? createOutsideStory(opening) : createTokenStory(opening)
  const problems: { index: number; problem: string }[] = []
  const refuse = (index: number, problem: string | undefined): void => {
    if (problem !== undefined) problems.push({ index, problem })
  }
  let [time, refusals, denials, revoked] = [opening.time, 0, 0, false]
  for (const entry of rest) {
    const read = readLater(opening, entry)
    if (typeof read === 'string') refuse(entry.index, read)
    else if (read.kind === 'refusal') refusals++
    else if (read.kind === 'denial') denials++
    else refuse(entry.index, story.add(read, entry))
    if (entry.time < time) refuse(entry.index, 'has an earlier time than the entry before it')
    if (entry.type === 'grant.revoked' && revoked) refuse(entry.index, 'revokes the grant a second time')
    revoked ||= entry.type === 'grant.revoked'
    time = entry.time
  }
  const told = story.finish()
  return {
    problems,
    proven: [...told.proven, ...(denials === 0 ? [] : [tellDenials(denials)]), ...(refusals === 0 ? [] : [tellRefusals(refusals)])],
    unproven: told.unproven,
  }
}

/** The first entry as the grant's own, or what is wrong with it. */
function readOpening(grant: string, entry: StoryEntry): Opening | string {
  if (entry.type !== 'grant.issued' && entry.type !== 'grant.minting') return `is ${entry.type}: a receipt begins with the entry that issued the grant`
  const { data } = openingMembers.safeParse(entry)
  if (data === undefined) return 'issued a grant, but not by a decision to allow it'
  return data.grant === grant ? data : `issued another grant than ${grant}`
}

type Later = Chapter | { readonly kind: 'refusal' } | { readonly kind: 'denial' }

/** What a later entry says about the grant; or else what is wrong with the entry. */
function readLater(opening: Opening, entry: StoryEntry): Later | string {
  const foreign = `is ${entry.type} and not about this grant`
  switch (entry.type) {
    case 'grant.revoked': {
      const { data } = revokedMembers.safeParse(entry)
      const fits = data?.grant === opening.grant && data.workload === opening.workload && data.tool === opening.tool
      return fits ? { kind: 'revoked', sentence: tellBy(entry, data, 'it was revoked') } : foreign
    }
    case 'grants.revoked': {
      const { data } = manyRevokedMembers.safeParse(entry)
      if (data === undefined || !coversGrant(data.selector, opening)) return foreign
      const team = data.owner === undefined ? '' : ` of the team ${data.owner},`
      return { kind: 'revoked', sentence: tellBy(entry, data, `all grants${team} ${tellSelector(data.selector)} were revoked, and this one among them`) }
    }
    case 'introspection.refused':
    case 'revocation.refused':
    case 'access.refused':
      return mentionMembers.safeParse(entry).data?.grant === opening.grant ? { kind: 'refusal' } : foreign
    case 'grant.denied': {
      const { data } = mentionMembers.safeParse(entry)
      return data?.grant === opening.grant && data.workload === opening.workload ? { kind: 'denial' } : foreign
    }
    case 'grant.issued':
    case 'grant.minting':
      return 'issues a grant a second time'
    default:
      return entry['grant'] === opening.grant ? { kind: 'life' } : foreign
  }
}

type Selector = z.output<typeof manyRevokedMembers>['selector']

/** As the broker itself decides whether a revocation of many ends a grant. */
function coversGrant({ workload, tool, task, before }: Selector, opening: Opening): boolean {
  if ([workload, tool, task, before].every((member) => member === undefined)) return false
  return (
    (workload === undefined || workload === opening.workload) &&
    (tool === undefined || tool === opening.tool) &&
    (task === undefined || task === opening.task) &&
    // Times are written with three decimals in UTC, and sort as text.
    (before === undefined || before > opening.time)
  )
}

/** The story of a token that Stint has signed: it ends when it is revoked, or else by its time. */
function createTokenStory(opening: Opening) {
  let end: string | undefined
  return {
    add({ kind, sentence }: Chapter, { type, time }: StoryEntry): string | undefined {
      if (kind !== 'revoked') return `is ${type}, and a token that Stint has signed has no such life`
      // What came when the grant had run out has ended nothing.
      if (time < opening.expires_at) end ??= sentence
      return undefined
    },
    finish() {
      const { index, time, expires_at: until } = opening
      const proven = [`Entry ${index}, ${time}: ${tellDecision(opening, 'was given')}.`, ...(end === undefined ? [] : [end])]
      const open = `That the grant lived until ${until}: its end may stand in an entry that is not in this receipt.`
      return { proven, unproven: end === undefined ? [open] : [] }
    },
  }
}

function tellSelector({ workload, tool, task, before }: Selector): string {
  const parts = [
    workload === undefined ? '' : `of ${workload}`,
    tool === undefined ? '' : `for ${tool}`,
    task === undefined ? '' : `of the task ${task}`,
    before === undefined ? '' : `issued before ${before}`,
  ]
  return parts.filter((part) => part !== '').join(', ')
}

function tellDenials(count: number): string {
  return `${count === 1 ? 'Once' : `${count} times`} the policy denied that it be renewed.`
}

function tellRefusals(count: number): string {
  return `${count === 1 ? 'Once' : `${count} times`} another workload asked about it, or wanted to end it, and was refused.`
}
