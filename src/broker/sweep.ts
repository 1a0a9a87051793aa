import { createPlaces } from './places.ts'
import type { Events } from '../storage/change.ts'
import {
  findCovered,
  findCredential,
  findDue,
  findOfStopped,
  listRevocationsAfter,
  readCarried,
  writeCarried,
} from '../storage/credentials.ts'
import { findGrant, markGrantRevoked } from '../storage/grants.ts'
import { BrokerError } from '../kernel/errors.ts'
import { causedBy, type Broker, type Caller } from './broker.ts'
import { commit } from './commit.ts'
import { describeGrant, endCredential } from './end.ts'
import { orderEnd } from './release.ts'
import { endUnclaimed } from './unrecorded.ts'

const schedule: Caller = { actor: { kind: 'stint', id: 'sweep' } }

/** One commit changes no more than that, so that new grants do not wait for it. */
const perCommit = 200
/** How many due grants are looked at together. */
const perLook = 1_000
const revocationsPerLook = 100

/** How many ends are under way at once: of all tools, and of one, so that one which hangs does not hold up the others. */
const workersMax = 16
const workersPerToolMax = 4

/**
 * Ends everything that is to end (invariant 11): carries revocations of many to what they cover, stops what a stopped workload
 * still has, undoes what a crash or a lost answer left, expires, and tries again what a tool refused. Returns how many
 * credentials it ended. What several processes do at once, each credential's claim sorts out.
 */
export async function sweep(broker: Broker, stopAfterMs = 20_000): Promise<{ readonly ended: number }> {
  const untilMs = performance.now() + stopAfterMs
  await carryRevocations(broker)
  await stopIdle(broker)
  const tried = new Set<string>()
  let ended = 0
  while (performance.now() < untilMs && !broker.isDraining()) {
    const due = (await findDue(broker.database.read, broker.ledger.nowMs(), perLook)).filter(({ grant }) => !tried.has(grant))
    if (due.length === 0) break
    const places = createPlaces(workersMax, workersPerToolMax)
    await Promise.all(
      due.map(async ({ grant, tool }) => {
        tried.add(grant)
        ended += await places.run(tool, () => endQuietly(broker, grant, untilMs))
      }),
    )
  }
  return { ended }
}

/** 1 if it was ended. What fails is told and left to the next run: one grant must not hold up the others. */
async function endQuietly(broker: Broker, grant: string, untilMs: number): Promise<number> {
  if (performance.now() > untilMs || broker.isDraining()) return 0
  try {
    return (await endCredential(broker, grant)).status === 'ended' ? 1 : 0
  } catch (error) {
    // Where nothing can be recorded, endings are carried out all the same (invariant 1).
    if (error instanceof BrokerError && error.code === 'unavailable' && broker.ledger.held === undefined) return (await endUnclaimed(broker, grant)) ? 1 : 0
    broker.log.warn('a credential was not looked at', { grant, error })
    return 0
  }
}

/** Orders the end of all that revocations of many cover. Crash-safe: how far it came is kept, and to do it twice changes nothing. */
export async function carryRevocations(broker: Broker): Promise<void> {
  const { database } = broker
  for (;;) {
    const revocations = await listRevocationsAfter(database.read, await readCarried(database.read), revocationsPerLook)
    for (const revocation of revocations) {
      for (;;) {
        const covered = await findCovered(database.read, revocation.index, revocation, perCommit)
        if (covered.length === 0) break
        await orderEnds(broker, covered)
      }
      await commit<void>(broker, {
        async apply(tx) {
          await writeCarried(tx, revocation.index)
          return { result: undefined, unrecorded: 'housekeeping' }
        },
      })
    }
    if (revocations.length < revocationsPerLook) return
  }
}

/** The revocation that covers them is on record: this only carries it on. */
async function orderEnds(broker: Broker, grants: readonly string[]): Promise<void> {
  await commit<void>(broker, {
    async apply(tx, { timeMs }) {
      for (const grant of grants) {
        const credential = await findCredential(tx, grant)
        if (credential !== undefined) await orderEnd(tx, credential, timeMs)
      }
      return { result: undefined, unrecorded: 'housekeeping' }
    },
  })
}

/** Revokes what workloads still have that are suspended or retired: introspection answers for tokens, but nobody asks it about a role. */
async function stopIdle(broker: Broker): Promise<void> {
  for (;;) {
    const grants = await findOfStopped(broker.database.read, perCommit)
    if (grants.length === 0) return
    await commit<void>(broker, {
      async apply(tx, { index, timeMs }) {
        const events: Events[0][] = []
        for (const id of grants) {
          const [grant, credential] = [await findGrant(tx, id), await findCredential(tx, id)]
          if (grant === undefined || credential === undefined) continue
          await orderEnd(tx, credential, timeMs)
          if (grant.revokedIndex !== undefined) continue
          await markGrantRevoked(tx, id, index + events.length)
          events.push({ type: 'grant.revoked', ...causedBy(schedule), ...describeGrant(grant), reason: 'its workload is suspended or retired' })
        }
        const [first, ...rest] = events
        return first === undefined ? { result: undefined, unrecorded: 'housekeeping' } : { result: undefined, raisesEpoch: false, events: [first, ...rest] }
      },
    })
  }
}
