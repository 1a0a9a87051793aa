import { readFile } from 'node:fs/promises'
import { Socket, type LookupFunction } from 'node:net'
import { setTimeout } from 'node:timers/promises'
import pg from 'pg'
import type { PostgresConfig } from '../policy/kinds/postgres.ts'
import { ConnectorError, type ToolContext } from './connector.ts'
import { resolveHost } from './network.ts'
import { describeFailure, isConflict, isLost } from './postgres-failure.ts'
import { parseRootUrl, type RootUrl } from './postgres-url.ts'

/** A connection as the root role, for as long as one thing is done with it. */
export interface Session {
  readonly root: RootUrl
  /** Runs one statement with values, or several with none; the rows of the last. */
  query<Row extends object>(text: string, values?: readonly unknown[]): Promise<readonly Row[]>
}

/** What is done in a session; what it throws becomes a `ConnectorError`. */
export type Use<T> = (session: Session) => Promise<T>

/** The server of one tool. */
export interface PostgresServer {
  /** Mints and ends have connections of their own, so that many of the one leave room for the other. */
  run<T>(lane: 'mint' | 'end', signal: AbortSignal, use: Use<T>): Promise<T>
  /** On a fresh connection, closed afterwards, to that database of the server, or the URL's own. */
  runAlone<T>(signal: AbortSignal, use: Use<T>, database?: string): Promise<T>
  close(): Promise<void>
}

const connectMsMax = 10_000
const connectionsPerLane = 4

// Names mean the server's own things, whatever an agent has made in a schema, and no lock is held for long by a process that
// hangs: the server then ends the transaction, so that nothing comes of it (invariant 2).
const sessionOptions = '-c search_path=pg_catalog -c lock_timeout=5s -c statement_timeout=15s -c idle_in_transaction_session_timeout=10s'

// A statement whose caller has gone is cancelled by the server itself. Not every platform can, and none needs it.
const watchClient = `do $$ begin perform set_config('client_connection_check_interval', '1s', false); exception when others then null; end $$`

/** Connects nowhere yet. The URL is read at each use, so that a new password takes effect by itself. */
export function createPostgresServer(tool: string, config: PostgresConfig, context: Pick<ToolContext, 'readSecret'>): PostgresServer {
  interface Open {
    readonly text: string
    readonly root: RootUrl
    readonly settings: pg.PoolConfig
    readonly lanes: Readonly<Record<'mint' | 'end', pg.Pool>>
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
    retire()
    const settings = createSettings(root, certificates, () => {
      const socket = createSocket(root.host, config.private_network)
      sockets.add(socket)
      socket.once('close', () => sockets.delete(socket))
      return socket
    })
    open = { text, root, settings, lanes: { mint: createPool(settings), end: createPool(settings) } }
    return open
  }
  function retire(): void {
    if (open !== undefined) closing.push(open.lanes.mint.end(), open.lanes.end.end())
    open = undefined
  }

  async function run<T>(lane: 'mint' | 'end', signal: AbortSignal, use: Use<T>): Promise<T> {
    const { root, lanes } = await openServer()
    const client = await orAborted(signal, root, lanes[lane].connect(), (late) => late.release())
    return useClient(client, root, signal, use, (broken) => client.release(broken))
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
      retire()
      // One that is still being opened, for somebody who has given up, need not be waited for.
      for (const socket of sockets) socket.destroy()
      await Promise.all(closing)
    },
  }
}

/** Each setting by itself, so that none comes from the environment of the broker, where it would be another database's. */
function createSettings(root: RootUrl, certificates: string | undefined, stream: () => Socket): pg.PoolConfig {
  return {
    host: root.host,
    port: root.port,
    database: root.database,
    user: root.user,
    password: root.password.reveal(),
    application_name: 'stint',
    options: sessionOptions,
    sslnegotiation: 'postgres',
    ssl: root.sslmode === 'disable' ? false : { rejectUnauthorized: true, ...(certificates !== undefined && { ca: certificates }) },
    stream,
    connectionTimeoutMillis: connectMsMax,
    keepAlive: true,
  }
}

async function readCertificates(file: string): Promise<string> {
  return readFile(file, 'utf8').catch((cause: unknown) => {
    throw new ConnectorError({ outcome: 'nothing_done', publicMessage: `${file}, which the tool's URL names as sslrootcert, cannot be read by the broker.`, cause })
  })
}

function createPool(settings: pg.PoolConfig): pg.Pool {
  const pool = new pg.Pool({ ...settings, max: connectionsPerLane, onConnect: (client) => client.query(watchClient) })
  // Whoever uses a connection learns of its loss by the error of the statement; an idle one is replaced.
  pool.on('error', () => undefined)
  pool.on('connect', (client) => client.on('error', () => undefined))
  return pool
}

/** A socket that connects to the very addresses that were judged; the name stays what the certificate is verified against. */
function createSocket(host: string, privateNetwork: boolean): Socket {
  const socket = new Socket()
  const connect = socket.connect.bind(socket)
  async function connectJudged(port: number): Promise<void> {
    const addresses = await resolveHost(host, { privateNetwork }, AbortSignal.timeout(connectMsMax))
    const [first] = addresses
    // Given up meanwhile: to connect would open it anew.
    if (socket.destroyed) return
    const lookup: LookupFunction = (_host, { all }, answer) => (all === true ? answer(null, [...addresses]) : answer(null, first.address, first.family))
    connect({ host, port, autoSelectFamily: true, lookup })
  }
  // node-postgres calls this one of the method's forms, with a port and the host.
  socket.connect = ((port: number) => {
    connectJudged(port).catch((error: Error) => socket.destroy(error))
    return socket
  }) as Socket['connect']
  return socket
}

/** The connection, unless the signal ends it; one that comes later is given back. Nothing was asked yet: `nothing_done`. */
async function orAborted<T>(signal: AbortSignal, root: RootUrl, connecting: Promise<T>, giveBack: (late: T) => void): Promise<T> {
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

async function useClient<T>(client: pg.Client, root: RootUrl, signal: AbortSignal, use: Use<T>, release: (broken: boolean) => void): Promise<T> {
  const onAbort = (): void => void client.connection.stream.destroy(new Error('aborted'))
  signal.addEventListener('abort', onAbort, { once: true })
  let broken = false
  try {
    return await use({
      root,
      async query<Row extends object>(text: string, values?: readonly unknown[]) {
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
    release(broken || signal.aborted)
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
