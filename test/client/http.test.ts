import { createServer } from 'node:net'
import { createServer as createTlsServer } from 'node:https'
import { once } from 'node:events'
import { inspect } from 'node:util'
import { describe, expect, it, onTestFinished } from 'vitest'
import { createAdminClient } from '../../src/client/admin.ts'
import { StintError } from '../../src/client/errors.ts'
import { describeFailure } from '../../src/client/failure.ts'
import { createSender, type ApiRequest } from '../../src/client/http.ts'
import { listen } from '../listen.ts'

const get: ApiRequest = { method: 'GET', path: '/v1/policy', bearer: 'stint_op_secret-secret-secret' }

/** The error that a request ends with. */
async function errorOf(url: string, request: ApiRequest = get, timeoutMs = 5_000): Promise<StintError> {
  const error = await createSender({ url, timeoutMs }).send(request).catch((caught: unknown) => caught)
  if (!(error instanceof StintError)) throw new Error(`no StintError: ${String(error)}`)
  expect(inspect(error, { depth: 9 })).not.toContain('secret-secret-secret')
  return error
}

describe('a request', () => {
  it('carries query, body and credential, and returns the parsed answer', async () => {
    const seen: unknown[] = []
    const url = await listen(async (request, response) => {
      const body = Buffer.concat(await request.toArray()).toString()
      seen.push([request.method, request.url, request.headers.authorization, request.headers['content-type'], body])
      response.setHeader('content-type', 'application/json; charset=utf-8').end('{"a":"ä"}')
    })
    const sender = createSender({ url })
    const query = { a: 'b c&d', n: 1, no: undefined }
    const answer = await sender.send({ method: 'GET', path: '/x', query, bearer: 'tok' })
    expect(answer.body).toEqual({ a: 'ä' })
    await sender.send({ method: 'PUT', path: '/y', json: { a: 1 } })
    await sender.send({ method: 'POST', path: '/z', form: { 'a b': 'c=d', no: undefined } })
    expect(seen).toEqual([
      ['GET', '/x?a=b+c%26d&n=1', 'Bearer tok', undefined, ''],
      ['PUT', '/y', undefined, 'application/json', '{"a":1}'],
      ['POST', '/z', undefined, 'application/x-www-form-urlencoded', 'a+b=c%3Dd'],
    ])
  })

  it('takes an empty 200 for no body', async () => {
    const url = await listen((_request, response) => void response.end())
    expect((await createSender({ url }).send(get)).body).toBeUndefined()
  })

  it('puts a refusal of the broker into an error, with all that it says', async () => {
    const place = { file: 'a.cedar', line: 1, column: 2, message: 'm', suggestion: 's' }
    const body = {
      type: 'https://stint.example.com/problems/too-many',
      title: 'Too many',
      detail: 'Too many requests.',
      problems: [{ path: ['owner', 'team'], message: 'missing' }, place, 'x', 1, {}],
    }
    const url = await listen((_request, response) => {
      response.writeHead(429, {
        'content-type': 'application/problem+json',
        'stint-request-id': 'req_1',
        'retry-after': '7',
      })
      response.end(JSON.stringify(body))
    })
    expect(await errorOf(url)).toMatchObject({
      code: 'too_many',
      status: 429,
      message: 'Too many requests.',
      requestId: 'req_1',
      retryAfterSeconds: 7,
      problems: [{ path: 'owner.team', message: 'missing' }, place, { message: 'x' }],
    })
  })

  it('takes secrets out of what a refusal repeats', async () => {
    const url = await listen(async (request, response) => {
      const body = Buffer.concat(await request.toArray()).toString()
      const said = `${request.headers.authorization} ${decodeURIComponent(body)}`
      response.writeHead(400, { 'content-type': 'application/json', 'stint-request-id': said })
      response.end(JSON.stringify({ error: said, error_description: said, problems: [{ message: said, path: said }] }))
    })
    const secret = 'secret-secret-secret'
    const form = { token: secret, client_assertion: secret }
    const error = await errorOf(url, { method: 'POST', path: '/', bearer: secret, form })
    expect(error.message).toContain('[redacted]')
  })
})

describe('no usable answer', () => {
  it.each([
    ['a page', 200, 'text/html', '<h1>Welcome</h1>'],
    ['broken JSON', 200, 'application/json', '{"a":'],
    ['an empty refusal', 502, 'text/html', ''],
    ['a proxy error', 502, 'text/html', '<h1>Bad Gateway</h1>'],
    ['bytes that are no UTF-8', 200, 'application/json', Buffer.from([0x22, 0xff, 0x22])],
    ['JSON under another type', 200, 'text/json-ish', '{}'],
  ])('%s', async (_what, status, type, body) => {
    const url = await listen((_request, response) => void response.writeHead(status, { 'content-type': type }).end(body))
    const error = await errorOf(url)
    expect(error).toMatchObject({ code: 'bad_answer', status })
    expect(error.message).toContain(`${url} answered ${status}`)
  })

  it.each([301, 302, 303, 307, 308])('a redirect (%i) is not followed', async (status) => {
    let asked = 0
    const elsewhere = await listen((_request, response) => {
      asked++
      response.end('{}')
    })
    const url = await listen((_request, response) => void response.writeHead(status, { location: elsewhere }).end())
    expect(await errorOf(url)).toMatchObject({ code: 'redirected', status })
    expect(asked).toBe(0)
  })

  it('a silent server ends in a timeout that does not claim that nothing happened', async () => {
    const url = await listen(() => undefined)
    const message = `no whole answer from ${url} within 0.05 s.`
    expect(await errorOf(url, get, 50)).toMatchObject({ code: 'timed_out', message })
    const error = await errorOf(url, { method: 'POST', path: '/', json: {} }, 50)
    expect(error.message).toContain('Whether the request was carried out is not known')
  })

  it('a server that stops in mid-answer ends in a timeout', async () => {
    const url = await listen((_request, response) => {
      response.writeHead(200, { 'content-type': 'application/json' }).write('{')
    })
    expect((await errorOf(url, get, 100)).code).toBe('timed_out')
  })

  it('an answer without end is cut off', async () => {
    const url = await listen((_request, response) => {
      response.writeHead(200, { 'content-type': 'application/json' })
      const chunk = Buffer.alloc(1024 * 1024, 0x20)
      const more = (error?: Error | null): void => void (error ? undefined : response.write(chunk, more))
      more()
    })
    expect((await errorOf(url)).code).toBe('answer_too_large')
  })

  it('nothing listens', async () => {
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    const address = server.address()
    const port = typeof address === 'object' && address !== null ? address.port : 0
    server.close()
    await once(server, 'close')
    const error = await errorOf(`http://127.0.0.1:${port}`)
    expect(error.code).toBe('connection_failed')
    // Only where a broker in development would listen is it told how to start one.
    expect(error.message).toBe(`nothing listens at http://127.0.0.1:${port}: is that the broker's URL, and is it running?`)
    const refused = new TypeError('fetch failed', { cause: Object.assign(new Error('x'), { code: 'ECONNREFUSED' }) })
    expect(describeFailure(refused, 'http://127.0.0.1:7846', 1000, false).message).toMatch(/ Start it with stint serve --config FILE, .*npm start/)
    expect(describeFailure(refused, 'https://stint.example.com', 1000, false).message).not.toMatch(/start/i)
  })

  it('what listens does not speak HTTP, or hangs up', async () => {
    for (const [said, code] of [['220 smtp.example.com ESMTP\r\n\r\n', 'bad_answer'], ['', 'connection_failed']] as const) {
      const server = createServer((socket) => {
        socket.on('error', () => undefined)
        socket.once('data', () => socket.end(said))
      }).listen(0, '127.0.0.1')
      await once(server, 'listening')
      onTestFinished(() => void server.close())
      const address = server.address()
      const error = await errorOf(`http://127.0.0.1:${typeof address === 'object' && address !== null ? address.port : 0}`)
      expect(error.code).toBe(code)
    }
  })

  it('TLS that cannot be trusted', async () => {
    // Without a certificate the server can only fail the handshake.
    const server = createTlsServer({}).listen(0, '127.0.0.1')
    await once(server, 'listening')
    onTestFinished(() => void server.close())
    const address = server.address()
    const error = await errorOf(`https://127.0.0.1:${typeof address === 'object' && address !== null ? address.port : 0}`)
    expect(error.code).toBe('tls_failed')
    expect(error.message).toContain('NODE_EXTRA_CA_CERTS')
  })
})

describe('options', () => {
  it.each([0, -1, 1.5, Number.NaN, 600_001])('refuse a timeout of %d ms', (timeoutMs) => {
    expect(() => createSender({ url: 'https://a.example', timeoutMs })).toThrow('timeoutMs')
  })

  const malformed = ['', 'stint_op_a b', 'stint_op_a\nx: y', 'Bearer stint_op_x', 'eyJhbGciOi.x.y']
  it.each(malformed)('refuse the credential %j unseen', (token) => {
    const make = (): unknown => createAdminClient({ url: 'https://a.example', token })
    expect(make).toThrow('malformed')
    if (token !== '') expect(make).not.toThrow(token)
  })
})
