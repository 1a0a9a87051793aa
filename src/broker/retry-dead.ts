import type { Events } from '../storage/change.ts'
import { findCredential, stepCredential } from '../storage/credentials.ts'
import { findDeadStuck } from '../storage/deny-lists.ts'
import { findGrant } from '../storage/grants.ts'
import { causedBy, type Broker } from './broker.ts'
import { commit } from './commit.ts'
import { describeGrant, schedule } from './ending.ts'

/** How many of them one commit takes up again. */
const perCommit = 50

/** Takes up again what is stuck because its session could not be denied, and has died by itself meanwhile. */
export async function retryDead(broker: Broker): Promise<void> {
  const dead = await findDeadStuck(broker.database.read, broker.ledger.nowMs(), perCommit)
  if (dead.length === 0) return
  await commit<void>(broker, {
    async apply(tx, { timeMs }) {
      const events: Events[0][] = []
      for (const id of dead) {
        const [grant, credential] = [await findGrant(tx, id), await findCredential(tx, id)]
        if (grant === undefined || credential?.state !== 'stuck') continue
        await stepCredential(tx, credential, 'retried', { tries: 0, dueAtMs: timeMs, diesAtMs: Math.min(credential.diesAtMs ?? Infinity, timeMs) })
        events.push({ type: 'grant.retried', ...causedBy(schedule), ...describeGrant(grant), reason: 'its session has died by itself' })
      }
      const [first, ...rest] = events
      return first === undefined ? { result: undefined, unrecorded: 'nothing changed' } : { result: undefined, raisesEpoch: false, events: [first, ...rest] }
    },
  })
}
