import { BrokerError } from '../kernel/errors.ts'
import { findRotation, listRotations, type RotationReason, type RotationStep, type StoredRotation } from '../storage/rotations.ts'
import { findSecret } from '../storage/secrets.ts'
import type { Broker, Caller } from './broker.ts'
import { isKeyRotation, listKeyRotations, rotateKeys, type KeyRotation } from './key-rotations.ts'
import { listUnmanaged, type RootCredential } from './root-credentials.ts'
import { beginDueRotations } from './rotate.ts'
import { findMissed, stateOf, type RotationState } from './rotation-life.ts'
import { requestRotation } from './rotation-order.ts'
import { syncRotations } from './rotation-schedule.ts'

export const rotationKinds = ['secret', 'signing_keys', 'sealing_keys', 'root_credential'] as const

/** How the replacement of one long-lived secret stands, with no word of its value. */
export interface RotationStatus {
  readonly name: string
  readonly kind: (typeof rotationKinds)[number]
  readonly tool?: string
  readonly everySeconds?: number
  readonly state: RotationState
  /** The run that is ordered or under way. */
  readonly run?: { readonly id: string; readonly step: RotationStep; readonly reason: RotationReason }
  /** The last run that came to an end. */
  readonly last?: { readonly id: string; readonly outcome: 'finished' | 'failed' }
  /** When the version in force came into force, by a rotation or, of what nobody rotates, by hand. */
  readonly lastAtMs?: number
  readonly version?: string
  /** When the version before is to open nothing any more. */
  readonly retiresAtMs?: number
  readonly nextAtMs?: number
  /** The due date that was missed. */
  readonly overdueSinceMs?: number
  readonly problem?: string
  /** Tries of the step that failed, and when the next one is. */
  readonly tries?: number
  readonly tryAtMs?: number
}

/** All that lives long, by kind and name: what Stint replaces by itself, and what it does not. */
export async function listRotationStatus(broker: Broker): Promise<RotationStatus[]> {
  await syncQuietly(broker)
  const nowMs = broker.ledger.nowMs()
  const secrets = (await listRotations(broker.database.read)).filter(({ tool }) => tool !== undefined)
  const { policySet } = await broker.knowledge.refresh()
  const unmanaged = await Promise.all(listUnmanaged(policySet?.catalog ?? new Map()).map((one) => describeUnmanaged(broker, one)))
  return [...(await listKeyRotations(broker)).map(describeKeys), ...secrets.map((row) => describeSecret(row, nowMs)), ...unmanaged]
}

/** One of those that have a name of their own. Throws `not_found`. */
export async function showRotation(broker: Broker, name: string): Promise<RotationStatus> {
  const keys = isKeyRotation(name) ? (await listKeyRotations(broker)).find((one) => one.name === name) : undefined
  if (keys !== undefined) return describeKeys(keys)
  await syncQuietly(broker)
  const row = await findRotation(broker.database.read, name)
  if (row?.tool === undefined) throw new BrokerError({ code: 'not_found', publicMessage: `There is no rotation ${name}: see stint rotations.` })
  return describeSecret(row, broker.ledger.nowMs())
}

/** So that what was put in force a moment ago shows; where nothing can be written it is shown as it was. */
async function syncQuietly(broker: Broker): Promise<void> {
  await syncRotations(broker).catch((error: unknown) => broker.log.warn('rotations were not brought in line with the policies', { error }))
}

/** What was asked for: the run that does it, of a secret. */
export interface BegunRotation {
  readonly id?: string
  readonly auditIndex: number
}

/** Replaces something now, and does not wait for it. Throws `not_found`, `conflict`, `invalid_input`. */
export async function rotateNow(broker: Broker, caller: Caller, name: string, options: { readonly leaked: boolean; readonly reason?: string }): Promise<BegunRotation> {
  if (isKeyRotation(name)) {
    const { auditIndex } = await rotateKeys(broker, caller, name, options)
    return { auditIndex }
  }
  const ordered = await requestRotation(broker, caller, name, options)
  // It is on record; what goes wrong from here on is tried again by itself.
  await beginDueRotations(broker).catch((error: unknown) => broker.log.warn('a rotation begins a little later', { rotation: name, error }))
  return ordered
}

function describeKeys({ name, everySeconds, version, lastMs, nextMs, running, overdue }: KeyRotation): RotationStatus {
  return {
    name,
    kind: name === 'signing-keys' ? 'signing_keys' : 'sealing_keys',
    everySeconds,
    state: running ? 'running' : 'idle',
    lastAtMs: lastMs,
    ...(version !== undefined && { version }),
    nextAtMs: nextMs,
    ...(overdue && { overdueSinceMs: nextMs }),
  }
}

export function describeSecret(row: StoredRotation, nowMs: number): RotationStatus {
  const { name, tool, scheduled, run, lastId, finishedAtMs, version, retireAtMs, nextAtMs, dueAtMs, problem, tries, failures } = row
  const state = stateOf(row, nowMs)
  const overdueSinceMs = findMissed(row, nowMs)
  const waits = state === 'waiting' || state === 'failed'
  return {
    name,
    kind: 'secret',
    ...(tool !== undefined && { tool }),
    ...(scheduled !== undefined && { everySeconds: scheduled.everySeconds }),
    state,
    ...(run !== undefined && { run }),
    ...(lastId !== undefined && { last: { id: lastId, outcome: failures > 0 ? 'failed' : 'finished' } as const }),
    ...(finishedAtMs !== undefined && { lastAtMs: finishedAtMs }),
    ...(version !== undefined && { version }),
    ...(retireAtMs !== undefined && { retiresAtMs: retireAtMs }),
    ...(nextAtMs !== undefined && { nextAtMs }),
    ...(overdueSinceMs !== undefined && { overdueSinceMs }),
    ...(problem !== undefined && { problem }),
    ...(tries > 0 && { tries }),
    ...(waits && dueAtMs !== undefined && { tryAtMs: dueAtMs }),
  }
}

async function describeUnmanaged({ database }: Broker, { tool, source }: RootCredential): Promise<RotationStatus> {
  // Of what is kept elsewhere nobody here knows how old it is.
  const kept = source.startsWith('sealed:') ? await findSecret(database.read, source.slice('sealed:'.length)) : undefined
  return { name: source, kind: 'root_credential', tool, state: 'unmanaged', ...(kept && { version: String(kept.version), lastAtMs: kept.createdAtMs }) }
}
