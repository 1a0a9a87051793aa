import type { Principal } from '../identity/authenticate.ts'
import { BrokerError } from '../kernel/errors.ts'
import type { CallbackChange, Recorded } from '../storage/change.ts'
import { insertRevocation } from '../storage/grants.ts'
import { isTaskOpen, listTouched } from '../storage/revoked.ts'
import { actorOf, markOf, stillProven, withWorkload, type ClientCredentials } from './authenticate.ts'
import type { Broker } from './broker.ts'
import type { View } from './knowledge.ts'
import { findOwn, type NamedOn } from './own-grant.ts'
import { endGrant } from './release.ts'
import { describeRevocation, endAndDescribe, type RevokedGrant } from './revoke.ts'
import { carryRevocations } from './sweep.ts'

/** What came of giving back, and the entry that records the order; absent where nothing was alive. */
export interface GivenBack {
  readonly grants: readonly RevokedGrant[]
  readonly auditIndex?: number
}

/** Ends one of the caller's own grants: what it does not need any more. Throws `not_found`, the same for another's. */
export async function giveBackGrant(broker: Broker, credentials: ClientCredentials, id: string, on: NamedOn): Promise<GivenBack> {
  const ordered = await withWorkload<{ index?: number } | BrokerError>(broker, credentials, async (principal, view) => {
    const found = await findOwn(broker, principal, view, id, on)
    if (!('grant' in found)) return found
    const apply = endGrant(id, { actor: actorOf(principal), requestId: on.requestId })
    return transactAs<{ index?: number }>(broker, principal, view, async (tx, place) => {
      const outcome = await apply(tx, place)
      return { ...outcome, result: 'events' in outcome ? { index: place.index } : {} }
    })
  })
  if (ordered instanceof BrokerError) throw ordered
  const { index } = ordered
  if (index !== undefined) await broker.pass('end_ordered', id)
  const grants = await endAndDescribe(broker, [id], index === undefined ? undefined : { first: index, last: index })
  return { grants, ...(index !== undefined && { auditIndex: index }) }
}

const listedMax = 1_000

/** Ends everything that the caller was given under its task, also what is being made at this moment. */
export async function completeTask(broker: Broker, credentials: ClientCredentials, task: string, requestId: string): Promise<GivenBack> {
  let workload = ''
  const { index } = await withWorkload<{ index?: number }>(broker, credentials, (principal, view) => {
    workload = principal.workload.name
    return transactAs<{ index?: number }>(broker, principal, view, async (tx, place) => {
      if (!(await isTaskOpen(tx, workload, task, place.timeMs))) return { result: {}, unrecorded: 'nothing changed' }
      await insertRevocation(tx, place.index, { workload, task })
      const event = describeRevocation({ actor: actorOf(principal), requestId }, { workload, task }, undefined, 'the task is complete')
      return { result: { index: place.index }, raisesEpoch: false, events: [event] }
    })
  })
  if (index === undefined) return { grants: [] }
  await broker.pass('end_ordered', '')
  await carryRevocations(broker)
  const listed = await listTouched(broker.database.read, [{ workload, task }], broker.ledger.nowMs(), listedMax)
  return { grants: await endAndDescribe(broker, listed, { first: index, last: index }), auditIndex: index }
}

/** A change by a workload, which commits only while what it proved itself by is good. */
async function transactAs<R>({ ledger }: Broker, principal: Principal, view: View, apply: CallbackChange<R>['apply']): Promise<Recorded<R>> {
  let ended = false
  const outcome = await ledger.transact<R | undefined>({
    epoch: view.epoch,
    mark: markOf(principal),
    async apply(tx, place) {
      ended = !(await stillProven(tx, principal, place.timeMs))
      return ended ? { result: undefined, unrecorded: 'nothing changed' } : apply(tx, place)
    },
  })
  // Looked at anew: the proof that has ended is refused there.
  if (ended || outcome.status !== 'recorded') return outcome.status === 'recorded' ? { status: 'epoch_moved' } : outcome
  // `apply` ran, or else it would have ended above.
  return { ...outcome, result: outcome.result as R }
}
