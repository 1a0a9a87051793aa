import { connect, type Socket } from 'node:net'
import { onTestFinished } from 'vitest'
import { createHttpServer, type HttpServerOptions } from '../../src/http/server.ts'
import { getToken, startBroker, type BrokerOptions, type TestAgent, type TestBroker } from '../broker.ts'
import { findFreePort } from '../free-port.ts'

/** A broker that listens on loopback, to be written to byte by byte. */
export interface Listening {
  readonly broker: TestBroker
  readonly port: number
  /** Connects from an address of this machine. */
  open(from?: string): Socket
  /** Writes these bytes on a connection of its own and reads until the broker closes it; what came, as Latin-1. */
  exchange(bytes: string | Buffer, options?: { readonly end?: boolean; readonly from?: string }): Promise<string>
  drain(): Promise<void>
}

export type ListenOptions = Partial<Pick<HttpServerOptions, 'fetch' | 'times' | 'tls' | 'onlyFrom' | 'connectionsPerAddressMax'>>

export async function listen(brokerOptions: BrokerOptions = {}, options: ListenOptions = {}): Promise<Listening> {
  const broker = await startBroker('sqlite', brokerOptions)
  const port = await findFreePort()
  const server = createHttpServer({ fetch: broker.app.fetch, door: broker.door, broker: broker.broker, connectionsPerAddressMax: 1_000, ...options, times: { drainMs: 100, ...options.times } })
  await server.listen('127.0.0.1', port)
  let draining: Promise<void> | undefined
  const drain = () => (draining ??= server.drain())
  onTestFinished(drain)

  function open(from = '127.0.0.1'): Socket {
    const socket = connect({ port, host: '127.0.0.1', localAddress: from })
    // The broker may cut what it does not want at any time.
    socket.on('error', () => undefined)
    onTestFinished(() => void socket.destroy())
    return socket
  }
  return {
    broker,
    port,
    open,
    drain,
    async exchange(bytes, { end = false, from } = {}) {
      const socket = open(from)
      const answer = readAll(socket)
      socket.write(bytes)
      if (end) socket.end()
      return answer
    },
  }
}

/** What comes over a connection until it is closed or cut. */
export async function readAll(socket: Socket): Promise<string> {
  const pieces: Buffer[] = []
  socket.on('data', (piece: Buffer) => pieces.push(piece))
  await new Promise((resolve) => socket.once('close', resolve))
  return Buffer.concat(pieces).toString('latin1')
}

/** The status of each answer in what came. */
export function statusesIn(text: string): number[] {
  return [...text.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map(([, status]) => Number(status))
}

/** A request of these lines; `\n` becomes CRLF, and the head ends by itself. */
export function head(text: string): string {
  return `${text.replaceAll('\n', '\r\n')}\r\n\r\n`
}

/** A token request that the agent has the right to, as bytes. */
export function tokenRequest(agent: TestAgent): string {
  const body = new URLSearchParams(agent.form({ grant_type: 'client_credentials', scope: 'tickets:read' })).toString()
  return `${head(`POST /oauth2/token HTTP/1.1\nhost: stint.test\nconnection: close\ncontent-type: application/x-www-form-urlencoded\ncontent-length: ${body.length}`)}${body}`
}

/** That the broker is well: it issues a token over a connection of its own, and has logged no error. */
export async function expectWell({ broker, exchange }: Listening, agent: TestAgent): Promise<void> {
  const answer = await exchange(tokenRequest(agent))
  if (statusesIn(answer)[0] !== 200) throw new Error(`no token: ${answer}`)
  await getToken(broker, agent, { scope: 'tickets:read' })
  const errors = broker.logLines.filter((line) => /"level":"(?:error|warn)"/.test(line))
  if (errors.length > 0) throw new Error(`the broker logged ${errors.join('')}`)
}
