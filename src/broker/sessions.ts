import type { Kysely } from 'kysely'
import type { AuditEvent } from '../audit/event.ts'
import { secretMatches, type PresentedCredential } from '../identity/credential.ts'
import type { Operator } from '../identity/operator.ts'
import type { RefusalReason } from '../identity/refusal.ts'
import { BrokerError } from '../kernel/errors.ts'
import type { Schema } from '../storage/schema.ts'
import { deleteExpiredSessions, findSession, listSessions, markSessionsEnded, type StoredSession } from '../storage/sessions.ts'
import { causedBy, type Broker, type Caller } from './broker.ts'
import { commit } from './commit.ts'

/** The actor's id of a person who signed in. */
export function operatorIdOf({ subject }: Pick<StoredSession, 'subject'>): string {
  return `oidc:${subject}`
}

/**
 * The operator whose session a credential belongs to at that time, or why it proves none. Sessions end with the trust in
 * who vouched for the person: those of an issuer that the configuration no longer names are over.
 */
export async function recogniseSession(
  db: Kysely<Schema>,
  { id, secretHash }: Pick<PresentedCredential, 'id' | 'secretHash'>,
  issuer: string | undefined,
  nowMs: number,
): Promise<Operator | RefusalReason> {
  const session = await findSession(db, id)
  const matches = secretMatches(secretHash, session?.secretHash)
  if (session === undefined) return 'operator_unknown'
  if (!matches) return 'operator_wrong'
  if (session.endedAtMs !== undefined || session.issuer !== issuer) return 'operator_revoked'
  if (session.expiresAtMs <= nowMs) return 'operator_expired'
  const operatorId = operatorIdOf(session)
  return { id: operatorId, name: operatorId, role: session.role, session: id, expiresAtMs: session.expiresAtMs }
}

/** A session after a change, and the entry that records it; no entry where nothing changed. */
export interface ChangedSession {
  readonly session: StoredSession
  readonly auditIndex?: number
}

/** Ends a session: its credential proves nothing from the commit on, on every process. Throws `not_found`. */
export async function endSession(broker: Pick<Broker, 'ledger'>, caller: Caller, id: string, reason?: string): Promise<ChangedSession> {
  const { result, index } = await commit(broker, {
    async apply(tx, { timeMs }) {
      const session = await findSession(tx, id)
      if (session === undefined) throw new BrokerError({ code: 'not_found', publicMessage: `There is no session ${id}.` })
      // What has expired has ended by itself.
      if (session.endedAtMs !== undefined || session.expiresAtMs <= timeMs) {
        return { result: { session, recorded: false }, unrecorded: 'nothing changed' }
      }
      await markSessionsEnded(tx, [id], timeMs)
      return {
        result: { session: { ...session, endedAtMs: timeMs }, recorded: true },
        // No decision reads sessions: each request of an operator reads the row itself.
        raisesEpoch: false,
        events: [describeEnd(session, caller, reason)],
      }
    },
  })
  return { session: result.session, ...(result.recorded && { auditIndex: index }) }
}

const sessionsPerCommit = 100

/**
 * Ends all live sessions of one person, and returns how many. It keeps nobody from signing in again: that is the company
 * issuer's to refuse.
 */
export async function endSessionsOf(broker: Pick<Broker, 'ledger'>, caller: Caller, subject: string, reason?: string): Promise<number> {
  for (let ended = 0; ; ) {
    const { result } = await commit(broker, {
      async apply(tx, { timeMs }) {
        const live = await listSessions(tx, { subject, status: 'live', limit: sessionsPerCommit }, timeMs)
        const [first, ...rest] = live.map((session) => describeEnd(session, caller, reason))
        if (first === undefined) return { result: 0, unrecorded: 'nothing changed' }
        await markSessionsEnded(tx, live.map(({ id }) => id), timeMs)
        return { result: live.length, raisesEpoch: false, events: [first, ...rest] }
      },
    })
    ended += result
    if (result < sessionsPerCommit) return ended
  }
}

/** The event of a session's end. */
export function describeEnd({ id, subject }: StoredSession, caller: Caller, reason: string | undefined): AuditEvent {
  return { type: 'operator.signed_out', ...causedBy(caller), session: id, subject, ...(reason !== undefined && { reason }) }
}

/** How long a session stays listed after its end; the log keeps it for ever. */
const keepMs = 7 * 86_400_000
const deletedPerCommit = 500

/** Deletes sessions that are long over, in small commits, so that issuance is never held up for long. */
export async function forgetSessions(broker: Pick<Broker, 'ledger'>): Promise<void> {
  const forget = () =>
    commit(broker, {
      async apply(tx, { timeMs }) {
        return { result: await deleteExpiredSessions(tx, timeMs - keepMs, deletedPerCommit), unrecorded: 'housekeeping' }
      },
    })
  while ((await forget()).result === deletedPerCommit);
}
