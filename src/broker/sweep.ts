import { setTimeout } from 'node:timers/promises'
import type { Events } from '../storage/change.ts'
import { findCredential } from '../storage/credentials.ts'
import { findCovered, findDue, findOfStopped, findWaiting, listDueTools, listRevocationsAfter, readCarried, writeCarried, type DueCursor } from '../storage/due-credentials.ts'
import { findGrant, markGrantRevoked, type RevocationSelector } from '../storage/grants.ts'
import { findActor } from '../storage/audit-events.ts'
import { BrokerError } from '../kernel/errors.ts'
import { causedBy, type Broker } from './broker.ts'
import { claimEnds, type ClaimOrEnding } from './claim.ts'
import { commit } from './commit.ts'
import { disableMany } from './disable.ts'
import { endClaimed, endCredential } from './end.ts'
import { describeGrant, schedule } from './ending.ts'
import { isHolder, orderEnd } from './release.ts'
import { orderRotation } from './rotation-order.ts'
import { retryDead } from './retry-dead.ts'
import { endUnclaimed } from './unrecorded.ts'

/** One commit changes no more than that, so that new grants do not wait for it: some milliseconds' worth. */
const perCommit = 50
/** How many due grants of a tool are looked for at once. Where there are more, there is a backlog. */
const perLook = 100
const revocationsPerLook = 100
/** How long until it is looked again, while ends of the same tool are under way. */
const lookMs = 500

/** How many ends of one tool are under way at once. Each tool has its own, so that one which hangs holds up no other. */
const endsAtOnce = 8
/** As many of them are claimed in one commit. */
const claimsAtOnce = 4
/** After that many refusals one after another a tool is left alone until the next time. */
const refusalsMax = 8

/** The tools that are being swept, each by itself, with how many credentials of it were ended. */
export type Sweeping = Map<string, Promise<number>>

/** How long one run waits for its tools. One that hangs is swept on, while the next runs look after the others. */
const waitMsMax = 2_000

/**
 * Ends everything that is to end (invariant 11): carries revocations of many to what they cover, stops what a stopped workload
 * still has, undoes what a crash or a lost answer left, expires, and tries again what a tool refused. What several processes
 * do at once, each credential's claim sorts out.
 */
export async function keepSweeping(broker: Broker): Promise<void> {
  await beginSweep(broker)
  const all = new AbortController()
  const limit = setTimeout(waitMsMax, undefined, { signal: all.signal }).catch(() => undefined)
  await Promise.race([Promise.all(broker.sweeping.values()), limit])
  all.abort()
}

/** The same, to its end. Returns how many credentials were ended. */
export async function sweep(broker: Broker): Promise<{ readonly ended: number }> {
  await beginSweep(broker)
  const counts = await Promise.all(broker.sweeping.values())
  return { ended: counts.reduce((sum, count) => sum + count, 0) }
}

/** Begins with every tool of which something is due and that is not being swept already. */
async function beginSweep(broker: Broker): Promise<void> {
  const { sweeping } = broker
  await orderAll(broker)
  const tools = (await listDueTools(broker.database.read, broker.ledger.nowMs())).filter((tool) => !sweeping.has(tool))
  for (const tool of tools) {
    const run = sweepTool(broker, tool)
      .catch((error: unknown) => {
        broker.log.warn('a tool was not swept: it is again at the next time', { tool, error })
        return 0
      })
      .finally(() => sweeping.delete(tool))
    sweeping.set(tool, run)
  }
}

async function sweepTool(broker: Broker, tool: string): Promise<number> {
  /** With when each was due: what was put off may be tried again. */
  const tried = new Map<string, string>()
  const running = new Set<Promise<void>>()
  let [ended, refused, lingering] = [0, 0, 0]
  let disabled: DueCursor | undefined
  const goesOn = (): boolean => refused < refusalsMax && !broker.isDraining()

  /** Also what comes due while others are ended, and need not wait for its turn. A few at the beginning are ended as fast. */
  async function disableDue(): Promise<void> {
    for (;;) {
      const beganMs = performance.now()
      const due = await findDue(broker.database.read, tool, broker.ledger.nowMs(), perLook, disabled)
      const areFew = disabled === undefined && due.length <= endsAtOnce
      disabled = due.at(-1) ?? disabled
      if (!areFew && due.length > 0) await disableMany(broker, due.map(({ grant }) => grant))
      if (due.length < perLook || !goesOn()) return
      await setTimeout(broker.pace.restMs(tool, due.length, performance.now() - beganMs))
    }
  }

  async function endOne(grant: string, claimed: ClaimOrEnding | undefined): Promise<void> {
    const outcome = await endQuietly(broker, grant, claimed)
    refused = outcome === 'refused' ? refused + 1 : 0
    if (outcome === 'ended') ended++
  }

  while (goesOn()) {
    await disableDue()
    // What was tried and is due all the same must not hide what comes after it.
    const found = await findDue(broker.database.read, tool, broker.ledger.nowMs(), perLook + lingering)
    const due = found.filter(({ grant, dueAt }) => tried.get(grant) !== dueAt)
    lingering = found.length - due.length
    if (due.length === 0) {
      if (running.size === 0) break
      // Those that take long hold up nothing that comes due meanwhile.
      await Promise.race([...running, setTimeout(lookMs)])
    }
    for (let at = 0; at < due.length && goesOn(); ) {
      const beganMs = performance.now()
      const some = due.slice(at, at + claimsAtOnce)
      at += some.length
      for (const { grant, dueAt } of some) tried.set(grant, dueAt)
      // What fails is then found out by each for itself: one grant must not hold up the others.
      const claims = await claimEnds(broker, some.map(({ grant }) => grant)).catch(() => undefined)
      for (const [i, { grant }] of some.entries()) {
        const end: Promise<void> = endOne(grant, claims?.[i]).finally(() => running.delete(end))
        running.add(end)
      }
      while (running.size > endsAtOnce - claimsAtOnce) await Promise.race(running)
      if (due.length >= perLook) await setTimeout(broker.pace.restMs(tool, some.length, performance.now() - beganMs))
    }
  }
  await Promise.all(running)
  return ended
}

/** What is due already is ended also where nothing can be ordered, for nothing can be recorded (invariant 1). */
async function orderAll(broker: Broker): Promise<void> {
  try {
    await carryRevocations(broker)
    await stopIdle(broker)
    await retryDead(broker)
  } catch (error) {
    if (!(error instanceof BrokerError && error.code === 'unavailable')) throw error
  }
}

type Swept = 'ended' | 'refused' | 'other'

/** What fails is told and left to the next time. */
async function endQuietly(broker: Broker, grant: string, claimed: ClaimOrEnding | undefined): Promise<Swept> {
  try {
    const { status } = claimed === undefined ? await endCredential(broker, grant) : await endClaimed(broker, claimed)
    return status === 'ended' ? 'ended' : status === 'retrying' || status === 'stuck' ? 'refused' : 'other'
  } catch (error) {
    // Where nothing can be recorded, endings are carried out all the same (invariant 1).
    if (error instanceof BrokerError && error.code === 'unavailable' && broker.ledger.held === undefined) return (await endUnclaimed(broker, grant)) ? 'ended' : 'refused'
    broker.log.warn('a credential was not looked at', { grant, error })
    return 'refused'
  }
}

/** Orders the end of all that revocations of many cover. Crash-safe: how far it came is kept, and to do it twice changes nothing. */
export async function carryRevocations(broker: Broker): Promise<void> {
  const { database } = broker
  for (;;) {
    const revocations = await listRevocationsAfter(database.read, await readCarried(database.read), revocationsPerLook)
    for (const revocation of revocations) {
      const by = await findOrderer(database.read, revocation)
      for (;;) {
        const covered = await findCovered(database.read, revocation.index, revocation, perCommit)
        if (covered.length === 0) break
        await orderEnds(broker, covered, by)
      }
      if (by === 'others') await replaceWaiting(broker, revocation)
    }
    const last = revocations.at(-1)
    if (last === undefined) return
    await commit<void>(broker, {
      async apply(tx) {
        await writeCarried(tx, last.index)
        return { result: undefined, unrecorded: 'housekeeping' }
      },
    })
    if (revocations.length < revocationsPerLook) return
  }
}

/** A workload that completes a task ends what it holds itself; whatever else covers many is an operator's word. */
async function findOrderer(db: Broker['database']['read'], { index, workload }: RevocationSelector & { readonly index: number }): Promise<'holder' | 'others'> {
  const actor = await findActor(db, index)
  return actor !== undefined && isHolder({ actor }, { ...(workload !== undefined && { workload }) }) ? 'holder' : 'others'
}

/** The revocation that covers them is on record: this only carries it on. */
async function orderEnds(broker: Broker, grants: readonly string[], by: 'holder' | 'others'): Promise<void> {
  await commit<void>(broker, {
    async apply(tx, { timeMs }) {
      for (const grant of grants) {
        const credential = await findCredential(tx, grant)
        if (credential !== undefined) await orderEnd(tx, credential, timeMs, by)
      }
      return { result: undefined, unrecorded: 'housekeeping' }
    },
  })
}

/**
 * Has what was lent replaced also where its grant has expired or was given back before: whoever has kept a copy of a value has it
 * still, and may be whom the revocation is for.
 */
async function replaceWaiting(broker: Broker, revocation: RevocationSelector & { readonly index: number }): Promise<void> {
  if ((await findWaiting(broker.database.read, revocation.index, revocation)).length === 0) return
  await commit<void>(broker, {
    async apply(tx, { timeMs }) {
      for (const waiting of await findWaiting(tx, revocation.index, revocation)) await orderRotation(tx, waiting, timeMs)
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
          await orderEnd(tx, credential, timeMs, 'others')
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
