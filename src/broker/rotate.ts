import { setTimeout } from 'node:timers/promises'
import { leaseMs } from '../grant/lifetime.ts'
import { changeRotation, findRotation, listDueRotations, releaseRotations, type StoredRotation } from '../storage/rotations.ts'
import type { Broker } from './broker.ts'
import { commit } from './commit.ts'
import { isToRetire } from './rotation-life.ts'
import { syncRotations } from './rotation-schedule.ts'
import { abandonRun, beginRun, finishRun, lookAtSecret, retireReplaced, takeStep, testPending } from './rotation-steps.ts'

/** What this process knows of rotations beside their rows. */
export interface Rotating {
  /** Those that it is at, each by itself: one whose tool hangs holds up no other. */
  readonly runs: Map<string, Promise<void>>
  /** The policy set by which the rows were scheduled when it looked last. */
  syncedSet?: string
}

const runsMax = 8
/** How long one look waits for the runs; they go on by themselves. */
const waitMsMax = 2_000

/**
 * Replaces every long-lived secret whose time has come (invariant 11): of several processes one does it, step by step, and
 * where it dies, another one goes on at the step that is recorded.
 */
export async function keepRotations(broker: Broker): Promise<void> {
  await syncRotations(broker)
  await beginDueRotations(broker)
  const all = new AbortController()
  const limit = setTimeout(waitMsMax, undefined, { signal: all.signal }).catch(() => undefined)
  await Promise.race([Promise.all(broker.rotating.runs.values()), limit])
  all.abort()
}

/** Begins with all that is due and that nobody is at, and does not wait for it. */
export async function beginDueRotations(broker: Broker): Promise<void> {
  const { runs } = broker.rotating
  const due = (await listDueRotations(broker.database.read, broker.ledger.nowMs())).filter((name) => !runs.has(name))
  for (const name of due.slice(0, Math.max(0, runsMax - runs.size))) {
    const run = goOn(broker, name)
      .catch((error: unknown) => broker.log.warn('a rotation came to no end: somebody goes on with it when its lease is over', { rotation: name, error }))
      .finally(() => runs.delete(name))
    runs.set(name, run)
  }
}

/** Where one process has the database to itself, at its start: what an earlier one was at when it died is gone on with at once. */
export async function takeOverRotations(broker: Broker): Promise<void> {
  if (broker.database.engine !== 'sqlite') return
  await commit<void>(broker, {
    async apply(tx, { timeMs }) {
      const released = await releaseRotations(tx, timeMs)
      return { result: undefined, unrecorded: released === 0 ? 'nothing changed' : 'housekeeping' }
    },
  })
}

async function goOn(broker: Broker, name: string): Promise<void> {
  let row = await claim(broker, name)
  while (row !== undefined) row = broker.isDraining() ? await letGo(broker, row) : await act(broker, row)
}

/** The row is this process's until the lease is over, or until there is nothing to be done at once. */
async function claim(broker: Broker, name: string): Promise<StoredRotation | undefined> {
  const { result } = await commit<StoredRotation | undefined>(broker, {
    async apply(tx, { timeMs }) {
      const row = await findRotation(tx, name)
      const isFree = row?.owner === undefined || (row.leaseUntilMs ?? 0) <= timeMs
      if (row?.dueAtMs === undefined || row.dueAtMs > timeMs || !isFree) return { result: undefined, unrecorded: 'nothing changed' }
      await changeRotation(tx, name, { owner: broker.processId, leaseUntilMs: timeMs + leaseMs, dueAtMs: timeMs + leaseMs })
      return { result: await findRotation(tx, name), unrecorded: 'housekeeping' }
    },
  })
  return result
}

/** The process is about to stop: another one need not wait for the lease. */
async function letGo(broker: Broker, { name }: StoredRotation): Promise<undefined> {
  await commit<void>(broker, {
    async apply(tx, { timeMs }) {
      if ((await findRotation(tx, name))?.owner !== broker.processId) return { result: undefined, unrecorded: 'nothing changed' }
      await changeRotation(tx, name, { owner: null, leaseUntilMs: null, dueAtMs: timeMs })
      return { result: undefined, unrecorded: 'housekeeping' }
    },
  })
}

/** Does what comes next, and returns the row where more is to be done at once. */
function act(broker: Broker, row: StoredRotation): Promise<StoredRotation | undefined> {
  if (isToRetire(row, broker.ledger.nowMs())) return retireReplaced(broker, row)
  const { run } = row
  if (run === undefined) return lookAtSecret(broker, row)
  const { step } = run
  switch (step) {
    case 'order':
      return beginRun(broker, row)
    case 'create':
    case 'set':
      return takeStep(broker, row, run.id, step)
    case 'test':
      return testPending(broker, row, run.id)
    case 'finish':
      return finishRun(broker, row, run.id)
    case 'abandon':
      return abandonRun(broker, row, run.id)
    default:
      return step satisfies never
  }
}
