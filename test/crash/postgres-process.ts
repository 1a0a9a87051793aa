import { once } from 'node:events'
import { appendFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { createEmbeddedServer } from '../embedded-postgres.ts'

/**
 * A PostgreSQL server that can be stopped in each of its ways and started again, in a process of its own. Its argument is a
 * folder, in which the data stay, and what the server logs (`server.log`). Does what its parent says, one thing after
 * another, and stops the server when the parent goes away.
 */
const [, , folder = ''] = process.argv
const { server, data, start } = await createEmbeddedServer(folder, {
  connectionsMax: 100,
  persistent: true,
  onLog(text) {
    try {
      appendFileSync(join(folder, 'server.log'), text)
    } catch {
      // On a disk that is full, which a test may be about.
    }
  },
})

const signals = { fast: 'SIGINT', immediate: 'SIGQUIT' } as const
type Order = 'start' | keyof typeof signals

/** The first line of this file is the process id of the server (https://www.postgresql.org/docs/current/storage-file-layout.html). */
async function readPid(): Promise<number> {
  return Number((await readFile(join(data, 'postmaster.pid'), 'utf8')).split('\n')[0])
}

async function isRunning(): Promise<boolean> {
  return readPid().then(isAlive, () => false)
}

async function stop(how: keyof typeof signals): Promise<void> {
  const pid = await readPid()
  process.kill(pid, signals[how])
  while (isAlive(pid)) await setTimeout(5)
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

process.once('disconnect', () => {
  void server.stop().finally(() => process.exit(0))
})

await start()

for (;;) {
  const [order] = (await once(process, 'message')) as [Order]
  // One that went down by itself is started by the same word as one that was stopped.
  await (order === 'start' ? isRunning().then((running) => (running ? undefined : server.start())) : stop(order))
  process.send?.('done')
}
