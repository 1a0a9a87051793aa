import { randomUUID } from 'node:crypto'
import type { AuditEvent } from '../audit/event.ts'
import { ConnectorError } from '../connectors/connector.ts'
import { findLastEnd, hasLent, wakeEnds } from '../storage/due-credentials.ts'
import type { StoredRotation } from '../storage/rotations.ts'
import { causedBy, type Broker, type Caller } from './broker.ts'
import { attempt, failRun } from './rotation-failure.ts'
import { describeHeld, failedRunDelayMs, heldUntilMs, nextLookMs, nextStep, planOrder, waitMs } from './rotation-life.ts'
import { askInForce, askRun, record } from './rotation-record.ts'

// Each of these does one thing outside, where no transaction is open, then records it. Whoever dies in between leaves the row
// as it was, and the next one does the same again (invariant 2).

const schedule: Caller = { actor: { kind: 'stint', id: 'schedule' } }
type Next = Promise<StoredRotation | undefined>

/** Sees when the version in force was made, and so when the next one is due; then it is ordered. */
export function lookAtSecret(broker: Broker, row: StoredRotation): Next {
  return attempt(broker, row, 'look', async () => {
    const found = await askInForce(broker, row, (rotation, signal) => rotation.look(signal))
    const left = await retireOthers(broker, row, found?.answer.replaced)
    return record(broker, row, async (tx, now, timeMs) => {
      if (found === undefined) return { change: { dueAtMs: null } }
      const { everySeconds, answer } = found
      const { current, foreign } = answer
      const common = { tries: 0, ...(current !== undefined && { version: current.version }) }
      // Replaced by hand: what waited for that need not wait for its next look.
      if (current !== undefined && now.version !== undefined && current.version !== now.version) await wakeEnds(tx, row.name, timeMs)
      if (current === undefined) return { change: { ...common, problem: foreign ?? noValue, dueAtMs: timeMs + waitMs } }
      const nextAtMs = current.sinceMs + everySeconds * 1000
      if (nextAtMs > timeMs) {
        // Also where somebody has changed by hand what could not be rotated.
        const change = { ...common, nextAtMs, failures: 0, problem: left ?? null }
        return { change: { ...change, dueAtMs: Math.min(nextLookMs({ ...now, nextAtMs }, timeMs), left === undefined ? Infinity : timeMs + waitMs) } }
      }
      if (foreign !== undefined) return { change: { ...common, nextAtMs, problem: foreign, dueAtMs: timeMs + waitMs } }
      return { change: { ...common, nextAtMs, run: { id: randomUUID(), step: 'order', reason: 'schedule' } }, goesOn: true }
    })
  })
}

/**
 * Retires what was replaced by hand, in the store of which it is kept until the system behind it is told. What cannot be is told
 * of, in words, and holds up nothing: it may never have been a value at all.
 */
async function retireOthers(broker: Broker, row: StoredRotation, replaced: readonly string[] = []): Promise<string | undefined> {
  let problem: string | undefined
  for (const version of replaced) {
    if (version === row.replaced && row.retireAtMs !== undefined) continue
    try {
      await askInForce(broker, row, async (rotation, signal) => rotation.retire?.(version, { cutOff: true }, signal))
    } catch (error) {
      if (!(error instanceof ConnectorError)) throw error
      problem = `Version ${version}, which was replaced by hand, may still open something: ${error.adminMessage}`
      continue
    }
    await record(broker, row, async (tx, _, timeMs) => {
      await wakeEnds(tx, row.name, timeMs)
      return { change: {}, events: [{ type: 'rotation.retired', ...causedBy(schedule), rotation: row.name, version }], goesOn: true }
    })
  }
  return problem
}

const noValue = 'There is no version in force yet: an admin hands over the first one.'

/** Begins a run that is ordered, unless somebody else is replacing the same secret: that is left alone until it is over. */
export function beginRun(broker: Broker, row: StoredRotation): Next {
  return attempt(broker, row, 'look', async () => {
    if (heldUntilMs(row, broker.ledger.nowMs()) !== undefined) {
      return record(broker, row, async (_, now, timeMs) => {
        const heldMs = heldUntilMs(now, timeMs)
        return heldMs === undefined ? { change: {}, goesOn: true } : { change: { tries: 0, problem: describeHeld(heldMs), dueAtMs: heldMs } }
      })
    }
    const found = await askInForce(broker, row, (rotation, signal) => rotation.look(signal))
    await retireOthers(broker, row, found?.answer.replaced)
    const begun = await record(broker, row, async (_, { run, leaked }, timeMs) => {
      if (found === undefined || run === undefined) return { change: { run: null, leaked: false, dueAtMs: null } }
      const { answer, policySet } = found
      const { current, foreign } = answer
      if (current === undefined || foreign !== undefined) return { change: { tries: 0, problem: foreign ?? noValue, dueAtMs: timeMs + waitMs } }
      // What leaked, or was revoked, may have been ordered by several; the last word is the strongest.
      const event: AuditEvent = { type: 'rotation.begun', ...causedBy(schedule), rotation: row.name, id: run.id, reason: run.reason }
      const change = { run: { ...run, step: 'create' as const }, leaked, policySet, version: current.version, startedAtMs: timeMs, tries: 0 }
      return { change, events: [event], goesOn: true }
    })
    if (begun?.run?.step === 'create') await broker.pass('rotation_begun', row.name)
    return begun
  })
}

/** The steps that answer nothing. */
export function takeStep(broker: Broker, row: StoredRotation, id: string, step: 'create' | 'set'): Next {
  return attempt(broker, row, step, async () => {
    await askRun(broker, row, (rotation, signal) => rotation[step](id, signal))
    return record(broker, row, async (_, { run }) => ({ change: { ...(run && { run: { ...run, step: nextStep(step) } }), tries: 0, problem: null }, goesOn: true }))
  })
}

/** What the new version does not open must not come into force. */
export function testPending(broker: Broker, row: StoredRotation, id: string): Next {
  return attempt(broker, row, 'test', async () => {
    const tested = await askRun(broker, row, (rotation, signal) => rotation.test(id, signal))
    return record(broker, row, async (_, now, timeMs) => {
      if (!tested.ok) return failRun(now, 'test', tested.why, timeMs)
      return { change: { ...(now.run && { run: { ...now.run, step: nextStep('test') } }), tries: 0, problem: null }, goesOn: true }
    })
  })
}

/** The new version is in force; until when the one before must go on opening what it opens follows from who was lent it. */
export function finishRun(broker: Broker, row: StoredRotation, id: string): Next {
  return attempt(broker, row, 'finish', async () => {
    const tool = await broker.tools.find(row.policySet ?? '', row.name)
    const { version, replaced } = await askRun(broker, row, (rotation, signal) => rotation.finish(id, signal))
    return record(broker, row, async (tx, now, timeMs) => {
      // Whoever holds it was given it before this, and may renew up to the longest life that the tool gives.
      const lastEndMs = Math.max(timeMs + (tool?.ttl.maxSeconds ?? 0) * 1000, (await findLastEnd(tx, row.name)) ?? 0)
      const retireAtMs = replaced === undefined ? null : now.leaked ? timeMs : lastEndMs
      const nextAtMs = now.scheduled === undefined ? null : timeMs + now.scheduled.everySeconds * 1000
      const again = now.again !== undefined && now.scheduled !== undefined
      const event: AuditEvent = { type: 'rotation.finished', ...causedBy(schedule), rotation: row.name, id, version, ...(replaced !== undefined && { replaced }) }
      return {
        change: {
          run: again ? { id: randomUUID(), step: 'order', reason: now.again ?? 'request' } : null,
          again: null,
          leaked: again,
          version,
          replaced: replaced ?? null,
          retireAtMs,
          retireLeaked: now.leaked,
          finishedAtMs: timeMs,
          lastId: id,
          failures: 0,
          tries: 0,
          problem: null,
          nextAtMs: again ? timeMs : nextAtMs,
          // Soon, for another one may have been put in force by hand while this was on its way into the record.
          dueAtMs: nextAtMs === null ? null : Math.min(nextLookMs({ nextAtMs }, timeMs), timeMs + waitMs),
        },
        events: [event],
        goesOn: again || (retireAtMs ?? Infinity) <= timeMs,
      }
    })
  })
}

/** Gives up the pending version of a run that has failed. What was ordered, and not merely due, is ordered again. */
export function abandonRun(broker: Broker, row: StoredRotation, id: string): Next {
  return attempt(broker, row, 'abandon', async () => {
    await askRun(broker, row, (rotation, signal) => rotation.abandon(id, signal))
    return record(broker, row, async (_, { run, again, scheduled, failures }, timeMs) => {
      const reason = again ?? (run?.reason === 'schedule' ? undefined : run?.reason)
      const isOrdered = reason !== undefined && scheduled !== undefined
      const dueAtMs = scheduled === undefined ? null : timeMs + failedRunDelayMs(failures)
      return { change: { run: isOrdered ? { id: randomUUID(), step: 'order', reason } : null, again: null, ...(!isOrdered && { leaked: false }), tries: 0, dueAtMs } }
    })
  })
}

/** The version that was replaced opens nothing any more: the ends of grants that waited for it are looked at. */
export function retireReplaced(broker: Broker, row: StoredRotation): Next {
  const { replaced = '', retireLeaked } = row
  return attempt(broker, row, 'retire', async () => {
    // What an agent holds open by it must not outlive its grant; what Stint itself does by a root credential is left in peace.
    const cutOff = retireLeaked || (await hasLent(broker.database.read, row.name))
    const isInForce = await askRun(broker, row, async (rotation, signal) => {
      const { current } = await rotation.look(signal)
      if (current?.version === replaced) return true
      await rotation.retire?.(replaced, { cutOff }, signal)
      return false
    })
    if (isInForce) return takeBack(broker, row, replaced)
    return record(broker, row, async (tx, now, timeMs) => {
      await wakeEnds(tx, row.name, timeMs)
      const event: AuditEvent = { type: 'rotation.retired', ...causedBy(schedule), rotation: row.name, version: replaced }
      const { nextAtMs, run, failures } = now
      const change = { retireAtMs: null, retireLeaked: false, tries: 0, ...(failures === 0 && { problem: null }) }
      const dueAtMs = now.scheduled === undefined ? null : nextLookMs({ ...(nextAtMs !== undefined && { nextAtMs }) }, timeMs)
      return { change: { ...change, dueAtMs }, events: [event], goesOn: run !== undefined }
    })
  })
}

/**
 * Somebody has put the version in force again that was to be retired, by hand: then the one that had replaced it is replaced. Where
 * it must open nothing any more, another one is made.
 */
function takeBack(broker: Broker, row: StoredRotation, version: string): Next {
  broker.log.warn('a version that was replaced is in force again, put so by hand: it is not retired', { rotation: row.name, version })
  return record(broker, row, async (_, now, timeMs) => {
    const change = { version, replaced: now.version ?? null, retireAtMs: now.version === undefined ? null : timeMs, retireLeaked: false, tries: 0 }
    if (!now.retireLeaked || now.scheduled === undefined) return { change, goesOn: true }
    const { replaced: _replaced, retireAtMs: _retireAtMs, ...rest } = now
    return { change: { ...change, ...planOrder({ ...rest, version }, { reason: 'revocation', version, id: randomUUID() }, timeMs) }, goesOn: true }
  })
}
