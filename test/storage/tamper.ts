import SqliteDatabase from 'better-sqlite3'
import pg from 'pg'
import type { TestDatabase } from '../harness.ts'

/** Runs plain SQL as somebody who has the database itself, with the guards off. `x'…'` is bytes on either engine. */
export async function tamper(files: TestDatabase, ...statements: string[]): Promise<void> {
  if (files.engine === 'sqlite') {
    const handle = new SqliteDatabase(files.location)
    const triggers = handle.prepare("select name from sqlite_master where type = 'trigger'").pluck().all()
    for (const statement of [...triggers.map((name) => `drop trigger ${String(name)}`), ...statements]) handle.exec(statement)
    handle.close()
    return
  }
  const client = new pg.Client({ connectionString: files.ownerLocation })
  await client.connect()
  try {
    await client.query('set session_replication_role = replica')
    for (const statement of statements) await client.query(statement.replaceAll(/x'([0-9a-f]*)'/g, "'\\x$1'::bytea"))
  } finally {
    await client.end()
  }
}
