import type { AuditEvent } from '../audit/event.ts'
import { hasEnded } from '../crypto/key-life.ts'
import { formatTime } from '../kernel/clock.ts'
import { BrokerError } from '../kernel/errors.ts'
import { endOpenEnrolments } from '../storage/enrolments.ts'
import { listSigningKeys } from '../storage/keys.ts'
import { listRestorations } from '../storage/restorations.ts'
import { endLiveSessions } from '../storage/sessions.ts'
import { isAccepted, type Contradiction } from './anchor-contradiction.ts'
import { causedBy, type Broker, type Caller } from './broker.ts'
import { commit } from './commit.ts'
import { makeSigningKey } from './keys.ts'
import { takeOverSigning } from './rotate-signing-keys.ts'
import { describeEnd } from './sessions.ts'

/** What an admin says is lost: the checkpoints that the anchors have and this log has not, as the admin was shown them. */
export type Abandoned = Pick<Contradiction, 'anchor' | 'size' | 'root'>

export interface AcceptedRestoration {
  readonly abandoned: readonly Abandoned[]
  /** The number of entries from which the log goes on. */
  readonly size: number
  /** Assertions and ID tokens that were signed before are refused. */
  readonly proofsFromMs: number
  /** The key that signs tokens from now on; nothing that another has signed is accepted any more. */
  readonly kid: string
  readonly endedSessions: number
  readonly cancelledEnrolments: number
  readonly auditIndex: number
}

/**
 * Accepts that the log goes on although anchors have checkpoints that are not of it, as after a restored backup. In one
 * commit: whatever could have been given out, ended or used in what is lost is made worthless, by a new token key, the end
 * of all sessions and open enrolment codes, and the refusal of older proofs. Then the ledger is released, by the other
 * processes too. Throws `conflict` unless `abandoned` is exactly what holds the ledger.
 */
export async function acceptRestored(
  broker: Pick<Broker, 'ledger' | 'anchoring' | 'sealer'>,
  caller: Caller,
  { abandoned, reason }: { readonly abandoned: readonly Abandoned[]; readonly reason: string },
): Promise<AcceptedRestoration> {
  const { ledger, anchoring, sealer } = broker
  const found = anchoring.contradictions()
  judgeAcceptance(ledger.held, found, abandoned)
  // A commit awaits nothing but its queries: the key is made beforehand.
  const made = await makeSigningKey(sealer)
  const { result, index } = await commit(broker, {
    whileHeld: true,
    async apply(tx, { index, timeMs }) {
      const restorations = await listRestorations(tx)
      const [before] = restorations
      if (before !== undefined && found.every((contradiction) => isAccepted(contradiction, restorations))) {
        throw refuse(`This was accepted already, by entry ${before.index}: the broker goes on within a second.`)
      }
      // An anchor's clock may have been ahead of this one: what it kept then was used before then.
      const proofsFromMs = Math.max(timeMs, before?.proofsFromMs ?? 0, ...found.map(({ atMs = 0 }) => atMs))
      const live = (await listSigningKeys(tx)).filter((key) => !hasEnded(key, timeMs))
      const keyEvents = await takeOverSigning({ tx, caller }, made, live, timeMs)
      const enrolments = await endOpenEnrolments(tx, timeMs)
      const sessions = await endLiveSessions(tx, timeMs)
      const restored: AuditEvent = {
        type: 'log.restored',
        ...causedBy(caller),
        abandoned: found.map(toAbandoned),
        proofs_from: formatTime(proofsFromMs),
        reason,
      }
      const cancelled = enrolments.map(({ id, workload }): AuditEvent => ({ type: 'enrolment.cancelled', ...causedBy(caller), workload, enrolment: id }))
      const ended = sessions.map((session) => describeEnd(session, caller, 'the log was restored'))
      return {
        result: { size: index, proofsFromMs, endedSessions: ended.length, cancelledEnrolments: cancelled.length },
        raisesEpoch: true,
        events: [restored, ...keyEvents, ...cancelled, ...ended],
      }
    },
  })
  await anchoring.settle()
  return { ...result, abandoned: found.map(toAbandoned), kid: made.kid, auditIndex: index }
}

/** Throws unless the admin was shown what there is: an acceptance is of these checkpoints, not of whatever comes. */
function judgeAcceptance(held: string | undefined, found: readonly Contradiction[], abandoned: readonly Abandoned[]): void {
  if (found.length === 0) {
    const why = held === undefined ? 'the log is not held' : 'the log contradicts its own checkpoint, which nobody can accept: put a sound backup in its place'
    throw refuse(`There is nothing to accept: ${why}.`)
  }
  const listed = (all: readonly Abandoned[]) => JSON.stringify(all.map(({ anchor, size, root = '' }) => [anchor, size, root]).toSorted())
  if (listed(found) !== listed(abandoned)) {
    throw refuse(`That is not what holds the log: ${found.map(({ why }) => why).join('; ')}. Look at it again with \`stint audit accept-restored\`.`)
  }
}

function toAbandoned({ anchor, size, root }: Contradiction): Abandoned {
  return { anchor, size, ...(root !== undefined && { root }) }
}

function refuse(publicMessage: string): BrokerError {
  return new BrokerError({ code: 'conflict', publicMessage })
}
