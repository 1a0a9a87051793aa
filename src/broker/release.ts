import type { Kysely } from 'kysely'
import { grantState, isOver } from '../grant/grant.ts'
import { BrokerError } from '../kernel/errors.ts'
import { findCredential, noteCredential, stepCredential, type StoredCredential } from '../storage/credentials.ts'
import { findGrant, markGrantRevoked } from '../storage/grants.ts'
import type { CallbackChange, Outcome } from '../storage/change.ts'
import type { Schema } from '../storage/schema.ts'
import { actorOf, markOf, proofOf, withWorkload, type ClientCredentials } from './authenticate.ts'
import { causedBy, type Broker, type Caller } from './broker.ts'
import { endCredential } from './end.ts'
import { findGrantBehind } from './introspect.ts'
import { orderRotation } from './rotation-order.ts'

/** What became of a request to end one grant. */
export type Release = 'revoked' | 'already_ended' | 'unknown'

/**
 * RFC 7009 for the holder: ends the grant behind a token that was issued to the caller. A token that Stint does not know
 * is no error (§2.2). Throws `unauthorized_client` for another workload's token (§2.1), which is recorded.
 */
export async function releaseToken(
  broker: Broker,
  credentials: ClientCredentials,
  token: string,
  requestId: string,
): Promise<Release> {
  let found: string | undefined
  const release = await withWorkload<Release | 'foreign'>(broker, credentials, async (principal, view) => {
    const grant = await findGrantBehind(broker, view, token)
    const conditions = { epoch: view.epoch, mark: markOf(principal) }
    if (grant === undefined) {
      const spent = await broker.ledger.spend(conditions)
      return spent.status === 'recorded' ? { ...spent, result: 'unknown' } : spent
    }
    const caller = { actor: actorOf(principal), requestId }
    const { id, workload } = grant
    found = id
    if (workload !== principal.workload.name) {
      const event = {
        type: 'revocation.refused',
        ...causedBy(caller),
        workload: principal.workload.name,
        grant: id,
        ...proofOf(principal),
      } as const
      const refused = await broker.ledger.append({ ...conditions, events: [event] })
      return refused.status === 'recorded' ? { ...refused, result: 'foreign' } : refused
    }
    return broker.ledger.transact({ ...conditions, apply: endGrant(id, caller) })
  })
  if (release === 'revoked' && found !== undefined) await endOutside(broker, found)
  if (release !== 'foreign') return release
  throw new BrokerError({
    code: 'unauthorized_client',
    publicMessage: 'This token was issued to another client, which alone can give it back; an admin can revoke it.',
  })
}

/** RFC 7009 for an admin, who may end any token. */
export async function revokeToken(broker: Broker, caller: Caller, token: string): Promise<Release> {
  const grant = await findGrantBehind(broker, await broker.knowledge.refresh(), token)
  if (grant === undefined) return 'unknown'
  const outcome = await broker.ledger.transact({ apply: endGrant(grant.id, caller) })
  if (outcome.status !== 'recorded') throw new Error(`an unconditional change was ${outcome.status}`)
  if (outcome.result === 'revoked') await endOutside(broker, grant.id)
  return outcome.result
}

/** Tells the tool at once, where there is one; what fails is tried again by itself. RFC 7009 has no answer that could say so. */
async function endOutside(broker: Broker, id: string): Promise<void> {
  try {
    await endCredential(broker, id)
  } catch (error) {
    broker.log.warn('a credential that was given back was not ended at once', { grant: id, error })
  }
}

/** The change that ends one grant: read and written in the same transaction, recorded only when it ends something. */
export function endGrant(id: string, caller: Caller, reason?: string): CallbackChange<Release>['apply'] {
  return async (tx, { index, timeMs }): Promise<Outcome<Release>> => {
    const grant = await findGrant(tx, id)
    if (grant === undefined) return { result: 'unknown', unrecorded: 'nothing changed' }
    const credential = await findCredential(tx, id)
    const state = grantState(grant, timeMs, credential?.state)
    // What has not ended outside may be ordered to end once, whatever else has made it so.
    const isOpen = credential === undefined ? state === 'active' : !isOver(state) && grant.revokedIndex === undefined
    if (!isOpen) {
      const waits = credential?.state === 'ending' && !isHolder(caller, grant)
      // Whoever has kept a copy of what was lent has it still.
      if (waits) await orderRotation(tx, credential, timeMs)
      return { result: 'already_ended', unrecorded: waits ? 'housekeeping' : 'nothing changed' }
    }
    await markGrantRevoked(tx, id, index)
    if (credential !== undefined) await orderEnd(tx, credential, timeMs, isHolder(caller, grant) ? 'holder' : 'others')
    return {
      result: 'revoked',
      // The end of one grant does not raise the epoch: whoever asks about it reads its row.
      raisesEpoch: false,
      events: [
        {
          type: 'grant.revoked',
          ...causedBy(caller),
          workload: grant.workload,
          grant: id,
          tool: grant.tool,
          ...(grant.task !== undefined && { task: grant.task }),
          ...(reason !== undefined && { reason }),
        },
      ],
    }
  }
}

/** Whether a grant is ended by the workload that it was given to. */
export function isHolder({ actor }: Caller, { workload }: { readonly workload?: string }): boolean {
  return actor.kind === 'workload' && actor.id === workload
}

/**
 * Puts a credential into `ending` by a revocation. While it is being minted the mint, when it returns, finds that and undoes
 * itself; only after its lease somebody else does. What its holder gives back was in good hands; what others end may be in
 * bad ones, so that a secret which it lent is replaced.
 */
export async function orderEnd(tx: Kysely<Schema>, credential: StoredCredential, timeMs: number, by: 'holder' | 'others'): Promise<void> {
  if (by === 'others') await orderRotation(tx, credential, timeMs)
  const { state, leaseUntilMs = 0, grant } = credential
  const dueAtMs = state === 'minting' ? Math.max(timeMs, leaseUntilMs) : timeMs
  // What cannot be found lives for its time, whoever orders its end.
  if (state === 'ending' || state === 'unknown') await noteCredential(tx, grant, { cause: 'revoked' })
  else if (state === 'stuck') await stepCredential(tx, credential, 'retried', { cause: 'revoked', tries: 0, dueAtMs })
  else await stepCredential(tx, credential, 'end_ordered', { cause: 'revoked', dueAtMs })
}
