import { connect, createServer, type Socket } from 'node:net'
import { onTestFinished } from 'vitest'

/** What happens to one piece of data on its way: on it goes, or not. The hook may also cut the connection. */
export type Verdict = 'forward' | 'drop'

/** One connection as the proxy sees it. */
export interface ProxiedConnection {
  readonly client: Socket
  readonly server: Socket
  /** Ends both sides at once, without a farewell. */
  cut(): void
}

export interface TcpProxy {
  /** Where clients connect, on 127.0.0.1. */
  readonly port: number
  /** Asked for each piece of data that a client sends, and that the server answers. */
  onRequest: (data: Buffer, connection: ProxiedConnection) => Verdict
  onAnswer: (data: Buffer, connection: ProxiedConnection) => Verdict
  cutAll(): void
  /** Stops listening and cuts everything; `listen` begins again on the same port. */
  stop(): Promise<void>
  listen(): Promise<void>
}

/** A wire to a real server on this machine that the test can cut, hold or read. Gone when the test is finished. */
export async function startTcpProxy(serverPort: number): Promise<TcpProxy> {
  const open = new Set<ProxiedConnection>()
  const server = createServer((client) => {
    const upstream = connect(serverPort, '127.0.0.1')
    const connection: ProxiedConnection = {
      client,
      server: upstream,
      cut: () => {
        client.resetAndDestroy()
        upstream.destroy()
      },
    }
    open.add(connection)
    client.on('data', (data: Buffer) => void (proxy.onRequest(data, connection) === 'forward' && upstream.write(data)))
    upstream.on('data', (data: Buffer) => void (proxy.onAnswer(data, connection) === 'forward' && client.write(data)))
    for (const [one, other] of [[client, upstream], [upstream, client]] as const) {
      one.on('error', () => undefined)
      one.on('end', () => other.end())
      // Also after a reset, which is no end.
      one.on('close', () => {
        open.delete(connection)
        other.destroy()
      })
    }
  })
  let port = 0
  const proxy: TcpProxy = {
    get port() {
      return port
    },
    onRequest: () => 'forward',
    onAnswer: () => 'forward',
    cutAll: () => {
      for (const connection of open) connection.cut()
    },
    async stop() {
      proxy.cutAll()
      await new Promise((resolve) => server.close(resolve))
    },
    async listen() {
      await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve))
      const address = server.address()
      if (address === null || typeof address === 'string') throw new Error('the proxy has no port')
      port = address.port
    },
  }
  await proxy.listen()
  onTestFinished(() => proxy.stop())
  return proxy
}
