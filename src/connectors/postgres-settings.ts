import { readFile } from 'node:fs/promises'
import { Socket, type LookupFunction } from 'node:net'
import pg from 'pg'
import { ConnectorError } from './connector.ts'
import { resolveHost } from './network.ts'
import type { RootUrl } from './postgres-url.ts'

const connectMsMax = 10_000
const keepAliveMs = 30_000

// Names mean the server's own things, whatever an agent has made in a schema, and no lock is held for long by a process that
// hangs: the server then ends the transaction, so that nothing comes of it (invariant 2). Nor is any waited for long, for who
// waits keeps others waiting. What is kept open is not closed for being idle.
const sessionOptions = '-c search_path=pg_catalog -c lock_timeout=1500ms -c statement_timeout=15s -c idle_in_transaction_session_timeout=10s -c idle_session_timeout=0'

// A statement whose caller has gone is cancelled by the server itself. Not every platform can, and none needs it.
export const watchClient = `do $$ begin perform set_config('client_connection_check_interval', '1s', false); exception when others then null; end $$`

/** Each setting by itself, so that none comes from the environment of the broker, where it would be another database's. */
export function createSettings(root: RootUrl, certificates: string | undefined, stream: () => Socket): pg.PoolConfig {
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
    keepAliveInitialDelayMillis: keepAliveMs,
  }
}

export async function readCertificates(file: string): Promise<string> {
  return readFile(file, 'utf8').catch((cause: unknown) => {
    throw new ConnectorError({ outcome: 'nothing_done', publicMessage: `${file}, which the tool's URL names as sslrootcert, cannot be read by the broker.`, cause })
  })
}

/** At most that many connections, opened when they are needed. */
export function createPool(settings: pg.PoolConfig, max: number): pg.Pool {
  const pool = new pg.Pool({ ...settings, max, onConnect: (client) => client.query(watchClient) })
  // Whoever uses a connection learns of its loss by the error of the statement; an idle one is replaced.
  pool.on('error', () => undefined)
  pool.on('connect', (client) => client.on('error', () => undefined))
  return pool
}

/** A socket that connects to the very addresses that were judged; the name stays what the certificate is verified against. */
export function createSocket(host: string, privateNetwork: boolean): Socket {
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
