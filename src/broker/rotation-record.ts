import type { AuditEvent } from '../audit/event.ts'
import { ConnectorError, type RotatableSecret } from '../connectors/connector.ts'
import { leaseMs } from '../grant/lifetime.ts'
import type { Tool } from '../policy/catalog.ts'
import { changeRotation, findRotation, type RotationChange, type StoredRotation } from '../storage/rotations.ts'
import type { Broker } from './broker.ts'
import { commit } from './commit.ts'

/** What a step came to. `goesOn`: there is more to be done at once; else somebody looks at it at `dueAtMs`. */
export interface Noted {
  readonly change: RotationChange
  readonly events?: readonly AuditEvent[]
  readonly goesOn?: boolean
}

type Tx = Parameters<typeof findRotation>[0]

/**
 * Records what a step came to, and keeps the row for the next one. Where somebody has taken over meanwhile nothing is recorded,
 * for they do the step themselves; where something was ordered meanwhile that changes what comes next, that is done instead.
 */
export async function record(
  broker: Broker,
  row: StoredRotation,
  note: (tx: Tx, now: StoredRotation, timeMs: number) => Promise<Noted>,
): Promise<StoredRotation | undefined> {
  const { name, run } = row
  const { result } = await commit<StoredRotation | undefined>(broker, {
    async apply(tx, { timeMs }) {
      const now = await findRotation(tx, name)
      if (now?.owner !== broker.processId) return { result: undefined, unrecorded: 'nothing changed' }
      const isSame = now.run?.id === run?.id && now.run?.step === run?.step
      const { change, events = [], goesOn = false }: Noted = isSame ? await note(tx, now, timeMs) : { change: {}, goesOn: true }
      await changeRotation(tx, name, { ...change, leaseUntilMs: timeMs + leaseMs, dueAtMs: timeMs + leaseMs })
      const next = await findRotation(tx, name)
      if (!goesOn) {
        // A version that was to be retired sooner, by an order that came meanwhile, does not wait for the rest.
        const times = [change.dueAtMs ?? undefined, next?.retireAtMs].filter((ms) => ms !== undefined)
        await changeRotation(tx, name, { owner: null, leaseUntilMs: null, dueAtMs: times.length === 0 ? null : Math.min(...times) })
      }
      const result = goesOn ? next : undefined
      const [first, ...rest] = events
      return first === undefined ? { result, unrecorded: 'housekeeping' } : { result, raisesEpoch: false, events: [first, ...rest] }
    },
  })
  await broker.pass('rotation_stored', name)
  return result
}

/** What was asked of the secret of a tool of the set in force. */
export interface Asked<T> {
  readonly answer: T
  readonly everySeconds: number
  readonly policySet: string
}

/** Asks by the policy set in force; `undefined` where nothing of that name is rotated by it. Throws `ConnectorError`. */
export async function askInForce<T>(broker: Broker, { name }: StoredRotation, ask: Ask<T>): Promise<Asked<T> | undefined> {
  const { policySet } = await broker.knowledge.refresh()
  const tool = policySet?.catalog.get(name)
  if (policySet === undefined || tool === undefined || !broker.tools.isOutside(tool)) return undefined
  const everySeconds = broker.tools.open(tool).rotation?.everySeconds
  if (everySeconds === undefined) return undefined
  return { answer: await askTool(broker, tool, ask), everySeconds, policySet: policySet.hash }
}

/** Asks by the policy set under which the run began: what it made must be set, tested and retired where it was made. */
export async function askRun<T>(broker: Broker, { name, policySet = '' }: StoredRotation, ask: Ask<T>): Promise<T> {
  const tool = await broker.tools.find(policySet, name)
  if (tool === undefined) throw refuse(`The catalog that describes the tool ${name} is not to be read any more.`)
  return askTool(broker, tool, ask)
}

type Ask<T> = (rotation: RotatableSecret, signal: AbortSignal) => Promise<T>

async function askTool<T>(broker: Broker, tool: Tool, ask: Ask<T>): Promise<T> {
  const answer = await broker.tools.call(tool, async ({ rotation }, signal) => {
    if (rotation === undefined) throw refuse(`This broker has no rotation for the tool ${tool.name}.`)
    const answering = ask(rotation, signal)
    answering.catch(() => undefined)
    await broker.pass('rotation_called', tool.name)
    return answering
  })
  await broker.pass('rotation_answered', tool.name)
  return answer
}

function refuse(publicMessage: string): ConnectorError {
  return new ConnectorError({ outcome: 'nothing_done', publicMessage })
}
