import { randomUUID } from 'node:crypto'
import { readJwt, type Agent } from './agents.ts'
import { report, stateOf, type Book, type Change, type HeldToken, type SentAssertion } from './book.ts'
import { cameToNothing, type Answer, type Client } from './http.ts'
import type { Random } from './random.ts'

/** What the steps of the load share. */
export interface Loading {
  readonly client: Client
  readonly book: Book
  readonly random: Random
  /** The time by which the broker judges, as far as clients can know it. */
  nowMs(): number
  /** Raised when the broker's clock begins to move and when it has: an odd number, or another one after a request than before, says that the request may be judged by either time. */
  clockMoves(): number
  /** Whether the broker may answer that it cannot just then. */
  readonly mayFail: boolean
}

/** Asks for a token; now and then for one that the policy denies. */
export async function askToken(loading: Loading, agent: Agent): Promise<void> {
  const { book, random } = loading
  const denied = random.chance(0.06)
  const task = randomUUID()
  const detail = { type: 'stint', actions: [denied ? 'tickets:close' : 'tickets:read'], task, ttl_seconds: 60 + random.below(900) }
  const parameters = { grant_type: 'client_credentials', authorization_details: JSON.stringify([detail]) }
  const change = book.ask(`task ${task}`)
  const { assertion, answer, disturbed } = await prove(loading, agent, '/oauth2/token', parameters, change.mark)
  if (disturbed && answer?.status === 401) change.told = 'refused'
  else takeToken(book, { change, assertion, answer, task, disturbed }, denied ? 400 : 200)
}

interface AskedToken {
  readonly change: Change
  readonly assertion: SentAssertion
  readonly answer: Answer | undefined
  readonly task: string
  readonly disturbed: boolean
}

/** Notes what came of a request for a token that is answered with this status where all is well. */
export function takeToken(book: Book, { change, assertion, answer, task, disturbed }: AskedToken, expected: 200 | 400): void {
  if (answer === undefined || cameToNothing(answer)) return settle(change, answer)
  if (answer.status !== expected || (expected === 400 && answer.body['error'] !== 'access_denied')) {
    change.told = 'refused'
    return report(book, `a token request of ${assertion.workload} was answered ${answer.status} ${answer.text}`)
  }
  change.told = 'done'
  if (expected === 400) return void book.counts.denials++
  const token = String(answer.body['access_token'])
  const { kid, jti, iat, exp } = readJwt(token)
  const index = Number(answer.headers['stint-audit-index'])
  change.index = index
  book.counts.tokens++
  const times = { issuedAtMs: iat * 1000, expiresAtMs: exp * 1000 }
  book.tokens.push({ grant: jti, workload: assertion.workload, task, token, kid, index, ...times, disturbed, ended: 'no' })
}

/** Asks about one of the agent's own tokens, whose state is known or not. */
export async function introspect(loading: Loading, agent: Agent, token: HeldToken): Promise<void> {
  const { book } = loading
  const before = stateOf(book, token, loading.nowMs())
  const { answer, disturbed } = await prove(loading, agent, '/oauth2/introspect', { token: token.token })
  if (answer === undefined || cameToNothing(answer) || disturbed) return
  const state = stateOf(book, token, loading.nowMs()) === before ? before : 'unsure'
  const active = answer.body['active']
  if (answer.status !== 200 || typeof active !== 'boolean') return report(book, `introspection of ${token.grant} was answered ${answer.status} ${answer.text}`)
  if (state !== 'unsure' && active !== (state === 'active')) report(book, `${token.grant} (entry ${token.index}) is told to be ${active ? 'active' : 'not active'}, and should not be`)
}

/** Gives back one of the agent's own tokens, which nobody else is about to end. */
export async function release(loading: Loading, agent: Agent, token: HeldToken): Promise<void> {
  const { book } = loading
  const state = stateOf(book, token, loading.nowMs())
  if (state !== 'active') return
  token.ended = 'maybe'
  const change = book.ask(`grant.revoked ${token.grant}`)
  const { answer, disturbed } = await prove(loading, agent, '/oauth2/revoke', { token: token.token }, change.mark)
  if (answer?.status !== 200) {
    settle(change, answer)
    if (change.told === 'refused') token.ended = 'no'
    if (answer !== undefined && !cameToNothing(answer) && !disturbed) report(book, `the revocation of ${token.grant} was answered ${answer.status} ${answer.text}`)
    return
  }
  token.ended = 'yes'
  book.counts.revocations++
  // Where its key was ended meanwhile, or its time, there was nothing left to end, and nothing to record.
  if (!book.keysUnsure && !book.endedKids.has(token.kid) && !disturbed) change.told = 'done'
}

interface Proven {
  readonly assertion: SentAssertion
  readonly answer: Answer | undefined
  /** Whether the broker's clock was moved meanwhile. */
  readonly disturbed: boolean
}

/** Sends a request by which an agent proves itself, and keeps the assertion with what became of it. */
export async function prove(
  loading: Loading,
  agent: Agent,
  path: string,
  parameters: Readonly<Record<string, string>>,
  mark?: string,
): Promise<Proven> {
  const moves = loading.clockMoves()
  const { book, client, random } = loading
  const { form, expiresAtMs } = agent.prove(loading.nowMs(), 60 + random.below(240))
  const sent = { path, form: { ...form, ...parameters }, workload: agent.name, expiresAtMs }
  const answer = await client.send({ method: 'POST', path, form: sent.form })
  // One that was refused spent nothing: what is recorded under the mark later was another one's doing.
  const refused = answer !== undefined && cameToNothing(answer) && !leavesOpen(answer)
  const assertion: SentAssertion = { ...sent, ...(mark !== undefined && !refused && { mark }), spent: 'maybe' }
  if (answer?.status !== 0) book.assertions.push(assertion)
  // 400: a denial, which is recorded as well.
  if (answer?.status === 200 || answer?.status === 400) assertion.spent = 'yes'
  count(loading, answer)
  return { assertion, answer, disturbed: moves % 2 === 1 || loading.clockMoves() !== moves }
}

/** Counts an answer, and reports one that says that the broker could not, where it must always be able to. */
export function count({ book, mayFail }: Loading, answer: Answer | undefined): void {
  if (answer === undefined) book.counts.unanswered++
  else if (answer.status === 0) return
  else if (answer.status === 503) {
    book.counts.unavailable++
    // Of a busy admin's own making: decisions are made anew for each change, so many times.
    if (!mayFail && !answer.text.includes('change faster than')) report(book, `a request was answered 503 ${answer.text}`)
  } else book.counts.answered++
}

/** What is known of a change that came to no answer, or to one that says that it could not be done. */
export function settle(change: Change, answer: Answer | undefined): void {
  if (answer !== undefined) change.told = leavesOpen(answer) ? 'unanswered' : 'refused'
}

/** The one refusal that leaves open what became of it: the answer to a COMMIT was lost. */
function leavesOpen({ text }: Answer): boolean {
  return text.includes('not known')
}
