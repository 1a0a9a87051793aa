import type { AuditEvent } from '../audit/event.ts'
import { ConnectorError } from '../connectors/connector.ts'
import { retryDelayMs } from '../grant/lifetime.ts'
import type { RotationStep, StoredRotation } from '../storage/rotations.ts'
import { causedBy, type Broker, type Caller } from './broker.ts'
import { givesUp, isToRetire } from './rotation-life.ts'
import { askRun, record, type Noted } from './rotation-record.ts'

const schedule: Caller = { actor: { kind: 'stint', id: 'schedule' } }
const detailCharactersMax = 500

/** What a tool is asked for: a step, a look at what is there, or the end of what was replaced. */
type Asked = Exclude<RotationStep, 'order'> | 'look' | 'retire'

/**
 * Does one step, and where the tool refuses or does not answer has it tried again later; after so many tries the run is given
 * up. Anything else that fails leaves the row as it is until its lease is over.
 */
export async function attempt(broker: Broker, row: StoredRotation, step: Asked, body: () => Promise<StoredRotation | undefined>): Promise<StoredRotation | undefined> {
  try {
    const next = await body()
    broker.meter.count('rotation_steps', { rotation: row.name, step, outcome: 'done' })
    return next
  } catch (error) {
    if (!(error instanceof ConnectorError)) throw error
    broker.log.warn('a step of a rotation failed', { rotation: row.name, step, tries: row.tries + 1, error })
    broker.meter.count('rotation_steps', { rotation: row.name, step, outcome: 'failed' })
    const hopeless = step === 'finish' && error.outcome === 'nothing_done' && (await wasReplaced(broker, row))
    return record(broker, row, async (_, now, timeMs) => {
      const tries = now.tries + 1
      const problem = error.adminMessage.slice(0, detailCharactersMax)
      const { run } = now
      if (run !== undefined && step === run.step && (hopeless || givesUp(run.step, tries, error.outcome))) return failRun(now, run.step, problem, timeMs)
      const nextMs = timeMs + retryDelayMs(tries, Math.random(), error.retryAfterSeconds)
      // What is to be retired is so at its own time, and that is then.
      return { change: { tries, problem, dueAtMs: nextMs, ...(step === 'retire' && isToRetire(now, timeMs) && { retireAtMs: nextMs }) } }
    })
  }
}

/** Whether another version is in force than the one that the run began with: somebody has changed it by hand, and that stays. */
async function wasReplaced(broker: Broker, row: StoredRotation): Promise<boolean> {
  try {
    const { current } = await askRun(broker, row, (rotation, signal) => rotation.look(signal))
    return current !== undefined && current.version !== row.version
  } catch {
    return false
  }
}

/** The run comes to nothing, and what was in force still is. Its clean-up comes next. */
export function failRun({ name, run, failures }: StoredRotation, step: RotationStep, why: string, timeMs: number): Noted {
  if (run === undefined) return { change: {} }
  // What `set` has told the system behind it may be beyond taking back.
  const left = step === 'create' ? '' : ' Where the system behind it cannot be told so, it may go on accepting the value that is given up.'
  const detail = `${why.slice(0, detailCharactersMax)}${left}`
  const event: AuditEvent = { type: 'rotation.failed', ...causedBy(schedule), rotation: name, id: run.id, step, detail }
  const change = { run: { ...run, step: 'abandon' as const }, tries: 0, failures: failures + 1, failedAtMs: timeMs, lastId: run.id, problem: detail }
  return { change, events: [event], goesOn: true }
}
