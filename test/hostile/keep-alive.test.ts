import { once } from 'node:events'
import { connect } from 'node:net'
import { setTimeout } from 'node:timers/promises'
import { describe, expect, onTestFinished, test } from 'vitest'
import { head, listen, readAll, statusesIn, tokenRequest } from './wire.ts'

const post = (path: string, rest = '') => `POST ${path} HTTP/1.1\nhost: a${rest}\ncontent-type: application/json`
const admin = (credential: string) => post('/v1/revocations', `\nauthorization: Bearer ${credential}`)
const body = '{"x":1}'
const next = head('GET /healthz HTTP/1.1\nhost: a\nconnection: close')

/** Requests that are refused whether their body has come or not, and the status of the refusal. */
const refused: Readonly<Record<string, readonly [text: string, status: number]>> = {
  'at no address': [post('/nothing'), 404],
  'by a method that is not taken': [post('/healthz'), 405],
  'by an operator without a credential': [post('/v1/revocations'), 401],
  'by an operator with a wrong one': [admin('stint_op_0000000000000000_x'), 401],
  'of another content type': [post('/oauth2/token'), 400],
  'with a query': [post('/oauth2/token?x=1'), 400],
}

describe.each(Object.entries(refused))('A request that is refused %s', (_, [text, status]) => {
  test.each([
    ['its length is said', `content-length: ${body.length}`, body],
    ['it comes in chunks', 'transfer-encoding: chunked', `${body.length}\r\n${body}\r\n0\r\n\r\n`],
  ])('before its body came, where %s, is answered with the word that the connection ends', async (_way, length, bytes) => {
    const listening = await listen()
    const socket = listening.open()
    const answer = readAll(socket)
    const answered = once(socket, 'data')
    socket.write(head(`${text}\n${length}`))
    await answered
    socket.write(bytes)
    // What a proxy sends for somebody else must not be sent into it.
    socket.write(next)
    const seen = await answer
    expect([statusesIn(seen), seen]).toEqual([[status], expect.stringMatching(/\r\nconnection: close\r\n/i)])
    expect(seen).not.toMatch(/keep-alive/i)
  })

  test('and whose body has come leaves the connection to the next one', async () => {
    const listening = await listen()
    const socket = listening.open()
    const answer = readAll(socket)
    socket.write(`${head(`${text}\ncontent-length: ${body.length}`)}${body}`)
    await once(socket, 'data')
    socket.write(next)
    const [first = '', second = ''] = (await answer).split(/(?<=.)(?=HTTP\/1\.1 )/s)
    expect([statusesIn(first), statusesIn(second)]).toEqual([[status], [200]])
    expect(first).toMatch(/\r\nconnection: keep-alive\r\n/i)
  })
})

test('A connection lasts for good requests whose bodies come late, one after the other', async () => {
  const listening = await listen()
  const agent = await listening.broker.register('bot')
  const socket = listening.open()
  const answer = readAll(socket)
  for (const last of [false, false, true]) {
    const [first = '', form = ''] = tokenRequest(agent).split('\r\n\r\n')
    const answered = once(socket, 'data')
    socket.write(`${last ? first : first.replace('connection: close\r\n', '')}\r\n\r\n`)
    await setTimeout(25)
    socket.write(form)
    await answered
  }
  expect(statusesIn(await answer)).toEqual([200, 200, 200])
})

test('A request of which no address can be made is answered with the word that the connection ends', async () => {
  const listening = await listen()
  const socket = listening.open()
  const answer = readAll(socket)
  const answered = once(socket, 'data')
  socket.write(head('POST /oauth2/token HTTP/1.1\nhost: a/b\ncontent-length: 4'))
  await answered
  socket.write(`abcd${next}`)
  const seen = await answer
  expect([statusesIn(seen), seen]).toEqual([[400], expect.stringMatching(/\r\nconnection: close\r\n/i)])
})

test.each(['keep-alive', 'close'])('A client that wants the connection to %s, and reads nothing before it has sent all, gets its answer', async (wish) => {
  const listening = await listen()
  for (let i = 0; i < 5; i++) {
    const socket = connect({ port: listening.port, host: '127.0.0.1', allowHalfOpen: true })
    onTestFinished(() => void socket.destroy())
    const errors: Error[] = []
    socket.on('error', (error) => errors.push(error))
    socket.write(head(`${post('/nothing')}\nconnection: ${wish}\ncontent-length: 500000`))
    for (let sent = 0; sent < 500_000; sent += 50_000) {
      await setTimeout(10)
      socket.write('a'.repeat(50_000))
    }
    expect(errors).toEqual([])
    socket.end()
    const seen = await readAll(socket)
    expect(errors).toEqual([])
    expect([statusesIn(seen), seen]).toEqual([[404], expect.stringMatching(/\r\nconnection: close\r\n/i)])
  }
})
