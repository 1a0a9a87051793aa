import SqliteDatabase, { type Database as Handle, type Statement } from 'better-sqlite3'
import { closeSync, existsSync, fchmodSync, fstatSync, mkdirSync, openSync, realpathSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { Kysely, SqliteDialect } from 'kysely'
import { formatTime } from '../kernel/clock.ts'
import { BrokerError } from '../kernel/errors.ts'
import { CommitUnknown, type Database, type HeadRow, type WriteTransaction } from './engine.ts'
import type { Schema } from './schema.ts'

export interface SqliteOptions {
  readonly file: string
  /** What to do where there is no such file: make it with its folder (the default), or refuse. */
  readonly whenMissing?: 'make' | 'refuse'
  /** Whether a file that others can read or change is refused. */
  readonly privateOnly?: boolean
}

/**
 * Opens a SQLite file for this process alone: WAL, `synchronous=FULL`, one connection that writes and one that reads.
 * Throws `config_invalid` when another process has it open, or it cannot be used as the options want it.
 */
export function openSqlite(options: SqliteOptions): Database {
  const { lock, writer, reader } = openHandles(options)
  const write = new Kysely<Schema>({ dialect: new SqliteDialect({ database: rememberStatements(writer) }) })
  const read = new Kysely<Schema>({ dialect: new SqliteDialect({ database: rememberStatements(reader) }) })
  let statements: Statements | undefined

  return {
    engine: 'sqlite',
    read,
    maintenance: write,
    write(body) {
      return write.connection().execute(async (db) => {
        statements ??= prepareStatements(writer)
        statements.begin()
        try {
          const result = await body({ db, execute: async (query) => void (await db.executeQuery(query)), ...statements.hot })
          commit(statements)
          return result
        } catch (error) {
          rollBack(writer)
          throw error
        }
      })
    },
    isTransactionError: (error) => /^SQLITE_(?:FULL|IOERR|READONLY|CORRUPT|NOTADB|NOMEM|BUSY|LOCKED|CANTOPEN)/.test(codeOf(error)),
    isUniqueViolation: (error) => /^SQLITE_CONSTRAINT_(?:UNIQUE|PRIMARYKEY)$/.test(codeOf(error)),
    async close() {
      await write.destroy()
      await read.destroy()
      // Kysely closes only what it has used.
      if (writer.open) writer.close()
      if (reader.open) reader.close()
      lock.close()
    },
  }
}

function codeOf(error: unknown): string {
  return error instanceof SqliteDatabase.SqliteError ? error.code : ''
}

/** Takes the lock and opens both connections, or lets go of everything and says why not. */
function openHandles(options: SqliteOptions): Record<'lock' | 'writer' | 'reader', Handle> {
  const { file: given, whenMissing = 'make', privateOnly = false } = options
  const opened: Handle[] = []
  const open = (file: string): Handle => {
    const handle = new SqliteDatabase(file)
    opened.push(handle)
    return handle
  }
  try {
    if (whenMissing === 'refuse') requireFile(given)
    else mkdirSync(dirname(given), { recursive: true, mode: 0o700 })
    // One file has one lock, under whatever link it is opened.
    const file = existsSync(given) ? realpathSync(given) : given
    if (privateOnly) refuseReadable(file)
    closeToOthers(`${file}.lock`)
    const lock = takeProcessLock(open(`${file}.lock`))
    // Readable to nobody else: sealed keys and the operators' hashes are in it. SQLite gives its other files the same mode.
    closeSync(openSync(file, 'a', 0o600))
    const writer = open(file)
    if (writer.pragma('journal_mode = WAL', { simple: true }) !== 'wal') throw new Error('its file system cannot do WAL')
    writer.pragma('synchronous = FULL')
    writer.pragma('foreign_keys = ON')
    writer.pragma('trusted_schema = OFF')
    writer.pragma('busy_timeout = 5000')
    const reader = open(file)
    reader.pragma('query_only = ON')
    return { lock, writer, reader }
  } catch (cause) {
    for (const handle of opened.toReversed()) handle.close()
    if (cause instanceof BrokerError) throw cause
    const why = cause instanceof Error ? cause.message : String(cause)
    throw new BrokerError({
      code: 'config_invalid',
      publicMessage: codeOf(cause).startsWith('SQLITE_BUSY')
        ? `another process has ${given} open: stop it first, or use PostgreSQL to run several`
        : `the database ${given} cannot be opened: ${why}`,
      cause,
    })
  }
}

/** A file that is gone must not come back empty: its log and its keys would be missing and nobody told. */
function requireFile(file: string): void {
  // Throws for what cannot be looked at, as a folder that this user may not enter.
  if (statSync(file, { throwIfNoEntry: false }) !== undefined) return
  const publicMessage = `there is no database ${file}: make it with \`stint migrate --config …\`, or put it back`
  throw new BrokerError({ code: 'config_invalid', publicMessage })
}

/** The files of the database hold sealed keys and the operators' hashes: nobody else may read or change them. */
function refuseReadable(file: string): void {
  // Windows has no modes of this kind.
  if (process.getuid === undefined) return
  const files = [file, `${file}-wal`, `${file}-shm`]
  const open = files.filter((name) => ((statSync(name, { throwIfNoEntry: false })?.mode ?? 0) & 0o077) !== 0)
  if (open.length === 0) return
  const publicMessage = `the database ${file} can be read or changed by others: run chmod 600 ${open.join(' ')}, and see who had access`
  throw new BrokerError({ code: 'config_invalid', publicMessage })
}

/** Makes the lock's file for this user alone: whoever can read it can take the lock, and so keep the database from opening. */
function closeToOthers(file: string): void {
  const descriptor = openSync(file, 'a', 0o600)
  try {
    if ((fstatSync(descriptor).mode & 0o077) !== 0) fchmodSync(descriptor, 0o600)
  } finally {
    closeSync(descriptor)
  }
}

function rollBack(writer: Handle): void {
  try {
    // SQLite has already rolled back after some errors, a full disk among them.
    if (writer.inTransaction) writer.exec('rollback')
  } catch {
    // The error that led here says more. What could not be rolled back shows at the next BEGIN.
  }
}

function commit(statements: Statements): void {
  try {
    statements.commit()
  } catch (error) {
    // After an I/O error the frames may have reached the file or not; a busy or full one has written nothing durable.
    throw codeOf(error).startsWith('SQLITE_IOERR') ? new CommitUnknown(error) : error
  }
}

/** An exclusive lock beside the file, held until this process ends, however it ends: the operating system lets go of it. */
function takeProcessLock(lock: Handle): Handle {
  lock.pragma('busy_timeout = 0')
  lock.pragma('journal_mode = DELETE')
  lock.pragma('locking_mode = EXCLUSIVE')
  lock.exec('begin exclusive')
  return lock
}

/** Kysely prepares a statement for each query; this keeps them by their text, so that each is compiled once. */
function rememberStatements(handle: Handle): { prepare(text: string): Statement; close(): void } {
  const statements = new Map<string, Statement>()
  return {
    prepare(text) {
      let statement = statements.get(text)
      if (statement === undefined || statement.busy) {
        statement = handle.prepare(text)
        // Filters make many texts; the bound is far above what the program's own queries need.
        if (statements.size >= 500) statements.clear()
        statements.set(text, statement)
      }
      return statement
    },
    close: () => handle.close(),
  }
}

interface Statements {
  begin(): void
  commit(): void
  readonly hot: Omit<WriteTransaction, 'db' | 'execute'>
}

/** The statements of every batch, compiled once and run without a promise each. */
function prepareStatements(writer: Handle): Statements {
  const begin = writer.prepare('begin immediate')
  const commit = writer.prepare('commit')
  const readHead = writer.prepare<[], HeadRow>('select size, epoch, time, root, frontier from log_head')
  const writeHead = writer.prepare('update log_head set size = ?, epoch = ?, time = ?, root = ?, frontier = ? where id = 1')
  const mark = writer.prepare('insert into replay_mark (id, expires_at) values (?, ?) on conflict do nothing')
  const grant = writer.prepare(`insert into grants
    (id, workload, tool, actions, target, task, audience, issued_index, issued_at, expires_at, revoked_index)
    values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`)
  const entry = writer.prepare(`insert into audit_event
    (idx, time, type, workload, tool, grant_id, task, body, leaf_hash) values (?, ?, ?, ?, ?, ?, ?, ?, ?)`)
  return {
    begin: () => void begin.run(),
    commit: () => void commit.run(),
    hot: {
      async lockHead() {
        const head = readHead.get()
        if (head === undefined) throw new Error('the log has no head')
        return head
      },
      async moveHead(h) {
        writeHead.run(h.size, h.epoch, h.time, h.root, h.frontier)
      },
      async insertReplayMarks(marks) {
        return new Set(marks.filter((m) => mark.run(m.id, formatTime(m.expiresAtMs)).changes === 1).map((m) => m.id))
      },
      async insertGrants(grants) {
        for (const g of grants) {
          grant.run(g.id, g.workload, g.tool, g.actions, g.target, g.task, g.audience, g.issued_index, g.issued_at, g.expires_at, g.revoked_index)
        }
      },
      async insertEntries(entries) {
        for (const e of entries) {
          entry.run(e.index, e.time, e.type, e.workload ?? null, e.tool ?? null, e.grant ?? null, e.task ?? null, e.body, e.leafHash)
        }
      },
    },
  }
}
