import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import type { RequestListener } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { getCACertificates, setDefaultCACertificates, type TLSSocket } from 'node:tls'
import { inspect } from 'node:util'
import { brotliCompressSync, deflateSync, gzipSync } from 'node:zlib'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { ConnectorError } from '../../src/connectors/connector.ts'
import { createOutbound, readRetryAfter, type OutboundOptions } from '../../src/connectors/outbound.ts'
import type { Lookup } from '../../src/connectors/network.ts'
import { createTestFolder } from '../harness.ts'
import { listen } from '../listen.ts'

const secret = 's3cret-of-the-call'
const withSecrets = { method: 'POST', headers: { authorization: `Bearer ${secret}`, 'content-type': 'application/json' }, body: JSON.stringify({ key: secret }) }

/** The way to a server of this machine. */
function open(origin: string, options: Partial<OutboundOptions> = {}) {
  const outbound = createOutbound({ hosts: [new URL(origin).host], privateNetwork: true, timeoutMs: 2_000, ...options })
  onTestFinished(() => outbound.close())
  return outbound
}

/** A server that is given each connection once a request has begun to arrive on it; it need not speak HTTP. */
async function listenRaw(onRequest: (socket: Socket) => void): Promise<string> {
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => undefined)
    socket.once('data', () => onRequest(socket))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  const address = server.address()
  if (typeof address !== 'object' || address === null) throw new Error('no port')
  return `http://127.0.0.1:${address.port}`
}

/** The error of a call, which holds nothing of what was sent or answered. */
async function readFailure(promise: Promise<unknown>): Promise<ConnectorError> {
  const error: unknown = await promise.then(() => undefined, (thrown: unknown) => thrown)
  if (!(error instanceof ConnectorError)) throw new Error(`no ConnectorError: ${inspect(error)}`)
  expect(inspect(error, { depth: 12, showHidden: true })).not.toContain(secret)
  return error
}

describe('an answer', () => {
  test('comes whole, with its status and headers, as fetch has it', async () => {
    const origin = await listen((request, response) => {
      const chunks: Buffer[] = []
      request.on('data', (chunk: Buffer) => chunks.push(chunk)).on('end', () => {
        response.writeHead(201, { 'content-type': 'application/json', 'x-two': ['a', 'b'] })
        response.end(JSON.stringify({ method: request.method, url: request.url, headers: request.headers, body: Buffer.concat(chunks).toString() }))
      })
    })
    const { fetch } = open(origin)
    const response = await fetch(`${origin}/path?q=1`, { method: 'POST', body: new URLSearchParams({ a: 'b c' }), headers: { 'x-mine': 'yes' } })
    expect(response).toBeInstanceOf(Response)
    expect([response.status, response.ok, response.headers.get('x-two')]).toEqual([201, true, 'a, b'])
    expect(await response.json()).toMatchObject({
      method: 'POST',
      url: '/path?q=1',
      headers: { 'x-mine': 'yes', 'content-length': '5', 'content-type': 'application/x-www-form-urlencoded;charset=UTF-8', 'accept-encoding': 'identity', 'user-agent': 'stint' },
      body: 'a=b+c',
    })
    const again = await fetch(new Request(new URL('/b', origin), { headers: { 'user-agent': 'mine' } }))
    expect(await again.json()).toMatchObject({ method: 'GET', url: '/b', headers: { 'user-agent': 'mine' }, body: '' })
  })

  test.each([204, 205, 304, 400, 429, 500])('of status %i is the caller’s to judge', async (status) => {
    const origin = await listen((_, response) => void response.writeHead(status, { 'retry-after': '7' }).end())
    const response = await open(origin).fetch(origin, withSecrets)
    expect([response.status, await response.text(), readRetryAfter(response.headers, 0)]).toEqual([status, '', 7])
  })

  test('may come in any coding that is known, though none is asked for', async () => {
    const codings = { gzip: gzipSync('hello'), deflate: deflateSync('hello'), br: brotliCompressSync('hello'), identity: Buffer.from('hello') }
    const origin = await listen((request, response) => {
      const coding = request.url?.slice(1) ?? ''
      response.writeHead(200, { 'content-encoding': coding }).end(Object.entries(codings).find(([name]) => name === coding)?.[1] ?? 'hello')
    })
    const { fetch } = open(origin)
    for (const coding of Object.keys(codings)) {
      const response = await fetch(`${origin}/${coding}`)
      expect([await response.text(), response.headers.get('content-encoding')]).toEqual(['hello', null])
    }
    expect((await readFailure(fetch(`${origin}/compress`, withSecrets))).outcome).toBe('unknown')
  })

  test('that announces itself by 103 is waited for', async () => {
    const origin = await listenRaw((socket) => socket.end('HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok'))
    expect(await (await open(origin).fetch(origin, withSecrets)).text()).toBe('ok')
  })
})

describe('an answer that is lost leaves it unknown what was done', () => {
  const cases: readonly (readonly [string, string, (socket: Socket) => void])[] = [
    ['with slow headers', 'did not answer in time', () => undefined],
    ['with headers that never end', 'did not answer in time', (socket) => void socket.write(`HTTP/1.1 200 OK\r\nx-key: ${secret}\r\n`)],
    ['with a slow body', 'did not answer in time', (socket) => void socket.write(`HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n${secret}`)],
    ['cut before its first byte', 'broke before its answer was complete', (socket) => void socket.destroy()],
    ['reset', 'broke before its answer was complete', (socket) => void socket.resetAndDestroy()],
    ['half, then reset', 'broke before its answer was complete', (socket) => void socket.write(`HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n${secret}`, () => socket.resetAndDestroy())],
    ['half, then closed', 'broke before its answer was complete', (socket) => void socket.end(`HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n${secret}`)],
    ['half in chunks, then closed', 'broke before its answer was complete', (socket) => void socket.end(`HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\n${secret}`)],
    ['that is not HTTP', 'broke before its answer was complete', (socket) => void socket.end(`220 ${secret} ESMTP\r\n\r\n`)],
    ['of two lengths', 'broke before its answer was complete', (socket) => void socket.end(`HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\nx: ${secret}\r\n\r\nab`)],
    ['of endless headers', 'broke before its answer was complete', (socket) => void socket.write(`HTTP/1.1 200 OK\r\n${`x: ${secret}\r\n`.repeat(5_000)}`)],
    ['of a status that there is not', 'did not answer by HTTP', (socket) => void socket.end(`HTTP/1.1 999 ${secret}\r\ncontent-length: 0\r\n\r\n`)],
    ['of garbage in a coding', 'cannot be read', (socket) => void socket.end(`HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: ${secret.length}\r\n\r\n${secret}`)],
  ]

  test.each(cases)('%s', async (_, sentence, onRequest) => {
    const origin = await listenRaw(onRequest)
    const { fetch } = open(origin, { timeoutMs: 800 })
    const error = await readFailure(fetch(`${origin}/?key=${secret}`, withSecrets))
    expect([error.outcome, error.publicMessage]).toEqual(['unknown', expect.stringContaining(sentence)])
    // What only reads has done nothing, whatever became of the answer.
    expect((await readFailure(fetch(`${origin}/?key=${secret}`))).outcome).toBe('nothing_done')
  })

  test('when it is 100 MB, of which little is read', async () => {
    let sent = 0
    const chunk = Buffer.alloc(1024 * 1024, 'x')
    const origin = await listenRaw((socket) => {
      socket.write('HTTP/1.1 200 OK\r\ncontent-length: 104857600\r\n\r\n')
      const write = () => {
        if (socket.destroyed || sent >= 100) return
        sent += 1
        socket.write(chunk, write)
      }
      write()
    })
    const error = await readFailure(open(origin).fetch(origin, withSecrets))
    expect([error.outcome, error.publicMessage]).toEqual(['unknown', expect.stringContaining('more than 1048576 bytes')])
    await setTimeout(50)
    expect(sent).toBeLessThan(40)
  })

  test.each([['gzip', gzipSync], ['br', brotliCompressSync]] as const)('when it is a bomb in %s', async (coding, compress) => {
    const bomb = compress(Buffer.alloc(8 * 1024 * 1024))
    expect(bomb.byteLength).toBeLessThan(100_000)
    const origin = await listen((_, response) => void response.writeHead(200, { 'content-encoding': coding }).end(bomb))
    const error = await readFailure(open(origin).fetch(origin, withSecrets))
    expect([error.outcome, error.publicMessage]).toEqual(['unknown', expect.stringContaining('more than 1048576 bytes')])
  })

  test('when a body drips for longer than the whole call may take', async () => {
    const origin = await listen((_, response) => {
      response.writeHead(200)
      const timer = setInterval(() => response.write('.'), 20)
      response.on('close', () => clearInterval(timer))
    })
    const startedMs = Date.now()
    expect((await readFailure(open(origin, { timeoutMs: 800 }).fetch(origin, withSecrets))).outcome).toBe('unknown')
    expect(Date.now() - startedMs).toBeLessThan(5_000)
  })

  test('when the caller’s signal ends it, and the connection is gone then', async () => {
    const closed = Promise.withResolvers<void>()
    const controller = new AbortController()
    const origin = await listenRaw((socket) => {
      socket.on('close', () => closed.resolve())
      controller.abort()
    })
    expect((await readFailure(open(origin).fetch(origin, { ...withSecrets, signal: controller.signal }))).outcome).toBe('unknown')
    await closed.promise
  })
})

describe('nothing was done', () => {
  test('where nobody listens', async () => {
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    const address = server.address()
    const origin = `http://127.0.0.1:${typeof address === 'object' ? address?.port : ''}`
    server.close()
    const error = await readFailure(open(origin).fetch(origin, withSecrets))
    expect([error.outcome, error.publicMessage]).toEqual(['nothing_done', expect.stringContaining('cannot be reached (ECONNREFUSED)')])
  })

  test('when the signal had ended before, or ends while the name is being resolved', async () => {
    const arrived = vi.fn<RequestListener>()
    const origin = await listen(arrived)
    expect((await readFailure(open(origin).fetch(origin, { ...withSecrets, signal: AbortSignal.abort() }))).outcome).toBe('nothing_done')
    const { port } = new URL(origin)
    const late: Lookup = () => setTimeout(200, [{ address: '127.0.0.1', family: 4 } as const])
    const { fetch } = open(`http://tool.test:${port}`, { lookup: late })
    expect((await readFailure(fetch(`http://tool.test:${port}`, { ...withSecrets, signal: AbortSignal.timeout(50) }))).outcome).toBe('nothing_done')
    await setTimeout(300)
    expect(arrived).not.toHaveBeenCalled()
  })

  test('when every connection was busy until the time was over', async () => {
    let count = 0
    const origin = await listenRaw(() => void (count += 1))
    const { fetch } = open(origin, { timeoutMs: 10_000 })
    const controller = new AbortController()
    const busy = Array.from({ length: 32 }, () => readFailure(fetch(origin, { ...withSecrets, signal: controller.signal })))
    await vi.waitFor(() => expect(count).toBe(32), 5_000)
    expect((await readFailure(fetch(origin, { ...withSecrets, signal: AbortSignal.timeout(100) }))).outcome).toBe('nothing_done')
    controller.abort()
    expect(new Set((await Promise.all(busy)).map(({ outcome }) => outcome))).toEqual(new Set(['unknown']))
    expect(count).toBe(32)
  })

  test.each([
    ['a header that is none', (origin: string): [string, RequestInit] => [origin, { method: 'POST', headers: { authorization: `Bearer\n${secret}` } }]],
    ['a URL that is none', (): [string, RequestInit] => [`http://[${secret}`, {}]],
    ['a GET with a body', (origin: string): [string, RequestInit] => [origin, { method: 'GET', body: secret }]],
    ['a user in the URL', (origin: string): [string, RequestInit] => [origin.replace('//', `//user:${secret}@`), { method: 'POST' }]],
  ])('by a call of %s', async (_, write) => {
    const arrived = vi.fn<RequestListener>((_, response) => void response.end())
    const origin = await listen(arrived)
    expect((await readFailure(open(origin).fetch(...write(origin)))).outcome).toBe('nothing_done')
    expect(arrived).not.toHaveBeenCalled()
  })
})

describe('who is called', () => {
  const serve = async () => {
    const arrived = vi.fn<RequestListener>((_, response) => void response.writeHead(200, { connection: 'close' }).end('reached'))
    const origin = await listen(arrived)
    return { arrived, origin, port: new URL(origin).port }
  }

  test('is a host of the catalog, with its port, and no other', async () => {
    const { arrived, origin, port } = await serve()
    const { fetch } = open(origin)
    for (const other of [`http://localhost:${port}`, `http://tool.test:${port}`, 'http://127.0.0.1', `http://127.0.0.1:${Number(port) + 1}`, `http://[::1]:${port}`, `https://api.github.com`]) {
      const error = await readFailure(fetch(`${other}/?key=${secret}`, withSecrets))
      expect([error.outcome, error.publicMessage]).toEqual(['nothing_done', expect.stringContaining('is not one that the tool')])
    }
    expect(arrived).not.toHaveBeenCalled()
    expect(await (await fetch(`http://2130706433:${port}`)).text()).toBe('reached')
    const usual = createOutbound({ hosts: ['TOOL.test', 'other.test:443'], privateNetwork: false, lookup: async () => [] })
    for (const url of ['https://tool.test/', 'https://tool.test:443/', 'https://other.test/']) expect((await readFailure(usual.fetch(url))).publicMessage).toContain('has no address')
    expect((await readFailure(usual.fetch('https://tool.test:8443/'))).publicMessage).toContain('is not one that')
  })

  test('is not within a private network, unless the catalog allows it', async () => {
    const { arrived, port } = await serve()
    const lookup: Lookup = async () => [{ address: '127.0.0.1', family: 4 }]
    for (const host of [`127.0.0.1:${port}`, `[::ffff:127.0.0.1]:${port}`, `tool.test:${port}`, `localhost:${port}`, '169.254.169.254']) {
      const { fetch } = open(`https://${host}`, { privateNetwork: false, lookup })
      const error = await readFailure(fetch(`https://${host}/?key=${secret}`, withSecrets))
      expect([error.outcome, error.publicMessage]).toEqual(['nothing_done', expect.stringMatching(/has a (?:loopback|link-local) address, which is not called unless/)])
    }
    expect(arrived).not.toHaveBeenCalled()
  })

  test('speaks https, or is this machine', async () => {
    const { arrived, origin, port } = await serve()
    expect((await readFailure(open(origin, { privateNetwork: false }).fetch(origin, withSecrets))).publicMessage).toContain('must be called by https')
    const inside: Lookup = async () => [{ address: '127.0.0.1', family: 4 }, { address: '10.0.0.1', family: 4 }]
    expect((await readFailure(open(`http://tool.test:${port}`, { lookup: inside }).fetch(`http://tool.test:${port}`, withSecrets))).publicMessage).toContain('it must be called by https')
    expect((await readFailure(open(origin).fetch(`ftp://127.0.0.1:${port}/`))).outcome).toBe('nothing_done')
    expect(arrived).not.toHaveBeenCalled()
  })

  test('is the address that was judged, at each connection anew', async () => {
    const { arrived, port } = await serve()
    const answers = [['127.0.0.1'], ['8.8.8.8', '127.0.0.1'], ['127.0.0.1']]
    const asked = vi.fn<Lookup>(async () => (answers.shift() ?? ['0.0.0.0']).map((address) => ({ address, family: 4 })))
    const url = `http://tool.test:${port}/`
    const { fetch } = open(url, { lookup: asked })
    // No DNS knows tool.test: who is reached is who was judged.
    expect(await (await fetch(url)).text()).toBe('reached')
    expect((await readFailure(fetch(url, withSecrets))).outcome).toBe('nothing_done')
    expect(await (await fetch(url)).text()).toBe('reached')
    expect((await readFailure(fetch(url, withSecrets))).publicMessage).toContain('an unspecified address')
    expect([asked.mock.calls.length, arrived.mock.calls.length]).toEqual([4, 2])
  })

  test('is not reached by a resolver that says public first and private then', async () => {
    const { arrived, port } = await serve()
    const answers = ['8.8.8.8', '127.0.0.1']
    const url = `https://tool.test:${port}/`
    const { fetch } = open(url, { privateNetwork: false, lookup: async () => [{ address: answers.shift() ?? '', family: 4 }] })
    // Tests reach no public address; the second answer is not even tried.
    expect((await readFailure(fetch(url, withSecrets))).publicMessage).toContain('cannot be reached')
    expect((await readFailure(fetch(url, withSecrets))).publicMessage).toContain('a loopback address')
    expect(arrived).not.toHaveBeenCalled()
  })

  test('is the next address where the first one takes no connection', async () => {
    const { port } = await serve()
    const { fetch } = open(`http://tool.test:${port}`, { lookup: async () => [{ address: '127.0.0.2', family: 4 }, { address: '127.0.0.1', family: 4 }] })
    expect(await (await fetch(`http://tool.test:${port}`)).text()).toBe('reached')
  })

  test('is not a proxy of the environment', async () => {
    const { arrived: proxied, origin: proxy } = await serve()
    for (const name of ['http_proxy', 'https_proxy', 'HTTP_PROXY', 'HTTPS_PROXY', 'ALL_PROXY']) vi.stubEnv(name, proxy)
    vi.stubEnv('NODE_USE_ENV_PROXY', '1')
    const { origin } = await serve()
    expect(await (await open(origin).fetch(origin)).text()).toBe('reached')
    expect(proxied).not.toHaveBeenCalled()
  })
})

describe('a redirect', () => {
  /** Sends `/n` on to `/n-1` and the like, and says at the end what arrived. */
  const serve = async (location: (path: string) => string, status = 302) => {
    const paths: string[] = []
    const origin = await listen((request, response) => {
      paths.push(`${request.method} ${request.url}`)
      if (request.url === '/0') response.end(`arrived ${request.headers.authorization ?? 'bare'}`)
      else response.writeHead(status, { location: location(request.url ?? '') }).end()
    })
    return { origin, paths }
  }
  const down = (path: string) => `/${Number(path.slice(1)) - 1}`

  test('is followed from GET within the origin, three times and no more', async () => {
    const { origin, paths } = await serve(down)
    const { fetch } = open(origin)
    expect(await (await fetch(`${origin}/3`, { headers: { authorization: 'mine' } })).text()).toBe('arrived mine')
    const error = await readFailure(fetch(`${origin}/4`))
    expect([error.outcome, error.publicMessage]).toEqual(['nothing_done', expect.stringContaining('sends its callers elsewhere (302)')])
    expect(paths).toEqual(['GET /3', 'GET /2', 'GET /1', 'GET /0', 'GET /4', 'GET /3', 'GET /2', 'GET /1'])
  })

  test.each([301, 302, 303, 307, 308])('of status %i is not followed from POST, and what was done is unknown', async (status) => {
    const { origin, paths } = await serve(down, status)
    expect((await readFailure(open(origin).fetch(`${origin}/1`, withSecrets))).outcome).toBe('unknown')
    expect(paths).toEqual(['POST /1'])
  })

  test('to anybody else is not followed', async () => {
    const reached = vi.fn<RequestListener>((_, response) => void response.end())
    const other = await listen(reached)
    for (const location of [`${other}/0`, '//169.254.169.254/latest/meta-data', 'http://169.254.169.254/', 'https://api.github.com/', 'file:///etc/passwd', 'http://[', `http://user:${secret}@127.0.0.1/`]) {
      const { origin } = await serve(() => location)
      // Also where the other one may be called, too.
      const { fetch } = open(origin, { hosts: [new URL(origin).host, new URL(other).host, '169.254.169.254', 'api.github.com'] })
      expect((await readFailure(fetch(`${origin}/1`, { headers: { authorization: secret } }))).publicMessage).toContain('sends its callers elsewhere')
    }
    expect(reached).not.toHaveBeenCalled()
  })

  test('to the same host with a user in it is refused', async () => {
    const { origin } = await serve(() => `${origin.replace('//', `//user:${secret}@`)}/0`)
    expect((await readFailure(open(origin).fetch(`${origin}/1`))).publicMessage).toContain('holds a user or a password')
  })

  test('is handed over, or an error, as the caller asks', async () => {
    const { origin, paths } = await serve(down)
    const { fetch } = open(origin)
    const response = await fetch(`${origin}/1`, { method: 'POST', redirect: 'manual' })
    expect([response.status, response.headers.get('location')]).toEqual([302, '/0'])
    expect((await readFailure(fetch(`${origin}/1`, { redirect: 'error' }))).outcome).toBe('nothing_done')
    expect(paths).toEqual(['POST /1', 'GET /1'])
  })
})

describe('TLS', () => {
  const serve = async () => {
    const folder = createTestFolder()
    const [cert, key] = [join(folder, 'cert.pem'), join(folder, 'key.pem')]
    const args = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', key, '-out', cert, '-subj', '/CN=tool', '-addext', 'subjectAltName=DNS:tool.test,IP:127.0.0.1', '-days', '2']
    execFileSync('openssl', args, { stdio: 'ignore' })
    const names: unknown[] = []
    const server = createTlsServer({ cert: readFileSync(cert), key: readFileSync(key) }, (request, response) => {
      // Within this server each socket is TLS.
      names.push((request.socket as TLSSocket).servername)
      response.end('safe')
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    onTestFinished(() => {
      server.closeAllConnections()
      server.close()
    })
    const address = server.address()
    return { names, port: typeof address === 'object' ? address?.port : undefined, cert: readFileSync(cert, 'utf8') }
  }
  const lookup: Lookup = async () => [{ address: '127.0.0.1', family: 4 }]

  test('is verified against the name that was called, at the address that was judged', async () => {
    const { names, port, cert } = await serve()
    const before = getCACertificates('default')
    setDefaultCACertificates([...before, cert])
    onTestFinished(() => setDefaultCACertificates(before))
    const hosts = [`tool.test:${port}`, `other.test:${port}`, `127.0.0.1:${port}`]
    const { fetch } = open(`https://tool.test:${port}`, { hosts, lookup })
    expect(await (await fetch(`https://tool.test:${port}/`)).text()).toBe('safe')
    expect(await (await fetch(`https://127.0.0.1:${port}/`)).text()).toBe('safe')
    const error = await readFailure(fetch(`https://other.test:${port}/`, withSecrets))
    expect([error.outcome, error.publicMessage]).toEqual(['nothing_done', expect.stringContaining('was not accepted (ERR_TLS_CERT_ALTNAME_INVALID)')])
    expect(names).toEqual(['tool.test', false])
  })

  test('of nobody known is refused, whatever the environment says', async () => {
    const { names, port } = await serve()
    vi.stubEnv('NODE_TLS_REJECT_UNAUTHORIZED', '0')
    const error = await readFailure(open(`https://tool.test:${port}`, { lookup }).fetch(`https://tool.test:${port}/`, withSecrets))
    expect([error.outcome, error.publicMessage]).toEqual(['nothing_done', expect.stringContaining('its TLS certificate or its TLS was not accepted')])
    expect(names).toEqual([])
  })

  test('is not replaced by plain http', async () => {
    const { port } = await serve()
    const plain = await listen((_, response) => void response.end('plain'))
    const error = await readFailure(open(plain).fetch(plain.replace('http:', 'https:'), withSecrets))
    expect([error.outcome, error.publicMessage]).toEqual(['nothing_done', expect.stringContaining('was not accepted')])
    expect((await readFailure(open(`http://127.0.0.1:${port}`).fetch(`http://127.0.0.1:${port}/`, withSecrets))).outcome).toBe('unknown')
  })
})

test('a connection is used again, but not where its server is about to close it', async () => {
  let hint = 'timeout=60'
  const origin = await listen((_, response) => void response.setHeader('keep-alive', hint).end('ok'))
  const { port } = new URL(origin)
  const asked = vi.fn<Lookup>(async () => [{ address: '127.0.0.1', family: 4 }])
  const { fetch } = open(`http://tool.test:${port}`, { lookup: asked })
  const call = async () => (await fetch(`http://tool.test:${port}/`)).text()
  for (let i = 0; i < 6; i++) await call()
  // The next call may begin before the connection is known to be free.
  expect(asked.mock.calls.length).toBeLessThanOrEqual(2)
  hint = 'timeout=2'
  for (let i = 0; i < 6; i++) await call()
  expect(asked.mock.calls.length).toBeGreaterThanOrEqual(6)
})

test('closing waits for a call that is under way', async () => {
  const origin = await listen((_, response) => void globalThis.setTimeout(() => response.end('late'), 100))
  const outbound = createOutbound({ hosts: [new URL(origin).host], privateNetwork: true })
  const answer = outbound.fetch(origin, withSecrets)
  await setTimeout(30)
  await outbound.close()
  expect(await (await answer).text()).toBe('late')
  expect((await readFailure(outbound.fetch(origin, withSecrets))).outcome).toBe('nothing_done')
})

test.each([
  ['7', 7],
  ['0', 1],
  [' 30 ', 30],
  ['999999999', 86_400],
  ['Thu, 15 Jan 2026 12:01:00 GMT', 60],
  ['Thu, 15 Jan 2026 11:00:00 GMT', 1],
  ['soon', undefined],
  ['', undefined],
])('Retry-After %j is worth waiting %j seconds for', (value, seconds) => {
  expect(readRetryAfter(new Headers({ 'retry-after': value }), Date.UTC(2026, 0, 15, 12))).toBe(seconds)
  expect(readRetryAfter(new Headers(), 0)).toBeUndefined()
})
