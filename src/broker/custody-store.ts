import type { Kysely } from 'kysely'
import type { AuditEvent } from '../audit/event.ts'
import { leaseMs } from '../grant/lifetime.ts'
import type { Secret } from '../kernel/secret.ts'
import type { Outcome } from '../storage/change.ts'
import { findRestoredMs } from '../storage/restorations.ts'
import type { Schema } from '../storage/schema.ts'
import { findCustody, findLostCustodies, findSecret, putCustody, type StoredCustody } from '../storage/secrets.ts'
import { causedBy, type Broker, type Caller } from './broker.ts'
import { commit } from './commit.ts'
import { describeStored, missingSecret, openSecret, sealNext } from './secrets.ts'

/** A use of a secret. The row of its custody is this owner's until the end of the use is stored. */
export interface Use {
  readonly name: string
  readonly tool: string
  readonly owner: string
}

/** What a use came to. `secret` is what was lent, where it may still be good. */
export type UseEnd =
  | { readonly state: 'ready'; readonly secret?: Secret; readonly replacement?: Secret | undefined }
  | { readonly state: 'used_up'; readonly problem: string }

/** The commits of a custody. */
export interface CustodyStore {
  /** Takes the row, and gives the secret. Throws `ConnectorError` where there is none that opens. */
  take(use: Use): Promise<Secret | 'in_use' | 'used_up'>
  /** Whether the row is this owner's. */
  isOwn(use: Use): Promise<boolean>
  /** Whether somebody has the secret, and may still come back. */
  isInUse(name: string): Promise<boolean>
  /** Stores the end of a use; a second time it changes nothing. */
  end(use: Use, end: UseEnd): Promise<void>
  /** Marks as used up what was taken and not given back in its time: the process that had it is gone. */
  sweep(): Promise<void>
}

const caller: Caller = { actor: { kind: 'stint', id: 'custody' } }
const problemCharactersMax = 500
const lostProblem = 'a process took the refresh token and did not come back: whether it was used up is not known'
const restoredProblem = 'the log was restored from a backup, and the refresh token may have been used up since that was made'

export function createCustodyStore({ database, ledger, sealer, log }: Pick<Broker, 'database' | 'ledger' | 'sealer' | 'log'>): CustodyStore {
  /** The log has it once, however often it is found. */
  async function markUsedUp<R>(tx: Kysely<Schema>, custody: StoredCustody, problem: string, result: R): Promise<Outcome<R>> {
    const shown = problem.slice(0, problemCharactersMax)
    const known = custody.state === 'used_up'
    await putCustody(tx, { ...custody, state: 'used_up', problem: shown })
    if (known) return { result, unrecorded: 'housekeeping' }
    log.error('a tool needs reconnection', { tool: custody.tool, secret: custody.name, problem: shown })
    const event: AuditEvent = { type: 'tool.needs_reconnection', ...causedBy(caller), tool: custody.tool, detail: shown }
    return { result, raisesEpoch: false, events: [event] }
  }

  return {
    async take({ name, tool, owner }) {
      const { result } = await commit<Secret | 'in_use' | 'used_up'>({ ledger }, {
        async apply(tx, { timeMs }) {
          const custody = await findCustody(tx, name)
          if (custody?.state === 'used_up') return { result: 'used_up', unrecorded: 'nothing changed' }
          if (custody?.state === 'in_use') {
            if (!isLost(custody, timeMs)) return { result: 'in_use', unrecorded: 'nothing changed' }
            // Its owner stays named: a process that was only slow may still bring it back.
            return markUsedUp(tx, custody, lostProblem, 'used_up')
          }
          const newest = await findSecret(tx, name)
          if (newest === undefined) throw missingSecret(name, `the refresh token of the tool ${tool}`)
          // A backup brings back what was used up since.
          if (newest.createdAtMs < ((await findRestoredMs(tx)) ?? 0)) return markUsedUp(tx, { name, tool, state: 'ready' }, restoredProblem, 'used_up')
          const secret = openSecret({ sealer }, newest)
          await putCustody(tx, { name, tool, state: 'in_use', owner, leaseUntilMs: timeMs + leaseMs })
          return { result: secret, unrecorded: 'housekeeping' }
        },
      })
      return result
    },

    isOwn: async ({ name, owner }) => (await findCustody(database.read, name))?.owner === owner,

    async isInUse(name) {
      const custody = await findCustody(database.read, name)
      return custody?.state === 'in_use' && !isLost(custody, ledger.nowMs())
    },

    async end({ name, tool, owner }, end) {
      const { result: stored } = await commit<boolean>({ ledger }, {
        async apply(tx, { timeMs }) {
          const custody = await findCustody(tx, name)
          // It was stored already, or an admin has put another secret since, which stays.
          if (custody?.owner !== owner) return { result: false, unrecorded: 'nothing changed' }
          if (end.state === 'used_up') return markUsedUp(tx, { name, tool, state: custody.state }, end.problem, true)
          await putCustody(tx, { name, tool, state: 'ready' })
          // What the log calls used up comes back by an entry of its own, also where the secret is the same.
          const next = end.replacement ?? (custody.state === 'used_up' ? end.secret : undefined)
          if (next === undefined) return { result: true, unrecorded: 'housekeeping' }
          const stored = await sealNext({ sealer }, tx, name, next, timeMs)
          return { result: true, raisesEpoch: false, events: [{ type: 'secret.stored', ...causedBy(caller), ...describeStored(stored) }] }
        },
      })
      if (!stored && end.state === 'ready' && end.replacement !== undefined) {
        log.info('a refresh token was replaced by the upstream after an admin had put another one, which stays', { secret: name, tool })
      }
    },

    async sweep() {
      for (const { name } of await findLostCustodies(database.read, ledger.nowMs())) {
        await commit({ ledger }, {
          async apply(tx, { timeMs }) {
            const custody = await findCustody(tx, name)
            if (custody?.state !== 'in_use' || !isLost(custody, timeMs)) return { result: undefined, unrecorded: 'nothing changed' }
            return markUsedUp(tx, custody, lostProblem, undefined)
          },
        })
      }
    },
  }
}

function isLost({ leaseUntilMs = 0 }: StoredCustody, nowMs: number): boolean {
  return leaseUntilMs <= nowMs
}
