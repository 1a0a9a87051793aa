import type { Broker } from './broker/broker.ts'
import { advanceCheckpoint } from './broker/checkpoints.ts'
import type { BrokerCustody } from './broker/custody.ts'
import { forgetRepeats } from './broker/idempotency.ts'
import { keepReviewDates } from './broker/review.ts'
import { revokeOnRecord } from './broker/revoke.ts'
import { createKeyMover } from './broker/rewrap-keys.ts'
import { advanceSealingKeys } from './broker/rotate-sealing-keys.ts'
import { advanceSigningKeys } from './broker/rotate-signing-keys.ts'
import { keepRotations } from './broker/rotate.ts'
import { announceOverdue } from './broker/rotation-schedule.ts'
import { forgetSessions } from './broker/sessions.ts'
import { keepSweeping } from './broker/sweep.ts'
import { recordUnrecorded } from './broker/unrecorded.ts'
import type { Job } from './scheduler.ts'
import type { Ledger } from './storage/ledger.ts'

interface Started {
  readonly custody: BrokerCustody
  /** Otherwise the first look at the policy folder starts them. */
  readonly policiesStarted: boolean
}

/** All that happens by itself. What one process forgets, another one does. */
export function jobsOf(broker: Broker, { custody, policiesStarted }: Started): readonly Job[] {
  const { ledger, anchoring, knowledge, policyFolder } = broker
  let started = policiesStarted
  const lookAtPolicies = async (): Promise<void> => {
    if (started) return policyFolder?.look()
    await policyFolder?.start()
    started = true
  }
  /** What commits, which is nothing that can be done while the ledger is held. */
  const committing: readonly Job[] = [
    { name: 'record refusals', everyMs: 10_000, run: () => broker.refusals.flush() },
    { name: 'forget sessions that are over', everyMs: 3_600_000, run: () => forgetSessions(broker) },
    // Writes also where there is nothing to forget: so a log that cannot be written shows, and one that can again.
    { name: 'forget expired replay marks', everyMs: 10_000, run: () => forgetMarks(ledger) },
    // Twice within the second in which a change is to be signed.
    { name: 'sign checkpoints', everyMs: 500, run: () => advanceCheckpoint(broker).then(() => undefined) },
    { name: 'look at the policy folder', everyMs: 1_500, run: lookAtPolicies },
    { name: 'end what is to end', everyMs: 500, run: () => keepSweeping(broker) },
    { name: 'mark secrets that were lost', everyMs: 5_000, run: () => custody.sweep() },
    { name: 'record what was ended unrecorded', everyMs: 2_000, run: () => recordUnrecorded(broker, ({ caller, target, reason }) => revokeOnRecord(broker, caller, target, reason)) },
    { name: 'look after deny lists', everyMs: 5_000, run: () => broker.denyLists.lookAfter() },
    { name: 'forget idempotency keys', everyMs: 3_600_000, run: () => forgetRepeats(broker) },
    { name: 'keep review dates', everyMs: 5_000, run: () => keepReviewDates(broker) },
    { name: 'rotate secrets', everyMs: 1_000, run: () => keepRotations(broker) },
    { name: 'announce what is overdue', everyMs: 10_000, run: () => announceOverdue(broker) },
    { name: 'rotate signing keys', everyMs: 10_000, run: () => advanceSigningKeys(broker) },
    { name: 'move sealing keys to the root key', everyMs: 10_000, run: createKeyMover(broker) },
    { name: 'rotate sealing keys', everyMs: 10_000, run: () => advanceSealingKeys(broker) },
    // Each by itself: one that does not answer must not hold up the others.
    ...anchoring.listStates().map(({ name }) => ({ name: `keep checkpoints in ${name}`, everyMs: 1_000, run: () => anchoring.keep(name) })),
  ]
  return [
    ...committing.map((job) => ({ ...job, run: async () => (ledger.held === undefined ? job.run() : undefined) })),
    // So that what another process has put in force is loaded before a request needs it.
    { name: 'follow the epoch', everyMs: 500, run: () => knowledge.refresh().then(() => undefined, () => undefined) },
    // Well within the time from the making of a key until it seals.
    { name: 'load sealing keys', everyMs: 1_000, run: () => broker.sealingKeys.load() },
    { name: 'see whether a restored log was accepted', everyMs: 1_000, run: () => anchoring.settle() },
  ]
}

const marksPerCommit = 2_000

/** In small commits, so that issuance is never held up for long. */
async function forgetMarks(ledger: Ledger): Promise<void> {
  while ((await ledger.forgetExpiredMarks(marksPerCommit)) === marksPerCommit);
}
