import { sql } from 'kysely'
import pg from 'pg'
import { vi } from 'vitest'
import type { TestBroker } from '../broker.ts'

/** Makes the log impossible to write, and possible again. Returns once this process reads again. */
export async function setReadOnly({ broker: { database }, database: { ownerLocation } }: TestBroker, readOnly: boolean): Promise<void> {
  const state = readOnly ? 'on' : 'off'
  if (database.engine === 'sqlite') {
    await sql.raw(`pragma query_only = ${state}`).execute(database.maintenance)
    return
  }
  const url = new URL(ownerLocation)
  const name = url.pathname.slice(1)
  // From another database, so that this connection does not count as one of its own.
  url.pathname = '/postgres'
  const owner = new pg.Client({ connectionString: url.href })
  await owner.connect()
  await owner.query(`alter database ${name} set default_transaction_read_only = ${state}`)
  // It is for new connections, so the old ones go. The pool finds that out one by one.
  await owner.query('select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = $1', [name])
  await owner.end()
  const select = () => sql`select 1`.execute(database.read)
  await vi.waitFor(() => Promise.all(Array.from({ length: 8 }, select)), { timeout: 10_000 })
}
