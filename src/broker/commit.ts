import type { CallbackChange, Place } from '../storage/change.ts'
import type { Broker } from './broker.ts'

/** Commits a change that is decided inside its transaction, so that no epoch can move between deciding and recording. */
export async function commit<R>(
  { ledger }: Pick<Broker, 'ledger'>,
  change: Pick<CallbackChange<R>, 'apply' | 'whileHeld'>,
): Promise<{ readonly result: R } & Place> {
  const outcome = await ledger.transact(change)
  if (outcome.status !== 'recorded') throw new Error(`a change without conditions was ${outcome.status}`)
  return outcome
}
