import { parsePublicKeys } from '../identity/public-key.ts'
import { parseRegistration, parseUpdate } from '../identity/registration.ts'
import { keysMax, keyStatus, type Workload, type WorkloadKey } from '../identity/workload.ts'
import { formatTime } from '../kernel/clock.ts'
import { BrokerError } from '../kernel/errors.ts'
import type { JsonObject } from '../audit/encode.ts'
import type { Kysely } from 'kysely'
import type { Schema } from '../storage/schema.ts'
import { findKeyOwners, findWorkload, insertWorkload, insertWorkloadKeys, markKeyRemoved, updateWorkload } from '../storage/workloads.ts'
import { causedBy, type Broker, type Caller } from './broker.ts'
import { commit } from './commit.ts'
import { hasRoomForKeys } from './new-key.ts'

/** A workload after a change, and the entry that records it; no entry where nothing changed. */
export interface ChangedWorkload {
  readonly workload: Workload
  readonly auditIndex?: number
}

/** Registers a workload from a request body; without keys it can do nothing until it has enrolled one. Throws `invalid_input`, or `conflict` for a name or key that was ever used. */
export async function registerWorkload(broker: Broker, caller: Caller, body: unknown): Promise<ChangedWorkload> {
  const { jwks, ...registration } = parseRegistration(body, broker.ledger.nowMs())
  const publicKeys = jwks === undefined ? [] : await parsePublicKeys(jwks)
  const { result, index } = await commit(broker, {
    async apply(tx, { timeMs }) {
      if ((await findWorkload(tx, registration.name)) !== undefined) {
        throw new BrokerError({
          code: 'conflict',
          publicMessage: `The name ${registration.name} is taken; names are never used twice, also not after retirement: choose another.`,
        })
      }
      await refuseKnownKeys(tx, publicKeys.map((key) => key.kid))
      const workload: Workload = {
        ...registration,
        status: 'active',
        createdAtMs: timeMs,
        updatedAtMs: timeMs,
        keys: publicKeys.map((key) => ({ ...key, addedAtMs: timeMs })),
      }
      await insertWorkload(tx, workload)
      return {
        result: workload,
        raisesEpoch: true,
        events: [
          {
            type: 'workload.registered',
            ...causedBy(caller),
            workload: workload.name,
            ...describe(workload),
            environment: workload.environment,
            kids: workload.keys.map((key) => key.kid),
          },
        ],
      }
    },
  })
  return { workload: result, auditIndex: index }
}

/** Changes what may change about a workload. Throws `invalid_input`, `not_found`, or `conflict` for a retired one. */
export async function changeWorkload(broker: Broker, caller: Caller, name: string, body: unknown): Promise<ChangedWorkload> {
  const update = parseUpdate(body, broker.ledger.nowMs())
  const { result, index } = await commit(broker, {
    async apply(tx, { timeMs }) {
      const before = await requireWorkload(tx, name, 'changed')
      const after: Workload = { ...before, ...update, updatedAtMs: timeMs }
      const was: JsonObject = describe(before)
      const is: JsonObject = describe(after)
      const changed = Object.keys(is).filter((key) => JSON.stringify(is[key]) !== JSON.stringify(was[key]))
      if (changed.length === 0) return { result: { workload: before, recorded: false }, unrecorded: 'nothing changed' }
      await updateWorkload(tx, after)
      const pick = (from: JsonObject) => Object.fromEntries(changed.map((key) => [key, from[key]]))
      return {
        result: { workload: after, recorded: true },
        raisesEpoch: true,
        events: [{ type: 'workload.updated', ...causedBy(caller), workload: name, before: pick(was), after: pick(is) }],
      }
    },
  })
  return { workload: result.workload, ...(result.recorded && { auditIndex: index }) }
}

/** Adds public keys beside those that are there. Throws `conflict` for a key that was ever registered. */
export async function addWorkloadKeys(broker: Broker, caller: Caller, name: string, jwks: unknown): Promise<ChangedWorkload> {
  const publicKeys = await parsePublicKeys(jwks)
  const { result, index } = await commit(broker, {
    async apply(tx, { timeMs }) {
      const before = await requireWorkload(tx, name, 'given keys')
      await refuseKnownKeys(tx, publicKeys.map((key) => key.kid))
      if (!hasRoomForKeys(before, publicKeys.length, timeMs)) {
        throw new BrokerError({ code: 'conflict', publicMessage: `A workload has at most ${keysMax} keys at a time: remove an old one first.` })
      }
      const added: WorkloadKey[] = publicKeys.map((key) => ({ ...key, addedAtMs: timeMs }))
      await insertWorkloadKeys(tx, name, added)
      const [first, ...rest] = added.map(
        ({ kid, alg }) => ({ type: 'workload.key_added', ...causedBy(caller), workload: name, kid, alg }) as const,
      )
      if (first === undefined) throw new Error('parsePublicKeys gave no key')
      return { result: { ...before, keys: [...before.keys, ...added] }, raisesEpoch: true, events: [first, ...rest] }
    },
  })
  return { workload: result, auditIndex: index }
}

/** Takes a key away for good, also one that is ending: it proves nothing from the commit on. Throws `not_found` if the workload has no such key. */
export async function removeWorkloadKey(broker: Broker, caller: Caller, name: string, kid: string): Promise<ChangedWorkload> {
  const { result, index } = await commit(broker, {
    async apply(tx, { timeMs }) {
      const workload = await requireWorkload(tx, name, 'changed')
      const key = workload.keys.find((candidate) => candidate.kid === kid)
      if (key === undefined) throw new BrokerError({ code: 'not_found', publicMessage: `${name} has no key ${kid}.` })
      if (keyStatus(key, timeMs) === 'removed') return { result: { workload, recorded: false }, unrecorded: 'nothing changed' }
      await markKeyRemoved(tx, kid, timeMs)
      const keys = workload.keys.map((candidate) => (candidate === key ? { ...key, removedAtMs: timeMs } : candidate))
      return {
        result: { workload: { ...workload, keys }, recorded: true },
        raisesEpoch: true,
        events: [{ type: 'workload.key_removed', ...causedBy(caller), workload: name, kid, alg: key.alg }],
      }
    },
  })
  return { workload: result.workload, ...(result.recorded && { auditIndex: index }) }
}

/** The workload as it stands in this transaction. Throws `not_found`, or `conflict` for a retired one: that is final. */
export async function requireWorkload(tx: Kysely<Schema>, name: string, verb: string): Promise<Workload> {
  const workload = await findWorkload(tx, name)
  if (workload === undefined) throw new BrokerError({ code: 'not_found', publicMessage: `There is no workload ${name}.` })
  if (workload.status === 'retired') {
    throw new BrokerError({ code: 'conflict', publicMessage: `${name} is retired and cannot be ${verb}: register a new workload.` })
  }
  return workload
}

async function refuseKnownKeys(tx: Kysely<Schema>, kids: readonly string[]): Promise<void> {
  const [known] = await findKeyOwners(tx, kids)
  if (known === undefined) return
  throw new BrokerError({
    code: 'conflict',
    publicMessage: `The key ${known.kid} was registered before, by ${known.workload}; a key belongs to one workload for ever: make a new one.`,
  })
}

/** What an event says of a workload. */
function describe({ stage, owner: { team, contact }, purpose, tags, reviewAtMs }: Workload) {
  return { stage, owner: { team, contact }, purpose, tags, review_at: formatTime(reviewAtMs) }
}
