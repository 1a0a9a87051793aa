import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createEmbeddedServer } from './embedded-postgres.ts'

/** The PostgreSQL server of a test run, in a process of its own. Stops, and leaves nothing, when its parent goes away. */
const folder = await mkdtemp(join(tmpdir(), 'stint-postgres-'))
const { server, start } = await createEmbeddedServer(folder, { connectionsMax: 200, connectionsReserved: 5, persistent: false })

process.once('disconnect', () => void stop())
// Ctrl-C in a terminal reaches the whole group; the parent decides when this ends.
process.on('SIGINT', () => {})

await start()

async function stop(): Promise<void> {
  await server.stop().catch(() => undefined)
  await rm(folder, { recursive: true, force: true })
  process.exit(0)
}
