import { setTimeout } from 'node:timers/promises'
import { ConnectorError } from '../connectors/connector.ts'
import { leaseMs } from '../grant/lifetime.ts'
import { newId } from '../kernel/ids.ts'
import type { Tool } from '../policy/catalog.ts'
import { findDenyList, putDenyList } from '../storage/deny-lists.ts'
import type { Broker } from './broker.ts'
import { commit } from './commit.ts'
import { latestCutOff } from './denials.ts'

/** The tool through which a list is written. */
export interface Writer {
  readonly tool: Tool
  readonly policySet: string
}

/** What came of writing a list: whether it denies anybody and what of it cannot be used, or why it could not be written. */
export type DenyListEnd = { readonly lives: boolean; readonly cutOffBeforeMs?: number; readonly problem?: string } | { readonly lives?: undefined; readonly problem: string }

/** Sees to it that one process writes a list at a time. */
export interface DenyListLeases {
  /**
   * Takes the list, or waits until another process is done with it. Returns in whose name; `undefined` where the log cannot be
   * written, so that nobody can take it: endings are carried out all the same (invariant 1). Throws `ConnectorError` where
   * its turn does not come before the signal does.
   */
  take(list: string, writer: Writer, signal: AbortSignal): Promise<string | undefined>
  /** Gives the list back; whether it was still this owner's. */
  release(list: string, owner: string, end: DenyListEnd): Promise<boolean>
}

/** How often a list is looked at that denies anybody. */
const lookEveryMs = 60_000
const pollMs = 100

export function createDenyListLeases({ database, ledger, random }: Pick<Broker, 'database' | 'ledger' | 'random'>): DenyListLeases {
  async function take(list: string, { tool, policySet }: Writer, signal: AbortSignal): Promise<string | undefined> {
    const owner = newId('denying', ledger.nowMs(), random)
    for (;;) {
      const taken = await commit<boolean>({ ledger }, {
        async apply(tx, { timeMs }) {
          const now = await findDenyList(tx, list)
          if (now?.owner !== undefined && (now.leaseUntilMs ?? 0) > timeMs) return { result: false, unrecorded: 'nothing changed' }
          const leaseUntilMs = timeMs + leaseMs
          // Whoever finds the lease over looks at it, if this process dies.
          await putDenyList(tx, { ...now, id: list, tool: tool.name, policySet, owner, leaseUntilMs, lookAtMs: Math.min(now?.lookAtMs ?? Infinity, leaseUntilMs) })
          return { result: true, unrecorded: 'housekeeping' }
        },
      }).catch((error: unknown) => {
        if (ledger.held === undefined && (ledger.failing || ledger.halted !== undefined)) return undefined
        throw error
      })
      if (taken === undefined) return undefined
      if (taken.result) return owner
      do await setTimeout(pollMs, undefined, { signal }).catch(() => undefined)
      while (!signal.aborted && (await isTaken(list)))
      if (signal.aborted) throw busy()
    }
  }

  async function isTaken(list: string): Promise<boolean> {
    const now = await findDenyList(database.read, list)
    return now?.owner !== undefined && (now.leaseUntilMs ?? 0) > ledger.nowMs()
  }

  async function release(list: string, owner: string, end: DenyListEnd): Promise<boolean> {
    const { result } = await commit<boolean>({ ledger }, {
      async apply(tx, { timeMs }) {
        const now = await findDenyList(tx, list)
        if (now?.owner !== owner) return { result: false, unrecorded: 'nothing changed' }
        const { owner: _, leaseUntilMs: __, problem: ___, lookAtMs: ____, cutOffBeforeMs: ordered, ...rest } = now
        const said = end.lives === undefined ? undefined : end.cutOffBeforeMs
        const cutOffBeforeMs = latestCutOff([ordered, said], timeMs)
        const cutOff = cutOffBeforeMs === undefined ? {} : { cutOffBeforeMs }
        // A cut-off that was ordered meanwhile is not written yet.
        const lookAtMs = end.lives !== undefined && cutOffBeforeMs !== said ? timeMs : timeMs + lookEveryMs
        const problem = end.problem === undefined ? {} : { problem: end.problem }
        if (end.lives === undefined) await putDenyList(tx, { ...rest, ...cutOff, lookAtMs, ...problem })
        else await putDenyList(tx, { ...rest, ...cutOff, ...problem, ...((end.lives || cutOffBeforeMs !== said) && { lookAtMs }), writtenAtMs: timeMs })
        return { result: true, unrecorded: 'housekeeping' }
      },
    })
    return result
  }

  return { take, release }
}

/** Others were at it for longer than anybody waits. */
export function busy(): ConnectorError {
  return new ConnectorError({ outcome: 'nothing_done', publicMessage: 'The list of what is denied is being written by others for too long: it is tried again.' })
}
