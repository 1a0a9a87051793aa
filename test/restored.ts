import { randomBytes } from 'node:crypto'
import { copyFileSync } from 'node:fs'
import { join } from 'node:path'
import { inject, onTestFinished } from 'vitest'
import { openPostgres } from '../src/storage/postgres.ts'
import { openSqlite } from '../src/storage/sqlite.ts'
import { createTestFolder, type TestDatabase } from './harness.ts'
import { ownerUrl, runAsOwner, servingUrl } from './template.ts'

/** A copy of a database, as a backup is one. No broker may have it open. */
export async function copyDatabase({ engine, location }: TestDatabase): Promise<TestDatabase> {
  if (engine === 'sqlite') return copyFile(location)
  const server = inject('postgres')
  if (server.missing !== undefined) throw new Error(server.missing)
  const name = `test_${randomBytes(8).toString('hex')}`
  await runAsOwner(server, `create database ${name} template ${new URL(location).pathname.slice(1)}`)
  onTestFinished(() => runAsOwner(server, `drop database ${name} with (force)`))
  const url = servingUrl(server, name)
  return { engine, location: url, ownerLocation: ownerUrl(server, name), open: async () => openPostgres({ url }) }
}

function copyFile(from: string): TestDatabase {
  const file = join(createTestFolder(), 'stint.db')
  // Closed by its last process, the file has everything.
  copyFileSync(from, file)
  return { engine: 'sqlite', location: file, ownerLocation: file, open: async () => openSqlite({ file }) }
}
