import { BrokerError } from '../kernel/errors.ts'
import type { ClientCredentials } from './authenticate.ts'
import { markOf, withWorkload } from './authenticate.ts'
import { findTouched, type TouchedGrant } from '../storage/revoked.ts'
import type { Broker } from './broker.ts'
import { findOwn, type NamedOn } from './own-grant.ts'

/** One of the caller's own grants as it stands. Throws `not_found`, the same for another's. */
export async function lookAtOwnGrant(broker: Broker, credentials: ClientCredentials, id: string, on: NamedOn): Promise<TouchedGrant> {
  const found = await withWorkload<TouchedGrant | BrokerError>(broker, credentials, async (principal, view) => {
    const touched = await findOwn(broker, principal, view, id, on)
    if (!('grant' in touched)) return touched
    const spent = await broker.ledger.spend({ epoch: view.epoch, mark: markOf(principal) })
    return spent.status === 'recorded' ? { ...spent, result: touched } : spent
  })
  if (found instanceof BrokerError) throw found
  return found
}

/** Any grant, for an operator. Throws `not_found`. */
export async function lookAtGrant(broker: Broker, id: string): Promise<TouchedGrant> {
  const found = await findTouched(broker.database.read, id, broker.ledger.nowMs())
  if (found === undefined) throw new BrokerError({ code: 'not_found', publicMessage: `There is no grant ${id}.` })
  return found
}
