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
  type DueCursor,
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

/** How often it is looked for more while some are being ended. */
const lookEveryMs = 250
/** How many wait for a worker at most. */
const queuedMax = 10_000
/** How long one that a run has tried is left alone by it. */
const againMs = 1_000

/**
 * Ends everything that is to end (invariant 11): carries revocations of many to what they cover, stops what a stopped workload
 * still has, undoes what a crash or a lost answer left, expires, and tries again what a tool refused. Returns how many
 * credentials it ended. What several processes do at once, each credential's claim sorts out. It goes on while there is
 * something to do; after `stopAfterMs` only with tools that it does not wait for, so that one which hangs never holds up others.
 */
export async function sweep(broker: Broker, stopAfterMs = 20_000): Promise<{ readonly ended: number }> {
  const untilMs = performance.now() + stopAfterMs
  const places = createPlaces(workersMax, workersPerToolMax)
  const underWay = new Map<string, string>()
  const tried = new Map<string, number>()
  let [ended, wake] = [0, (): void => undefined]
  let after: DueCursor | undefined

  function begin({ grant, tool }: { readonly grant: string; readonly tool: string }): void {
    const dropAtMs = performance.now() + stopAfterMs
    underWay.set(grant, tool)
    void places
      .run(tool, () => endQuietly(broker, grant, dropAtMs))
      .then((count) => {
        ended += count
        underWay.delete(grant)
        tried.set(grant, performance.now() + againMs)
        if (underWay.size === 0) wake()
      })
  }

  while (!broker.isDraining()) {
    await orderAll(broker)
    const nowMs = performance.now()
    const waitedFor = nowMs > untilMs ? new Set(underWay.values()) : undefined
    const due = underWay.size < queuedMax ? await findDue(broker.database.read, broker.ledger.nowMs(), perLook, after) : []
    const last = due.at(-1)
    // From the beginning again once the end was seen: what is left there has been tried, or is being.
    after = due.length < perLook ? undefined : last
    const fresh = due.filter(({ grant, tool }) => !underWay.has(grant) && (tried.get(grant) ?? 0) <= nowMs && waitedFor?.has(tool) !== true)
    fresh.forEach(begin)
    if (underWay.size > 0) await untilWoken((resolve) => (wake = resolve))
    else if (after === undefined) break
  }
  while (underWay.size > 0) await untilWoken((resolve) => (wake = resolve))
  return { ended }
}

/** Until there is nothing left to wait for, or it is time to look again. */
async function untilWoken(listen: (wake: () => void) => void): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  await new Promise<void>((resolve) => {
    timer = setTimeout(resolve, lookEveryMs)
    listen(resolve)
  })
  clearTimeout(timer)
}

/** What is due already is ended also where nothing can be ordered, for nothing can be recorded (invariant 1). */
async function orderAll(broker: Broker): Promise<void> {
  try {
    await carryRevocations(broker)
    await stopIdle(broker)
  } catch (error) {
    if (!(error instanceof BrokerError && error.code === 'unavailable')) throw error
  }
}

/** 1 if it was ended. What fails is told and left to the next run: one grant must not hold up the others. */
async function endQuietly(broker: Broker, grant: string, dropAtMs: number): Promise<number> {
  if (performance.now() > dropAtMs || broker.isDraining()) return 0
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
