import type { Entry } from '../audit/entry.ts'
import { BrokerError } from '../kernel/errors.ts'
import type { CommitUnknown, Database } from './engine.ts'

/** COMMIT was sent, and the batch is not in the log: it may be tried again, by whoever asked for its changes. */
export class CommitLost extends Error {
  constructor(cause: unknown) {
    super('COMMIT was sent and did not take effect', { cause })
    this.name = 'CommitLost'
  }
}

/** COMMIT was sent, and the log could not be read in time: nobody knows here whether the batch is in it. */
export class CommitUnsettled extends BrokerError {
  constructor(cause: unknown) {
    super({
      code: 'unavailable',
      publicMessage: 'the audit log cannot be reached, and whether the change is in it is not known: look before you try again',
      cause,
    })
  }
}

/**
 * Whether a batch whose COMMIT was not answered is in the log: the salt makes its first entry's hash unlike any other.
 * Taking the head's lock waits until the server has ended the transaction one way or the other. A batch without entries
 * counts as lost, for nothing was given on its strength. Throws `CommitUnsettled` after `msMax`.
 */
export async function findCommitted(
  database: Database,
  first: Entry | undefined,
  unknown: CommitUnknown,
  msMax: number,
): Promise<boolean> {
  if (first === undefined) return false
  const deadlineMs = performance.now() + msMax
  for (let waitMs = 50; ; waitMs = Math.min(waitMs * 2, 1_000)) {
    try {
      return await database.write(async ({ db, lockHead }) => {
        await lockHead()
        const found = await db.selectFrom('audit_event').select('leaf_hash').where('idx', '=', first.index).executeTakeFirst()
        return found !== undefined && first.leafHash.equals(found.leaf_hash)
      })
    } catch (error) {
      if (performance.now() + waitMs > deadlineMs) throw new CommitUnsettled(new AggregateError([unknown.cause, error]))
      await new Promise((resolve) => setTimeout(resolve, waitMs))
    }
  }
}
