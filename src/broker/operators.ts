import { createOperatorCredential } from '../identity/operator.ts'
import { BrokerError } from '../kernel/errors.ts'
import type { Secret } from '../kernel/secret.ts'
import { countOperators, insertOperator } from '../storage/operators.ts'
import { causedBy, type Broker, type Caller } from './broker.ts'
import { commit } from './commit.ts'

/** An operator that was just made. The credential is shown once: only its hash is stored. */
export interface CreatedOperator {
  readonly id: string
  readonly name: string
  readonly credential: Secret
}

/** Makes the first operator, an admin. Throws `conflict` when there is one already. */
export async function createFirstOperator(
  broker: Pick<Broker, 'ledger' | 'random'>,
  caller: Caller,
  name: string,
): Promise<CreatedOperator> {
  const { id, credential, secretHash } = createOperatorCredential(broker.random)
  await commit(broker, {
    async apply(tx, { timeMs }) {
      if ((await countOperators(tx)) > 0) {
        throw new BrokerError({ code: 'conflict', publicMessage: 'There is an operator already; its credential was shown when it was made.' })
      }
      await insertOperator(tx, { id, name, role: 'admin', secretHash }, timeMs)
      return {
        result: undefined,
        raisesEpoch: true,
        events: [{ type: 'operator.created', ...causedBy(caller), operator: id, name, role: 'admin' }],
      }
    },
  })
  return { id, name, credential }
}
