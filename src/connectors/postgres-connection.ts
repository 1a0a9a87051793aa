import type { Socket } from 'node:net'
import pg from 'pg'
import type { PostgresConfig } from '../policy/kinds/postgres.ts'
import type { ToolContext } from './connector.ts'
import { sqlState } from './postgres-failure.ts'
import { createKept, type Kept } from './postgres-kept.ts'
import { findPlace, orAborted, useClient, type Use } from './postgres-session.ts'
import { createPool, createSettings, createSocket, readCertificates, watchClient } from './postgres-settings.ts'
import { parseRootUrl, type RootUrl } from './postgres-url.ts'

export type Lane = 'mint' | 'end' | 'disable'

/** How many connections of a lane there are at once. */
const sizes = { mint: 4, end: 3 } as const

async function connectAlone(settings: pg.ClientConfig): Promise<pg.Client> {
  const client = new pg.Client(settings)
  client.on('error', () => undefined)
  await client.connect()
  try {
    await client.query(watchClient)
    return client
  } catch (error) {
    void client.end()
    throw error
  }
}

/** Does one thing on a connection as whoever the URL names, closed afterwards. */
export async function runOnce<T>(root: RootUrl, { privateNetwork }: { readonly privateNetwork: boolean }, signal: AbortSignal, use: Use<T>): Promise<T> {
  const certificates = root.sslrootcert === undefined ? undefined : await readCertificates(root.sslrootcert)
  const settings = createSettings(root, certificates, () => createSocket(root.host, privateNetwork))
  const client = await findPlace(signal, root, () => connectAlone(settings), (late) => void late.end())
  return useClient(client, root, signal, use, () => void client.end())
}

/** The server of one tool. */
export interface PostgresServer {
  /**
   * Mints and ends have connections of their own, so that many of the one leave room for the other. No mint runs without a
   * connection that stays: agents who take all others cannot keep the server from hearing of their ends. What disables many
   * waits for that one alone; ends use it where no other is to be had.
   */
  run<T>(lane: Lane, signal: AbortSignal, use: Use<T>): Promise<T>
  /** On a fresh connection, closed afterwards, to that database of the server, or the URL's own. */
  runAlone<T>(signal: AbortSignal, use: Use<T>, database?: string): Promise<T>
  close(): Promise<void>
}

/** Connects nowhere yet. The URL is read at each use, so that a new password takes effect by itself. */
export function createPostgresServer(tool: string, config: PostgresConfig, context: Pick<ToolContext, 'readSecret'>): PostgresServer {
  interface Open {
    readonly text: string
    readonly root: RootUrl
    readonly settings: pg.PoolConfig
    readonly lanes: Readonly<Record<'mint' | 'end', pg.Pool>>
    readonly kept: Kept
  }
  let open: Open | undefined
  const closing: Promise<void>[] = []
  const running = new Set<Promise<unknown>>()
  const sockets = new Set<Socket>()

  async function openServer(): Promise<Open> {
    const url = await context.readSecret(config.url.from, `the URL of the root role of the tool ${tool}, postgres://user:password@host:port/database`)
    const text = url.reveal()
    if (open?.text === text) return open
    const root = parseRootUrl(url, { tool, privateNetwork: config.private_network })
    const certificates = root.sslrootcert === undefined ? undefined : await readCertificates(root.sslrootcert)
    // Somebody else may have opened it in the meantime.
    if (open?.text === text) return open
    const older = open
    const settings = createSettings(root, certificates, () => {
      const socket = createSocket(root.host, config.private_network)
      sockets.add(socket)
      socket.once('close', () => sockets.delete(socket))
      return socket
    })
    open = { text, root, settings, lanes: { mint: createPool(settings, sizes.mint), end: createPool(settings, sizes.end) }, kept: createKept(settings, root) }
    // Agents may have taken every other place: the older one leaves its own once the new one has one.
    if (older !== undefined) closing.push(open.kept.open().then(undefined, () => undefined).then(() => retire(older)))
    return open
  }
  async function retire({ lanes, kept }: Open): Promise<void> {
    await Promise.all([lanes.mint.end(), lanes.end.end(), kept.close()])
  }

  async function run<T>(lane: Lane, signal: AbortSignal, use: Use<T>): Promise<T> {
    const { root, lanes, kept } = await openServer()
    if (lane === 'disable') return kept.run(signal, use)
    const connect = () => lanes[lane].connect()
    const giveBack = (client: pg.PoolClient, broken = false): void => client.release(broken)
    const useOne = (client: pg.PoolClient) => useClient(client, root, signal, use, (broken) => giveBack(client, broken))
    if (lane === 'mint') {
      await findPlace(signal, root, kept.open, () => undefined)
      return useOne(await findPlace(signal, root, connect, giveBack))
    }
    let client: pg.PoolClient
    try {
      client = await orAborted(signal, root, connect(), giveBack)
    } catch (error) {
      // 53300: there is no place for another connection.
      if (sqlState(error) === '53300') return kept.run(signal, use)
      throw error
    }
    return useOne(client)
  }

  return {
    run(lane, signal, use) {
      const call = run(lane, signal, use)
      running.add(call)
      return call.finally(() => running.delete(call))
    },
    async runAlone(signal, use, database) {
      const { root, settings } = await openServer()
      const client = await findPlace(signal, root, () => connectAlone({ ...settings, database: database ?? root.database }), (late) => void late.end())
      return useClient(client, database === undefined ? root : { ...root, database }, signal, use, () => void client.end())
    },
    async close() {
      await Promise.allSettled(running)
      if (open !== undefined) closing.push(retire(open))
      open = undefined
      // One that is still being opened, for somebody who has given up, need not be waited for.
      for (const socket of sockets) socket.destroy()
      await Promise.all(closing)
    },
  }
}
