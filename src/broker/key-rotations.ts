import type { Broker, Caller } from './broker.ts'
import { BrokerError } from '../kernel/errors.ts'
import { rotateSealingKeys, showSealingKeys } from './rotate-sealing-keys.ts'
import { rotateSigningKeys, showSigningKeys } from './rotate-signing-keys.ts'
import { graceMs } from './rotation-life.ts'

/** The rotation of keys that Stint makes itself: it goes by the keys' own rows. */
export interface KeyRotation {
  readonly name: 'signing-keys' | 'sealing-keys'
  readonly everySeconds: number
  readonly version?: string
  /** When the newest key took over, or is to take over. */
  readonly lastMs: number
  readonly nextMs: number
  /** Whether a step of it is still to come: the new key has not taken over, or what an old one sealed is still to be sealed anew. */
  readonly running: boolean
  readonly overdue: boolean
}

export async function listKeyRotations(broker: Broker): Promise<readonly KeyRotation[]> {
  const nowMs = broker.ledger.nowMs()
  const { keys, nextRotationMs } = await showSigningKeys(broker)
  const { versions, lastMs, nextMs, remaining } = await showSealingKeys(broker)
  const signing = keys.find(({ status }) => status === 'signing')
  const describe = (name: KeyRotation['name'], afterMs: number, times: Pick<KeyRotation, 'lastMs' | 'nextMs' | 'running'>, version: string | undefined): KeyRotation => ({
    name,
    everySeconds: afterMs / 1000,
    ...times,
    overdue: times.nextMs + graceMs(afterMs / 1000) <= nowMs,
    ...(version !== undefined && { version }),
  })
  const next = keys.some(({ status }) => status === 'next')
  const newest = versions[0]?.version
  return [
    describe('signing-keys', broker.rotateKeysAfterMs, { lastMs: nextRotationMs - broker.rotateKeysAfterMs, nextMs: nextRotationMs, running: next }, signing?.kid),
    describe('sealing-keys', broker.rotateSealingKeysAfterMs, { lastMs, nextMs, running: lastMs > nowMs || remaining > 0 }, newest === undefined ? undefined : String(newest)),
  ]
}

/** Replaces such keys now. Throws `conflict` where a rotation is under way, also for what cannot be done so. */
export async function rotateKeys(broker: Broker, caller: Caller, name: KeyRotation['name'], { leaked, reason }: { readonly leaked: boolean; readonly reason?: string }): Promise<{ readonly auditIndex: number }> {
  if (name === 'signing-keys') return rotateSigningKeys(broker, caller, { now: leaked, ...(reason !== undefined && { reason }) })
  if (!leaked) return rotateSealingKeys(broker, caller, reason)
  const publicMessage = 'A sealing key that somebody else has opens what it sealed in every copy of the database: leave leaked out, and replace those secrets themselves.'
  throw new BrokerError({ code: 'conflict', publicMessage })
}

export function isKeyRotation(name: string): name is KeyRotation['name'] {
  return name === 'signing-keys' || name === 'sealing-keys'
}
