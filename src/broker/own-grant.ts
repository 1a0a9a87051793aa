import type { Principal } from '../identity/authenticate.ts'
import { BrokerError } from '../kernel/errors.ts'
import type { Recorded } from '../storage/change.ts'
import type { TouchedGrant } from '../storage/revoked.ts'
import { findTouched } from '../storage/revoked.ts'
import { actorOf, markOf, proofOf } from './authenticate.ts'
import { causedBy, type Broker } from './broker.ts'
import type { View } from './knowledge.ts'

/** The route on which a workload names a grant, as it is declared. */
export interface NamedOn {
  readonly method: string
  readonly route: string
  readonly requestId: string
}

/** The same for a grant that there is not and for one that is another's: who asks learns nothing of it. */
export function noSuchGrant(id: string): BrokerError {
  return new BrokerError({ code: 'not_found', publicMessage: `This workload has no grant ${id}.` })
}

/** The workload's own grant; else what is answered, with another's grant on record. */
export async function findOwn(broker: Broker, principal: Principal, view: View, id: string, on: NamedOn): Promise<TouchedGrant | Recorded<BrokerError>> {
  const { ledger, database } = broker
  const touched = await findTouched(database.read, id, ledger.nowMs())
  if (touched?.grant.workload === principal.workload.name) return touched
  const conditions = { epoch: view.epoch, mark: markOf(principal) }
  const caller = { actor: actorOf(principal), requestId: on.requestId }
  const outcome =
    touched === undefined
      ? await ledger.spend(conditions)
      : await ledger.append({
          ...conditions,
          events: [
            { type: 'access.refused', ...causedBy(caller), workload: principal.workload.name, grant: id, method: on.method, route: on.route, ...proofOf(principal) },
          ],
        })
  return outcome.status === 'recorded' ? { ...outcome, result: noSuchGrant(id) } : outcome
}
