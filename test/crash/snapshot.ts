import { setTimeout } from 'node:timers/promises'
import SqliteDatabase from 'better-sqlite3'
import { Kysely, PostgresDialect, SqliteDialect } from 'kysely'
import pg from 'pg'
import type { Schema } from '../../src/storage/schema.ts'
import type { Site } from './site.ts'

/** What a database holds at one moment: the log from an index on, and the state that it led to. */
export interface Snapshot {
  readonly head: { readonly size: number; readonly timeMs: number; readonly root: Buffer; readonly frontier: Buffer }
  readonly entries: readonly Row[]
  readonly checkpoints: readonly { readonly size: number; readonly root: Buffer; readonly note: string }[]
  /** Issued, or ended, by an entry of that index or a later one. */
  readonly grants: readonly { readonly id: string; readonly issuedIndex: number; readonly revokedIndex: number | null; readonly expiresAtMs: number }[]
  readonly revocations: readonly { readonly index: number; readonly workload: string | null; readonly task: string | null; readonly tool: string | null }[]
  readonly workloads: ReadonlyMap<string, string>
  readonly policyInForce: { readonly hash: string; readonly index: number } | undefined
  readonly signingKids: ReadonlySet<string>
}

export interface Row {
  readonly index: number
  readonly time: string
  readonly columns: readonly (string | null)[]
  readonly body: string
  readonly leafHash: Buffer
}

/**
 * Reads the database itself, on a connection that is closed again at once: one that stayed open would keep the next broker
 * from recovering the file as it does after a crash.
 */
export async function readSnapshot(site: Pick<Site, 'engine' | 'database'>, from: number): Promise<Snapshot> {
  return readAtOnce(site, (tx) => read(tx, from))
}

/** The same for whatever is read, at one moment. */
export async function readAtOnce<T>({ engine, database }: Pick<Site, 'engine' | 'database'>, look: (tx: Kysely<Schema>) => Promise<T>): Promise<T> {
  const db = engine === 'sqlite' ? openFile(database) : openUrl(database)
  try {
    const transaction = db.transaction()
    // SQLite has this isolation always, and no other.
    const isolated = engine === 'sqlite' ? transaction : transaction.setIsolationLevel('repeatable read')
    return await isolated.execute(look)
  } finally {
    await db.destroy()
  }
}

/** When each of the replay marks expires that are kept. */
export async function readMarks(site: Pick<Site, 'engine' | 'database'>): Promise<number[]> {
  const rows = await readAtOnce(site, (tx) => tx.selectFrom('replay_mark').select('expires_at').execute())
  return rows.map((row) => Date.parse(row.expires_at))
}

/**
 * Waits until no session of PostgreSQL is left that began before that moment: the server commits what a client has asked for
 * also where the client is gone by then, and for a moment after its end.
 */
export async function untilSettled({ engine, database }: Pick<Site, 'engine' | 'database'>, beganMs: number): Promise<void> {
  if (engine === 'sqlite') return
  const client = new pg.Client({ connectionString: database })
  await client.connect()
  try {
    const older = 'select 1 from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() and backend_start < to_timestamp($1)'
    const giveUpMs = performance.now() + 60_000
    while (((await client.query(older, [beganMs / 1000])).rowCount ?? 0) > 0) {
      if (performance.now() > giveUpMs) throw new Error('a session of the broker that is gone goes on')
      await setTimeout(5)
    }
  } finally {
    await client.end()
  }
}

/** Whether anybody else has a session with this database of PostgreSQL. */
export async function hasSession(url: string): Promise<boolean> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  const { rowCount } = await client.query('select 1 from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()')
  await client.end()
  return (rowCount ?? 0) > 0
}

function openFile(file: string): Kysely<Schema> {
  return new Kysely<Schema>({ dialect: new SqliteDialect({ database: new SqliteDatabase(file, { readonly: true, fileMustExist: true }) }) })
}

function openUrl(url: string): Kysely<Schema> {
  const pool = new pg.Pool({ connectionString: url, max: 1 })
  // A server that is stopped ends idle connections too.
  pool.on('error', () => undefined)
  return new Kysely<Schema>({ dialect: new PostgresDialect({ pool }) })
}

async function read(tx: Kysely<Schema>, from: number): Promise<Snapshot> {
  const head = await tx.selectFrom('log_head').selectAll().executeTakeFirstOrThrow()
  const entries = await tx.selectFrom('audit_event').selectAll().where('idx', '>=', from).orderBy('idx').execute()
  const checkpoints = await tx.selectFrom('checkpoint').select(['size', 'root', 'note']).orderBy('size').execute()
  const grants = await tx
    .selectFrom('grants')
    .select(['id', 'issued_index', 'revoked_index', 'expires_at'])
    .where((eb) => eb.or([eb('issued_index', '>=', from), eb('revoked_index', '>=', from)]))
    .execute()
  const revocations = await tx.selectFrom('revocation').select(['idx', 'workload', 'task', 'tool']).where('idx', '>=', from).execute()
  const workloads = await tx.selectFrom('workload').select(['name', 'status']).execute()
  const inForce = await tx.selectFrom('policy_in_force').select(['hash', 'event_index']).executeTakeFirst()
  const keys = await tx.selectFrom('signing_key').select('kid').where('use', '=', 'token').execute()
  // PostgreSQL's driver gives `bigint` as text.
  return {
    head: { size: Number(head.size), timeMs: Date.parse(head.time), root: Buffer.from(head.root), frontier: Buffer.from(head.frontier) },
    entries: entries.map((row) => ({
      index: Number(row.idx),
      time: row.time,
      columns: [row.type, row.workload, row.tool, row.grant_id, row.task],
      body: row.body,
      leafHash: Buffer.from(row.leaf_hash),
    })),
    checkpoints: checkpoints.map(({ size, root, note }) => ({ size: Number(size), root: Buffer.from(root), note })),
    grants: grants.map((row) => ({
      id: row.id,
      issuedIndex: Number(row.issued_index),
      revokedIndex: row.revoked_index === null ? null : Number(row.revoked_index),
      expiresAtMs: Date.parse(row.expires_at),
    })),
    revocations: revocations.map(({ idx, workload, task, tool }) => ({ index: Number(idx), workload, task, tool })),
    workloads: new Map(workloads.map(({ name, status }) => [name, status])),
    policyInForce: inForce && { hash: inForce.hash, index: Number(inForce.event_index) },
    signingKids: new Set(keys.map(({ kid }) => kid)),
  }
}
