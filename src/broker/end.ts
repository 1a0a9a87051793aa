import type { AuditEvent } from '../audit/event.ts'
import { ConnectorError, type Ended, type OpenTool } from '../connectors/connector.ts'
import { endTriesMax, leaseMs, retryDelayMs } from '../grant/lifetime.ts'
import { isOver, type GrantState } from '../grant/grant.ts'
import { formatTime } from '../kernel/clock.ts'
import { Secret } from '../kernel/secret.ts'
import type { Tool } from '../policy/catalog.ts'
import type { Outcome } from '../storage/change.ts'
import { findCredential, handlePlace, noteCredential, stepCredential, type EndCause, type StoredCredential } from '../storage/credentials.ts'
import { findGrant, type StoredGrant } from '../storage/grants.ts'
import { causedBy, type Broker, type Caller } from './broker.ts'
import { commit } from './commit.ts'

/**
 * What became of one grant whose credential lives outside. `ended`: the tool has confirmed it. `retrying`: it has not yet,
 * and is asked again. `lives_until`: it cannot be ended before then. `stuck`: an admin has to look. `alive`: it is not to end
 * yet. `over`: it had ended before.
 */
export type Ending =
  | { readonly status: 'ended' | 'alive' | 'over' }
  | { readonly status: 'retrying'; readonly problem?: string; readonly nextAtMs?: number }
  | { readonly status: 'lives_until'; readonly untilMs: number }
  | { readonly status: 'stuck'; readonly problem: string }

/** What every event about a grant says of it. */
export function describeGrant({ id, workload, tool, task }: StoredGrant) {
  return { workload, grant: id, tool, ...(task !== undefined && { task }) }
}

const schedule: Caller = { actor: { kind: 'stint', id: 'sweep' } }

type Tx = Parameters<typeof stepCredential>[0]

/** A credential that this process alone may end until the lease is over. */
interface Claim {
  readonly grant: StoredGrant
  readonly credential: StoredCredential
  readonly tool: Tool
}

/** What came of the first step: what the next ones need, or that there is nothing to do. */
export type ClaimOrEnding = Claim | Ending

/**
 * Ends one credential that is to end, in three steps: it is claimed, the tool is told, the outcome is recorded. Each can be
 * repeated, by this process or another, so that it may die between any two (invariant 2).
 */
export async function endCredential(broker: Broker, id: string): Promise<Ending> {
  const [claimed] = await claimEnds(broker, [id])
  if (claimed === undefined) throw new Error('an end was not claimed')
  return endClaimed(broker, claimed)
}

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
      const ending = open.revoke({ grant: id, ...(handle && { handle }), ...(credential.reference !== undefined && { reference: credential.reference }) }, signal)
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

/** How a lost mint of this tool is undone; `undefined` for a tool that cannot be opened, which the claim then meets as well. */
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
  if (undo !== 'by_grant' && credential.handle === undefined && state !== 'active') {
    const detail = credential.problem ?? 'The broker stopped while the tool was being asked.'
    return loseMint({ tx, grant, credential, timeMs, detail, livesMs: undo.livesSecondsMax * 1000 })
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
  return end(tx, grant, { ...credential, state: 'ending', cause }, timeMs)
}

function describeEnd(grant: StoredGrant, { cause = 'revoked', effect }: StoredCredential): AuditEvent {
  return { type: 'grant.ended', ...causedBy(schedule), ...describeGrant(grant), cause, effect }
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
    return end(tx, grant, now, timeMs)
  })
}

async function end(tx: Tx, grant: StoredGrant, now: StoredCredential, timeMs: number): Promise<Outcome<Ending>> {
  await stepCredential(tx, now, now.cause === 'expired' ? 'end_expired' : 'end_revoked', { endedAtMs: timeMs, problem: null })
  return { result: { status: 'ended' }, raisesEpoch: false, events: [describeEnd(grant, now)] }
}

async function recordRefusal(broker: Broker, claimed: Claim, error: unknown): Promise<Ending> {
  const { tool, credential } = claimed
  const id = credential.grant
  const refused = error instanceof ConnectorError ? error : undefined
  const problem = refused?.publicMessage ?? `The tool ${tool.name} could not be told.`
  broker.log.warn('a credential was not ended', { grant: id, tool: tool.name, tries: credential.tries, error })
  broker.meter.count('end_failures', { tool: tool.name })
  return settle(broker, claimed, async (tx, grant, now, timeMs) => {
    // Whatever the tool says, it has died by itself.
    if (now.diesAtMs !== undefined && now.diesAtMs <= timeMs) return end(tx, grant, { ...now, cause: now.cause ?? 'expired' }, timeMs)
    if (now.tries >= endTriesMax) return recordStuck(tx, grant, now, problem)
    const delayMs = retryDelayMs(now.tries, Math.random(), refused?.retryAfterSeconds)
    const nextAtMs = timeMs + delayMs
    await noteCredential(tx, id, { problem, dueAtMs: nextAtMs, owner: null, leaseUntilMs: null })
    return { result: { status: 'retrying', problem, nextAtMs }, unrecorded: 'housekeeping' }
  })
}

async function recordStuck(tx: Tx, grant: StoredGrant, now: StoredCredential, detail: string): Promise<Outcome<Ending>> {
  await stepCredential(tx, now, 'given_up', { problem: detail, dueAtMs: null, owner: null, leaseUntilMs: null })
  const event = { type: 'grant.stuck', ...causedBy(schedule), ...describeGrant(grant), tries: now.tries, detail } as const
  return { result: { status: 'stuck', problem: detail }, raisesEpoch: false, events: [event] }
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
