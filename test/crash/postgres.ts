import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { runAsOwner, servingRole, type Server } from '../template.ts'

/** A PostgreSQL server of one's own, on a free port. */
export interface OwnPostgres extends Server {
  /** Stops it: `fast` ends every session first, `immediate` does not even flush (the next start recovers from its log). */
  stop(how: 'fast' | 'immediate'): Promise<void>
  /** Starts it, unless it runs. */
  start(): Promise<void>
  /** Stops it for good. Its data stay in the folder. */
  end(): Promise<void>
}

/** Starts PostgreSQL with its data in a folder, and makes the role that serves. Throws where there is none for this machine. */
export async function startPostgres(folder: string): Promise<OwnPostgres> {
  const child = fork(fileURLToPath(new URL('postgres-process.ts', import.meta.url)), [folder], {
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    // Ctrl-C in a terminal reaches its whole group, and would stop the server under the broker.
    detached: true,
  })
  const exited = once(child, 'exit')
  const end = async (): Promise<void> => {
    if (child.connected) child.disconnect()
    await exited
  }
  const answer = async <T>(): Promise<T> => {
    const [message] = (await Promise.race([once(child, 'message'), exited.then(() => Promise.reject(new Error('the process of PostgreSQL ended')))])) as [T]
    return message
  }
  const order = async (what: string): Promise<void> => {
    child.send(what)
    await answer()
  }
  const started = await answer<Server | { missing: string }>()
  if ('missing' in started) {
    await end()
    throw new Error(`PostgreSQL could not be started here: ${started.missing}`)
  }
  await runAsOwner(started, `create role ${servingRole} login password 'app-password'`)
  return { ...started, stop: order, start: () => order('start'), end }
}
