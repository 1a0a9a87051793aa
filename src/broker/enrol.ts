import type { Kysely } from 'kysely'
import { judgeStanding } from '../identity/authenticate.ts'
import { parseCredential, secretMatches } from '../identity/credential.ts'
import { digestCode, enrolmentStatus } from '../identity/enrolment.ts'
import { verifyPossession, type ProvenKey } from '../identity/proof-of-possession.ts'
import type { RefusalReason } from '../identity/refusal.ts'
import { keyStatus, type Workload } from '../identity/workload.ts'
import { BrokerError } from '../kernel/errors.ts'
import type { Recorded } from '../storage/change.ts'
import { endEnrolment, findEnrolment } from '../storage/enrolments.ts'
import type { Schema } from '../storage/schema.ts'
import { findWorkload, insertWorkloadKeys } from '../storage/workloads.ts'
import { createRefuser } from './authenticate.ts'
import { causedBy, type Broker } from './broker.ts'
import { judgeOwnKey } from './new-key.ts'

/** What an agent sends to redeem a code. */
export interface Redemption {
  readonly code: string
  /** Signed with the new key, by `stint-enrolment+jwt`, for this code. */
  readonly proof: string
}

/** The workload that has the key now, and the entry that records it; no entry where it had it by this code before. */
export interface RedeemedEnrolment {
  readonly workload: Workload
  readonly kid: string
  readonly auditIndex?: number
}

/** What the state of things says to a redemption by a right code and proof. */
type Verdict =
  | { readonly refused: RefusalReason; readonly error?: BrokerError }
  | { readonly workload: Workload; readonly redeemedBefore: boolean }

/**
 * Registers the agent's own key by a one-time code. The same key again, by a fresh proof, is answered the same while the
 * code would have lived, so that a lost answer leaves nobody stuck. Throws `unauthenticated`, the same for every reason
 * (invariant 10); only who has a good code is told of a `conflict`.
 */
export async function redeemEnrolment(broker: Broker, { code, proof }: Redemption, requestId: string): Promise<RedeemedEnrolment> {
  const refuse = createRefuser(unauthenticated)
  const { issuer, database, ledger, refusals } = broker
  const refuseFor = (reason: RefusalReason, workload?: string): Promise<never> => {
    refusals.note('enrolment', reason, workload)
    return refuse()
  }
  const nowMs = ledger.nowMs()
  const presented = parseCredential(code, ['enrolment'])
  // A verification, a look-up and a comparison in any case, so that time does not tell which codes exist.
  const purpose = { type: 'stint-enrolment+jwt', claim: 'code_sha256', value: digestCode(code) } as const
  const possession = await verifyPossession(proof, purpose, { issuer, nowMs })
  const enrolment = await findEnrolment(database.read, presented?.id ?? '')
  const matches = secretMatches(presented?.secretHash ?? '', enrolment?.codeHash)
  if (presented === undefined) return refuseFor('enrolment_malformed')
  if (enrolment === undefined) return refuseFor('enrolment_unknown')
  if (!matches) return refuseFor('enrolment_wrong')
  // From here on the sender has, or had, the code.
  const { id, workload: name } = enrolment
  if (!possession.ok) return refuseFor('enrolment_proof_invalid', name)
  const { proven } = possession
  // Looked at before the ledger is asked: who keeps an old code must not take up its time.
  const early = await judgeRedemption(database.read, id, proven.key.kid, nowMs)
  if ('refused' in early) return refuseAs(early)
  const outcome = await commitRedemption(broker, id, proven, requestId)
  if (outcome.status === 'replayed') return refuseFor('replayed', name)
  if (outcome.status !== 'recorded') return refuseFor('enrolment_proof_invalid', name)
  const { result, index } = outcome
  if ('refused' in result) return refuseAs(result)
  return { workload: result.workload, kid: proven.key.kid, ...(!result.redeemedBefore && { auditIndex: index }) }

  function refuseAs({ refused, error }: Extract<Verdict, { refused: RefusalReason }>): Promise<never> {
    if (error === undefined) return refuseFor(refused, name)
    // Counted like the others, not written one by one: the holder of a code is nobody yet.
    refusals.note('enrolment', refused, name)
    throw error
  }
}

async function commitRedemption(
  { ledger }: Broker,
  id: string,
  { key, replayId, expiresAtMs }: ProvenKey,
  requestId: string,
): Promise<Recorded<Verdict>> {
  return ledger.transact<Verdict>({
    mark: { id: replayId, expiresAtMs },
    async apply(tx, { timeMs }) {
      // Once more, under the log's lock: of two who redeem at once, one wins.
      const verdict = await judgeRedemption(tx, id, key.kid, timeMs)
      if ('refused' in verdict || verdict.redeemedBefore) return { result: verdict, unrecorded: 'nothing changed' }
      // Only here, where everything is read of one moment: else the key may be the one that this very code has registered.
      const error = await judgeOwnKey(tx, verdict.workload, key.kid, timeMs)
      if (error !== undefined) return { result: { refused: 'enrolment_key_refused', error }, unrecorded: 'nothing changed' }
      const { name } = verdict.workload
      await insertWorkloadKeys(tx, name, [{ ...key, addedAtMs: timeMs }])
      await endEnrolment(tx, id, timeMs, key.kid)
      const caller = { actor: { kind: 'workload', id: name }, requestId } as const
      return {
        result: verdict,
        raisesEpoch: true,
        events: [{ type: 'enrolment.redeemed', ...causedBy(caller), workload: name, enrolment: id, kid: key.kid, alg: key.alg }],
      }
    },
  })
}

async function judgeRedemption(db: Kysely<Schema>, id: string, kid: string, timeMs: number): Promise<Verdict> {
  const enrolment = await findEnrolment(db, id)
  const workload = enrolment === undefined ? undefined : await findWorkload(db, enrolment.workload)
  if (enrolment === undefined || workload === undefined) return { refused: 'enrolment_unknown' }
  const standing = judgeStanding(workload, timeMs)
  if (standing !== undefined) return { refused: standing }
  switch (enrolmentStatus(enrolment, timeMs)) {
    case 'expired':
      return { refused: 'enrolment_expired' }
    case 'cancelled':
      return { refused: 'enrolment_ended' }
    case 'redeemed': {
      const mine = workload.keys.find((key) => key.kid === kid && kid === enrolment.kid)
      const stands = mine !== undefined && keyStatus(mine, timeMs) !== 'removed' && enrolment.expiresAtMs > timeMs
      return stands ? { workload, redeemedBefore: true } : { refused: 'enrolment_ended' }
    }
    case 'open':
      return { workload, redeemedBefore: false }
  }
}

function unauthenticated(): BrokerError {
  return new BrokerError({
    code: 'unauthenticated',
    publicMessage:
      'The code could not be redeemed: a code works once and for 15 minutes, with a fresh proof of possession of the new key. ' +
      'Ask an admin for a new one (stint workload enroll NAME).',
  })
}
