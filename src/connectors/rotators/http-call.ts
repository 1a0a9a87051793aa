import { randomInt } from 'node:crypto'
import { Secret } from '../../kernel/secret.ts'
import type { HttpCall, HttpRotator } from '../../policy/kinds/rotators.ts'
import { ConnectorError } from '../connector.ts'
import { createOutbound, readRetryAfter } from '../outbound.ts'
import { fillCall, readPointer, type Filling } from './http-template.ts'
import { findAll, type Rotator, type RotatorPlace } from './rotator.ts'

/** What an API answered: whether by a status that the catalog file expects, and how its answer is told of. */
interface Answered {
  readonly expected: boolean
  readonly status: number
  readonly answer: Response
  /** `PUT https://host/path answered 403`. */
  readonly sentence: string
}

/**
 * Calls of an HTTP API, as the catalog file describes them. Where the API makes the value itself and its answer is lost, what
 * it made stays there: with the same `Idempotency-Key` (the rotation's id) a repetition gets it from an API that knows that
 * header, and from others another one.
 */
export function openHttpRotator(settings: HttpRotator, { tool, context }: RotatorPlace): Rotator {
  const { generate, create, set, test, revoke, auth, private_network: privateNetwork } = settings
  const calls = [create?.call, set, test, revoke].filter((call) => call !== undefined)
  const outbound = createOutbound({ hosts: calls.map(({ url }) => new URL(url).host), privateNetwork })

  const readAuth = async (): Promise<Secret | undefined> => auth && context.readSecret(auth.from, `what {auth} stands for in the calls of the tool ${tool.name}`)

  async function send(call: HttpCall, filling: Filling, signal: AbortSignal, idempotencyKey?: string): Promise<Answered> {
    const secret = await readAuth()
    const { url, ...init } = fillCall(call, { ...filling, ...(secret && { auth: secret }) })
    if (idempotencyKey !== undefined && !init.headers.has('idempotency-key')) init.headers.set('idempotency-key', idempotencyKey)
    const answer = await outbound.fetch(url, { ...init, redirect: 'manual', signal })
    const { status } = answer
    const { origin, pathname } = new URL(url)
    const sentence = `${call.method} ${origin}${pathname} answered ${status}`
    // Neither says anything of what was sent.
    if ((status === 429 || status >= 500) && call.expect?.includes(status) !== true) {
      const retryAfterSeconds = readRetryAfter(answer.headers, context.nowMs())
      throw new ConnectorError({ outcome: status === 429 ? 'nothing_done' : 'unknown', publicMessage: `${sentence}: it is worth another try.`, ...(retryAfterSeconds !== undefined && { retryAfterSeconds }) })
    }
    return { expected: call.expect?.includes(status) ?? answer.ok, status, answer, sentence }
  }

  const refuse = ({ sentence }: Answered, meaning: string): ConnectorError =>
    new ConnectorError({ outcome: 'nothing_done', publicMessage: `${sentence}, which its catalog file does not expect: ${meaning}` })

  async function createThere({ call, answer: pointer }: NonNullable<HttpRotator['create']>, rotation: string, current: Secret, signal: AbortSignal): Promise<Secret> {
    const leftBehind = 'A value that nobody holds may be left behind there: an admin looks for it and deletes it.'
    try {
      const answered = await send(call, { current }, signal, `${rotation}-create`)
      if (!answered.expected) throw refuse(answered, 'nothing was made, as far as is known.')
      const value = readPointer(await answered.answer.text(), pointer)
      if (value !== undefined) return new Secret(value)
      throw new ConnectorError({ outcome: 'unknown', publicMessage: `${answered.sentence}, and its answer has no text at ${pointer}.` })
    } catch (error) {
      if (!(error instanceof ConnectorError) || error.outcome === 'nothing_done') throw error
      const { retryAfterSeconds } = error
      throw new ConnectorError({ outcome: 'unknown', publicMessage: `${error.publicMessage} ${leftBehind}`, cause: error, ...(retryAfterSeconds !== undefined && { retryAfterSeconds }) })
    }
  }

  async function isTaken(pending: Secret, signal: AbortSignal): Promise<boolean> {
    return (await send(test, { pending }, signal)).expected
  }

  async function end(call: HttpCall, retired: Secret, current: Secret, signal: AbortSignal): Promise<void> {
    const answered = await send(call, { retired, current }, signal)
    // Done before, it may be refused; that the call which tries values out still tells good ones shows that it says so of this one.
    const isOver = answered.expected || (!(await isTaken(retired, signal)) && (await isTaken(current, signal)))
    if (!isOver) throw refuse(answered, 'the value that was replaced, or given up, may still be good.')
  }

  /**
   * Of an API that has one value only, the pending one may be the only one that it takes. The one in force is set again by
   * that, also where it seems to be good, for what says so may not have heard of the pending one yet.
   */
  async function restore(call: HttpCall, pending: Secret, current: Secret, signal: AbortSignal): Promise<void> {
    let failure: unknown
    // Refused, it is as it was, or never was set.
    await send(call, { pending: current, current: pending }, signal).catch((error: unknown) => {
      failure = error
    })
    const { expected, sentence } = await send(test, { pending: current }, signal)
    if (!expected) {
      const publicMessage = `${sentence} to the value in force, which may have been replaced there by the new one, and could not be put back: both are kept, and it is tried again. An admin sees which of the two is good.`
      throw new ConnectorError({ outcome: 'unknown', publicMessage, cause: failure })
    }
    if (failure !== undefined && (await isTaken(pending, signal))) throw failure
  }

  return {
    async create(rotation, current, signal) {
      if (create !== undefined) return createThere(create, rotation, current, signal)
      const { length, alphabet } = generate ?? {}
      if (length === undefined || alphabet === undefined) throw new Error('the schema lets nothing pass that has neither generate nor create')
      return new Secret(Array.from({ length }, () => alphabet[randomInt(alphabet.length)]).join(''))
    },

    async set(rotation, pending, current, signal) {
      if (set === undefined) return
      const answered = await send(set, { pending, current }, signal, `${rotation}-set`)
      // Done before, it may be refused: for the current value, by which it is asked, is good no more.
      if (!answered.expected && !(await isTaken(pending, signal))) throw refuse(answered, 'the value in force is as it was, as far as is known.')
    },

    async test(pending, signal) {
      const { expected, sentence } = await send(test, { pending }, signal)
      return expected ? { ok: true } : { ok: false, why: `${sentence} to the new value.` }
    },

    ...(revoke !== undefined && {
      retire: (value: Secret, current: Secret, _options: unknown, signal: AbortSignal) => end(revoke, value, current, signal),
    }),

    async abandon(value, current, { kept }, signal) {
      if (revoke !== undefined) await end(revoke, value, current, signal)
      else if (set !== undefined && kept) await restore(set, value, current, signal)
    },

    check: (current, signal) =>
      findAll(async () => {
        await readAuth()
        const tried = await send(test, { pending: current }, signal)
        if (!tried.expected) return [{ ok: false, sentence: `${tried.sentence} to the value in force, by the call that tries new ones out: it is wrong, or the value is.` }]
        return [{ ok: true, sentence: `${test.method} ${new URL(test.url).origin} knows the value in force, by the call that tries new ones out.` }]
      }),

    close: outbound.close,
  }
}
