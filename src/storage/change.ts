import type { Kysely } from 'kysely'
import type { AuditEvent } from '../audit/event.ts'
import type { GrantRow, ReplayMark } from './engine.ts'
import type { Schema } from './schema.ts'

/** At least one: a change without a record does not compile. */
export type Events = readonly [AuditEvent, ...AuditEvent[]]

/** What a commit is tied to, whichever form the change has. */
export interface Conditions {
  /** The epoch under which the change was decided; absent when it depends on nothing that the epoch stands for. */
  readonly epoch?: number
  /** The assertion that this change spends: it takes effect once, or not at all. */
  readonly mark?: ReplayMark | undefined
}

/** A hot change: plain values, inserted together with those of all other requests of the moment. */
export interface RowsChange extends Conditions {
  /** `issued_index` and `issued_at` are filled in by the ledger. */
  readonly grant?: Omit<GrantRow, 'issued_index' | 'issued_at' | 'revoked_index'>
  readonly events: Events
  /**
   * Checked under the log's lock, for a decision that rests on more than the epoch stands for, such as a count of recent
   * grants. Where it answers no, the change counts as decided under an epoch that has moved.
   */
  stillHolds?(tx: Kysely<Schema>, place: Place): Promise<boolean>
  /** Writes what belongs to the grant, in the same transaction and after its row. */
  also?(tx: Kysely<Schema>, place: Place): Promise<void>
}

/** Where and when a change will stand in the log. */
export interface Place {
  /** The index that the change's first event will have. */
  readonly index: number
  /** The ledger's time. */
  readonly timeMs: number
}

/** What a change by callback did: something, with its record, or nothing that an auditor could miss. */
export type Outcome<R> =
  | { readonly result: R; readonly events: Events; readonly raisesEpoch: boolean }
  | { readonly result: R; readonly unrecorded: 'nothing changed' | 'housekeeping' }

/**
 * Any other change: a short callback that touches nothing but the `tx` it is given, and awaits nothing else. It may run
 * more than once, when the batch it was in has to begin again.
 */
export interface CallbackChange<R> extends Conditions {
  apply(tx: Kysely<Schema>, place: Place): Promise<Outcome<R>>
  /** Whether it is committed although the ledger is held: what ends the hold. */
  readonly whileHeld?: boolean
}

/** Why a change was not committed although the database is well. Nothing of it is stored. */
export type NotRecorded =
  | { readonly status: 'epoch_moved' }
  | { readonly status: 'replayed' }
  | { readonly status: 'late' }

export type Recorded<R> = ({ readonly status: 'recorded'; readonly result: R } & Place) | NotRecorded
