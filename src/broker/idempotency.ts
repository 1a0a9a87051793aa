import { formatTime } from '../kernel/clock.ts'
import { grantState, isOver, type GrantState } from '../grant/grant.ts'
import { BrokerError } from '../kernel/errors.ts'
import { lendsValue } from '../policy/catalog.ts'
import { findCredential, type StoredCredential } from '../storage/credentials.ts'
import { findGrant } from '../storage/grants.ts'
import { deleteExpiredRepeats, findRepeat, writeRepeat } from '../storage/idempotency-keys.ts'
import { findChain } from '../storage/renewals.ts'
import type { Place } from '../storage/change.ts'
import { actorOf, markOf, stillProven, withWorkload, type ClientCredentials } from './authenticate.ts'
import type { Broker } from './broker.ts'
import { commit } from './commit.ts'
import { endCredential } from './end.ts'
import { endGrant, type Release } from './release.ts'
import type { Ask, Granted, Guard } from './request.ts'

/** A key of the caller's own for a request that it may send again. */
export interface IdempotencyKey {
  readonly key: string
  /** Hex SHA-256 of the request. */
  readonly bodyHash: string
}

/** How long a key stands for its request. */
const keptMs = 86_400_000

/** Earlier grants of the same key live, or may: they end before there is a new one. */
class EarlierGrants extends Error {
  /** At least one. */
  readonly grants: readonly string[]

  constructor(grants: readonly string[]) {
    super('earlier grants of the same idempotency key are not over')
    this.name = 'EarlierGrants'
    this.grants = grants
  }
}

type AnswerAsk = (broker: Broker, credentials: ClientCredentials, ask: Ask) => Promise<Granted>

/**
 * Answers a request that may come again. While the first one is in flight, and where what it gave cannot be ended, the answer
 * is `conflict`; a key that stands for another request is an `idempotency_mismatch`. The earlier grant is ended, on record,
 * before it is asked anew: so that of one key no two credentials are alive.
 */
export async function guardRepeat(broker: Broker, credentials: ClientCredentials, ask: Ask, key: IdempotencyKey, answerAsk: AnswerAsk): Promise<Granted> {
  const guarded: Ask = { ...ask, guard: (workload) => guard(workload, key) }
  try {
    return await answerAsk(broker, credentials, guarded)
  } catch (error) {
    if (!(error instanceof EarlierGrants)) throw error
    for (const [i, grant] of error.grants.entries()) await endEarlier(broker, credentials, grant, { requestId: ask.requestId, spent: i > 0 })
  }
  try {
    return await answerAsk(broker, credentials, { ...guarded, spent: true })
  } catch (error) {
    // Somebody else has asked by the same key in between.
    throw error instanceof EarlierGrants ? inFlight() : error
  }
}

function guard(workload: string, { key, bodyHash }: IdempotencyKey): Guard {
  return {
    async stillHolds(tx, { timeMs }) {
      const repeat = await findRepeat(tx, workload, key, timeMs)
      if (repeat === undefined) return true
      if (repeat.bodyHash !== bodyHash) {
        const publicMessage = 'The Idempotency-Key stands for another request of the last 24 hours: take a new key for each request.'
        throw new BrokerError({ code: 'idempotency_mismatch', publicMessage })
      }
      const alive: string[] = []
      // What went on from it as a renewal was given by the same key.
      for (const id of await findChain(tx, repeat.grant)) {
        const [grant, credential] = [await findGrant(tx, id), await findCredential(tx, id)]
        if (grant === undefined) continue
        const state = grantState(grant, timeMs, credential?.state)
        if (state === 'minting' && (credential?.leaseUntilMs ?? 0) > timeMs) throw inFlight()
        if (!isOver(state) && !isReplaced(state, credential)) alive.push(id)
      }
      if (alive.length > 0) throw new EarlierGrants(alive)
      return true
    },
    also: (grant) => (tx, { timeMs }) => writeRepeat(tx, workload, key, { bodyHash, grant }, timeMs + keptMs),
  }
}

function inFlight(): BrokerError {
  return new BrokerError({ code: 'conflict', publicMessage: 'A request with this Idempotency-Key is in flight: wait for its answer, or send it again in a minute.' })
}

/** Ends the grant, by the word of its own workload. Throws `conflict`, which says until when it lives, where it does not end at once. */
async function endEarlier(
  broker: Broker,
  credentials: ClientCredentials,
  grant: string,
  { requestId, spent }: { readonly requestId: string; readonly spent: boolean },
): Promise<void> {
  await withWorkload<Release>(broker, credentials, async (principal, view) => {
    const apply = endGrant(grant, { actor: actorOf(principal), requestId }, 'asked for again')
    return broker.ledger.transact({
      epoch: view.epoch,
      mark: spent ? undefined : markOf(principal),
      apply: async (tx, place) => ((await stillProven(tx, principal, place.timeMs)) ? apply(tx, place) : { result: 'already_ended', unrecorded: 'nothing changed' }),
    })
  })
  await endCredential(broker, grant)
  const { read } = broker.database
  const [stored, credential] = [await findGrant(read, grant), await findCredential(read, grant)]
  const state = stored && grantState(stored, broker.ledger.nowMs(), credential?.state)
  if (state === undefined || isOver(state) || isReplaced(state, credential)) return
  const publicMessage = `What this Idempotency-Key gave before, ${grant}, is not ended yet: ${describeDelay(credential)}. Ask again then, or take a new key.`
  const waitMs = (credential?.dueAtMs ?? 0) - broker.ledger.nowMs()
  throw new BrokerError({ code: 'conflict', publicMessage, ...(waitMs > 0 && { retryAfterSeconds: Math.ceil(waitMs / 1000) }) })
}

/** Whether the end waits for the value to be replaced: the same one, or its successor, opens nothing more for who held it before. */
function isReplaced(state: GrantState, credential: StoredCredential | undefined): boolean {
  return state === 'ending' && credential?.state === 'ending' && lendsValue(credential.connector)
}

function describeDelay(credential: StoredCredential | undefined): string {
  if (credential?.diesAtMs !== undefined) return `it may live until ${formatTime(credential.diesAtMs)}`
  if (credential?.state === 'stuck') return 'its tool has refused it too often, and it lives until an admin has seen to it'
  const next = credential?.dueAtMs === undefined ? '' : `, next at ${formatTime(credential.dueAtMs)}`
  return `it lives until its tool has ended it, which is asked for again and again${next}`
}

const forgottenPerCommit = 500

/** Forgets keys that have expired. */
export async function forgetRepeats(broker: Broker): Promise<void> {
  for (;;) {
    const { result } = await commit<number>(broker, {
      async apply(tx, { timeMs }: Place) {
        return { result: await deleteExpiredRepeats(tx, timeMs, forgottenPerCommit), unrecorded: 'housekeeping' }
      },
    })
    if (result < forgottenPerCommit) return
  }
}
