import type { Kysely } from 'kysely'
import type { Principal } from '../identity/authenticate.ts'
import { verifyPossession, type Possession } from '../identity/proof-of-possession.ts'
import { keyStatus, spiffeId, type WorkloadKey } from '../identity/workload.ts'
import { formatTime } from '../kernel/clock.ts'
import { BrokerError } from '../kernel/errors.ts'
import type { Outcome, Place } from '../storage/change.ts'
import type { Schema } from '../storage/schema.ts'
import { findWorkload, insertWorkloadKeys, markKeyRemoved } from '../storage/workloads.ts'
import { actorOf, markOf, withWorkload, type ClientCredentials } from './authenticate.ts'
import { causedBy, type Broker, type Caller } from './broker.ts'
import { judgeOwnKey } from './new-key.ts'
import { describeRefusedChange } from './refused-change.ts'

/** How long a key that was rotated out may go on proving its workload, at most. */
export const overlapSecondsMax = 86_400
const overlapSecondsDefault = 3_600

/** What an agent sends to put a new key in place of the one that it authenticates with. */
export interface Rotation {
  /** Signed with the new key, by `stint-key+jwt`, for this workload. */
  readonly proof: string
  /** 0 to 86,400; an hour where absent. */
  readonly overlapSeconds?: number
}

/** What a rotation did, and the entry that records it; no entry where it had been done before. */
export interface RotatedKey {
  readonly workload: string
  readonly kid: string
  readonly replaces: string
  /** Until then the replaced key proves the workload too. */
  readonly untilMs: number
  readonly auditIndex?: number
}

/**
 * Registers a new key by the word of an old one, which ends by itself when the overlap is over. The same new key again is
 * answered the same as long as the old one lives. Throws `invalid_client`; `invalid_input` for a proof that does not hold,
 * `conflict` for a key that cannot be taken or an old one that is ending: those are recorded, and spend the assertion.
 */
export async function rotateKey(
  broker: Broker,
  credentials: ClientCredentials,
  { proof, overlapSeconds = overlapSecondsDefault }: Rotation,
  requestId: string,
): Promise<RotatedKey> {
  const { issuer, trustDomain, ledger } = broker
  const rotated = await withWorkload<RotatedKey | BrokerError>(broker, credentials, async (principal, view) => {
    const purpose = { type: 'stint-key+jwt', claim: 'sub', value: spiffeId(trustDomain, principal.workload.name) } as const
    const possession = await verifyPossession(proof, purpose, { issuer, nowMs: ledger.nowMs() })
    return ledger.transact({
      epoch: view.epoch,
      mark: markOf(principal),
      apply: replaceKey(principal, possession, overlapSeconds, { actor: actorOf(principal), requestId }),
    })
  })
  if (rotated instanceof BrokerError) throw rotated
  return rotated
}

function replaceKey({ workload: { name }, kid: oldKid }: Principal, possession: Possession, overlapSeconds: number, caller: Caller) {
  const refuse = (error: BrokerError): Outcome<BrokerError> => ({
    result: error,
    raisesEpoch: false,
    events: [describeRefusedChange(caller, { method: 'POST', route: '/v1/keys/rotate' }, error)],
  })

  return async (tx: Kysely<Schema>, { index, timeMs }: Place): Promise<Outcome<RotatedKey | BrokerError>> => {
    if (!possession.ok) return refuse(new BrokerError({ code: 'invalid_input', publicMessage: `The proof ${possession.message}.` }))
    const { key } = possession.proven
    const workload = await findWorkload(tx, name)
    const old = workload?.keys.find((one) => one.kid === oldKid)
    if (workload === undefined || old === undefined) throw new Error('a workload that has proven itself is not there')
    if (old.removedAtMs !== undefined) {
      const successor = workload.keys.find((one) => one.kid === key.kid)
      const done = successor !== undefined && keyStatus(successor, timeMs) === 'active'
      if (done) return { result: describe(name, successor, old, old.removedAtMs), unrecorded: 'nothing changed' }
      // Else whoever has stolen a key could put one of his own in its place, after it was rotated for that very reason.
      const ends = formatTime(old.removedAtMs)
      return refuse(conflict(`This key was rotated out and ends at ${ends}: rotate with the key that is in its place.`))
    }
    const recent = workload.keys.filter(({ addedAtMs }) => addedAtMs > timeMs - dayMs).length
    if (recent >= keysPerDayMax) {
      return refuse(conflict(`The workload was given ${recent} keys within a day, and gets no more: rotate less often.`))
    }
    const untilMs = timeMs + overlapSeconds * 1000
    const after = { ...workload, keys: workload.keys.map((one) => (one === old ? { ...old, removedAtMs: untilMs } : one)) }
    const error = await judgeOwnKey(tx, after, key.kid, timeMs)
    if (error !== undefined) return refuse(error)
    const added: WorkloadKey = { ...key, addedAtMs: timeMs }
    await insertWorkloadKeys(tx, name, [added])
    await markKeyRemoved(tx, old.kid, untilMs)
    const event = { type: 'workload.key_rotated', ...causedBy(caller), workload: name, kid: key.kid, alg: key.alg } as const
    return {
      result: { ...describe(name, added, old, untilMs), auditIndex: index },
      raisesEpoch: true,
      events: [{ ...event, replaces: old.kid, until: formatTime(untilMs) }],
    }
  }
}

const dayMs = 86_400_000
/** Each rotation makes every process look everything up anew, and its key is kept for ever. */
const keysPerDayMax = 48

function describe(workload: string, { kid }: WorkloadKey, { kid: replaces }: WorkloadKey, untilMs: number): RotatedKey {
  return { workload, kid, replaces, untilMs }
}

function conflict(publicMessage: string): BrokerError {
  return new BrokerError({ code: 'conflict', publicMessage })
}
