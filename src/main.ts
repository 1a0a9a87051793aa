import { accessSync, constants, existsSync, mkdirSync, readFileSync } from 'node:fs'
import { createServer, type Server, type ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import { createSecureContext } from 'node:tls'
import { createAdaptorServer } from '@hono/node-server'
import { compose, type Composition, type Parts } from './compose.ts'
import type { Config } from './config.ts'
import { createRootKeyFile, readRootKey } from './crypto/root-key.ts'
import { BrokerError } from './kernel/errors.ts'
import type { Log } from './kernel/log.ts'
import { readSecretSource, type Environment } from './kernel/secret-source.ts'
import { openConfiguredDatabase } from './open-database.ts'
import { openSqlite } from './storage/sqlite.ts'

/** A broker that listens. */
export interface RunningBroker {
  readonly url: string
  readonly composition: Composition
  /** Takes no new requests, finishes those that were begun (for at most 10 s), and closes everything. */
  close(): Promise<void>
}

/** Starts a broker in production. Makes nothing up: what the configuration lacks is a `config_invalid` error. */
export async function startProduction(config: Config, env: Environment, log: Log): Promise<RunningBroker> {
  const tls = config.tls && readTls(config.tls, env)
  const rootKey = await openRootKey(config, env)
  const { database, explain } = openConfiguredDatabase(config, env, log, 'server')
  const parts: Parts = {
    issuer: config.issuer,
    trustDomain: config.trust_domain,
    database,
    rootKey,
    log,
    development: false,
    ...(config.policies && { policyFolder: config.policies.folder }),
  }
  const listening: Listening = { ...config.listen, ...(tls && { tls }), ...(config.proxy && { onlyFrom: config.proxy.addresses }) }
  return startBroker(parts, listening, explain)
}

interface Tls {
  readonly cert: string
  readonly key: string
}

function readTls({ cert_file: certFile, key_file: keyFile }: NonNullable<Config['tls']>, env: Environment): Tls {
  const cert = readCertificate(certFile)
  const key = readSecretSource(`file:${keyFile}`, 'the TLS private key', env).reveal()
  try {
    createSecureContext({ cert, key })
  } catch (cause) {
    const publicMessage = `the TLS certificate ${certFile} and the key ${keyFile} must be PEM and belong together`
    throw new BrokerError({ code: 'config_invalid', publicMessage, cause })
  }
  return { cert, key }
}

function readCertificate(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (cause) {
    throw new BrokerError({ code: 'config_invalid', publicMessage: `the TLS certificate ${file} cannot be read`, cause })
  }
}

/** The root key that the configuration names. */
export function openRootKey(config: Config, env: Environment): Promise<Uint8Array> {
  const { from } = config.root_key
  return readRootKey(from.startsWith('env:') ? { env: from.slice(4) } : { file: from.slice(5) }, env)
}

export interface DevelopmentOptions {
  /** Where everything is kept: database, root key, the sample agent's key. */
  readonly folder: string
  readonly policyFolder: string
  readonly port: number
  readonly log: Log
}

/** The trust domain of a broker in development. */
export const developmentTrustDomain = 'stint.local'

/** Starts a broker for development: loopback without TLS, on a SQLite file, with a root key that is made when missing. */
export async function startDevelopment({ folder, policyFolder, port, log }: DevelopmentOptions): Promise<RunningBroker> {
  prepareFolder(folder)
  const database = join(folder, 'stint.db')
  const rootKey = await openDevelopmentRootKey(join(folder, 'root.key'), database, folder)
  const parts: Parts = {
    issuer: `http://127.0.0.1:${port}`,
    trustDomain: developmentTrustDomain,
    database: openSqlite({ file: database }),
    rootKey,
    log,
    development: true,
    policyFolder,
  }
  return startBroker(parts, { host: '127.0.0.1', port })
}

function prepareFolder(folder: string): void {
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 })
    accessSync(folder, constants.R_OK | constants.W_OK | constants.X_OK)
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : String(cause)
    const why = code === 'EEXIST' || code === 'ENOTDIR' ? 'it is, or lies in, something that is no folder' : `it cannot be made or written to (${code})`
    throw new BrokerError({ code: 'config_invalid', publicMessage: `nothing can be kept in ${folder}: ${why}; give --data a folder of your own`, cause })
  }
}

/** Made at the first start alone: another key opens nothing of what an earlier one has sealed. */
async function openDevelopmentRootKey(file: string, database: string, folder: string): Promise<Uint8Array> {
  if (existsSync(file)) return readRootKey({ file }, {})
  if (!existsSync(database)) return createRootKeyFile(file)
  throw new BrokerError({ code: 'config_invalid', publicMessage: `${file} is missing: put it back, or delete ${folder} to start afresh` })
}

interface Listening {
  readonly host: string
  readonly port: number
  readonly tls?: Tls
  /** Addresses that may connect; everybody when absent. */
  readonly onlyFrom?: readonly string[]
}

/** `explain` turns what the database throws into what the operator can act on. */
async function startBroker(
  parts: Parts,
  { host, port, tls, onlyFrom }: Listening,
  explain: (error: unknown) => unknown = (error) => error,
): Promise<RunningBroker> {
  let composition: Composition
  try {
    composition = await compose(parts)
  } catch (error) {
    await parts.database.close()
    throw explain(error)
  }
  const limits = { headersTimeout: 10_000, requestTimeout: 30_000, keepAliveTimeout: 30_000, maxHeaderSize: 16 * 1024 }
  const { fetch } = composition.app
  const server = (
    tls === undefined
      ? createAdaptorServer({ fetch, createServer, serverOptions: limits })
      : createAdaptorServer({ fetch, createServer: createTlsServer, serverOptions: { ...limits, ...tls, minVersion: 'TLSv1.2', handshakeTimeout: 10_000 } })
  ) as Server // The adaptor types HTTP/2 servers too; these two are of `node:http` and its subclass of `node:https`.
  if (onlyFrom !== undefined) {
    server.on('connection', (socket) => {
      if (!onlyFrom.includes(socket.remoteAddress?.replace(/^::ffff:/, '') ?? '')) socket.destroy()
    })
  }
  const drain = prepareDrain(server)
  try {
    await listen(server, host, port)
  } catch (error) {
    await composition.close()
    throw error
  }
  // Without a listener, an error while a connection is accepted would end the process.
  server.on('error', (error) => parts.log.error('the server could not take a connection', { error }))
  composition.scheduler.start()
  return {
    url: parts.issuer,
    composition,
    async close() {
      await drain()
      await composition.close()
    },
  }
}

function listen(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const refuse = (cause: NodeJS.ErrnoException): void => {
      const reason = cause.code === 'EADDRINUSE' ? 'something else listens there: stop it, or choose another port' : cause.message
      reject(new BrokerError({ code: 'config_invalid', publicMessage: `cannot listen on ${host} port ${port}: ${reason}`, cause }))
    }
    server.once('error', refuse)
    server.listen(port, host, () => {
      server.off('error', refuse)
      resolve()
    })
  })
}

const drainMs = 10_000

/**
 * Watches what the server has open, so that it can be drained: the returned function stops taking connections, waits for
 * the requests that are under way, and cuts what is left after `drainMs`.
 */
function prepareDrain(server: Server): () => Promise<void> {
  const answering = new Map<ServerResponse, Socket>()
  // Not every socket is known to `closeAllConnections`: one that has not finished its TLS handshake is not.
  const sockets = new Set<Socket>()
  server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  server.prependListener('request', ({ socket }, response) => {
    answering.set(response, socket)
    response.once('close', () => answering.delete(response))
  })
  return async () => {
    const closed = new Promise<void>((resolve) => server.close(() => resolve()))
    server.closeIdleConnections()
    // Neither is one known that has sent nothing yet of its handshake.
    for (const socket of sockets) if (socket.bytesRead === 0) socket.destroy()
    for (const [response, socket] of answering) {
      // What is kept alive would stay open after its answer for as long as its client likes.
      if (response.headersSent) response.once('finish', () => socket.end())
      else response.setHeader('connection', 'close')
    }
    const timer = setTimeout(() => sockets.forEach((socket) => socket.destroy()), drainMs)
    await closed
    clearTimeout(timer)
  }
}
