import { z } from 'zod'

/** What an entry of the log says, with the members that every entry has. */
export interface StoryEntry {
  readonly index: number
  readonly time: string
  readonly type: string
  readonly [member: string]: unknown
}

/** What the entries of a receipt say about its grant. */
export interface GrantStory {
  readonly problems: readonly { readonly index: number; readonly problem: string }[]
  /** What they say, and what they leave open: a sentence each. */
  readonly proven: readonly string[]
  readonly unproven: readonly string[]
}

const actor = z.looseObject({ kind: z.string(), id: z.string().optional() })

const issuedMembers = z.looseObject({
  index: z.int(),
  time: z.string(),
  grant: z.string(),
  workload: z.string(),
  tool: z.string(),
  actions: z.array(z.string()).min(1),
  target: z.string().optional(),
  task: z.string().optional(),
  expires_at: z.string(),
  decision: z.looseObject({ verdict: z.literal('allow'), policy_set: z.string(), reasons: z.array(z.string()) }),
})
const revokedMembers = z.looseObject({ actor, grant: z.string(), workload: z.string(), tool: z.string(), reason: z.string().optional() })
const manyRevokedMembers = z.looseObject({
  actor,
  // A member that is not known here may narrow what was revoked: then it is not known whether the grant was.
  selector: z.strictObject({ workload: z.string().optional(), task: z.string().optional(), before: z.string().optional() }),
  reason: z.string().optional(),
})
const foreignMembers = z.looseObject({ grant: z.string(), workload: z.string() })

type Issued = z.output<typeof issuedMembers>

/** How a grant was ended before its time, told as one sentence. */
interface End {
  readonly time: string
  readonly sentence: string
}

/** Judges whether entries, in order of index, are the story of one grant: issued by a decision, and what became of it. */
export function judgeGrantStory(grant: string, entries: readonly StoryEntry[]): GrantStory {
  const [first, ...rest] = entries
  if (first === undefined) return { problems: [], proven: [], unproven: [] }
  const issued = readIssued(grant, first)
  if (typeof issued === 'string') return { problems: [{ index: first.index, problem: issued }], proven: [], unproven: [] }
  const problems: { index: number; problem: string }[] = []
  const ends: End[] = []
  let [time, refusals, revoked] = [issued.time, 0, false]
  for (const entry of rest) {
    const read = readLater(issued, entry)
    if (typeof read === 'string') problems.push({ index: entry.index, problem: read })
    else if (read === undefined) refusals++
    else ends.push(read)
    if (entry.time < time) problems.push({ index: entry.index, problem: 'has an earlier time than the entry before it' })
    if (entry.type === 'grant.revoked' && revoked) problems.push({ index: entry.index, problem: 'revokes the grant a second time' })
    revoked ||= entry.type === 'grant.revoked'
    time = entry.time
  }
  // What came when the grant had run out has ended nothing.
  const end = ends.find((candidate) => candidate.time < issued.expires_at)
  return {
    problems,
    proven: [tellIssued(issued), ...(end === undefined ? [] : [end.sentence]), ...(refusals === 0 ? [] : [tellRefusals(refusals)])],
    unproven: end === undefined ? [`That the grant lived until ${issued.expires_at}: its end may stand in an entry that is not in this receipt.`] : [],
  }
}

/** The first entry as the grant's own, or what is wrong with it. */
function readIssued(grant: string, entry: StoryEntry): Issued | string {
  if (entry.type !== 'grant.issued') return `is ${entry.type}: a receipt begins with the entry that issued the grant`
  const { data } = issuedMembers.safeParse(entry)
  if (data === undefined) return 'issued a grant, but not by a decision to allow it'
  return data.grant === grant ? data : `issued another grant than ${grant}`
}

/** What a later entry says about the grant: its end, or nothing but a refusal; or else what is wrong with the entry. */
function readLater(issued: Issued, entry: StoryEntry): End | undefined | string {
  const foreign = `is ${entry.type} and not about this grant`
  switch (entry.type) {
    case 'grant.revoked': {
      const { data } = revokedMembers.safeParse(entry)
      const fits = data?.grant === issued.grant && data.workload === issued.workload && data.tool === issued.tool
      return fits ? { time: entry.time, sentence: tellEnd(entry, data, 'it was revoked') } : foreign
    }
    case 'grants.revoked': {
      const { data } = manyRevokedMembers.safeParse(entry)
      if (data === undefined || !coversGrant(data.selector, issued)) return foreign
      return { time: entry.time, sentence: tellEnd(entry, data, `all grants ${tellSelector(data.selector)} were revoked, and this one among them`) }
    }
    case 'introspection.refused':
    case 'revocation.refused':
      return foreignMembers.safeParse(entry).data?.grant === issued.grant ? undefined : foreign
    case 'grant.issued':
      return 'issues a grant a second time'
    default:
      return foreign
  }
}

type Selector = z.output<typeof manyRevokedMembers>['selector']

/** As the broker itself decides whether a revocation of many ends a grant. */
function coversGrant({ workload, task, before }: Selector, issued: Issued): boolean {
  if ([workload, task, before].every((member) => member === undefined)) return false
  return (
    (workload === undefined || workload === issued.workload) &&
    (task === undefined || task === issued.task) &&
    // Times are written with three decimals in UTC, and sort as text.
    (before === undefined || before > issued.time)
  )
}

function tellIssued({ index, time, workload, actions, tool, target, task, expires_at: end, decision }: Issued): string {
  const given = `${actions.join(', ')}${target === undefined ? '' : ` on ${target}`}`
  const why = `by ${decision.reasons.join(', ')} of the policy set ${decision.policy_set}`
  return `Entry ${index}, ${time}: ${workload} was given ${given} for ${tool} until ${end}${task === undefined ? '' : `, for the task ${task}`}, ${why}.`
}

function tellEnd({ index, time }: StoryEntry, by: { readonly actor: z.output<typeof actor>; readonly reason?: string | undefined }, what: string): string {
  const who = `${by.actor.kind}${by.actor.id === undefined ? '' : ` ${by.actor.id}`}`
  return `Entry ${index}, ${time}: ${what} by ${who}${by.reason === undefined ? '' : `: ${by.reason}`}.`
}

function tellSelector({ workload, task, before }: Selector): string {
  const parts = [workload === undefined ? '' : `of ${workload}`, task === undefined ? '' : `of the task ${task}`, before === undefined ? '' : `issued before ${before}`]
  return parts.filter((part) => part !== '').join(', ')
}

function tellRefusals(count: number): string {
  return `${count === 1 ? 'Once' : `${count} times`} another workload asked about its token, or wanted to end it, and was refused.`
}
