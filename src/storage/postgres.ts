import { Socket } from 'node:net'
import { CompiledQuery, Kysely, PostgresDialect, sql } from 'kysely'
import pg from 'pg'
import { formatTime } from '../kernel/clock.ts'
import { BrokerError } from '../kernel/errors.ts'
import { CommitUnknown, type Database, type HeadRow, type WriteTransaction } from './engine.ts'
import type { Schema } from './schema.ts'

export interface PostgresOptions {
  /** `postgres://user:password@host/database?sslmode=…` */
  readonly url: string
  readonly readersMax?: number
  /** Where a lost connection of the pool is told; it is replaced by itself. */
  readonly onConnectionLost?: (error: Error) => void
  /** How long a connection may be silent before it is given up; more than any statement may take on the server. */
  readonly silenceMsMax?: number
  /** How long a batch waits for the log's lock before it fails. */
  readonly lockMsMax?: number
}

/** Limits of every session, so that a process that hangs cannot hold the log's lock for long. */
function sessionOptions(lockMsMax: number): string {
  return `-c lock_timeout=${lockMsMax} -c statement_timeout=15s -c idle_in_transaction_session_timeout=10s`
}

/** Opens a PostgreSQL database that any number of Stint processes share: one connection that writes, a pool that reads. */
export function openPostgres(options: PostgresOptions): Database {
  const { url, readersMax = 8, onConnectionLost = () => {}, silenceMsMax = 20_000, lockMsMax = 5_000 } = options
  if (URL.canParse(url) && new URL(url).searchParams.has('options')) {
    throw refused('the URL must not carry `options`: they would replace the time limits that keep the log from being held up')
  }
  const pool = (max: number): pg.Pool => {
    const made = new pg.Pool({
      connectionString: url,
      max,
      connectionTimeoutMillis: 5_000,
      keepAlive: true,
      options: sessionOptions(lockMsMax),
      types: { getTypeParser: typeParser },
    })
    made.on('error', onConnectionLost)
    made.on('connect', (client) => {
      // The pool listens to idle connections only: without a listener, one that breaks while in use would end the process.
      // Whoever uses it learns of it by the error of the statement.
      client.on('error', () => undefined)
      // A network that drops packets says nothing for a quarter of an hour, and the log would wait as long.
      const { stream } = client.connection
      if (stream instanceof Socket) stream.setTimeout(silenceMsMax, () => stream.destroy(new Error('the connection went silent')))
    })
    return made
  }
  const read = new Kysely<Schema>({ dialect: new PostgresDialect({ pool: pool(readersMax) }) })
  const write = new Kysely<Schema>({ dialect: new PostgresDialect({ pool: pool(1) }) })

  return {
    engine: 'postgres',
    read,
    maintenance: write,
    write(body) {
      return write.connection().execute(async (db) => {
        await sql`begin isolation level read committed`.execute(db)
        let result: Awaited<ReturnType<typeof body>>
        try {
          result = await body({ db, execute: async (query) => void (await db.executeQuery(query)), ...hotRows(db) })
        } catch (error) {
          // When the connection is gone the server has rolled back by itself.
          await sql`rollback`.execute(db).catch(() => undefined)
          throw error
        }
        const answer = await sql<{ command?: string }>`commit`.execute(db).catch((error: unknown) => {
          throw sqlState(error) === '' || isConnectionState(sqlState(error)) ? new CommitUnknown(error) : error
        })
        // After an error that nobody noticed, the server answers COMMIT with ROLLBACK and calls it a success.
        if (answer.rows[0]?.command !== 'COMMIT') throw new Error('PostgreSQL rolled the transaction back instead of committing it')
        return result
      })
    },
    isTransactionError(error) {
      const state = sqlState(error)
      // Without a state it is not the server's answer to a statement: the connection broke, or could not be had.
      if (state === '') return isDriverError(error)
      // Not 25P02: it follows a failed statement, and going back to the savepoint heals it.
      return isConnectionState(state) || /^(?:25006|25P03|40|53|55000|55P03|57014|58|XX)/.test(state)
    },
    isUniqueViolation: (error) => sqlState(error) === '23505',
    async close() {
      await write.destroy()
      await read.destroy()
    },
  }
}

const bigint = 20

/** `bigint` as a number: no count of ours reaches 2^53. Everything else as pg reads it. */
const typeParser: typeof pg.types.getTypeParser = (oid: number, format?: 'text' | 'binary') =>
  oid === bigint && format !== 'binary' ? Number : pg.types.getTypeParser(oid, format)

/** The five characters of SQLSTATE, or nothing when the error did not come from the server. */
function sqlState(error: unknown): string {
  return error instanceof pg.DatabaseError ? (error.code ?? '') : ''
}

function isConnectionState(state: string): boolean {
  return state.startsWith('08') || state.startsWith('57P')
}

// What pg and its pool say themselves when a connection is lost or cannot be had.
const driverMessage = /^(?:Connection terminated|Client (?:has|was) |timeout exceeded when trying to connect|the connection went silent)/

/** An error of the socket or of the driver. Errors of our own and of callbacks have messages and codes, too: not these. */
function isDriverError(error: unknown): boolean {
  if (!(error instanceof Error) || error instanceof BrokerError) return false
  return 'syscall' in error || ('code' in error && /^E[A-Z]+$/.test(String(error.code))) || driverMessage.test(error.message)
}

/** One statement for all rows of a batch: each column is an array, unnested by the server. */
function hotRows(db: Kysely<Schema>): Omit<WriteTransaction, 'db' | 'execute'> {
  const run = <R>(text: string, columns: readonly unknown[][]) => db.executeQuery<R>(CompiledQuery.raw(text, [...columns]))
  return {
    async lockHead() {
      const { rows } = await run<HeadRow>('select size, epoch, time, root, frontier from log_head for update', [])
      if (rows[0] === undefined) throw new Error('the log has no head')
      return rows[0]
    },
    async moveHead(h) {
      const row = [h.size, h.epoch, h.time, h.root, h.frontier]
      await db.executeQuery(CompiledQuery.raw('update log_head set size = $1, epoch = $2, time = $3, root = $4, frontier = $5 where id = 1', row))
    },
    async insertReplayMarks(marks) {
      const { rows } = await run<{ id: string }>(
        `insert into replay_mark (id, expires_at) select * from unnest($1::text[], $2::text[])
         on conflict do nothing returning id`,
        [marks.map((m) => m.id), marks.map((m) => formatTime(m.expiresAtMs))],
      )
      return new Set(rows.map((row) => row.id))
    },
    async insertGrants(g) {
      await run(
        `insert into grants
           (id, workload, tool, actions, target, task, audience, issued_index, issued_at, expires_at, revoked_index)
         select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
           $8::bigint[], $9::text[], $10::text[], $11::bigint[])`,
        [
          g.map((r) => r.id),
          g.map((r) => r.workload),
          g.map((r) => r.tool),
          g.map((r) => r.actions),
          g.map((r) => r.target),
          g.map((r) => r.task),
          g.map((r) => r.audience),
          g.map((r) => r.issued_index),
          g.map((r) => r.issued_at),
          g.map((r) => r.expires_at),
          g.map((r) => r.revoked_index),
        ],
      )
    },
    async insertEntries(e) {
      await run(
        `insert into audit_event (idx, time, type, workload, tool, grant_id, task, body, leaf_hash)
         select * from unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
           $8::text[], $9::bytea[])`,
        [
          e.map((r) => r.index),
          e.map((r) => r.time),
          e.map((r) => r.type),
          e.map((r) => r.workload ?? null),
          e.map((r) => r.tool ?? null),
          e.map((r) => r.grant ?? null),
          e.map((r) => r.task ?? null),
          e.map((r) => r.body),
          e.map((r) => r.leafHash),
        ],
      )
    },
  }
}

interface RoleFacts {
  readonly name: string
  readonly superuser: boolean
  readonly owns: boolean
  readonly writes: boolean
}

/**
 * Refuses a server or a role on which Stint's promises do not hold: commits that are not durable (invariant 1), or a role
 * that could take the log's guards away (invariant 3). Throws `config_invalid` that says what to change.
 */
export async function checkPostgres(db: Kysely<Schema>): Promise<void> {
  const { rows } = await sql<{ fsync: string; commit: string; encoding: string; pages: string }>`
    select current_setting('fsync') as fsync, current_setting('synchronous_commit') as commit,
      current_setting('server_encoding') as encoding, current_setting('full_page_writes') as pages`.execute(db)
  const settings = rows[0]
  if (settings?.fsync !== 'on') throw refused('fsync is off, so that a grant could be given and its record lost: set fsync = on')
  if (settings.pages !== 'on') throw refused('full_page_writes is off, so that a crash could damage the log: set it to on')
  if (settings.commit === 'off') throw refused('synchronous_commit is off: set it to on, for the database or for the role')
  if (settings.encoding !== 'UTF8') throw refused(`the database's encoding is ${settings.encoding}: create it with UTF8`)
  // Membership counts without inheritance, for SET ROLE is enough. Whoever owns a schema may drop what others own in it, and
  // the owner of a database owns its `public` schema.
  const role = await sql<RoleFacts>`
    select current_user as name,
      (select bool_or(pg_has_role(current_user, r.oid, 'member')) from pg_roles r where r.rolsuper) as superuser,
      bool_or(pg_has_role(current_user, c.relowner, 'member') or pg_has_role(current_user, n.nspowner, 'member')
        or pg_has_role(current_user, d.datdba, 'member')) as owns,
      bool_or(has_table_privilege(current_user, c.oid, 'DELETE, TRUNCATE, TRIGGER')
        or (c.relname <> 'log_head' and has_any_column_privilege(current_user, c.oid, 'UPDATE'))) as writes
    from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_database d on d.datname = current_database()
    where c.oid in ('audit_event'::regclass, 'revocation'::regclass, 'policy_set'::regclass, 'log_head'::regclass)`.execute(db)
  const who = role.rows[0]
  if (who === undefined || who.superuser || who.owns || who.writes) {
    throw refused(
      `the role ${who?.name ?? ''} can change the audit log or take its guards away: serve as a role of its own, which owns ` +
        'neither the database nor its tables, and let `stint migrate` run as the owner (database.postgres.migrate_url)',
    )
  }
}

function refused(publicMessage: string): BrokerError {
  return new BrokerError({ code: 'config_invalid', publicMessage: `PostgreSQL: ${publicMessage}` })
}
