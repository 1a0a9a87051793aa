import { createServer, type IncomingMessage, type Server, type ServerOptions, type ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { Socket } from 'node:net'
import { setImmediate } from 'node:timers/promises'
import { getRequestListener } from '@hono/node-server'
import type { Broker } from '../broker/broker.ts'
import { BrokerError } from '../kernel/errors.ts'
import { newId } from '../kernel/ids.ts'
import { groupAddress, normaliseAddress, unknownAddress } from './address.ts'
import { headBytesMax, headersMax } from './limits.ts'
import { describeProblem } from './problem.ts'
import type { Door } from './token-door.ts'

export interface HttpServerOptions {
  readonly fetch: Parameters<typeof getRequestListener>[0]
  /** Asked first. */
  readonly door?: Door
  readonly broker: Pick<Broker, 'clock' | 'random' | 'log'>
  /** PEM; plain HTTP without it. */
  readonly tls?: { readonly cert: string; readonly key: string }
  /** The proxy's addresses; nobody else is answered. Everybody may connect when absent. */
  readonly onlyFrom?: readonly string[]
  /** How many connections one address (IPv6: one /64) may have open; a proxy may have all that there are. */
  readonly connectionsPerAddressMax: number
  /** Other times than the usual ones. */
  readonly times?: Partial<ServerTimes>
}

/** How long the server waits for others, in milliseconds. */
export interface ServerTimes {
  /** For a request's line and headers. */
  readonly headMs: number
  /** For the whole request, its body included. */
  readonly requestMs: number
  /** For the next request on a connection that is kept alive. */
  readonly idleMs: number
  /** For anything to go over a connection while an answer is under way, as to a client that does not read it. */
  readonly stalledMs: number
  /** For the requests that are under way when the process is told to stop. */
  readonly drainMs: number
}

/** A server that strangers can reach: whatever they send, or fail to send, ends in bounded time and memory. */
export interface HttpServer {
  /** Throws `config_invalid` where that is not possible. */
  listen(host: string, port: number): Promise<void>
  /** Takes no connections any more, waits for the requests that are under way, and cuts what is left after `drainMs`. */
  drain(): Promise<void>
}

const usualTimes: ServerTimes = { headMs: 10_000, requestMs: 30_000, idleMs: 30_000, stalledMs: 60_000, drainMs: 10_000 }
/** Kept well below the usual limit of file descriptors: the database needs some, too. */
const connectionsMax = 4_000
/** How many requests may be under way on one connection: clients that send the next before the answer do it with few. */
const pipelinedMax = 32
/** How much of a body that nobody wants is read all the same, for clients that read no answer before they have sent all. */
const unwantedBytesMax = 1024 * 1024
/** And how many times, every 50 ms, it is looked how much that is. */
const unwantedLooks = 20

export function createHttpServer(options: HttpServerOptions): HttpServer {
  const { tls, broker } = options
  const times = { ...usualTimes, ...options.times }
  const limits: ServerOptions = {
    maxHeaderSize: headBytesMax,
    headersTimeout: times.headMs,
    requestTimeout: times.requestMs,
    // By how much at most the two above come late.
    connectionsCheckingInterval: 1_000,
    keepAliveTimeout: times.idleMs,
  }
  const answer = getRequestListener(
    async (request, bindings) => {
      const response = await options.fetch(request, bindings)
      const { incoming, outgoing } = bindings
      // What came together with the head is read to its end first, which an answer may be ahead of.
      if (!incoming.complete) await setImmediate()
      // Said before it is done: a proxy would send somebody else's request into a connection that is about to close.
      if (!incoming.complete) outgoing.setHeader('connection', 'close')
      return response
    },
    { errorHandler: (error) => answerUnreadable(error, broker) },
  )
  const underWay = new Map<Socket, Set<ServerResponse>>()
  let draining = false

  function take(request: IncomingMessage, response: ServerResponse): void {
    const { socket } = request
    const onSocket = underWay.get(socket) ?? new Set()
    if (onSocket.size >= pipelinedMax || socket.destroyed) {
      socket.destroy()
      return
    }
    underWay.set(socket, onSocket.add(response))
    response.once('close', () => {
      onSocket.delete(response)
      if (onSocket.size === 0) underWay.delete(socket)
    })
    if (draining) response.setHeader('connection', 'close')
    // How Node ends a connection behind an answer that says `close`: at once, whatever of the request is still to come.
    socket.destroySoon = () => endConnection(request)
    if (options.door?.(request, response) !== true) void answer(request, response)
  }

  const server = tls === undefined ? createServer(limits, take) : createTlsServer({ ...limits, ...tls, minVersion: 'TLSv1.2', handshakeTimeout: 10_000 }, take)
  server.maxConnections = connectionsMax
  // More than are taken, so that the request is refused for it rather than read without the last ones.
  server.maxHeadersCount = headersMax + 1
  server.timeout = times.stalledMs
  const sockets = admitConnections(server, options)

  return {
    listen: (host, port) => listen(server, { host, port, log: broker.log }),
    async drain() {
      draining = true
      const closed = new Promise<void>((resolve) => server.close(() => resolve()))
      server.closeIdleConnections()
      // One that has sent nothing yet, of a TLS handshake for instance, is none that the server calls idle.
      for (const socket of sockets) if (socket.bytesRead === 0) socket.destroy()
      for (const [socket, responses] of underWay) {
        for (const response of responses) {
          // What is kept alive would stay open after its answer for as long as its client likes.
          if (response.headersSent) response.once('finish', () => socket.end())
          else response.setHeader('connection', 'close')
        }
      }
      if (underWay.size > 0) broker.log.info('waiting for the requests that are under way', { connections: underWay.size, wait_ms_max: times.drainMs })
      const timer = setTimeout(() => {
        broker.log.warn('what was not done in time is cut off', { connections: sockets.size, requests: countRequests(underWay) })
        sockets.forEach((socket) => socket.destroy())
      }, times.drainMs)
      await closed
      clearTimeout(timer)
    },
  }
}

function countRequests(underWay: ReadonlyMap<Socket, ReadonlySet<ServerResponse>>): number {
  return [...underWay.values()].reduce((count, responses) => count + responses.size, 0)
}

/**
 * Ends the connection of a request whose answer says `close`. Where the answer came before the whole request, what still
 * comes of it is read for a moment and thrown away: to a client that goes on sending into a closed connection, the answer
 * would be lost (RFC 9112 §9.6).
 */
function endConnection({ socket, complete }: IncomingMessage): void {
  if (complete) {
    Socket.prototype.destroySoon.call(socket)
    return
  }
  // It is asked for again by whoever gives up on the body.
  if (socket.writableEnded) return
  socket.end()
  const enoughBytes = socket.bytesRead + unwantedBytesMax
  let looks = 0
  const timer = setInterval(() => {
    if (++looks === unwantedLooks || socket.bytesRead > enoughBytes) socket.destroy()
  }, 50)
  socket.once('close', () => clearInterval(timer))
}

/** Cuts connections of those who may not connect, or who have too many, and gives those that are open. */
function admitConnections(server: Server, { onlyFrom, connectionsPerAddressMax }: HttpServerOptions): ReadonlySet<Socket> {
  const sockets = new Set<Socket>()
  const counts = new Map<string, number>()
  const proxies = onlyFrom?.map((proxy) => normaliseAddress(proxy))
  server.on('connection', (socket: Socket) => {
    const address = normaliseAddress(socket.remoteAddress ?? '') ?? unknownAddress
    const group = groupAddress(address)
    const count = (counts.get(group) ?? 0) + 1
    if (proxies === undefined ? count > connectionsPerAddressMax : !proxies.includes(address)) {
      socket.destroy()
      return
    }
    sockets.add(socket)
    counts.set(group, count)
    socket.once('close', () => {
      sockets.delete(socket)
      const left = (counts.get(group) ?? 1) - 1
      if (left === 0) counts.delete(group)
      else counts.set(group, left)
    })
  })
  return sockets
}

function listen(server: Server, { host, port, log }: Pick<Broker, 'log'> & { host: string; port: number }): Promise<void> {
  return new Promise((resolve, reject) => {
    const refuse = (cause: NodeJS.ErrnoException): void => {
      const reason = cause.code === 'EADDRINUSE' ? 'something else listens there: stop it, or choose another port' : cause.message
      reject(new BrokerError({ code: 'config_invalid', publicMessage: `cannot listen on ${host} port ${port}: ${reason}`, cause }))
    }
    server.once('error', refuse)
    server.listen(port, host, () => {
      server.off('error', refuse)
      // Without a listener, an error while a connection is accepted would end the process.
      server.on('error', (error) => log.error('the server could not take a connection', { error }))
      resolve()
    })
  })
}

/** What is answered to a request that is HTTP, but of which no address can be made. */
function answerUnreadable(error: unknown, { clock, random, log }: HttpServerOptions['broker']): Response {
  const requestId = newId('req', clock.nowMs(), random)
  const unreadable = error instanceof Error && error.name === 'RequestError'
  if (!unreadable) log.error('a request failed outside of the app', { request_id: requestId, error })
  const { status, body } = describeProblem(
    unreadable
      ? new BrokerError({ code: 'invalid_input', publicMessage: 'The address or the Host header of the request is not valid.' })
      : new BrokerError({ code: 'internal', publicMessage: 'An unexpected error; the operator finds it under the request id.' }),
    requestId,
  )
  const headers = {
    'content-type': 'application/problem+json',
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    'stint-request-id': requestId,
    // Nobody looks here at whether the request is complete, and no good client sends one of these.
    connection: 'close',
  }
  return new Response(body, { status, headers })
}
