import type { Kysely } from 'kysely'
import { createOperatorCredential } from '../identity/operator.ts'
import { BrokerError } from '../kernel/errors.ts'
import type { Secret } from '../kernel/secret.ts'
import { countOperators, insertOperator } from '../storage/operators.ts'
import type { Schema } from '../storage/schema.ts'
import { causedBy, type Broker, type Caller } from './broker.ts'
import { commit } from './commit.ts'

/** An operator that was just made. The credential is shown once: only its hash is stored. */
export interface CreatedOperator {
  readonly id: string
  readonly name: string
  readonly credential: Secret
}

/** Makes the first operator, an admin. Throws `conflict` when there is one already. */
export function createFirstOperator(broker: Pick<Broker, 'ledger' | 'random'>, caller: Caller, name: string): Promise<CreatedOperator> {
  return insertAdmin(broker, caller, name, async (tx) => {
    if ((await countOperators(tx)) > 0) throw refuse('There is an operator already; its credential was shown when it was made.')
  })
}

/** Makes an admin, the first or a further one. Throws `conflict` when the name is taken. */
export function createOperator(broker: Pick<Broker, 'ledger' | 'random'>, caller: Caller, name: string): Promise<CreatedOperator> {
  return insertAdmin(broker, caller, name, async (tx) => {
    const taken = await tx.selectFrom('operator').select('id').where('name', '=', name).executeTakeFirst()
    if (taken !== undefined) throw refuse(`There is an operator named ${name} already: choose another name.`)
  })
}

async function insertAdmin(
  broker: Pick<Broker, 'ledger' | 'random'>,
  caller: Caller,
  name: string,
  check: (tx: Kysely<Schema>) => Promise<void>,
): Promise<CreatedOperator> {
  const { id, credential, secretHash } = createOperatorCredential(broker.random)
  await commit(broker, {
    async apply(tx, { timeMs }) {
      await check(tx)
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

function refuse(publicMessage: string): BrokerError {
  return new BrokerError({ code: 'conflict', publicMessage })
}
