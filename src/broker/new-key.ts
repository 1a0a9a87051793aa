import type { Kysely } from 'kysely'
import { keysMax, keyStatus, type Workload } from '../identity/workload.ts'
import { BrokerError } from '../kernel/errors.ts'
import type { Schema } from '../storage/schema.ts'
import { findKeyOwners } from '../storage/workloads.ts'

/** Whether so many more keys are more than the workload may have at a time. Keys that are ending count until they have. */
export function hasRoomForKeys({ keys }: Workload, added: number, timeMs: number): boolean {
  return keys.filter((key) => keyStatus(key, timeMs) !== 'removed').length + added <= keysMax
}

/**
 * Why a key that an agent registers by itself cannot be taken (`conflict`), or `undefined`. Whose key it was is not said:
 * that is for admins.
 */
export async function judgeOwnKey(tx: Kysely<Schema>, workload: Workload, kid: string, timeMs: number): Promise<BrokerError | undefined> {
  const [known] = await findKeyOwners(tx, [kid])
  if (known !== undefined) {
    return conflict('This key was registered before, and a key belongs to one workload for ever: make a new one.')
  }
  if (hasRoomForKeys(workload, 1, timeMs)) return undefined
  return conflict(`The workload has ${keysMax} keys, and no more at a time: an admin removes an old one first (stint workload remove-key).`)
}

function conflict(publicMessage: string): BrokerError {
  return new BrokerError({ code: 'conflict', publicMessage })
}
