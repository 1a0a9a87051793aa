import { findDueSealingSteps, findSealing, newestOf, sealAheadMs, sealingKeyStatus, type SealingKeyStatus } from '../crypto/sealing-key-life.ts'
import { formatTime } from '../kernel/clock.ts'
import { BrokerError } from '../kernel/errors.ts'
import { readHead } from '../storage/head.ts'
import { countSealedBefore } from '../storage/sealed-rows.ts'
import { insertSealingKey, listSealingKeys, type SealingKeyRow } from '../storage/sealing-keys.ts'
import { causedBy, type Broker, type Caller } from './broker.ts'
import { commit } from './commit.ts'
import { eraseReplaced, resealBefore } from './reseal.ts'
import { isOwn } from './sealing-keys.ts'

type Rotating = Pick<Broker, 'ledger' | 'database' | 'sealer' | 'sealingKeys' | 'log' | 'rotateSealingKeysAfterMs'>

const schedule: Caller = { actor: { kind: 'stint', id: 'schedule' } }

/**
 * Takes every step of the rotation that is due: makes a successor, which seals when all processes have had the time to load
 * it, seals anew an hour later what the keys before it have sealed, and after another hour erases those (invariant 11).
 */
export async function advanceSealingKeys(broker: Rotating): Promise<void> {
  const { database, ledger, sealingKeys, rotateSealingKeysAfterMs } = broker
  const keys = await listSealingKeys(database.read)
  const moment = { index: (await readHead(database.read)).size, timeMs: ledger.nowMs() }
  const { successor, sealing, replaced, resealable, erasable } = findDueSealingSteps(keys, moment, rotateSealingKeysAfterMs)
  const newest = newestOf(keys)
  // Where another process has moved on to a root key that this one was not given, the successor is its to make.
  if (successor && newest !== undefined && isOwn(sealingKeys, newest)) await makeSuccessor(broker, schedule, newest)
  // Without the key itself, this process would seal anew under one that is replaced.
  if (sealing === undefined || replaced.length === 0 || !resealable || !sealingKeys.has(sealing.version)) return
  await resealBefore(broker, sealing.version)
  if (erasable) await eraseReplaced(broker)
}

/** A sealing key that was made. */
export interface SealingKeyRotation {
  readonly version: number
  readonly sealsFromMs: number
  readonly auditIndex: number
}

/**
 * Makes a new sealing key before its time; what was sealed before is sealed anew in the background. Throws `conflict` where
 * another rotation came first or has not begun to seal, or where the keys are under a root key that this process was not given.
 */
export async function rotateSealingKeys(broker: Rotating, caller: Caller, reason?: string): Promise<SealingKeyRotation> {
  const { database, ledger, sealingKeys } = broker
  const newest = newestOf(await listSealingKeys(database.read))
  if (newest === undefined) throw new Error('there is no sealing key')
  if (newest.sealsFromMs > ledger.nowMs()) throw refuse(`A rotation is under way: the sealing key of version ${newest.version} takes over at ${formatTime(newest.sealsFromMs)}.`)
  if (!isOwn(sealingKeys, newest)) throw refuse(`The sealing keys are wrapped by the root key ${newest.root}, and this process was given ${sealingKeys.root.name}: restart it with the configuration of now.`)
  const made = await makeSuccessor(broker, caller, newest, reason)
  if (made === undefined) throw refuse('Another rotation came first. Look at it with `stint keys list`.')
  return made
}

/** Returns `undefined` where somebody else has made one meanwhile. */
async function makeSuccessor({ ledger, sealingKeys }: Rotating, caller: Caller, newest: SealingKeyRow, reason?: string): Promise<SealingKeyRotation | undefined> {
  const version = newest.version + 1
  // A commit awaits nothing but its queries: the key is made, and wrapped, beforehand.
  const made = await sealingKeys.make(version)
  const { result, index } = await commit<number | undefined>(
    { ledger },
    {
      async apply(tx, place) {
        const now = newestOf(await listSealingKeys(tx))
        if (now?.version !== newest.version || !isOwn(sealingKeys, now)) return { result: undefined, unrecorded: 'nothing changed' }
        const sealsFromMs = place.timeMs + sealAheadMs
        await insertSealingKey(tx, made, place, sealsFromMs)
        return {
          result: sealsFromMs,
          raisesEpoch: true,
          events: [{ type: 'key.created', ...causedBy(caller), use: 'seal', alg: 'A256GCM', version, seals_from: formatTime(sealsFromMs), ...(reason !== undefined && { reason }) }],
        }
      },
    },
  )
  return result === undefined ? undefined : { version, sealsFromMs: result, auditIndex: index }
}

/** A sealing key as it is shown. */
export interface ShownSealingKey extends Pick<SealingKeyRow, 'version' | 'createdAtMs' | 'sealsFromMs' | 'root'> {
  readonly status: SealingKeyStatus
}

/** The sealing keys, the newest first, and how far their rotation is. */
export interface ShownSealingKeys {
  /** When the newest key began, or begins, to seal. */
  readonly lastMs: number
  /** When the next one is due. */
  readonly nextMs: number
  readonly versions: readonly ShownSealingKey[]
  /** How many values are still under a key that was replaced. */
  readonly remaining: number
}

const shownMax = 100

export async function showSealingKeys({ database, ledger, rotateSealingKeysAfterMs }: Pick<Rotating, 'database' | 'ledger' | 'rotateSealingKeysAfterMs'>): Promise<ShownSealingKeys> {
  const timeMs = ledger.nowMs()
  const keys = await listSealingKeys(database.read)
  const sealing = findSealing(keys, timeMs)
  const lastMs = newestOf(keys)?.sealsFromMs ?? 0
  const versions = keys.toReversed().slice(0, shownMax).map((key) => ({ ...key, status: sealingKeyStatus(key, keys, timeMs) }))
  const isUnderWay = versions.some(({ status }) => status === 'replaced')
  const remaining = sealing === undefined || !isUnderWay ? 0 : await countSealedBefore(database.read, sealing.version)
  return { lastMs, nextMs: lastMs + rotateSealingKeysAfterMs, versions, remaining }
}

function refuse(publicMessage: string): BrokerError {
  return new BrokerError({ code: 'conflict', publicMessage })
}
