import type { CompiledQuery, Kysely } from 'kysely'
import type { Entry } from '../audit/entry.ts'
import type { GrantTable, LogHeadTable, Schema } from './schema.ts'

export type Engine = 'sqlite' | 'postgres'

export type GrantRow = GrantTable

export type HeadRow = Omit<LogHeadTable, 'id'>

export interface ReplayMark {
  /** Base64url SHA-256 over issuer, subject and `jti`. */
  readonly id: string
  /** After this instant by the ledger's time the assertion is refused as expired, and the mark may go. */
  readonly expiresAtMs: number
}

/**
 * One write transaction, which holds the log head's lock from its first statement. Only the ledger uses it: the
 * statements of every batch are here because each engine has its own fastest form of them.
 */
export interface WriteTransaction {
  readonly db: Kysely<Schema>
  execute(query: CompiledQuery): Promise<void>
  /** The head, under its lock until the transaction ends. */
  lockHead(): Promise<HeadRow>
  moveHead(head: HeadRow): Promise<void>
  /** Inserts the marks that are not there yet and returns the ids that were. Ids must be distinct. */
  insertReplayMarks(marks: readonly ReplayMark[]): Promise<ReadonlySet<string>>
  insertGrants(rows: readonly GrantRow[]): Promise<void>
  insertEntries(entries: readonly Entry[]): Promise<void>
}

/** A database that is open: one handle for reading, and write transactions one at a time. */
export interface Database {
  readonly engine: Engine
  /** For reading only. Sees what is committed, on the newest state of this database. */
  readonly read: Kysely<Schema>
  /** For migrations alone, while nothing else runs. */
  readonly maintenance: Kysely<Schema>
  /**
   * Runs `body` in a transaction under the head's lock and commits. A thrown error rolls everything back. A COMMIT whose
   * outcome is not known throws `CommitUnknown`.
   */
  write<T>(body: (transaction: WriteTransaction) => Promise<T>): Promise<T>
  /** Whether an error concerns the transaction as a whole (disk full, I/O, lost connection) and not one statement. */
  isTransactionError(error: unknown): boolean
  /** Whether an error says that a unique key exists already. */
  isUniqueViolation(error: unknown): boolean
  close(): Promise<void>
}

/** COMMIT was sent and its answer was lost: the batch may be in the database or not. */
export class CommitUnknown extends Error {
  constructor(cause: unknown) {
    super('the answer to COMMIT was lost', { cause })
    this.name = 'CommitUnknown'
  }
}
