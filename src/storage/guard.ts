import type { Kysely, KyselyPlugin } from 'kysely'
import type { Schema } from './schema.ts'

/**
 * A transaction handle that can be taken back: once revoked, every query through it throws. A callback that runs on after
 * its time, or that keeps its handle, would otherwise write into somebody else's transaction.
 */
export function guardTransaction(db: Kysely<Schema>): { tx: Kysely<Schema>; revoke: () => void } {
  let revoked = false
  const plugin: KyselyPlugin = {
    transformQuery({ node }) {
      if (revoked) throw new Error('this transaction is over: a ledger callback must not use its handle afterwards')
      return node
    },
    transformResult: async ({ result }) => result,
  }
  return {
    tx: db.withPlugin(plugin),
    revoke: () => {
      revoked = true
    },
  }
}
