import { BrokerError } from '../kernel/errors.ts'
import { findCredential, stepCredential } from '../storage/credentials.ts'
import { findGrant } from '../storage/grants.ts'
import { causedBy, type Broker, type Caller } from './broker.ts'
import { commit } from './commit.ts'
import { describeGrant } from './ending.ts'
import { endAndDescribe, type RevokedGrant } from './revoke.ts'

export interface Unstuck {
  readonly grant: RevokedGrant
  readonly auditIndex: number
}

/** Tries again to end what is stuck. Throws `not_found`, or `conflict` for a grant that is not stuck. */
export async function retryEnd(broker: Broker, caller: Caller, id: string, reason: string): Promise<Unstuck> {
  return unstick(broker, caller, id, 'retried', reason)
}

/** Takes it upon the caller that what is stuck may live in its tool: nobody looks after it any more. Throws as `retryEnd`. */
export async function writeOff(broker: Broker, caller: Caller, id: string, reason: string): Promise<Unstuck> {
  return unstick(broker, caller, id, 'written_off', reason)
}

async function unstick(broker: Broker, caller: Caller, id: string, step: 'retried' | 'written_off', reason: string): Promise<Unstuck> {
  const { index } = await commit<void>(broker, {
    async apply(tx, { timeMs }) {
      const [grant, credential] = [await findGrant(tx, id), await findCredential(tx, id)]
      if (grant === undefined) throw new BrokerError({ code: 'not_found', publicMessage: `There is no grant ${id}.` })
      if (credential?.state !== 'stuck') {
        const publicMessage = `The grant ${id} is not stuck${credential === undefined ? '' : `, but ${credential.state.replace('_', ' ')}`}: there is nothing to do here by hand.`
        throw new BrokerError({ code: 'conflict', publicMessage })
      }
      await stepCredential(tx, credential, step, step === 'retried' ? { tries: 0, dueAtMs: timeMs } : { endedAtMs: timeMs })
      const type = step === 'retried' ? 'grant.retried' : 'grant.written_off'
      return { result: undefined, raisesEpoch: false, events: [{ type, ...causedBy(caller), ...describeGrant(grant), reason }] }
    },
  })
  const [grant] = await endAndDescribe(broker, [id], { first: index, last: index })
  if (grant === undefined) throw new Error(`the grant ${id} is gone`)
  // It was stuck until this: what has ended it did so after it was asked here.
  return { grant: grant.outcome === 'already_ended' ? { ...grant, outcome: 'revoked' } : grant, auditIndex: index }
}
