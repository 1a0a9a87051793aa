import { formatTime } from '../kernel/clock.ts'
import { BrokerError } from '../kernel/errors.ts'
import { countRevokedBy, insertRevocation, type RevocationSelector } from '../storage/grants.ts'
import { findWorkload } from '../storage/workloads.ts'
import { causedBy, type Broker, type Caller } from './broker.ts'
import { commit } from './commit.ts'
import { endGrant } from './release.ts'

/** What an admin picks for revocation: one grant, or all grants that fit every other member given. */
export type RevocationTarget = { readonly grant: string } | RevocationSelector

export interface RevocationReport {
  /** Live grants that this call ended, as far as they were counted. */
  readonly revoked: number
  /** There were more than the count looked at; the revocation covers those too. */
  readonly more: boolean
  readonly alreadyEnded: number
  /** The entry that records it; absent when nothing was alive to end. */
  readonly auditIndex?: number
}

/**
 * Ends grants at once: introspection says so from the commit on, on every process (invariant 8: offline verifiers wait
 * for the token's expiry). Throws `not_found` for an unknown grant or workload, `invalid_input` for a time to come.
 */
export async function revokeGrants(
  broker: Broker,
  caller: Caller,
  target: RevocationTarget,
  reason: string | undefined,
): Promise<RevocationReport> {
  if ('grant' in target) {
    const { result, index } = await commit(broker, { apply: endGrant(target.grant, caller, reason) })
    if (result === 'unknown') throw new BrokerError({ code: 'not_found', publicMessage: `There is no grant ${target.grant}.` })
    const report = { more: false, revoked: result === 'revoked' ? 1 : 0, alreadyEnded: result === 'revoked' ? 0 : 1 }
    return result === 'revoked' ? { ...report, auditIndex: index } : report
  }
  const { workload, task, beforeMs } = target
  const { index } = await commit(broker, {
    async apply(tx, place) {
      if (workload !== undefined && (await findWorkload(tx, workload)) === undefined) {
        throw new BrokerError({ code: 'not_found', publicMessage: `There is no workload ${workload}.` })
      }
      if (beforeMs !== undefined && beforeMs > place.timeMs) {
        throw new BrokerError({ code: 'invalid_input', publicMessage: 'before must not be in the future: a revocation covers what was issued.' })
      }
      // One row, however many grants it ends: the brake must not get slower the more there is to stop.
      await insertRevocation(tx, place.index, target)
      return {
        result: undefined,
        raisesEpoch: false,
        events: [
          {
            type: 'grants.revoked',
            ...causedBy(caller),
            selector: {
              ...(workload !== undefined && { workload }),
              ...(task !== undefined && { task }),
              ...(beforeMs !== undefined && { before: formatTime(beforeMs) }),
            },
            ...(workload !== undefined && { workload }),
            ...(task !== undefined && { task }),
            ...(reason !== undefined && { reason }),
          },
        ],
      }
    },
  })
  // Counted once it is done: for the person who asked, and nothing depends on it.
  const counted = await countRevokedBy(broker.database.read, target, index, broker.ledger.nowMs())
  return { ...counted, alreadyEnded: 0, auditIndex: index }
}
