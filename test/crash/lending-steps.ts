import { randomUUID } from 'node:crypto'
import type { Agent } from './agents.ts'
import { report } from './book.ts'
import type { Answer, Client, Request } from './http.ts'
import { fits, stateOfLent, type Asked, type EndOrder, type Lent, type LentBook, type Wish } from './lent.ts'
import type { Random } from './random.ts'

/** What agents ask for, what they do with it, and how its end shows in the tool. */
export interface Wielding {
  wish(): Wish
  /** Works with a credential that must work, must not, or may. */
  use(lent: Lent): Promise<void>
  /** Sees that what was ended opens nothing, as far as that shows at once. */
  expectEnded(lent: Lent): Promise<void>
  /** Whether the end of a grant of that tool may come to this. */
  mayEndSo(tool: string, outcome: string, effect: string): boolean
  /** Whether what was lent there may go on until its end comes by itself, and what was asked for under its key waits for that. */
  mayWait(tool: string): boolean
  /** Whether agents ask for more time. */
  readonly renews: boolean
}

/** What the steps of those who lend and end share. */
export interface Lending extends Wielding {
  readonly client: Client
  readonly book: LentBook
  readonly random: Random
  readonly adminCredential: string
  readonly agents: readonly Agent[]
  /** The latest that the broker's clock may show. */
  nowMs(): number
  /** The latest that it surely shows: what is signed is not of its future. */
  proofMs(): number
}

/** Sends a request by which an agent proves itself. */
export async function sendAs({ client, book, random, proofMs }: Lending, agent: Agent, request: Request): Promise<Answer | undefined> {
  const { form } = agent.prove(proofMs(), 120 + random.below(120))
  const answer = await client.send({ ...request, headers: { 'client-assertion': form['client_assertion'] ?? '', ...request.headers } })
  if (answer === undefined) book.counts.unanswered++
  else if (answer.status !== 0) book.counts.answered++
  return answer
}

/** Whether the answer says that it could not be done just then, as it may while somebody cuts connections; reports it where nobody does. */
function isExcused({ book }: Lending, what: string, { status, text }: Answer): boolean {
  if (status !== 502 && status !== 503) return false
  if (text.includes('change faster than')) return true
  book.counts.toolFailures++
  if (!book.cutting) report(book, `${what} was answered ${status} ${text}`)
  return true
}

const tasksPerAgent = 4

/** A new request, of which some have a key: those have a task of their own. */
export function makeAsked({ random, wish }: Pick<Lending, 'random' | 'wish'>, agent: Agent, withKey: boolean): Asked {
  const body = { ...wish(), task: withKey ? `once-${randomUUID()}` : `task-${agent.name}-${random.below(tasksPerAgent)}` }
  return { agent, body, ...(withKey && { key: randomUUID() }), pending: 0, unanswered: false }
}

/** Asks for a credential, or again for what was asked for under the same key. `atRest`: where nobody else is asking for anything, it is given. */
export async function borrow(lending: Lending, asked: Asked, atRest = false): Promise<void> {
  const { book } = lending
  const { agent, body, key } = asked
  const orders = [...book.orders]
  asked.pending++
  const answer = await sendAs(lending, agent, { method: 'POST', path: '/v1/grants', json: body, ...(key !== undefined && { headers: { 'idempotency-key': key } }) })
  asked.pending--
  if (answer?.status === 0) {
    if (asked.unanswered && key !== undefined) book.toRepeat.add(asked)
    return
  }
  book.counts.asked++
  if (answer === undefined) {
    // Asked again later, which ends whatever has come of it.
    asked.unanswered = true
    if (key !== undefined) book.toRepeat.add(asked)
    return
  }
  if (answer.status === 201) return takeLent(lending, asked, answer)
  // Whether the earlier one of the same key was ended is for the log to say.
  asked.unanswered = true
  if (!atRest && isExcused(lending, 'a request for a credential', answer)) return
  const mayBeEnded = [...book.orders].some((order) => !orders.includes(order) || fits({ ...order, index: Infinity }, { workload: agent.name, task: body.task, index: 0, asked }))
  if (answer.status === 409 && key !== undefined && lending.mayWait(body.tool)) return
  if (answer.status === 409 && !atRest && (key !== undefined || mayBeEnded || body.ttl_seconds < 60)) return
  report(book, `a request of ${agent.name} for a credential was answered ${answer.status} ${answer.text}`)
}

async function takeLent(lending: Lending, asked: Asked, { body, headers }: Answer): Promise<void> {
  const { book, random } = lending
  const index = Number(headers['stint-audit-index'])
  const grant = String(body['grant'])
  if (book.lent.has(grant)) report(book, `the grant ${grant} was answered twice`)
  book.counts.received++
  const lent: Lent = {
    grant,
    workload: asked.agent.name,
    task: asked.body.task,
    index,
    issuedAtMs: Date.parse(String(body['issued_at'])),
    expiresAtMs: Date.parse(String(body['expires_at'])),
    // As the API document has it.
    credential: body['credential'] as Lent['credential'],
    asked,
    ended: 'no',
    renewing: 0,
  }
  book.lent.set(grant, lent)
  if (asked.key !== undefined) {
    asked.unanswered = false
    // Of one key no two are alive: whichever was given later, the others had ended before.
    const ofKey = [...book.lent.values()].filter((other) => other.asked === asked).sort((a, b) => a.index - b.index)
    for (const earlier of lending.mayWait(asked.body.tool) ? [] : ofKey.slice(0, -1)) {
      earlier.ended = 'yes'
      await lending.expectEnded(earlier)
    }
  }
  if (random.chance(0.8)) await lending.use(lent)
}

/** Asks for more time. */
export async function renew(lending: Lending, lent: Lent): Promise<void> {
  const { book, random, nowMs } = lending
  const before = stateOfLent(book, lent, nowMs())
  const ttl = random.chance(0.3) ? 10 + random.below(60) : 300 + random.below(6_000)
  const [askedMs, mayLast] = [nowMs(), nowMs() < lent.issuedAtMs + 7_200_000 - ttl * 1000 - 60_000]
  lent.renewing++
  const answer = await sendAs(lending, lent.asked.agent, { method: 'POST', path: `/v1/grants/${lent.grant}/renew`, json: { ttl_seconds: ttl } })
  // It stays unknown what became of one that was not answered, or not done by the tool.
  if (answer === undefined || (answer.status !== 0 && isExcused(lending, 'a renewal', answer))) return
  lent.renewing--
  // Another one, at the same time or never answered, may have asked for more.
  const endsLater = mayLast && lent.renewing === 0 && lent.expiresAtMs + 5_000 < askedMs + ttl * 1000
  if (answer.status === 200) {
    lent.expiresAtMs = Math.max(lent.expiresAtMs, Date.parse(String(answer.body['expires_at'])))
    book.counts.renewed++
  } else if (answer.status !== 0 && (answer.status !== 409 || (endsLater && before === 'live' && stateOfLent(book, lent, nowMs()) === 'live'))) {
    report(book, `a renewal of ${lent.grant} by ${ttl} s was answered ${answer.status} ${answer.text}`)
  }
}

/** Gives it back. */
export async function giveBack(lending: Lending, lent: Lent): Promise<void> {
  const before = lent.ended
  if (before === 'no') lent.ended = 'maybe'
  const answer = await sendAs(lending, lent.asked.agent, { method: 'DELETE', path: `/v1/grants/${lent.grant}` })
  if (answer?.status === 0 && lent.ended === 'maybe') lent.ended = before
  if (answer === undefined || answer.status === 0 || isExcused(lending, 'a return', answer)) return
  if (answer.status !== 200) return report(lending.book, `the return of ${lent.grant} was answered ${answer.status} ${answer.text}`)
  lending.book.counts.givenBack++
  await takeOutcomes(lending, [answer.body])
}

/** Completes a task of an agent. */
export async function complete(lending: Lending, agent: Agent, task: string): Promise<void> {
  const order = giveOrder(lending, { workload: agent.name, task })
  await takeOrdered(lending, order, await sendAs(lending, agent, { method: 'POST', path: `/v1/tasks/${task}/complete` }))
}

/** An admin ends something: one credential, or all that fits. */
export async function revoke(lending: Lending, target: { readonly grant: string } | Omit<EndOrder, 'index'>): Promise<void> {
  const { client, book, adminCredential } = lending
  const order = 'grant' in target ? undefined : giveOrder(lending, target)
  const lent = 'grant' in target ? book.lent.get(target.grant) : undefined
  if (lent?.ended === 'no') lent.ended = 'maybe'
  const answer = await client.send({ method: 'POST', path: '/v1/revocations', json: { ...target, reason: randomUUID() }, bearer: adminCredential })
  if (answer === undefined) book.counts.unanswered++
  else if (answer.status !== 0) book.counts.answered++
  book.counts.revocations++
  await takeOrdered(lending, order, answer)
}

function giveOrder({ book }: Lending, order: EndOrder): EndOrder {
  book.orders.add(order)
  return order
}

async function takeOrdered(lending: Lending, order: EndOrder | undefined, answer: Answer | undefined): Promise<void> {
  if (answer === undefined || answer.status === 0 || isExcused(lending, 'an order to end', answer)) return
  if (answer.status !== 200) return report(lending.book, `an order to end was answered ${answer.status} ${answer.text}`)
  const index = answer.body['audit_index']
  if (order !== undefined) order.index = typeof index === 'number' ? index : -1
  // As the API document has it.
  await takeOutcomes(lending, answer.body['grants'] as Readonly<Record<string, unknown>>[])
}

/** What an answer says was ended opens nothing from that moment on; what it says is tried again may. */
async function takeOutcomes(lending: Lending, outcomes: readonly Readonly<Record<string, unknown>>[]): Promise<void> {
  const { book, random } = lending
  const ended: Lent[] = []
  for (const { grant, tool, outcome, effect } of outcomes) {
    const lent = book.lent.get(String(grant))
    if (!lending.mayEndSo(String(tool), String(outcome), String(effect))) report(book, `the end of ${String(grant)} came to ${String(outcome)}, ${String(effect)}`)
    if (outcome !== 'revoked' && outcome !== 'already_ended') continue
    if (lent !== undefined && lent.ended !== 'yes') {
      lent.ended = 'yes'
      ended.push(lent)
    }
  }
  // Connections all, logins some: each costs the server a derivation of its key.
  await Promise.all(ended.map((lent) => (lent.session !== undefined || random.chance(0.4) ? lending.expectEnded(lent) : undefined)))
}
