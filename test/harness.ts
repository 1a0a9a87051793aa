import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, inject, onTestFinished } from 'vitest'
import type { Clock } from '../src/kernel/clock.ts'
import { createLog, type Log } from '../src/kernel/log.ts'
import type { Database, Engine } from '../src/storage/engine.ts'
import { migrate } from '../src/storage/migrate.ts'
import { openPostgres } from '../src/storage/postgres.ts'
import { openSqlite } from '../src/storage/sqlite.ts'
import { emptyDatabase, ownerUrl, runAsOwner, servingUrl, type Server } from './template.ts'

/** Runs a suite once for each engine. */
export function describeEngines(name: string, suite: (engine: Engine) => void): void {
  describe(`${name} on SQLite`, () => suite('sqlite'))
  describePostgres(name, suite)
}

/** Runs a suite on PostgreSQL; where there is none it is skipped, and the name says why. */
export function describePostgres(name: string, suite: (engine: Engine) => void): void {
  const { missing } = inject('postgres')
  if (missing === undefined) describe(`${name} on PostgreSQL`, () => suite('postgres'))
  else describe.skip(`${name} on PostgreSQL (skipped: ${missing})`, () => suite('postgres'))
}

/** A fresh, migrated database of one test, removed when the test is finished. */
export interface TestDatabase {
  readonly engine: Engine
  /** SQLite: the file. PostgreSQL: the URL of the serving role. */
  readonly location: string
  /** PostgreSQL: the owner's URL. SQLite: the file. For a test that tampers as an operator could. */
  readonly ownerLocation: string
  /** Opens it as a broker would; closed by itself when the test is finished. A SQLite file opens once at a time. */
  open(): Promise<Database>
}

export async function createTestDatabase(engine: Engine): Promise<TestDatabase> {
  return engine === 'sqlite' ? createSqliteFile() : createPostgresDatabase()
}

async function createSqliteFile(): Promise<TestDatabase> {
  const file = join(createTestFolder(), 'stint.db')
  return {
    engine: 'sqlite',
    location: file,
    ownerLocation: file,
    async open() {
      const database = closeAfterTest(openSqlite({ file }))
      await migrate(database.maintenance, 'sqlite')
      return database
    },
  }
}

// Making and dropping a database costs more than most tests. The broker's role can change nothing but rows, so a database
// that only it has used serves the file's next test once it is empty; whoever asked for the owner's URL had it alone.
const idleDatabases: string[] = []

async function copyTemplate(server: Server): Promise<string> {
  const name = `test_${randomBytes(8).toString('hex')}`
  await runAsOwner(server, `create database ${name} template stint_template`)
  return name
}

async function createPostgresDatabase(): Promise<TestDatabase> {
  const server = inject('postgres')
  if (server.missing !== undefined) throw new Error(server.missing)
  const name = idleDatabases.pop() ?? (await copyTemplate(server))
  let ownerKnown = false
  onTestFinished(async () => {
    if (ownerKnown) return runAsOwner(server, `drop database ${name} with (force)`)
    await emptyDatabase(server, name)
    idleDatabases.push(name)
  })
  return {
    engine: 'postgres',
    location: servingUrl(server, name),
    get ownerLocation() {
      ownerKnown = true
      return ownerUrl(server, name)
    },
    open: async () => closeAfterTest(openPostgres({ url: servingUrl(server, name) })),
  }
}

function closeAfterTest(database: Database): Database {
  let closing: Promise<void> | undefined
  const close = database.close.bind(database)
  database.close = () => (closing ??= close())
  onTestFinished(() => database.close())
  return database
}

/** A folder that is removed when the test is finished. */
export function createTestFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'stint-test-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** A clock that stands still until the test moves it. */
export interface TestClock extends Clock {
  advance(ms: number): void
  set(ms: number): void
}

export function createTestClock(startMs = Date.UTC(2026, 0, 15, 12)): TestClock {
  let nowMs = startMs
  return {
    nowMs: () => nowMs,
    advance: (ms) => {
      nowMs += ms
    },
    set: (ms) => {
      nowMs = ms
    },
  }
}

/** A log whose lines the test can read. */
export function createTestLog(): { log: Log; lines: string[] } {
  const lines: string[] = []
  return { log: createLog((line) => lines.push(line), 'debug', () => '2026-01-15T12:00:00.000Z'), lines }
}
