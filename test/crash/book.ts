/**
 * What the clients of a broker know: kept outside of it, so that a broker that dies takes nothing of it along. Everything
 * that is to be in the log is known by a *mark*, which its event carries and no other's does.
 */
export interface Book {
  readonly changes: Map<string, Change>
  readonly tokens: HeldToken[]
  readonly assertions: SentAssertion[]
  /** Checkpoints as they were served, in the order of their answers. */
  readonly checkpoints: string[]
  /** Keys of which an admin was told that nothing that they signed is accepted any more. */
  readonly endedKids: Set<string>
  /** The newest entry that ended all that a workload was given before. */
  readonly sweptTo: Map<string, number>
  /** Workloads of which all was to be revoked, and what became of it is not known. */
  readonly sweepsUnsure: Set<string>
  /** Whether a rotation with immediate effect was asked for, and what became of it is not known. */
  keysUnsure: boolean
  /** What must never be, in words. */
  readonly problems: string[]
  readonly counts: Counts
  /** Notes that something is asked for. */
  ask(mark: string): Change
}

export interface Counts {
  answered: number
  unanswered: number
  /** Refused because the broker could not do it just then. */
  unavailable: number
  tokens: number
  denials: number
  revocations: number
  changes: number
  checkpoints: number
}

/** Something that a client asked for, and that may be in the log once at most. */
export interface Change {
  readonly mark: string
  /** `done` must be in the log, `refused` must not; `spent` must, though nobody was told of it. */
  told: 'unanswered' | 'done' | 'refused' | 'spent'
  /** As the answer had it. */
  index?: number
}

/** A token that a client has read to its end. */
export interface HeldToken {
  readonly grant: string
  readonly workload: string
  readonly task: string
  readonly token: string
  readonly kid: string
  readonly index: number
  readonly issuedAtMs: number
  readonly expiresAtMs: number
  /** Whether the clock was moved between the request and its answer. */
  readonly disturbed: boolean
  /** Whether it was ended by a revocation that was answered (`yes`), or asked for (`maybe`). */
  ended: 'no' | 'maybe' | 'yes'
}

/** A request that a workload proved itself with. */
export interface SentAssertion {
  readonly path: string
  readonly form: Readonly<Record<string, string>>
  readonly workload: string
  readonly expiresAtMs: number
  /** Of the change that it was for; introspections change nothing. */
  readonly mark?: string
  spent: 'yes' | 'maybe'
}

const problemsMax = 50

export function createCounts(): Counts {
  return { answered: 0, unanswered: 0, unavailable: 0, tokens: 0, denials: 0, revocations: 0, changes: 0, checkpoints: 0 }
}

/** Several books, one after another, may share their counts and problems. */
export function createBook({ counts = createCounts(), problems = [] }: Partial<Pick<Book, 'counts' | 'problems'>> = {}): Book {
  const changes = new Map<string, Change>()
  return {
    changes,
    tokens: [],
    assertions: [],
    checkpoints: [],
    endedKids: new Set(),
    sweptTo: new Map(),
    sweepsUnsure: new Set(),
    keysUnsure: false,
    problems,
    counts,
    ask(mark) {
      const change: Change = { mark, told: 'unanswered' }
      const before = changes.get(mark)?.told
      if (before !== undefined && before !== 'refused') throw new Error(`${mark} was asked for before`)
      changes.set(mark, change)
      return change
    },
  }
}

/** Notes what must not be, without the length of what was answered; only the first ones, for the rest mostly follows from them. */
export function report({ problems }: Pick<Book, 'problems'>, problem: string): void {
  if (problems.length < problemsMax) problems.push(problem.slice(0, 400))
}

/** Whether the token must be active, must not, or either. */
export function stateOf(book: Pick<Book, 'endedKids' | 'keysUnsure' | 'sweptTo' | 'sweepsUnsure'>, token: HeldToken, nowMs: number): 'active' | 'ended' | 'unsure' {
  const { ended, kid, workload, index, expiresAtMs } = token
  if (ended === 'yes' || book.endedKids.has(kid) || (book.sweptTo.get(workload) ?? 0) > index) return 'ended'
  if (ended === 'maybe' || book.keysUnsure || book.sweepsUnsure.has(workload)) return 'unsure'
  // Not to the second: the broker's clock is read a little later.
  return expiresAtMs > nowMs + 5_000 ? 'active' : 'unsure'
}

/** The mark under which an event is known, where it is one that a client asks for. */
export function markOf(event: Readonly<Record<string, unknown>>): string | undefined {
  const of = (field: string): string | undefined => {
    const value = event[field]
    return typeof value === 'string' ? `${String(event['type'])} ${value}` : undefined
  }
  switch (event['type']) {
    case 'grant.issued':
    case 'grant.denied':
      // One request has one of them.
      return typeof event['task'] === 'string' ? `task ${event['task']}` : undefined
    case 'grant.revoked':
      return of('grant')
    case 'grants.revoked':
      // A workload that completes its task says nothing of its own.
      return hasOperator(event) ? of('reason') : undefined
    case 'workload.suspended':
    case 'workload.resumed':
    case 'key.created':
      return of('reason')
    case 'workload.registered':
      return of('workload')
    case 'policy.applied':
      return of('policy_set')
    default:
      return undefined
  }
}

/** Whether an operator has caused it. */
export function hasOperator({ actor }: Readonly<Record<string, unknown>>): boolean {
  return typeof actor === 'object' && actor !== null && 'kind' in actor && actor.kind === 'operator'
}
