import type { Socket } from 'node:net'
import { setTimeout } from 'node:timers/promises'
import pg from 'pg'
import type { PostgresConfig } from '../policy/kinds/postgres.ts'
import { ConnectorError, type ToolContext } from './connector.ts'
import { describeFailure, isConflict, isLost, sqlState } from './postgres-failure.ts'
import { createKept, type Kept } from './postgres-kept.ts'
import { createPool, createSettings, createSocket, readCertificates, watchClient } from './postgres-settings.ts'
import { parseRootUrl, type RootUrl } from './postgres-url.ts'

/** A connection as the root role, for as long as one thing is done with it. */
export interface Session {
  readonly root: RootUrl
  /** Runs one statement with values, or several with none; the rows of the last. */
  query<Row extends object>(text: string, values?: readonly unknown[]): Promise<readonly Row[]>
}

/** What is done in a session; what it throws becomes a `ConnectorError`. */
export type Use<T> = (session: Session) => Promise<T>

export type Lane = 'mint' | 'end' | 'disable'

/** How many connections of a lane there are at once. */
const sizes = { mint: 4, end: 3 } as const

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
    if (lane === 'mint') await orAborted(signal, root, kept.open(), () => undefined)
    try {
      const client = await orAborted(signal, root, lanes[lane].connect(), (late) => late.release())
      return await useClient(client, root, signal, use, (broken) => client.release(broken))
    } catch (error) {
      // 53300: there is no place for another connection.
      if (lane === 'end' && sqlState(error) === '53300') return kept.run(signal, use)
      throw error
    }
  }

  return {
    run(lane, signal, use) {
      const call = run(lane, signal, use)
      running.add(call)
      return call.finally(() => running.delete(call))
    },
    async runAlone(signal, use, database) {
      const { root, settings } = await openServer()
      const client = new pg.Client({ ...settings, database: database ?? root.database })
      client.on('error', () => undefined)
      const connecting = client.connect().then(() => client.query(watchClient))
      await orAborted(signal, root, connecting, () => void client.end())
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

/** The connection, unless the signal ends it; one that comes later is given back. Nothing was asked yet: `nothing_done`. */
export async function orAborted<T>(signal: AbortSignal, root: RootUrl, connecting: Promise<T>, giveBack: (late: T) => void): Promise<T> {
  const aborted = Promise.withResolvers<never>()
  const onAbort = (): void => aborted.reject(new Error('aborted'))
  if (signal.aborted) onAbort()
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    return await Promise.race([aborted.promise, connecting])
  } catch (error) {
    connecting.then(giveBack, () => undefined)
    throw describeFailure(error, root, 'nothing_done')
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}

/**
 * Where the signal ends it, the connection is cut at once; or, with patience, is given that many milliseconds to end the
 * statement that it is at, after which nothing more is begun, so that the connection stays.
 */
export async function useClient<T>(client: pg.Client, root: RootUrl, signal: AbortSignal, use: Use<T>, release: (broken: boolean) => void, patienceMs = 0): Promise<T> {
  let patience: NodeJS.Timeout | undefined
  const cut = (): void => void client.connection.stream.destroy(new Error('aborted'))
  const onAbort = (): void => {
    if (patienceMs === 0) cut()
    else patience = globalThis.setTimeout(cut, patienceMs).unref()
  }
  signal.addEventListener('abort', onAbort, { once: true })
  let broken = false
  try {
    return await use({
      root,
      async query<Row extends object>(text: string, values?: readonly unknown[]) {
        if (patienceMs > 0 && signal.aborted && !/^(?:commit|rollback)$/.test(text)) {
          throw new ConnectorError({ outcome: 'nothing_done', publicMessage: `The call to PostgreSQL at ${root.host}:${root.port} was given up.` })
        }
        const answer: unknown = await client.query(text, values === undefined ? undefined : [...values])
        // Several statements in one text have an answer each.
        const last = Array.isArray(answer) ? (answer.at(-1) as pg.QueryResult<Row>) : (answer as pg.QueryResult<Row>)
        return last.rows
      },
    })
  } catch (error) {
    broken = isLost(error)
    throw describeFailure(error, root, broken ? 'unknown' : 'nothing_done')
  } finally {
    signal.removeEventListener('abort', onAbort)
    clearTimeout(patience)
    release(broken || (signal.aborted && patienceMs === 0))
  }
}

/**
 * Runs `body` as one transaction. Until COMMIT is sent nothing can come of it, however it ends: `nothing_done`. If the
 * answer to COMMIT is lost, the outcome is `unknown` (invariant 2).
 */
export async function runInTransaction<T>(session: Session, body: () => Promise<T>): Promise<T> {
  const { root } = session
  let result: T
  try {
    await session.query('begin isolation level read committed read write')
    result = await body()
  } catch (error) {
    await session.query('rollback').catch(() => undefined)
    throw describeFailure(error, root, 'nothing_done')
  }
  await session.query('commit').catch((error: unknown) => {
    throw describeFailure(error, root, isLost(error) ? 'unknown' : 'nothing_done')
  })
  return result
}

const conflictTriesMax = 8

/** Does it again where it met somebody else who changed the same rows of a catalog, up to 8 times. */
export async function retryConflicts<T>(signal: AbortSignal, attempt: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await attempt()
    } catch (error) {
      if (!isConflict(error) || tries === conflictTriesMax || signal.aborted) throw error
      await setTimeout(Math.random() * 20 * tries)
    }
  }
}
