import { stateOf, report, type HeldToken, type SentAssertion } from './book.ts'
import type { Load } from './load.ts'
import { introspect, takeToken } from './workload-steps.ts'

/** How much is tried after each start. */
const newestTried = 16
const olderTried = 8
const unansweredTried = 8
const tokensTried = 6
/** No assertion is good for longer. */
const lifetimeMsMax = 300_000

/** Sends again what was accepted before: the newest ones, which a crash could lose, and older ones. Returns how many. */
export async function replayAssertions({ client, book, random, nowMs, mayFail }: Load): Promise<number> {
  const spent = book.assertions.filter((assertion) => assertion.spent === 'yes')
  // Also of those that the log's time refuses, and that the clock does not, where it was set back.
  const living = spent.filter(({ expiresAtMs }) => expiresAtMs > Math.min(nowMs(), Date.now()))
  const tried = new Set([...living.slice(-newestTried), ...Array.from({ length: olderTried }, () => random.pick(living))])
  await Promise.all(
    [...tried].map(async (assertion) => {
      if (assertion === undefined) return
      const { path, form, workload, mark } = assertion
      const answer = await client.send({ method: 'POST', path, form })
      if (answer?.status !== 401 && !(mayFail && answer?.status === 503)) report(book, `an assertion of ${workload} that was accepted before was answered ${String(answer?.status)} ${String(answer?.text)} (${mark ?? path})`)
    }),
  )
  return tried.size
}

/** Sends again what no answer came to, as a client does: it is given what it asked for, or had been taken before. Returns how many. */
export async function retryUnanswered({ client, book, nowMs }: Load, isTaken: (mark: string) => boolean): Promise<number> {
  const open = book.assertions.flatMap((assertion) => {
    const change = book.changes.get(assertion.mark ?? '')
    // Not what was made by a clock that was ahead since then, either: to the broker it is of the future.
    const isGood = assertion.expiresAtMs > nowMs() + 5_000 && assertion.expiresAtMs < nowMs() + lifetimeMsMax
    const fits = assertion.spent === 'maybe' && assertion.path === '/oauth2/token' && isGood
    return fits && change?.told === 'unanswered' && !isTaken(change.mark) ? [{ assertion, change }] : []
  })
  const tried = open.slice(-unansweredTried)
  await Promise.all(
    tried.map(async ({ assertion, change }) => {
      const answer = await client.send({ method: 'POST', path: assertion.path, form: assertion.form })
      if (answer === undefined) return
      assertion.spent = 'yes'
      const task = change.mark.slice('task '.length)
      const isDenied = assertion.form['authorization_details']?.includes('tickets:close') === true
      takeToken(book, { change, assertion, answer, task, disturbed: false }, isDenied ? 400 : 200)
    }),
  )
  return tried.length
}

/** Asks the broker itself about tokens, living and ended, the newest ones among them. Returns how many. */
export async function introspectSome(load: Load): Promise<number> {
  const { book, agents, random, nowMs } = load
  const known = book.tokens.filter((token) => agents.has(token.workload) && token.expiresAtMs > nowMs() + 10_000)
  const choose = (state: 'active' | 'ended'): (HeldToken | undefined)[] => {
    const fitting = known.filter((token) => stateOf(book, token, nowMs()) === state)
    return [...fitting.slice(-tokensTried), ...Array.from({ length: tokensTried }, () => random.pick(fitting))]
  }
  const tried = new Set([...choose('active'), ...choose('ended')])
  await Promise.all(
    [...tried].map(async (token) => {
      const agent = token && agents.get(token.workload)
      if (token !== undefined && agent !== undefined) await introspect(load, agent, token)
    }),
  )
  return tried.size
}

/** Whether suspensions and resumptions are in force: who is suspended gets nothing, who is not gets a token. */
export async function tryStanding({ client, book, admin, standing, nowMs, mayFail }: Load): Promise<void> {
  for (const [name, agent] of standing) {
    const state = admin.standing.get(name)
    const { form, expiresAtMs } = agent.prove(nowMs(), 60)
    const answer = await client.send({ method: 'POST', path: '/oauth2/token', form: { ...form, grant_type: 'client_credentials', scope: 'tickets:read' } })
    if (mayFail && answer?.status === 503) continue
    if (state !== undefined && answer?.status !== (state === 'active' ? 200 : 401)) {
      report(book, `${name} is ${state} and was answered ${String(answer?.status)} ${String(answer?.text)} (its assertion is good until ${expiresAtMs})`)
    }
  }
}

/** Forgets what can no longer be of use, so that a long run does not grow. */
export function forgetExpired(assertions: SentAssertion[], beforeMs: number): void {
  const living = assertions.filter(({ expiresAtMs }) => expiresAtMs > beforeMs)
  assertions.splice(0, assertions.length, ...living)
}
