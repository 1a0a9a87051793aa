import { BrokerError } from '../kernel/errors.ts'
import { readHead } from '../storage/head.ts'
import { causedBy, type Broker, type Caller } from './broker.ts'
import { commit } from './commit.ts'

/**
 * Writes the log's first entry, which names whose log it is, or checks it. Throws `config_invalid` for a log of another
 * trust domain: every workload's name would become another identity. Another issuer is only told, since it may move.
 */
export async function openLog(
  broker: Pick<Broker, 'ledger' | 'database' | 'issuer' | 'trustDomain' | 'log'>,
  caller: Caller,
): Promise<void> {
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
  const { body } = await broker.database.read.selectFrom('audit_event').select('body').where('idx', '=', 0).executeTakeFirstOrThrow()
  // Written above, by this or an earlier start.
  const { trust_domain: trustDomain, issuer } = JSON.parse(body) as { trust_domain?: string; issuer?: string }
  if (trustDomain !== broker.trustDomain) {
    throw new BrokerError({
      code: 'config_invalid',
      publicMessage: `this database is of the trust domain ${trustDomain ?? 'unknown'}, not ${broker.trustDomain}: set trust_domain back, or use a new database`,
    })
  }
  if (issuer !== broker.issuer) broker.log.info('the log was opened under another issuer', { opened_as: issuer, issuer: broker.issuer })
}
