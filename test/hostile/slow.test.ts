import { setTimeout } from 'node:timers/promises'
import { describe, expect, test, vi } from 'vitest'
import { getToken } from '../broker.ts'
import { expectWell, head, listen, readAll, statusesIn, tokenRequest } from './wire.ts'

const form = 'host: a\ncontent-type: application/x-www-form-urlencoded'
const adminPut = (credential: string) => `PUT /v1/policy HTTP/1.1\nhost: a\ncontent-type: application/json\nauthorization: Bearer ${credential}`

/** The time in which a client has to be done, so short that a test can wait for it. */
const times = { headMs: 1_000, requestMs: 2_000, idleMs: 1_000 }
/** By how much the server's own look may be late, and the machine besides. */
const lateMs = 8_000

describe('A client that is too slow', () => {
  const habits: Readonly<Record<string, (write: (text: string) => void) => Promise<void>>> = {
    'sends nothing': async () => undefined,
    'sends its head byte by byte': async (write) => {
      for (const byte of head(`GET /healthz HTTP/1.1\nhost: a\n${'x-a: b\n'.repeat(50)}connection: close`)) {
        write(byte)
        await setTimeout(50)
      }
    },
    'begins a line of the head again and again': async (write) => {
      write('GET /healthz HTTP/1.1\r\nhost: a\r\n')
      for (let i = 0; i < 200; i++) {
        write(`x-${i}: b\r\n`)
        await setTimeout(100)
      }
    },
    'does not end its head': async (write) => write('GET /healthz HTTP/1.1\r\nhost: a\r\n'),
    'does not send the body that it announced': async (write) => write(head(`POST /oauth2/token HTTP/1.1\n${form}\ncontent-length: 100`)),
    'sends its body byte by byte': async (write) => {
      write(head(`POST /oauth2/token HTTP/1.1\n${form}\ncontent-length: 1000`))
      for (let i = 0; i < 200; i++) {
        write('a')
        await setTimeout(100)
      }
    },
    'sends chunk after chunk of one byte': async (write) => {
      write(head(`POST /oauth2/token HTTP/1.1\n${form}\ntransfer-encoding: chunked`))
      for (let i = 0; i < 200; i++) {
        write('1\r\na\r\n')
        await setTimeout(100)
      }
    },
    'does not end its chunks': async (write) => write(`${head(`POST /oauth2/token HTTP/1.1\n${form}\ntransfer-encoding: chunked`)}4\r\nabcd\r\n`),
    'asks once and then keeps the connection': async (write) => write(head('GET /healthz HTTP/1.1\nhost: a')),
  }

  test.each(Object.entries(habits))('and %s is cut, and holds up nobody', async (_, habit) => {
    const listening = await listen({}, { times })
    const agent = await listening.broker.register('bot')
    const beganMs = performance.now()
    const ends = await Promise.all(
      Array.from({ length: 10 }, async () => {
        const socket = listening.open()
        const answer = readAll(socket)
        void habit((text) => void (socket.destroyed || socket.write(text)))
        return answer
      }).concat(expectWell(listening, agent).then(() => 'well')),
    )
    expect(ends.at(-1)).toBe('well')
    for (const end of ends.slice(0, -1)) expect([408, 200, undefined]).toContain(statusesIn(end)[0])
    expect(performance.now() - beganMs).toBeLessThan(times.requestMs + lateMs)
    // It is no fault of the broker's, which logs none.
    await expectWell(listening, agent)
  })

  test('and reads no answer is cut, and one that reads slowly is not', async () => {
    let cut = 0
    const endless = () => {
      const piece = new Uint8Array(2 ** 20)
      // More than the system's own buffers hold.
      let left = 40
      return new Response(
        new ReadableStream({
          pull: (controller) => (left-- > 0 ? controller.enqueue(piece) : controller.close()),
          cancel: () => void cut++,
        }),
      )
    }
    const listening = await listen({}, { times: { stalledMs: 1_000 }, fetch: endless })
    const lazy = listening.open()
    lazy.write(head('GET / HTTP/1.1\nhost: a'))
    const slow = listening.open()
    let bytes = 0
    slow.on('data', (piece: Buffer) => {
      bytes += piece.length
      slow.pause()
      globalThis.setTimeout(() => slow.resume(), 5)
    })
    const closed = new Promise((resolve) => slow.once('close', resolve))
    slow.write(head('GET / HTTP/1.1\nhost: a\nconnection: close'))
    await vi.waitFor(() => expect(cut).toBe(1), { timeout: 15_000, interval: 100 })
    await closed
    expect([bytes > 40 * 2 ** 20, cut]).toEqual([true, 1])
  })
})

describe('A huge body', () => {
  const piece = 'a'.repeat(1024 * 1024)

  /** Writes a head and then up to 100 MB behind it; gives the answer and how much the client could send until it was cut. */
  async function flood(listening: Awaited<ReturnType<typeof listen>>, text: string, wrap: (body: string) => string) {
    const socket = listening.open()
    const answer = readAll(socket)
    socket.write(head(text))
    for (let i = 0; i < 100 && !socket.closed; i++) {
      if (!socket.write(wrap(piece))) await Promise.race([new Promise((resolve) => socket.once('drain', resolve)), answer])
    }
    socket.end()
    return { statuses: statusesIn(await answer), sentMb: socket.bytesWritten / piece.length }
  }
  const plain = (body: string) => body
  const chunked = (body: string) => `${body.length.toString(16)}\r\n${body}\r\n`

  test('is refused before it is read, and the connection closed', async () => {
    const listening = await listen()
    const agent = await listening.broker.register('bot')
    const { adminCredential } = listening.broker
    const length = `content-length: ${100 * piece.length}`
    const cases: readonly (readonly [string, (body: string) => string, number])[] = [
      [`POST /oauth2/token HTTP/1.1\n${form}\n${length}`, plain, 413],
      [`POST /oauth2/token HTTP/1.1\n${form}\ntransfer-encoding: chunked`, chunked, 413],
      [`POST /oauth2/token HTTP/1.1\nhost: a\ncontent-type: text/plain\n${length}`, plain, 400],
      [`${adminPut('stint_op_wrong')}\n${length}`, plain, 401],
      [`${adminPut('stint_op_wrong')}\ntransfer-encoding: chunked`, chunked, 401],
      [`${adminPut(adminCredential)}\n${length}`, plain, 413],
      [`${adminPut(adminCredential)}\ntransfer-encoding: chunked`, chunked, 413],
      [`POST /nothing HTTP/1.1\nhost: a\n${length}`, plain, 404],
      [`DELETE /v1/policy HTTP/1.1\nhost: a\n${length}`, plain, 405],
      [`GET /healthz HTTP/1.1\nhost: a\n${length}`, plain, 400],
    ]
    const before = process.memoryUsage().rss
    for (const [text, wrap, status] of cases) {
      const { statuses, sentMb } = await flood(listening, text, wrap)
      expect([text, statuses]).toEqual([text, [status]])
      // Its own buffers and those of the system hold some; a policy set of 24 MB is read to its end.
      expect([text, sentMb < (text.includes(adminCredential) ? 60 : 30)]).toEqual([text, true])
    }
    expect((process.memoryUsage().rss - before) / 2 ** 20).toBeLessThan(300)
    await expectWell(listening, agent)
  })

  test('that ends before it was announced to, or goes on behind, is an error of that client alone', async () => {
    const listening = await listen()
    const agent = await listening.broker.register('bot')
    const short = await listening.exchange(`${head(`POST /oauth2/token HTTP/1.1\n${form}\ncontent-length: 100`)}grant_type=x`, { end: true })
    expect(statusesIn(short)).toEqual([400])
    const long = await listening.exchange(`${head(`POST /oauth2/token HTTP/1.1\n${form}\ncontent-length: 12`)}grant_type=xyz`, { end: true })
    expect(statusesIn(long)).toEqual([400])
    for (let i = 0; i < 20; i++) {
      const socket = listening.open()
      socket.write(`${head(`POST /oauth2/token HTTP/1.1\n${form}\ncontent-length: 100`)}grant_type=x`)
      await setTimeout(5)
      socket.resetAndDestroy()
    }
    await setTimeout(100)
    await expectWell(listening, agent)
  })
})

describe('Many connections', () => {
  test('200 that hang at every stage leave a good request its prompt answer', async () => {
    const listening = await listen()
    const agent = await listening.broker.register('bot')
    const stages = [
      '',
      'GET /heal',
      'GET /healthz HTTP/1.1\r\nhost: a\r\n',
      head(`POST /oauth2/token HTTP/1.1\n${form}\ncontent-length: 60000`),
      `${head(`POST /oauth2/token HTTP/1.1\n${form}\ntransfer-encoding: chunked`)}4\r\nabcd\r\n`,
      `${head(`${adminPut('x')}\ncontent-length: 20000000`)}${'a'.repeat(100_000)}`,
    ]
    const sockets = Array.from({ length: 200 }, (_, i) => {
      const socket = listening.open()
      socket.write(stages[i % stages.length] ?? '')
      return socket
    })
    await setTimeout(200)
    expect(sockets.filter((socket) => !socket.destroyed).length).toBeGreaterThan(150)
    for (let i = 0; i < 5; i++) {
      const beganMs = performance.now()
      expect(statusesIn(await listening.exchange(tokenRequest(agent)))).toEqual([200])
      expect(performance.now() - beganMs).toBeLessThan(5_000)
    }
    await getToken(listening.broker, agent, { scope: 'tickets:read' })
  })

  test('of one address are limited, and those of another are not its concern', async () => {
    const listening = await listen({}, { connectionsPerAddressMax: 20 })
    const agent = await listening.broker.register('bot')
    const first = Array.from({ length: 20 }, () => listening.open('127.0.0.2'))
    await setTimeout(100)
    expect(await listening.exchange(tokenRequest(agent), { from: '127.0.0.2' })).toBe('')
    expect(statusesIn(await listening.exchange(tokenRequest(agent)))).toEqual([200])
    // Once one is closed, another one may come.
    first[0]?.destroy()
    await setTimeout(100)
    expect(statusesIn(await listening.exchange(tokenRequest(agent), { from: '127.0.0.2' }))).toEqual([200])
  })

  test('of anybody but the proxy are cut, and the proxy\'s are not counted', async () => {
    const listening = await listen({}, { connectionsPerAddressMax: 3, onlyFrom: ['127.0.0.1', '::1'] })
    const agent = await listening.broker.register('bot')
    Array.from({ length: 10 }, () => listening.open())
    await setTimeout(50)
    expect(statusesIn(await listening.exchange(tokenRequest(agent)))).toEqual([200])
    expect(await listening.exchange(tokenRequest(agent), { from: '127.0.0.2' })).toBe('')
  })
})
