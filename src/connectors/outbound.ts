import type { Socket } from 'node:net'
import { callbackify, promisify } from 'node:util'
import { brotliDecompress, gunzip, inflate } from 'node:zlib'
import type { Agent, buildConnector, Dispatcher } from 'undici'
import { ConnectorError } from './connector.ts'
import { isLoopback, resolveHost, type Lookup } from './network.ts'

export interface OutboundOptions {
  /** Whom to speak to, as the catalog names them: `host`, or `host:port` where the port is not the usual one. Nobody else. */
  readonly hosts: readonly string[]
  /** Whether they may be within a private network; only then may they speak plain http, on this machine alone. */
  readonly privateNetwork: boolean
  /** For the whole of a call: the name, the connection, the answer to its last byte. */
  readonly timeoutMs?: number
  /** How large an answer may be, also when it was compressed. */
  readonly bytesMax?: number
  readonly lookup?: Lookup
}

export interface Outbound {
  /**
   * `fetch`, with the whole answer read before it resolves. Follows a redirect only from GET or HEAD, at most three times and
   * within the same origin, unless `redirect` says `manual` or `error`. Throws `ConnectorError`: `nothing_done` where nothing
   * was sent or the method is safe (RFC 9110 §9.2.1), else `unknown`. What was sent and answered is in no error (invariant 7).
   */
  readonly fetch: typeof globalThis.fetch
  /** Waits for the calls that are under way. */
  close(): Promise<void>
}

const redirectsMax = 3
const connectMsMax = 5_000
const decoders: ReadonlyMap<string, (bytes: Buffer, options: { maxOutputLength: number }) => Promise<Buffer>> = new Map([
  ['gzip', promisify(gunzip)],
  ['x-gzip', promisify(gunzip)],
  ['deflate', promisify(inflate)],
  ['br', promisify(brotliDecompress)],
])

/** The one way in which connectors speak HTTP. No proxy of the environment is used, and TLS is always verified. */
export function createOutbound({ hosts, privateNetwork, timeoutMs = 10_000, bytesMax = 1024 * 1024, lookup }: OutboundOptions): Outbound {
  const allowed = new Set(hosts.map((host) => new URL(`https://${host}`).host))
  const reaching = { privateNetwork, connectMs: Math.min(timeoutMs, connectMsMax), ...(lookup !== undefined && { lookup }) }
  let agent: Promise<Agent> | undefined

  function judgeUrl(url: URL): void {
    const host = url.host
    if (!allowed.has(host)) throw refuse(`The host ${host} is not one that the tool's catalog file names.`)
    if (url.username !== '' || url.password !== '') throw refuse(`The URL of a call to ${host} holds a user or a password.`)
    if (url.protocol === 'https:' || (url.protocol === 'http:' && privateNetwork)) return
    throw refuse(`${host} must be called by https; plain http is for this machine alone, with private_network: true.`)
  }

  async function call(request: Request, body: Buffer | undefined, signal: AbortSignal): Promise<Response> {
    const safe = ['GET', 'HEAD'].includes(request.method)
    for (let url = new URL(request.url), redirects = 0; ; redirects++) {
      judgeUrl(url)
      agent ??= createAgent(reaching)
      const answer = await exchange(await agent, { url, method: request.method, headers: request.headers, body, safe, bytesMax }, signal)
      const location = answer.headers.get('location')
      if (request.redirect === 'manual' || ![301, 302, 303, 307, 308].includes(answer.status) || location === null) return answer
      const next = URL.canParse(location, url) ? new URL(location, url) : undefined
      if (request.redirect === 'error' || !safe || next?.origin !== url.origin || redirects === redirectsMax) {
        throw fail(safe, `${url.host} sends its callers elsewhere (${answer.status}), where they do not follow: check the tool's URL.`)
      }
      url = next
    }
  }

  return {
    async fetch(input, init) {
      const ends = [AbortSignal.timeout(timeoutMs), init?.signal, input instanceof Request ? input.signal : undefined]
      const { request, body } = await readRequest(input, init)
      return call(request, body, AbortSignal.any(ends.filter((signal) => signal != null)))
    },
    close: async () => (await agent)?.close(),
  }
}

/**
 * The seconds after which a Retry-After (RFC 9110 §10.2.3) says that another try is worth it: at least 1, and at most a day.
 * `undefined` where there is none that can be read.
 */
export function readRetryAfter(headers: Headers, nowMs: number): number | undefined {
  const text = headers.get('retry-after')?.trim() ?? ''
  const seconds = /^\d{1,9}$/.test(text) ? Number(text) : (Date.parse(text) - nowMs) / 1000
  return Number.isNaN(seconds) ? undefined : Math.min(Math.max(Math.ceil(seconds), 1), 86_400)
}

/** The request as its bytes. What is wrong with it is not said by the message that was thrown, for that quotes it. */
async function readRequest(input: string | URL | Request, init: RequestInit | undefined): Promise<{ request: Request; body: Buffer | undefined }> {
  try {
    const request = new Request(input, init)
    return { request, body: request.body === null ? undefined : Buffer.from(await request.arrayBuffer()) }
  } catch {
    throw refuse('A call to the tool could not be written: what it is made of is no URL, no header or no body.')
  }
}

interface Reaching {
  readonly privateNetwork: boolean
  readonly connectMs: number
  readonly lookup?: Lookup
}

/** Loads the library with the first call, for most starts of the program make none. */
async function createAgent(reaching: Reaching): Promise<Agent> {
  const undici = await import('undici')
  return new undici.Agent({
    connect: createConnect(undici.buildConnector({ timeout: reaching.connectMs, allowH2: false, rejectUnauthorized: true }), reaching),
    connections: 32,
    // Short, for who uses a connection that the other side is about to close cannot know what became of the request.
    keepAliveTimeout: 2_000,
    keepAliveMaxTimeout: 10_000,
    // The signal of the call counts.
    headersTimeout: 0,
    bodyTimeout: 0,
  })
}

/** Connects to an address that was judged, never to a name: what the DNS says next does not matter. */
function createConnect(connect: buildConnector.connector, { privateNetwork, connectMs, lookup }: Reaching): buildConnector.connector {
  async function reach(options: buildConnector.Options): Promise<Socket> {
    const addresses = await resolveHost(options.hostname, { privateNetwork, ...(lookup !== undefined && { lookup }) }, AbortSignal.timeout(connectMs))
    if (options.protocol === 'http:' && !addresses.every(isLoopback)) throw refuse(`${options.hostname} is not this machine: it must be called by https.`)
    let failure: unknown
    for (const { address } of addresses) {
      try {
        return await new Promise<Socket>((resolve, reject) => {
          connect({ ...options, hostname: address }, (error, socket) => (error === null ? resolve(socket) : reject(error)))
        })
      } catch (error) {
        failure = error
      }
    }
    throw failure
  }
  const reachFor = callbackify(reach)
  return (options, callback) => reachFor(options, (error, socket) => (error === null ? callback(null, socket) : callback(error, null)))
}

interface Sending {
  readonly url: URL
  readonly method: string
  readonly headers: Headers
  readonly body: Buffer | undefined
  readonly safe: boolean
  readonly bytesMax: number
}

/** One request and its whole answer. */
async function exchange(agent: Agent, { url, method, headers, body, safe, bytesMax }: Sending, signal: AbortSignal): Promise<Response> {
  const { promise, resolve, reject } = Promise.withResolvers<{ status: number; headers: Headers; bytes: Buffer }>()
  const chunks: Buffer[] = []
  let bytes = 0
  let head: { status: number; headers: Headers } | undefined
  let over = signal.aborted
  // Set right before the first byte is written. Until then nothing can have been done, whatever the error is called.
  let controller: Dispatcher.DispatchController | undefined

  function end(error: ConnectorError): void {
    over = true
    reject(error)
    controller?.abort(error)
  }
  const onAbort = () => end(fail(safe || controller === undefined, `${url.host} did not answer in time.`))
  if (over) onAbort()
  signal.addEventListener('abort', onAbort, { once: true })

  const sent = { ...Object.fromEntries(headers), 'accept-encoding': 'identity', ...(!headers.has('user-agent') && { 'user-agent': 'stint' }) }
  const options = { origin: url.origin, path: `${url.pathname}${url.search}`, method, headers: sent, body: body ?? null }
  if (!over) {
    agent.dispatch(options, {
      onRequestStart(started) {
        // Called off while it waited for its connection.
        if (over) started.abort(new Error('called off'))
        else controller = started
      },
      onResponseStart(_, status, fields) {
        // One of 1xx comes before the one that counts.
        head = { status, headers: readHeaders(fields) }
      },
      onResponseData(_, chunk) {
        bytes += chunk.byteLength
        if (bytes <= bytesMax) chunks.push(chunk)
        else end(fail(safe, `${url.host} answered with more than ${bytesMax} bytes.`))
      },
      onResponseEnd() {
        // No Response can have a status beyond 599.
        if (head === undefined || head.status > 599) reject(fail(safe, `${url.host} did not answer by HTTP.`))
        else resolve({ ...head, bytes: Buffer.concat(chunks) })
      },
      onResponseError(_, error) {
        reject(error instanceof ConnectorError ? error : explain(url.host, error, controller === undefined, safe))
      },
    })
  }
  try {
    const answer = await promise
    const encoding = answer.headers.get('content-encoding')?.trim().toLowerCase() ?? 'identity'
    const text = await decode(answer.bytes, encoding, bytesMax).catch(() => {
      throw fail(safe, `${url.host} answered with more than ${bytesMax} bytes, or in a content coding that cannot be read.`)
    })
    // They describe the bytes as they came.
    answer.headers.delete('content-encoding')
    answer.headers.delete('content-length')
    // The statuses that have no body, not even an empty one.
    return new Response([204, 205, 304].includes(answer.status) ? null : new Uint8Array(text), answer)
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}

async function decode(bytes: Buffer, encoding: string, bytesMax: number): Promise<Buffer> {
  if (encoding === 'identity' || encoding === '' || bytes.byteLength === 0) return bytes
  const decoder = decoders.get(encoding)
  if (decoder === undefined) throw new Error('unknown content coding')
  return decoder(bytes, { maxOutputLength: bytesMax })
}

function readHeaders(fields: Readonly<Record<string, string | string[] | undefined>>): Headers {
  const headers = new Headers()
  for (const [name, value] of Object.entries(fields)) {
    for (const one of value === undefined ? [] : [value].flat()) headers.append(name, one)
  }
  return headers
}

/** An error of the connection in words. Of the error itself only its code is kept: some hold what was answered. */
function explain(host: string, error: Error, unsent: boolean, safe: boolean): ConnectorError {
  const code = 'code' in error && typeof error.code === 'string' ? error.code : error.name
  const cause = new Error(code)
  if (!unsent) return fail(safe, `The connection to ${host} broke before its answer was complete.`, cause)
  if (/TIMEOUT|ETIMEDOUT/.test(code)) return refuse(`${host} cannot be reached: it does not take a connection.`, cause)
  if (/CERT|SIGNATURE|ALTNAME|SSL|TLS|EPROTO/.test(code)) return refuse(`${host} cannot be reached safely: its TLS certificate or its TLS was not accepted (${code}).`, cause)
  return refuse(`${host} cannot be reached (${code}).`, cause)
}

function fail(nothingDone: boolean, publicMessage: string, cause?: unknown): ConnectorError {
  return new ConnectorError({ outcome: nothingDone ? 'nothing_done' : 'unknown', publicMessage, cause })
}

function refuse(publicMessage: string, cause?: unknown): ConnectorError {
  return fail(true, publicMessage, cause)
}
