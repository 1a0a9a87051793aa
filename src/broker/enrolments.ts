import type { Kysely } from 'kysely'
import type { AuditEvent } from '../audit/event.ts'
import { judgeStanding } from '../identity/authenticate.ts'
import { createCredential } from '../identity/credential.ts'
import { enrolmentLifetimeMs, enrolmentStatus, type Enrolment } from '../identity/enrolment.ts'
import { formatTime } from '../kernel/clock.ts'
import { BrokerError } from '../kernel/errors.ts'
import type { Secret } from '../kernel/secret.ts'
import type { Schema } from '../storage/schema.ts'
import { endEnrolment, findEnrolment, findOpenEnrolments, insertEnrolment } from '../storage/enrolments.ts'
import { causedBy, type Broker, type Caller } from './broker.ts'
import { commit } from './commit.ts'
import { hasRoomForKeys } from './new-key.ts'
import { requireWorkload } from './register.ts'

/** An enrolment after a change, and the entry that records it; no entry where nothing changed. */
export interface ChangedEnrolment {
  readonly enrolment: Enrolment
  readonly auditIndex?: number
}

/** An enrolment that was just made. The code is shown once: only its hash is stored. */
export interface CreatedEnrolment {
  readonly enrolment: Enrolment
  readonly code: Secret
  readonly auditIndex: number
}

/**
 * Makes a code with which whoever holds it first registers a key for the workload. A workload has one such code at a time:
 * an earlier one that was not redeemed is cancelled. Throws `not_found`, or `conflict` where the key could not be used.
 */
export async function createEnrolment(broker: Broker, caller: Caller, name: string): Promise<CreatedEnrolment> {
  const { id, credential: code, secretHash: codeHash } = createCredential(broker.random, 'enrolment')
  const { result, index } = await commit(broker, {
    async apply(tx, { timeMs }) {
      const workload = await requireWorkload(tx, name, 'given keys')
      const standing = judgeStanding(workload, timeMs)
      if (standing === 'workload_suspended') throw conflict(`${name} is suspended: resume it first, with \`stint workload resume ${name}\`.`)
      if (standing !== undefined) {
        throw conflict(`The review date of ${name} has passed: move it first, with \`stint workload update ${name} --review-at DATE\`.`)
      }
      if (!hasRoomForKeys(workload, 1, timeMs)) throw conflict(`${name} has as many keys as it may: remove an old one first.`)
      const cancelled = await cancelOpenEnrolments(tx, caller, name, timeMs)
      const enrolment = { id, workload: name, codeHash, createdAtMs: timeMs, expiresAtMs: timeMs + enrolmentLifetimeMs }
      await insertEnrolment(tx, enrolment)
      return {
        result: enrolment,
        // No decision reads enrolments; a redemption looks at its own in its transaction.
        raisesEpoch: false,
        events: [
          { type: 'enrolment.created', ...causedBy(caller), workload: name, enrolment: id, expires_at: formatTime(enrolment.expiresAtMs) },
          ...cancelled,
        ],
      }
    },
  })
  return { enrolment: result, code, auditIndex: index }
}

/** Ends the workload's codes that were not redeemed, within a change that says why, and returns the events of it. */
export async function cancelOpenEnrolments(tx: Kysely<Schema>, caller: Caller, workload: string, timeMs: number): Promise<AuditEvent[]> {
  const open = await findOpenEnrolments(tx, workload, timeMs)
  for (const { id } of open) await endEnrolment(tx, id, timeMs)
  return open.map(({ id }) => ({ type: 'enrolment.cancelled', ...causedBy(caller), workload, enrolment: id }))
}

/**
 * Ends a code that was not redeemed. Throws `not_found`, or `conflict` for one that was: its key is there, and is taken
 * away as any other.
 */
export async function cancelEnrolment(broker: Broker, caller: Caller, name: string, id: string): Promise<ChangedEnrolment> {
  const { result, index } = await commit(broker, {
    async apply(tx, { timeMs }) {
      const enrolment = await findEnrolment(tx, id)
      if (enrolment?.workload !== name) {
        throw new BrokerError({ code: 'not_found', publicMessage: `${name} has no enrolment ${id}.` })
      }
      const status = enrolmentStatus(enrolment, timeMs)
      if (status === 'redeemed') {
        throw conflict(`The code was redeemed: take its key away with \`stint workload remove-key ${name} --kid=${enrolment.kid ?? ''}\`.`)
      }
      if (status !== 'open') return { result: { enrolment, recorded: false }, unrecorded: 'nothing changed' }
      await endEnrolment(tx, id, timeMs)
      return {
        result: { enrolment: { ...enrolment, endedAtMs: timeMs }, recorded: true },
        raisesEpoch: false,
        events: [{ type: 'enrolment.cancelled', ...causedBy(caller), workload: name, enrolment: id }],
      }
    },
  })
  return { enrolment: result.enrolment, ...(result.recorded && { auditIndex: index }) }
}

function conflict(publicMessage: string): BrokerError {
  return new BrokerError({ code: 'conflict', publicMessage })
}
