import { setTimeout as sleep } from 'node:timers/promises'
import type { AuditEvent } from '../audit/event.ts'
import type { Effect } from '../connectors/connector.ts'
import { isOver } from '../grant/grant.ts'
import { formatTime } from '../kernel/clock.ts'
import { BrokerError } from '../kernel/errors.ts'
import type { Events } from '../storage/change.ts'
import { findCredential, type StoredCredential } from '../storage/credentials.ts'
import { countRevokedBy, hasGrants, insertRevocation, type RevocationSelector } from '../storage/grants.ts'
import { findTouched, listTouched } from '../storage/revoked.ts'
import { findWorkload, listWorkloadNames } from '../storage/workloads.ts'
import { causedBy, type Broker, type Caller } from './broker.ts'
import { commit } from './commit.ts'
import { disableMany } from './disable.ts'
import { endCredential } from './end.ts'
import { createPlaces } from './places.ts'
import { endGrant } from './release.ts'
import { stopWorkload } from './standing.ts'
import { carryRevocations } from './sweep.ts'
import { endWithoutRecord } from './unrecorded.ts'

/** What an admin picks for revocation: one grant, or all grants that fit every other member given. */
export type RevocationTarget =
  | { readonly grant: string }
  | (RevocationSelector & {
      /** A team: its workloads as they are now. */
      readonly owner?: string
      /** With a workload alone: everything of it, now, and it is suspended in the same transaction. */
      readonly suspend?: boolean
    })

/**
 * What became of one grant. `revoked`: it has ended by this call, with `effect`. `already_ended`: before it. `retrying`: the
 * tool has not confirmed it yet and is asked again. `lives_until`: nobody can end it before `untilMs`. `stuck`: the tool has
 * refused so often that an admin has to look. `written_off`: one has, and it may live.
 */
export interface RevokedGrant {
  readonly grant: string
  readonly workload: string
  readonly tool: string
  readonly outcome: 'revoked' | 'already_ended' | 'retrying' | 'lives_until' | 'stuck' | 'written_off'
  readonly effect: Effect
  readonly untilMs?: number
  /** With `propagating`: until then the tool takes to carry it out everywhere. */
  readonly effectiveByMs?: number
  readonly problem?: string
}

export interface RevocationReport {
  /** Live grants that this call ended, or whose end it ordered, as far as they were counted. */
  readonly revoked: number
  /** There were more than were counted or listed; the revocation covers those too. */
  readonly more: boolean
  readonly alreadyEnded: number
  /** The newest of them, one by one. */
  readonly grants: readonly RevokedGrant[]
  /** The entry that records it; absent when nothing was alive to end. */
  readonly auditIndex?: number
}

const listedMax = 1_000
/** How long an admin waits for the tools; what has not ended by then goes on by itself. */
const waitMsMax = 15_000
/** What of it may go into disabling them all before they are ended one by one. */
const disableMsMax = 5_000
/** How long it is seen what comes of an end that somebody else has begun. */
const othersMsMax = 2_000
const workersMax = 16
const workersPerToolMax = 4

/**
 * Ends grants at once: introspection says so from the commit on, on every process (invariant 8: offline verifiers wait for
 * the token's expiry), and tools are told right after it. Throws `not_found` for an unknown grant, workload or team,
 * `invalid_input` for a time to come; `unavailable` where it cannot be recorded, which says what was ended all the same.
 */
export async function revokeGrants(broker: Broker, caller: Caller, target: RevocationTarget, reason: string | undefined): Promise<RevocationReport> {
  return endWithoutRecord(broker, { caller, target, reason }, () => revokeOnRecord(broker, caller, target, reason))
}

/** The same, or nothing: where it cannot be recorded, nothing is ended. */
export function revokeOnRecord(broker: Broker, caller: Caller, target: RevocationTarget, reason: string | undefined): Promise<RevocationReport> {
  return 'grant' in target ? revokeOne(broker, caller, target.grant, reason) : revokeMany(broker, caller, target, reason)
}

async function revokeOne(broker: Broker, caller: Caller, id: string, reason: string | undefined): Promise<RevocationReport> {
  const { result, index } = await commit(broker, { apply: endGrant(id, caller, reason) })
  if (result === 'unknown') throw new BrokerError({ code: 'not_found', publicMessage: `There is no grant ${id}.` })
  await broker.pass('end_ordered', id)
  const grants = await endAndDescribe(broker, [id], result === 'revoked' ? { first: index, last: index } : undefined)
  const report = { more: false, revoked: result === 'revoked' ? 1 : 0, alreadyEnded: result === 'revoked' ? 0 : 1, grants }
  return result === 'revoked' ? { ...report, auditIndex: index } : report
}

async function revokeMany(
  broker: Broker,
  caller: Caller,
  { owner, suspend = false, ...selector }: Exclude<RevocationTarget, { readonly grant: string }>,
  reason: string | undefined,
): Promise<RevocationReport> {
  const catalog = (await broker.knowledge.refresh()).policySet?.catalog
  const { result: selectors, index } = await commit(broker, {
    async apply(tx, place) {
      const selectors = await resolveOwner(tx, owner, selector)
      for (const { workload } of selectors) {
        if (workload !== undefined && (await findWorkload(tx, workload)) === undefined) {
          throw new BrokerError({ code: 'not_found', publicMessage: `There is no workload ${workload}.` })
        }
      }
      const { beforeMs, tool } = selector
      if (tool !== undefined && catalog?.get(tool) === undefined && !(await hasGrants(tx, tool))) {
        throw new BrokerError({ code: 'not_found', publicMessage: `There is no tool ${tool} in the catalog, and no grant of one.` })
      }
      if (beforeMs !== undefined && beforeMs > place.timeMs) {
        throw new BrokerError({ code: 'invalid_input', publicMessage: 'before must not be in the future: a revocation covers what was issued.' })
      }
      // One row for each, however many grants it ends: the brake must not get slower the more there is to stop.
      const events = selectors.map((one) => describeRevocation(caller, one, owner, reason))
      for (const [i, one] of selectors.entries()) await insertRevocation(tx, place.index + i, one)
      const stopped = suspend && selector.workload !== undefined ? await stopWorkload(tx, caller, selector.workload, reason, place) : []
      const [first, ...rest] = [...events, ...stopped]
      if (first === undefined) throw new Error('a revocation selects something')
      return { result: selectors, raisesEpoch: stopped.length > 0, events: [first, ...rest] satisfies Events }
    },
  })
  const last = index + selectors.length - 1
  await broker.pass('end_ordered', '')
  await carryRevocations(broker)
  const listed = await listTouched(broker.database.read, selectors, broker.ledger.nowMs(), listedMax + 1)
  const grants = await endAndDescribe(broker, listed.slice(0, listedMax), { first: index, last })
  // Counted once it is done: for the person who asked, and nothing depends on it.
  let [revoked, more] = [0, listed.length > listedMax]
  for (const [i, one] of selectors.entries()) {
    const counted = await countRevokedBy(broker.database.read, one, index + i, broker.ledger.nowMs())
    revoked += counted.revoked
    more ||= counted.more
  }
  return { revoked, more, alreadyEnded: grants.filter(({ outcome }) => outcome === 'already_ended').length, grants, auditIndex: index }
}

/** One selector, or for a team one for each of its workloads: a workload that changes its team later stays as it was judged. */
async function resolveOwner(tx: Parameters<typeof findWorkload>[0], owner: string | undefined, selector: RevocationSelector): Promise<RevocationSelector[]> {
  if (owner === undefined) return [selector]
  const names = (await listWorkloadNames(tx, owner)).filter((name) => selector.workload === undefined || name === selector.workload)
  if (names.length === 0) throw new BrokerError({ code: 'not_found', publicMessage: `There is no workload of the team ${owner}.` })
  return names.map((workload) => ({ ...selector, workload }))
}

/** The record of a revocation of many grants. */
export function describeRevocation(caller: Caller, { workload, tool, task, beforeMs }: RevocationSelector, owner: string | undefined, reason: string | undefined): AuditEvent {
  const named = { ...(workload !== undefined && { workload }), ...(tool !== undefined && { tool }), ...(task !== undefined && { task }) }
  return {
    type: 'grants.revoked',
    ...causedBy(caller),
    selector: { ...named, ...(beforeMs !== undefined && { before: formatTime(beforeMs) }) },
    ...(owner !== undefined && { owner }),
    ...named,
    ...(reason !== undefined && { reason }),
  }
}

/**
 * Tells the tools of these grants, as long as somebody waits, and says what became of each. `by` is the range of entries that
 * ordered it: what another one had ended was ended already.
 */
export async function endAndDescribe(broker: Broker, grants: readonly string[], by: { readonly first: number; readonly last: number } | undefined): Promise<RevokedGrant[]> {
  const untilMs = performance.now() + waitMsMax
  const places = createPlaces(workersMax, workersPerToolMax)
  if (grants.length > workersPerToolMax) await disableMany(broker, grants, disableMsMax)
  const described = await Promise.all(
    grants.map(async (id) => {
      const before = await findTouched(broker.database.read, id, broker.ledger.nowMs())
      const isOpen = before?.credential !== undefined && !isOver(before.credential.state)
      if (isOpen) await places.run(before.grant.tool, () => endInTime(broker, id, untilMs))
      return describeOne(broker, id, by)
    }),
  )
  return described.filter((one) => one !== undefined)
}

/** Waits no longer than somebody waits for it. What goes wrong is told, and tried again by itself. */
async function endInTime(broker: Broker, id: string, untilMs: number): Promise<void> {
  const restMs = untilMs - performance.now()
  if (restMs <= 0) return
  let timer: NodeJS.Timeout | undefined
  const limit = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, restMs)
  })
  const ending = endOrWait(broker, id, untilMs).catch((error: unknown) => broker.log.warn('a revoked credential was not ended at once', { grant: id, error }))
  await Promise.race([ending, limit])
  clearTimeout(timer)
}

/** Where somebody else is at it, who may have died over it, the credential is disabled, and it is seen for a moment what comes of it. */
async function endOrWait(broker: Broker, id: string, untilMs: number): Promise<void> {
  const ending = await endCredential(broker, id)
  if (ending.status !== 'retrying' || ending.problem !== undefined) return
  await disableMany(broker, [id], disableMsMax)
  const lookUntilMs = Math.min(untilMs, performance.now() + othersMsMax)
  while (performance.now() < lookUntilMs) {
    const credential = await findCredential(broker.database.read, id)
    if (credential?.owner === undefined || isOver(credential.state)) return
    await sleep(50)
  }
}

async function describeOne(broker: Broker, id: string, by: { readonly first: number; readonly last: number } | undefined): Promise<RevokedGrant | undefined> {
  const touched = await findTouched(broker.database.read, id, broker.ledger.nowMs())
  // What was granted after it was ordered is none of its business.
  if (touched === undefined || (by !== undefined && touched.grant.issuedIndex > by.first)) return undefined
  const { grant, credential, state } = touched
  const { workload, tool, revokedIndex = -1 } = grant
  // Nothing was ever made: there is nothing to say of its end.
  if (state === 'failed') return undefined
  const common = { grant: id, workload, tool, effect: credential?.effect ?? 'introspection' } as const
  const ours = by !== undefined && revokedIndex >= by.first && revokedIndex <= by.last
  const problem = credential?.problem === undefined ? {} : { problem: credential.problem }
  if (state === 'written_off') return { ...common, outcome: 'written_off', ...problem }
  if (isOver(state)) return { ...common, outcome: ours ? 'revoked' : 'already_ended', ...describeDelay(credential) }
  if (state === 'stuck') return { ...common, outcome: 'stuck', ...problem }
  // Where it is denied nobody needs a handle.
  if (credential?.diesAtMs !== undefined && credential.handle === undefined && credential.effect !== 'propagating') return { ...common, outcome: 'lives_until', untilMs: credential.diesAtMs, ...problem }
  if (credential?.diesAtMs !== undefined && credential.dueAtMs === credential.diesAtMs) return { ...common, outcome: 'lives_until', untilMs: credential.diesAtMs, ...problem }
  return { ...common, outcome: 'retrying', ...problem }
}

/** When what has ended opens nothing anywhere, where that is later than its end. */
export function describeDelay(credential: StoredCredential | undefined): { readonly effectiveByMs?: number } {
  const { delaySeconds, endedAtMs, diesAtMs = Infinity } = credential ?? {}
  if (delaySeconds === undefined || endedAtMs === undefined || diesAtMs <= endedAtMs) return {}
  return { effectiveByMs: Math.min(diesAtMs, endedAtMs + delaySeconds * 1000) }
}
