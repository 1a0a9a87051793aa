import { randomBytes } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { expectWell, head, listen, readAll, statusesIn, tokenRequest } from './wire.ts'

const get = 'GET /healthz HTTP/1.1\nhost: a\nconnection: close'

/** What strangers write, and the statuses of the answers: several where more than one is right, none where it is cut. */
const shapes: Readonly<Record<string, readonly [bytes: string | Buffer, statuses: readonly number[]]>> = {
  'a good request': [head(get), [200]],
  'both lengths': [`${head('POST /oauth2/token HTTP/1.1\nhost: a\ncontent-length: 4\ntransfer-encoding: chunked')}0\r\n\r\n`, [400]],
  'two lengths': [`${head('POST /oauth2/token HTTP/1.1\nhost: a\ncontent-length: 4\ncontent-length: 5')}abcde`, [400]],
  'the same length twice': [`${head('POST /oauth2/token HTTP/1.1\nhost: a\ncontent-length: 4\ncontent-length: 4')}abcd`, [400]],
  'a list of lengths': [`${head('POST /oauth2/token HTTP/1.1\nhost: a\ncontent-length: 4, 4')}abcd`, [400]],
  'a signed length': [`${head('POST /oauth2/token HTTP/1.1\nhost: a\ncontent-length: +4')}abcd`, [400]],
  'a negative length': [head('POST /oauth2/token HTTP/1.1\nhost: a\ncontent-length: -4'), [400]],
  'a hexadecimal length': [`${head('POST /oauth2/token HTTP/1.1\nhost: a\ncontent-length: 0x4')}abcd`, [400]],
  'a length beyond all numbers': [head('POST /oauth2/token HTTP/1.1\nhost: a\ncontent-length: 99999999999999999999999'), [400]],
  'a length of 100 MB': [head('POST /oauth2/token HTTP/1.1\nhost: a\ncontent-type: application/x-www-form-urlencoded\ncontent-length: 104857600'), [413]],
  'an unknown coding': [head('POST /oauth2/token HTTP/1.1\nhost: a\ntransfer-encoding: gzip'), [400]],
  'chunked twice': [`${head('POST /oauth2/token HTTP/1.1\nhost: a\ntransfer-encoding: chunked, chunked')}0\r\n\r\n`, [400]],
  'chunked not last': [`${head('POST /oauth2/token HTTP/1.1\nhost: a\ntransfer-encoding: chunked, identity')}0\r\n\r\n`, [400]],
  'chunked with a tab': [`${head('POST /oauth2/token HTTP/1.1\nhost: a\ntransfer-encoding:\tchunked\ntransfer-encoding: x')}0\r\n\r\n`, [400]],
  'a space before the colon': [`${head('POST /oauth2/token HTTP/1.1\nhost: a\ntransfer-encoding : chunked')}0\r\n\r\n`, [400]],
  'a folded header': [head('GET /healthz HTTP/1.1\nhost: a\nx-a: b\n c\nconnection: close'), [400]],
  'bare line feeds': ['GET /healthz HTTP/1.1\nhost: a\n\n', [400]],
  'a bare carriage return': ['GET /healthz HTTP/1.1\r\nhost: a\rx-a: b\r\n\r\n', [400]],
  'NUL in a header': [head('GET /healthz HTTP/1.1\nhost: a\nx-a: b\0c'), [400]],
  'NUL in the address': [head('GET /healthz\0 HTTP/1.1\nhost: a'), [400]],
  'NUL in a header\'s name': [head('GET /healthz HTTP/1.1\nhost: a\nx\0a: b'), [400]],
  'a header without a name': [head('GET /healthz HTTP/1.1\nhost: a\n: b'), [400]],
  'garbage for a chunk': [`${head('POST /oauth2/token HTTP/1.1\nhost: a\ncontent-type: application/x-www-form-urlencoded\ntransfer-encoding: chunked')}xyz\r\n`, [400]],
  'a chunk of a negative size': [`${head('POST /oauth2/token HTTP/1.1\nhost: a\ncontent-type: application/x-www-form-urlencoded\ntransfer-encoding: chunked')}-4\r\nabcd\r\n`, [400]],
  'a chunk of a huge size': [`${head('POST /oauth2/token HTTP/1.1\nhost: a\ncontent-type: application/x-www-form-urlencoded\ntransfer-encoding: chunked')}ffffffffffffffffff\r\n`, [400]],
  'a chunk longer than it says': [`${head('POST /oauth2/token HTTP/1.1\nhost: a\ncontent-type: application/x-www-form-urlencoded\ntransfer-encoding: chunked')}2\r\nabcd\r\n`, [400]],
  'a chunk with an endless extension': [`${head('POST /oauth2/token HTTP/1.1\nhost: a\ncontent-type: application/x-www-form-urlencoded\ntransfer-encoding: chunked')}1;${'x'.repeat(100_000)}`, [413]],
  '1,000 headers': [head(`GET /healthz HTTP/1.1\nhost: a\n${'a: b\n'.repeat(1_000)}connection: close`), [431]],
  '100 headers': [head(`GET /healthz HTTP/1.1\nhost: a\n${'a: b\n'.repeat(98)}connection: close`), [200]],
  '101 headers': [head(`GET /healthz HTTP/1.1\nhost: a\n${'a: b\n'.repeat(99)}connection: close`), [400]],
  'a header of 100 KB': [head(`GET /healthz HTTP/1.1\nhost: a\nx-a: ${'b'.repeat(100_000)}`), [431]],
  'an address of 100 KB': [head(`GET /${'a'.repeat(100_000)} HTTP/1.1\nhost: a`), [431]],
  'HTTP/1.0 without a host': [head('GET /healthz HTTP/1.0'), [400]],
  'HTTP/1.0 with a host': [head('GET /healthz HTTP/1.0\nhost: a'), [200]],
  'HTTP/1.1 without a host': [head('GET /healthz HTTP/1.1'), [400]],
  'two hosts': [head('GET /healthz HTTP/1.1\nhost: a\nhost: b\nconnection: close'), [400]],
  'a host with a path': [head('GET /healthz HTTP/1.1\nhost: a/b\nconnection: close'), [400]],
  'a host with a user': [head('GET /healthz HTTP/1.1\nhost: a@b\nconnection: close'), [400]],
  'an unknown host': [head('GET /healthz HTTP/1.1\nhost: elsewhere.test\nconnection: close'), [200]],
  'HTTP/0.9': ['GET /healthz\r\n', [400]],
  'HTTP/3.0': [head('GET /healthz HTTP/3.0\nhost: a'), [400]],
  'the preface of HTTP/2': ['PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', [400]],
  'the begin of TLS': [Buffer.concat([Buffer.from('1603010200010001fc0303', 'hex'), randomBytes(500)]), [400]],
  'noise': [Buffer.concat([Buffer.from([0]), randomBytes(2_000)]), [400]],
  'a method that nobody knows': [head('BREW /healthz HTTP/1.1\nhost: a'), [400]],
  'a method in small letters': [head('get /healthz HTTP/1.1\nhost: a'), [400]],
  'CONNECT': [head('CONNECT elsewhere.test:443 HTTP/1.1\nhost: elsewhere.test:443'), []],
  'TRACE': [head('TRACE /healthz HTTP/1.1\nhost: a\nx-secret: s\nconnection: close'), [405]],
  'OPTIONS for the whole server': [head('OPTIONS * HTTP/1.1\nhost: a\nconnection: close'), [400]],
  'an absolute address': [head('GET http://a/healthz HTTP/1.1\nhost: a\nconnection: close'), [404]],
  'an absolute address of another host': [head('GET http://elsewhere.test/v1/workloads HTTP/1.1\nhost: a\nconnection: close'), [404]],
  'an address without a slash': [head('GET healthz HTTP/1.1\nhost: a\nconnection: close'), [400]],
  'an upgrade to a web socket': [
    head('GET /healthz HTTP/1.1\nhost: a\nconnection: upgrade, close\nupgrade: websocket\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\nsec-websocket-version: 13'),
    [200],
  ],
  'an upgrade to HTTP/2': [head('GET /healthz HTTP/1.1\nhost: a\nconnection: upgrade, http2-settings, close\nupgrade: h2c\nhttp2-settings: AAMAAABkAAQAAP__'), [200]],
  'an expectation that nobody knows': [head('POST /oauth2/token HTTP/1.1\nhost: a\nexpect: tea\ncontent-length: 4\nconnection: close'), [417]],
  'a body that a GET must not have': [`${head('GET /healthz HTTP/1.1\nhost: a\ncontent-length: 4\nconnection: close')}abcd`, [400]],
  'a chunked body that a GET must not have': [`${head('GET /healthz HTTP/1.1\nhost: a\ntransfer-encoding: chunked\nconnection: close')}4\r\nabcd\r\n0\r\n\r\n`, [400]],
}

describe('What is no good HTTP', () => {
  test('gets one clear refusal, or none, and nobody else notices', async () => {
    const listening = await listen()
    const agent = await listening.broker.register('bot')
    const seen = await Promise.all(
      Object.entries(shapes).map(async ([name, [bytes]]) => {
        const answer = await listening.exchange(bytes, { end: true })
        return [name, statusesIn(answer), /(?:^|\n)\s+at |node:|\.ts:|x-secret/.test(answer)] as const
      }),
    )
    expect(seen).toEqual(Object.entries(shapes).map(([name, [, statuses]]) => [name, statuses, false]))
    await expectWell(listening, agent)
  })

  test('never lets a second request out of a first one', async () => {
    const listening = await listen()
    // Whoever reads the first by the one length sees a request that whoever reads it by the other does not.
    const inner = head('GET /oauth2/jwks HTTP/1.1\nhost: a\nconnection: close')
    const outers = [
      `${head(`POST /oauth2/token HTTP/1.1\nhost: a\ncontent-length: ${inner.length + 5}\ntransfer-encoding: chunked`)}0\r\n\r\n${inner}`,
      `${head('POST /oauth2/token HTTP/1.1\nhost: a\ncontent-length: 0\ncontent-length: 60')}${inner}`,
      `${head('POST /oauth2/token HTTP/1.1\nhost: a\nx-a: b\rcontent-length: 0')}${inner}`,
      `${head('POST /oauth2/token HTTP/1.1\nhost: a\ntransfer-encoding: xchunked')}${inner}`,
      `${head('POST /oauth2/token HTTP/1.1\nhost: a\ntransfer-encoding: chunked')}0;\n\r\n\r\n${inner}`,
      `${head('POST /oauth2/token HTTP/1.1\nhost: a\ncontent-length: 6\n transfer-encoding: chunked')}0\r\n\r\n${inner}`,
    ]
    for (const outer of outers) {
      const answer = await listening.exchange(outer, { end: true })
      expect([outer.slice(0, 120), answer.includes('"keys"'), statusesIn(answer).length]).toEqual([outer.slice(0, 120), false, 1])
    }
    // Where the body is the body, by its length, it is no request either.
    const body = await listening.exchange(`${head(`POST /oauth2/token HTTP/1.1\nhost: a\nconnection: close\ncontent-length: ${inner.length}`)}${inner}`)
    expect([statusesIn(body), body.includes('"keys"')]).toEqual([[400], false])
  })
})

describe('Requests that are sent before the answer', () => {
  test('are answered in order while they are few, and cut where they are many', async () => {
    const listening = await listen()
    const agent = await listening.broker.register('bot')
    const keep = head('GET /healthz HTTP/1.1\nhost: a')
    const few = await listening.exchange(`${keep.repeat(20)}${head('GET /nothing HTTP/1.1\nhost: a\nconnection: close')}`)
    expect(statusesIn(few)).toEqual([...Array.from({ length: 20 }, () => 200), 404])
    const many = await listening.exchange(keep.repeat(5_000))
    expect(statusesIn(many).length).toBeLessThan(100)
    await expectWell(listening, agent)
  })
})

test('A client that asks before it sends its body is told to go on', async () => {
  const listening = await listen()
  const agent = await listening.broker.register('bot')
  const [first = '', body = ''] = tokenRequest(agent).split('\r\n\r\n')
  const socket = listening.open()
  const answer = readAll(socket)
  socket.write(`${first}\r\nexpect: 100-continue\r\n\r\n`)
  await new Promise((resolve) => socket.once('data', resolve))
  socket.write(body)
  expect(await answer).toMatch(/^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 200 OK\r\n/)
})
