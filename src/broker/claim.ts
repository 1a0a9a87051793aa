import type { OpenTool } from '../connectors/connector.ts'
import { isOver, type GrantState } from '../grant/grant.ts'
import { leaseMs } from '../grant/lifetime.ts'
import { formatTime } from '../kernel/clock.ts'
import type { Tool } from '../policy/catalog.ts'
import type { Outcome } from '../storage/change.ts'
import { findCredential, noteCredential, stepCredential, type EndCause, type StoredCredential } from '../storage/credentials.ts'
import { releaseClaims } from '../storage/due-credentials.ts'
import { releaseDenyLists } from '../storage/deny-lists.ts'
import { findGrant, type StoredGrant } from '../storage/grants.ts'
import { causedBy, type Broker } from './broker.ts'
import { commit } from './commit.ts'
import { describeGrant, recordEnd, recordStuck, schedule, type Ending, type Tx } from './ending.ts'

/** A credential that this process alone may end until the lease is over. */
export interface Claim {
  readonly grant: StoredGrant
  readonly credential: StoredCredential
  readonly tool: Tool
}

/** What came of the first step: what the next ones need, or that there is nothing to do. */
export type ClaimOrEnding = Claim | Ending

/**
 * The first step, for several at once: what each has come to is in the order of the ids. Whoever claims must go on with
 * `endClaimed` at once, for all of them, or the others wait until the lease is over.
 */
export async function claimEnds(broker: Broker, ids: readonly string[]): Promise<readonly ClaimOrEnding[]> {
  const found = await Promise.all(ids.map((id) => prepareClaim(broker, id)))
  if (!found.some((one) => 'undo' in one)) return found as Ending[]
  const { result } = await commit<ClaimOrEnding[]>(broker, {
    async apply(tx, { timeMs }) {
      const outcomes: Outcome<ClaimOrEnding>[] = []
      for (const one of found) outcomes.push('undo' in one ? await claim(broker, tx, one, timeMs) : { result: one, unrecorded: 'nothing changed' })
      return combine(outcomes)
    },
  })
  return result
}

/**
 * Where one process has the database to itself, at its start: what an earlier one was ending when it died is ended at once,
 * and not when its lease is over. A mint that it began may still be at work in the tool, and is left alone until then.
 */
export async function takeOverClaims(broker: Broker): Promise<void> {
  if (broker.database.engine !== 'sqlite') return
  const { result } = await commit<number>(broker, {
    async apply(tx, { timeMs }) {
      const released = (await releaseClaims(tx, timeMs)) + (await releaseDenyLists(tx, timeMs))
      return { result: released, unrecorded: released === 0 ? 'nothing changed' : 'housekeeping' }
    },
  })
  if (result > 0) broker.log.info('ends that were under way when the process before this one stopped are gone on with', { count: result })
}

/** How a lost mint of this tool is undone. Of one that cannot be opened now the end is tried all the same, and tells why. */
export function openUndo({ tools }: Pick<Broker, 'tools'>, tool: Tool): OpenTool['undo'] {
  try {
    return tools.open(tool).undo
  } catch {
    return 'by_grant'
  }
}

/** A credential that may have to end, with how a lost mint of it would be undone. */
interface Candidate {
  readonly id: string
  readonly tool: Tool
  readonly undo: OpenTool['undo']
}

async function prepareClaim(broker: Broker, id: string): Promise<Candidate | Ending> {
  const found = await findCredential(broker.database.read, id)
  if (found === undefined || isOver(found.state)) return { status: 'over' }
  const tool = await broker.tools.find(found.policySet, found.tool)
  if (tool === undefined) return giveUp(broker, id, `The catalog that describes the tool ${found.tool} is not to be read any more.`)
  return { id, tool, undo: openUndo(broker, tool) }
}

async function claim(broker: Broker, tx: Tx, { id, tool, undo }: Candidate, timeMs: number): Promise<Outcome<ClaimOrEnding>> {
  const grant = await findGrant(tx, id)
  const credential = await findCredential(tx, id)
  const unchanged = (result: Ending): Outcome<ClaimOrEnding> => ({ result, unrecorded: 'nothing changed' })
  if (grant === undefined || credential === undefined || isOver(credential.state)) return unchanged({ status: 'over' })
  const { state, owner, leaseUntilMs = 0 } = credential
  // A mint whose answer was lost may still be at work in the tool: nobody looks for it before its lease is over.
  if (owner !== undefined && leaseUntilMs > timeMs) return unchanged({ status: 'retrying', nextAtMs: leaseUntilMs })
  if (state === 'stuck') return unchanged({ status: 'stuck', problem: credential.problem ?? '' })
  // Whoever asks again and again uses up no tries, of which there are not many: what is put off is put off for all.
  if (state === 'ending' && credential.tries > 0 && (credential.dueAtMs ?? 0) > timeMs) {
    const { problem, dueAtMs } = credential
    return unchanged({ status: 'retrying', ...(problem !== undefined && { problem }), ...(dueAtMs !== undefined && { nextAtMs: dueAtMs }) })
  }
  const cause = findCause(grant, credential, timeMs)
  if (cause === undefined) {
    await noteCredential(tx, id, { dueAtMs: endOf(grant, credential) })
    return unchanged({ status: 'alive' })
  }
  // Nothing is known of what was made: the answer to its mint was lost.
  if (undo !== 'by_grant' && credential.handle === undefined && credential.reference === undefined && state !== 'active') {
    const detail = credential.problem ?? 'The broker stopped while the tool was being asked.'
    return loseMint({ tx, grant, credential, timeMs, detail, livesMs: undo.livesSecondsMax * 1000 })
  }
  // Another process can open it, and this one later: no try of the tool, of which there are not many.
  if (credential.handle !== undefined && !broker.sealingKeys.has(credential.handle.version)) {
    const problem = `What ends it is under the sealing key of version ${credential.handle.version}, which a process of the broker cannot open at the moment: its log says why.`
    if (credential.problem !== problem) await noteCredential(tx, id, { problem })
    return { result: { status: 'retrying', problem }, unrecorded: credential.problem === problem ? 'nothing changed' : 'housekeeping' }
  }
  const leased = { owner: broker.processId, leaseUntilMs: timeMs + leaseMs, dueAtMs: timeMs + leaseMs, tries: credential.tries + 1, cause }
  if (state === 'ending') await noteCredential(tx, id, leased)
  else await stepCredential(tx, credential, 'end_ordered', leased)
  const claimed = { ...credential, state: 'ending' as const, cause, tries: leased.tries, owner: broker.processId }
  return { result: { grant, credential: claimed, tool }, unrecorded: 'housekeeping' }
}

/** What several changes of one commit come to. */
function combine<R>(outcomes: readonly Outcome<R>[]): Outcome<R[]> {
  const result = outcomes.map((one) => one.result)
  const [first, ...rest] = outcomes.flatMap((one) => ('events' in one ? one.events : []))
  if (first !== undefined) return { result, raisesEpoch: outcomes.some((one) => 'events' in one && one.raisesEpoch), events: [first, ...rest] }
  return { result, unrecorded: outcomes.some((one) => 'unrecorded' in one && one.unrecorded === 'housekeeping') ? 'housekeeping' : 'nothing changed' }
}

/** When a grant that lives ends by itself: where the tool gives less time than Stint, that is its end. */
function endOf({ expiresAtMs }: StoredGrant, { diesAtMs = Infinity }: StoredCredential): number {
  return Math.min(expiresAtMs, diesAtMs)
}

/** Why a credential is to end, or `undefined` while it is not. */
function findCause(grant: StoredGrant, credential: StoredCredential, timeMs: number): EndCause | undefined {
  if (credential.cause !== undefined) return credential.cause
  if (credential.state === 'minting' || credential.state === 'unknown') return 'undone'
  if (grant.revokedIndex !== undefined) return 'revoked'
  if (endOf(grant, credential) <= timeMs) return 'expired'
  return credential.state === 'active' ? undefined : 'revoked'
}

interface Lost {
  readonly tx: Tx
  readonly grant: StoredGrant
  readonly credential: StoredCredential
  readonly timeMs: number
  readonly detail: string
  readonly livesMs: number
}

/** Of a mint whose answer was lost and that cannot be found: says until when something may live, and when that is over, that it is. */
async function loseMint({ tx, grant, credential, timeMs, detail, livesMs }: Lost): Promise<Outcome<Ending>> {
  if (credential.state === 'minting') {
    const untilMs = timeMs + livesMs
    await stepCredential(tx, credential, 'mint_lost', { problem: detail, diesAtMs: untilMs, dueAtMs: untilMs, owner: null, leaseUntilMs: null })
    const event = { type: 'grant.unknown', ...causedBy(schedule), ...describeGrant(grant), detail, may_live_until: formatTime(untilMs) } as const
    return { result: { status: 'lives_until', untilMs }, raisesEpoch: false, events: [event] }
  }
  const { diesAtMs } = credential
  if (diesAtMs === undefined) {
    // Revoked while it was being minted, and then the answer was lost.
    const untilMs = timeMs + livesMs
    await noteCredential(tx, grant.id, { problem: detail, diesAtMs: untilMs, dueAtMs: untilMs, owner: null, leaseUntilMs: null })
    const event = { type: 'grant.outlives', ...causedBy(schedule), ...describeGrant(grant), may_live_until: formatTime(untilMs) } as const
    return { result: { status: 'lives_until', untilMs }, raisesEpoch: false, events: [event] }
  }
  if (diesAtMs > timeMs) {
    await noteCredential(tx, grant.id, { dueAtMs: diesAtMs })
    return { result: { status: 'lives_until', untilMs: diesAtMs }, unrecorded: 'nothing changed' }
  }
  const cause = credential.cause ?? 'expired'
  if (credential.state !== 'ending') await stepCredential(tx, credential, 'end_ordered', { cause })
  return recordEnd(tx, grant, { ...credential, state: 'ending', cause }, timeMs)
}

/** Of what cannot even be tried: nobody would find it otherwise. */
async function giveUp(broker: Broker, id: string, detail: string): Promise<Ending> {
  const { result } = await commit<Ending>(broker, {
    async apply(tx, { timeMs }) {
      const [grant, credential] = [await findGrant(tx, id), await findCredential(tx, id)]
      if (grant === undefined || credential === undefined || isOver(credential.state)) return { result: { status: 'over' }, unrecorded: 'nothing changed' }
      const cause = findCause(grant, credential, timeMs)
      if (cause === undefined) return { result: { status: 'alive' }, unrecorded: 'nothing changed' }
      if (credential.state === 'stuck') return { result: { status: 'stuck', problem: detail }, unrecorded: 'nothing changed' }
      let state: GrantState | undefined = credential.state
      if (state !== 'ending') state = await stepCredential(tx, credential, 'end_ordered', { cause })
      if (state !== 'ending') return { result: { status: 'over' }, unrecorded: 'nothing changed' }
      return recordStuck(tx, grant, { ...credential, state }, detail)
    },
  })
  return result
}
