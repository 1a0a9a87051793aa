import { readHead } from '../storage/head.ts'
import { causedBy, type Broker, type Caller } from './broker.ts'
import { commit } from './commit.ts'

/** Writes the log's first entry, which names whose log it is. Does nothing to a log that has one. */
export async function openLog(broker: Pick<Broker, 'ledger' | 'issuer' | 'trustDomain'>, caller: Caller): Promise<void> {
  await commit(broker, {
    async apply(tx) {
      if ((await readHead(tx)).size > 0) return { result: undefined, unrecorded: 'nothing changed' }
      return {
        result: undefined,
        raisesEpoch: false,
        events: [{ type: 'log.opened', ...causedBy(caller), trust_domain: broker.trustDomain, issuer: broker.issuer }],
      }
    },
  })
}
