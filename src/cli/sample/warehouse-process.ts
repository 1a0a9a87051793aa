import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createEmbeddedServer } from './embedded-postgres.ts'

/**
 * The sample database's server, in a process of its own, which stops and leaves nothing when its parent goes away. Its data
 * are in the folder for temporary files, where the server's own user can walk to.
 */
const folder = await mkdtemp(join(tmpdir(), 'stint-warehouse-'))
const password = process.env['WAREHOUSE_OWNER_PASSWORD']
if (password === undefined) throw new Error('WAREHOUSE_OWNER_PASSWORD is missing')
const { server, start } = await createEmbeddedServer(folder, { connectionsMax: 60, connectionsReserved: 5, persistent: false, password })

process.once('disconnect', () => void stop())

await start()

async function stop(): Promise<void> {
  await server.stop().catch(() => undefined)
  await rm(folder, { recursive: true, force: true })
  process.exit(0)
}
