import { ConnectorError, type Ended } from '../connectors/connector.ts'
import { isOver } from '../grant/grant.ts'
import { endTriesMax, retryDelayMs } from '../grant/lifetime.ts'
import { formatTime } from '../kernel/clock.ts'
import { Secret } from '../kernel/secret.ts'
import type { Outcome } from '../storage/change.ts'
import { findCredential, handlePlace, noteCredential, type StoredCredential } from '../storage/credentials.ts'
import { findGrant, type StoredGrant } from '../storage/grants.ts'
import { findRotation } from '../storage/rotations.ts'
import { causedBy, type Broker } from './broker.ts'
import { claimEnds, type Claim, type ClaimOrEnding } from './claim.ts'
import { commit } from './commit.ts'
import { isOf } from './rotation-order.ts'
import { describeGrant, recordEnd, recordStuck, schedule, type Ending, type Tx } from './ending.ts'

/**
 * Ends one credential that is to end, in three steps: it is claimed, the tool is told, the outcome is recorded. Each can be
 * repeated, by this process or another, so that it may die between any two (invariant 2).
 */
export async function endCredential(broker: Broker, id: string): Promise<Ending> {
  const [claimed] = await claimEnds(broker, [id])
  if (claimed === undefined) throw new Error('an end was not claimed')
  return endClaimed(broker, claimed)
}

/** The other two steps. */
export async function endClaimed(broker: Broker, claimed: ClaimOrEnding): Promise<Ending> {
  if ('status' in claimed) return claimed
  const { credential, tool } = claimed
  const id = credential.grant
  await broker.pass('end_claimed', id)
  let ended: Ended
  try {
    const handle = credential.handle && openHandle(broker, id, credential.handle)
    ended = await broker.tools.call(tool, async (open, signal) => {
      const { reference, diesAtMs } = credential
      const ending = open.revoke({ grant: id, ...(handle && { handle }), ...(reference !== undefined && { reference }), ...(diesAtMs !== undefined && { diesAtMs }) }, signal)
      ending.catch(() => undefined)
      await broker.pass('end_called', id)
      return ending
    })
  } catch (error) {
    return recordRefusal(broker, claimed, error)
  }
  await broker.pass('end_answered', id)
  const result = await recordEnded(broker, claimed, ended)
  await broker.pass('end_stored', id)
  return result
}

/** What ends a credential in its tool, as it was sealed for this grant. */
export function openHandle({ sealer }: Pick<Broker, 'sealer'>, grant: string, sealed: NonNullable<StoredCredential['handle']>): Secret {
  return new Secret(Buffer.from(sealer.open(sealed, handlePlace(grant))).toString('utf8'))
}

/** Records what a claimed credential came to; another process that has taken over meanwhile records it itself. */
async function settle(broker: Broker, { credential }: Claim, record: (tx: Tx, grant: StoredGrant, now: StoredCredential, timeMs: number) => Promise<Outcome<Ending>>): Promise<Ending> {
  const id = credential.grant
  const { result } = await commit<Ending>(broker, {
    async apply(tx, { timeMs }) {
      const [grant, now] = [await findGrant(tx, id), await findCredential(tx, id)]
      if (grant === undefined || now === undefined || isOver(now.state)) return { result: { status: 'over' }, unrecorded: 'nothing changed' }
      if (now.owner !== broker.processId || now.state !== 'ending') return { result: { status: 'retrying' }, unrecorded: 'nothing changed' }
      return record(tx, grant, now, timeMs)
    },
  })
  return result
}

function recordEnded(broker: Broker, claimed: Claim, ended: Ended): Promise<Ending> {
  return settle(broker, claimed, async (tx, grant, now, timeMs) => {
    if (ended.status === 'lives_until' && ended.untilMs > timeMs) {
      const { untilMs } = ended
      // Not a failure: it is looked at again when its time is over.
      await noteCredential(tx, grant.id, { diesAtMs: untilMs, dueAtMs: untilMs, tries: 0, owner: null, leaseUntilMs: null, problem: null })
      const result: Ending = { status: 'lives_until', untilMs }
      if (now.tries > 1 && now.diesAtMs === untilMs) return { result, unrecorded: 'housekeeping' }
      return { result, raisesEpoch: false, events: [{ type: 'grant.outlives', ...causedBy(schedule), ...describeGrant(grant), may_live_until: formatTime(untilMs) }] }
    }
    if (ended.status === 'waits') {
      // No try that failed: somebody is at it. What it waited for may have come while the tool was asked: then it is due already.
      const hasCome = now.dueAtMs !== undefined && now.leaseUntilMs !== undefined && now.dueAtMs < now.leaseUntilMs
      const dueAtMs = hasCome ? timeMs : Math.max(ended.nextAtMs, timeMs + 1_000)
      const row = await findRotation(tx, grant.tool)
      const isDropped = row?.tool !== undefined && row.retireAtMs === undefined && ((row.scheduled === undefined && row.run === undefined) || !isOf(row, now.reference ?? ''))
      await noteCredential(tx, grant.id, { problem: isDropped ? noRotation : ended.why, dueAtMs, tries: 0, owner: null, leaseUntilMs: null })
      return { result: { status: 'waits', nextAtMs: ended.nextAtMs }, unrecorded: 'housekeeping' }
    }
    return recordEnd(tx, grant, now, timeMs)
  })
}

/** What a connector says of a rotation, it says by the catalog by which the value was lent. */
const noRotation =
  'What was lent is good until it is replaced, and the catalog names no rotation of it any more: an admin changes it where it is used, and where it is kept.'

async function recordRefusal(broker: Broker, claimed: Claim, error: unknown): Promise<Ending> {
  const { tool, credential } = claimed
  const id = credential.grant
  const refused = error instanceof ConnectorError ? error : undefined
  const problem = refused?.publicMessage ?? `The tool ${tool.name} could not be told.`
  broker.log.warn('a credential was not ended', { grant: id, tool: tool.name, tries: credential.tries, error })
  broker.meter.count('end_failures', { tool: tool.name })
  return settle(broker, claimed, async (tx, grant, now, timeMs) => {
    // Whatever the tool says, it has died by itself.
    if (now.diesAtMs !== undefined && now.diesAtMs <= timeMs) return recordEnd(tx, grant, { ...now, cause: now.cause ?? 'expired' }, timeMs)
    if (now.tries >= endTriesMax) return recordStuck(tx, grant, now, problem)
    const delayMs = retryDelayMs(now.tries, Math.random(), refused?.retryAfterSeconds)
    // When it dies by itself there is nothing left to ask for.
    const nextAtMs = Math.min(timeMs + delayMs, now.diesAtMs ?? Infinity)
    await noteCredential(tx, id, { problem, dueAtMs: nextAtMs, owner: null, leaseUntilMs: null })
    return { result: { status: 'retrying', problem, nextAtMs }, unrecorded: 'housekeeping' }
  })
}
