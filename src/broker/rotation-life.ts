import { endTriesMax } from '../grant/lifetime.ts'
import { formatTime } from '../kernel/clock.ts'
import type { RotationChange, RotationReason, RotationStep, StoredRotation } from '../storage/rotations.ts'

// The rules of a rotation's life: what is to be done when. They know a row and a time, and nothing else.

/** How long until it is looked again whether somebody else's rotation is over, or a first value is there. */
export const waitMs = 600_000

const hourMs = 3_600_000
const dayMs = 86_400_000

/** What comes after each step that has succeeded; after the last one the run is over. */
const following = { create: 'set', set: 'test', test: 'finish' } as const satisfies Partial<Record<RotationStep, RotationStep>>

export function nextStep(step: keyof typeof following): RotationStep {
  return following[step]
}

/**
 * Whether the version that was replaced last is to be retired before anything else: when its time has come, and also before
 * another run that cannot wait, for it may need its place: two users of a database that take turns are both taken then.
 */
export function isToRetire({ replaced, retireAtMs, run, leaked }: StoredRotation, nowMs: number): boolean {
  return replaced !== undefined && retireAtMs !== undefined && (retireAtMs <= nowMs || (run?.step === 'order' && leaked))
}

/** Until when a run that is ordered has to wait: who holds the version before was promised it, and a run may need its place. */
export function heldUntilMs({ replaced, retireAtMs, run, leaked }: Pick<StoredRotation, 'replaced' | 'retireAtMs' | 'run' | 'leaked'>, nowMs: number): number | undefined {
  if (replaced === undefined || retireAtMs === undefined || retireAtMs <= nowMs || leaked) return undefined
  return run === undefined || run.step === 'order' ? retireAtMs : undefined
}

/** The same in words. */
export function describeHeld(untilMs: number): string {
  return `The version before was promised to those who hold it until ${formatTime(untilMs)}, and is retired before another one is made: the next run begins then; one that is ordered as leaked does not wait.`
}

/** When somebody has to look at a rotation of which no run is under way: once a day, to see what was changed by hand. */
export function nextLookMs({ nextAtMs = Infinity, retireAtMs = Infinity }: Pick<StoredRotation, 'nextAtMs' | 'retireAtMs'>, nowMs: number): number {
  return Math.min(Math.max(nextAtMs, nowMs), retireAtMs, nowMs + dayMs)
}

/** Whether a step that has failed so often is given up, and the run with it. */
export function givesUp(step: RotationStep | undefined, tries: number, outcome: 'nothing_done' | 'unknown'): boolean {
  if (tries < endTriesMax) return false
  // Where its answer was lost the new version may be in force: only another try can tell.
  if (step === 'finish') return outcome === 'nothing_done'
  return step === 'create' || step === 'set' || step === 'test'
}

/** How long after a run that failed the next one begins: three times longer each time, from 5 minutes to 6 hours. */
export function failedRunDelayMs(failures: number): number {
  return Math.min(6 * hourMs, 300_000 * 3 ** Math.max(0, failures - 1))
}

/** How late a new version may be until somebody is told: a tenth of its time in force, at least an hour, at most a day. */
export function graceMs(everySeconds: number): number {
  return Math.max(hourMs, Math.min(dayMs, everySeconds * 100))
}

/** The shortest time after a due date at which anything can be overdue. */
export const graceMsMin = hourMs

/** The due date that was missed, where one was. */
export function findMissed({ scheduled, nextAtMs }: Pick<StoredRotation, 'scheduled' | 'nextAtMs'>, nowMs: number): number | undefined {
  if (scheduled === undefined || nextAtMs === undefined) return undefined
  return nextAtMs + graceMs(scheduled.everySeconds) <= nowMs ? nextAtMs : undefined
}

/**
 * How a rotation stands. `waiting`: it was tried and is tried again, or waits for somebody. `failed`: the last run came to
 * nothing, and what was in force still is. `unmanaged`: nothing replaces it any more.
 */
export type RotationState = 'idle' | 'running' | 'waiting' | 'failed' | 'unmanaged'

export function stateOf({ run, owner, leaseUntilMs = 0, dueAtMs = 0, failures, problem, scheduled }: StoredRotation, nowMs: number): RotationState {
  const rests = dueAtMs > nowMs && (owner === undefined || leaseUntilMs <= nowMs)
  if (run !== undefined && !rests) return 'running'
  if (failures > 0 && (run === undefined || run.step === 'order' || run.step === 'abandon')) return 'failed'
  if (run !== undefined || problem !== undefined) return 'waiting'
  return scheduled === undefined ? 'unmanaged' : 'idle'
}

/** What somebody wants: a new version, for this reason; `version` is the one that must open nothing any more, where that is known. */
export interface RotationOrder {
  readonly reason: Exclude<RotationReason, 'schedule'>
  readonly version?: string
  /** The id of the run, where another one is needed. */
  readonly id: string
}

const urgency: readonly RotationReason[] = ['schedule', 'request', 'revocation', 'leak']

/** What an order changes; `undefined` where all that it wants is ordered or done already. Many orders come to one run. */
export function planOrder(row: StoredRotation, { reason, version, id }: RotationOrder, nowMs: number): RotationChange | undefined {
  const { run, retireAtMs } = row
  const leaked = reason !== 'request'
  if (version !== undefined && version === row.replaced && version !== row.version) {
    // Another version is in force already. This one goes now, and not when the last grant of it is over; or it is gone.
    if (retireAtMs === undefined || (retireAtMs <= nowMs && row.retireLeaked)) return undefined
    return { retireAtMs: nowMs, retireLeaked: true, dueAtMs: nowMs }
  }
  if (run === undefined) return { run: { id, step: 'order', reason }, leaked, dueAtMs: nowMs, nextAtMs: Math.min(row.nextAtMs ?? nowMs, nowMs) }
  // What is in force neither by our books nor before it is what this run makes: somebody had it as soon as it was there.
  if (version !== undefined && run.step !== 'order' && version !== row.version) return row.again === undefined ? { again: reason } : undefined
  const more = urgency.indexOf(reason) > urgency.indexOf(run.reason)
  if (!more && (row.leaked || !leaked)) return undefined
  return {
    run: { ...run, reason: more ? reason : run.reason },
    leaked: row.leaked || leaked,
    nextAtMs: Math.min(row.nextAtMs ?? nowMs, nowMs),
    ...(run.step === 'order' && row.owner === undefined && { dueAtMs: nowMs }),
  }
}
