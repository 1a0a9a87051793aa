import type { AuditEvent } from '../audit/event.ts'
import { formatTime } from '../kernel/clock.ts'
import type { Outcome } from '../storage/change.ts'
import { stepCredential, type StoredCredential } from '../storage/credentials.ts'
import type { StoredGrant } from '../storage/grants.ts'
import { causedBy, type Caller } from './broker.ts'

/**
 * What became of one grant whose credential lives outside. `ended`: the tool has confirmed it. `retrying`: it has not yet,
 * and is asked again. `lives_until`: it cannot be ended before then. `stuck`: an admin has to look. `alive`: it is not to end
 * yet. `waits`: its end is under way elsewhere. `over`: it had ended before.
 */
export type Ending =
  | { readonly status: 'ended' | 'alive' | 'over' }
  | { readonly status: 'retrying'; readonly problem?: string; readonly nextAtMs?: number }
  | { readonly status: 'lives_until'; readonly untilMs: number }
  | { readonly status: 'waits'; readonly nextAtMs: number }
  | { readonly status: 'stuck'; readonly problem: string }

/** What every event about a grant says of it. */
export function describeGrant({ id, workload, tool, task }: StoredGrant) {
  return { workload, grant: id, tool, ...(task !== undefined && { task }) }
}

/** Who ends what nobody asked to end just now. */
export const schedule: Caller = { actor: { kind: 'stint', id: 'sweep' } }

export type Tx = Parameters<typeof stepCredential>[0]

/** The tool has confirmed it, or it has died by itself. */
export async function recordEnd(tx: Tx, grant: StoredGrant, now: StoredCredential, timeMs: number): Promise<Outcome<Ending>> {
  await stepCredential(tx, now, now.cause === 'expired' ? 'end_expired' : 'end_revoked', { endedAtMs: timeMs, problem: null })
  return { result: { status: 'ended' }, raisesEpoch: false, events: [describeEnd(grant, now, timeMs)] }
}

function describeEnd(grant: StoredGrant, { cause = 'revoked', effect, delaySeconds, diesAtMs = Infinity }: StoredCredential, timeMs: number): AuditEvent {
  // Nothing needs the tool's delay that dies before it is over.
  const delay = delaySeconds === undefined || diesAtMs <= timeMs ? {} : { effective_by: formatTime(Math.min(diesAtMs, timeMs + delaySeconds * 1000)) }
  return { type: 'grant.ended', ...causedBy(schedule), ...describeGrant(grant), cause, effect, ...delay }
}

/** Nobody tries any more, until somebody has looked. */
export async function recordStuck(tx: Tx, grant: StoredGrant, now: StoredCredential, detail: string): Promise<Outcome<Ending>> {
  await stepCredential(tx, now, 'given_up', { problem: detail, dueAtMs: null, owner: null, leaseUntilMs: null })
  const event = { type: 'grant.stuck', ...causedBy(schedule), ...describeGrant(grant), tries: now.tries, detail } as const
  return { result: { status: 'stuck', problem: detail }, raisesEpoch: false, events: [event] }
}
