import { createServer, type RequestListener } from 'node:http'
import { once } from 'node:events'
import { onTestFinished } from 'vitest'

/** A server on a free port of this machine that answers so; closed after the test. Returns its origin. */
export async function listen(listener: RequestListener): Promise<string> {
  const server = createServer(listener)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  const address = server.address()
  if (typeof address !== 'object' || address === null) throw new Error('no port')
  return `http://127.0.0.1:${address.port}`
}
