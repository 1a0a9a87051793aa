import { Kysely, type ConnectionProvider, type Dialect, type Driver } from 'kysely'
import type { Schema } from './schema.ts'

/**
 * A transaction handle that can be taken back: once revoked, no query through it reaches the connection, in whatever way
 * it was made or when. A callback that runs on after its time, or that keeps its handle, would otherwise write into
 * somebody else's transaction. A transaction within it is refused: its COMMIT would be that of the whole batch.
 */
export function guardTransaction(db: Kysely<Schema>): { tx: Kysely<Schema>; revoke: () => void } {
  let revoked = false
  const inner = db.getExecutor()
  const provider: ConnectionProvider = {
    provideConnection: (consumer, options) =>
      inner.provideConnection(async (connection) => {
        // Asked here rather than when the query is made: it may have waited for the connection.
        if (revoked) throw new Error('this transaction is over: a ledger callback must not use its handle afterwards')
        return consumer(connection)
      }, options),
  }
  const executor = inner.withConnectionProvider(provider)
  return {
    tx: new Kysely({ config: { dialect: noDialect }, dialect: noDialect, driver: noDriver, executor }),
    revoke: () => {
      revoked = true
    },
  }
}

function refuse(): never {
  throw new Error('a ledger callback has the queries of its handle, and no transaction or connection of its own')
}

const noDriver: Driver = {
  init: refuse,
  acquireConnection: refuse,
  beginTransaction: refuse,
  commitTransaction: refuse,
  rollbackTransaction: refuse,
  releaseConnection: refuse,
  destroy: refuse,
}

const noDialect: Dialect = { createAdapter: refuse, createDriver: refuse, createIntrospector: refuse, createQueryCompiler: refuse }
