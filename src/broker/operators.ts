import type { Kysely } from 'kysely'
import { createCredential } from '../identity/credential.ts'
import { operatorStatus, type Role } from '../identity/operator.ts'
import { formatTime } from '../kernel/clock.ts'
import { BrokerError } from '../kernel/errors.ts'
import type { Secret } from '../kernel/secret.ts'
import type { Events } from '../storage/change.ts'
import {
  countLastingAdmins,
  countOperators,
  findOperatorByName,
  insertOperator,
  updateOperator,
  type StoredOperator,
} from '../storage/operators.ts'
import type { Schema } from '../storage/schema.ts'
import { causedBy, type Broker, type Caller } from './broker.ts'
import { commit } from './commit.ts'

/** An operator after a change, and the entry that records it; no entry where nothing changed. */
export interface ChangedOperator {
  readonly operator: StoredOperator
  readonly auditIndex?: number
}

/** An operator with a credential that was just made. It is shown once: only its hash is stored. */
export interface IssuedCredential extends ChangedOperator {
  readonly credential: Secret
}

/** Until when a credential lasts: a time, or that many days from the change on. */
export type Lifetime = { readonly untilMs: number } | { readonly days: number }

export interface NewOperator {
  readonly name: string
  readonly role: Role
  /** Absent: the credential does not expire. */
  readonly lifetime?: Lifetime
}

/** The longest that a credential which expires can last. */
export const lifetimeDaysMax = 3_650
const dayMs = 86_400_000

/** Makes the first operator, an admin. Throws `conflict` when there is one already. */
export function createFirstOperator(broker: Pick<Broker, 'ledger' | 'random'>, caller: Caller, name: string): Promise<IssuedCredential> {
  return issueFirstCredential(broker, caller, { name, role: 'admin' }, async (tx) => {
    if ((await countOperators(tx)) > 0) throw refuse('There is an operator already; its credential was shown when it was made.')
  })
}

/** Makes an operator. Throws `conflict` when the name was ever used, `invalid_input` for a lifetime that is over or too long. */
export function createOperator(broker: Pick<Broker, 'ledger' | 'random'>, caller: Caller, operator: NewOperator): Promise<IssuedCredential> {
  const { name } = operator
  return issueFirstCredential(broker, caller, operator, async (tx) => {
    if ((await findOperatorByName(tx, name)) === undefined) return
    throw refuse(`The name ${name} is taken; names are never used twice, also not after a revocation: choose another, or rotate its credential.`)
  })
}

async function issueFirstCredential(
  broker: Pick<Broker, 'ledger' | 'random'>,
  caller: Caller,
  { name, role, lifetime }: NewOperator,
  check: (tx: Kysely<Schema>) => Promise<void>,
): Promise<IssuedCredential> {
  const { id, credential, secretHash } = createCredential(broker.random, 'operator')
  const { result, index } = await commit(broker, {
    async apply(tx, { timeMs }) {
      await check(tx)
      const operator: StoredOperator = { id, name, role, secretHash, createdAtMs: timeMs, ...readLifetime(lifetime, timeMs) }
      await insertOperator(tx, operator)
      return { result: operator, raisesEpoch, events: [{ type: 'operator.created', ...causedBy(caller), operator: id, name, role, ...showExpiry(operator) }] }
    },
  })
  return { operator: result, credential, auditIndex: index }
}

/**
 * Gives an operator a new credential; the old one ends at once. It lasts as long as the old one would have, or as long as
 * is said. Throws `not_found`, `conflict` for an operator that was revoked, or has expired and no new lifetime was given,
 * or is the last admin for good and would get a credential that expires, and `invalid_input` as for a new operator.
 */
export async function rotateOperator(broker: Broker, caller: Caller, name: string, lifetime?: Lifetime): Promise<IssuedCredential> {
  const { result, index } = await commit(broker, {
    async apply(tx, { timeMs }) {
      const before = await requireOperator(tx, name)
      const status = operatorStatus(before, timeMs)
      if (status === 'revoked') throw refuse(`${name} was revoked, which is final: make another operator.`)
      if (status === 'expired' && lifetime === undefined) {
        throw refuse(`The credential of ${name} has expired: say how long the new one shall last.`)
      }
      const { id, credential, secretHash } = createCredential(broker.random, 'operator', before.id)
      const operator: StoredOperator = { ...before, secretHash, ...readLifetime(lifetime, timeMs) }
      if (operator.expiresAtMs !== undefined) await keepLastingAdmin(tx, before)
      await updateOperator(tx, operator)
      return {
        result: { operator, credential },
        raisesEpoch,
        events: [{ type: 'operator.rotated', ...causedBy(caller), operator: id, name, ...showExpiry(operator) }] satisfies Events,
      }
    },
  })
  return { ...result, auditIndex: index }
}

/**
 * Ends an operator for good; its name is never used again. Throws `not_found`, or `conflict` for the last admin whose
 * credential does not expire.
 */
export async function revokeOperator(broker: Broker, caller: Caller, name: string, reason: string | undefined): Promise<ChangedOperator> {
  const { result, index } = await commit(broker, {
    async apply(tx, { timeMs }) {
      const before = await requireOperator(tx, name)
      if (before.revokedAtMs !== undefined) return { result: { operator: before, recorded: false }, unrecorded: 'nothing changed' }
      await keepLastingAdmin(tx, before)
      const operator: StoredOperator = { ...before, revokedAtMs: timeMs }
      await updateOperator(tx, operator)
      return {
        result: { operator, recorded: true },
        raisesEpoch,
        events: [{ type: 'operator.revoked', ...causedBy(caller), operator: before.id, name, ...(reason !== undefined && { reason }) }],
      }
    },
  })
  return { operator: result.operator, ...(result.recorded && { auditIndex: index }) }
}

/**
 * No process remembers an operator: each request looks it up, and each change once more (invariant 13). An auditor who
 * rotates its own credential over and over would otherwise have every decision made again.
 */
const raisesEpoch = false

async function requireOperator(tx: Kysely<Schema>, name: string): Promise<StoredOperator> {
  const operator = await findOperatorByName(tx, name)
  if (operator === undefined) throw new BrokerError({ code: 'not_found', publicMessage: `There is no operator ${name}.` })
  return operator
}

/** Throws `conflict` where this operator is the one way in that nothing but a revocation could close. */
async function keepLastingAdmin(tx: Kysely<Schema>, { name, role, expiresAtMs, revokedAtMs }: StoredOperator): Promise<void> {
  const lasting = role === 'admin' && expiresAtMs === undefined && revokedAtMs === undefined
  if (!lasting || (await countLastingAdmins(tx)) > 1) return
  throw refuse(
    `${name} is the last admin whose credential does not expire, and without one everybody would be locked out: ` +
      'make another first, with `stint operator create NAME --role admin`.',
  )
}

function readLifetime(lifetime: Lifetime | undefined, nowMs: number): { expiresAtMs?: number } {
  if (lifetime === undefined) return {}
  const expiresAtMs = 'days' in lifetime ? nowMs + lifetime.days * dayMs : lifetime.untilMs
  if (expiresAtMs > nowMs && expiresAtMs <= nowMs + lifetimeDaysMax * dayMs) return { expiresAtMs }
  throw new BrokerError({ code: 'invalid_input', publicMessage: `A credential expires in the future, at most ${lifetimeDaysMax} days ahead.` })
}

function showExpiry({ expiresAtMs }: StoredOperator): { expires_at?: string } {
  return expiresAtMs === undefined ? {} : { expires_at: formatTime(expiresAtMs) }
}

function refuse(publicMessage: string): BrokerError {
  return new BrokerError({ code: 'conflict', publicMessage })
}
