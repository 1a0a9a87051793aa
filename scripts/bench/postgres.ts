import { fork } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { ownerUrl, runAsOwner, servingRole, servingUrl, type Server } from '../../test/template.ts'
import { root } from './children.ts'

/** A PostgreSQL of this run, with its usual settings: `fsync` and `synchronous_commit` are on. */
export interface Postgres {
  readonly server: Server
  /** Makes a database, and gives the URLs of the role that serves and of the owner. */
  createDatabase(name: string): Promise<{ readonly url: string; readonly ownerUrl: string }>
  stop(): Promise<void>
}

/** Starts it in the folder, in a process of its own. Gives why not where it cannot be started here. */
export async function startPostgres(folder: string): Promise<Postgres | { readonly missing: string }> {
  const child = fork(join(root, 'test/postgres-server.ts'), { stdio: ['ignore', 'ignore', 'inherit', 'ipc'], env: { ...process.env, TMPDIR: folder } })
  const exited = once(child, 'exit')
  // What it sends.
  const started = await Promise.race([
    once(child, 'message').then(([message]) => message as Server | { missing: string }),
    exited.then(([code]) => ({ missing: `its process ended with ${String(code)}` })),
  ])
  const stop = async () => {
    if (child.connected) child.disconnect()
    await exited
  }
  if ('missing' in started) {
    await stop()
    return started
  }
  await runAsOwner(started, `create role ${servingRole} login password 'app-password'`)
  return {
    server: started,
    async createDatabase(name) {
      await runAsOwner(started, `create database ${name}`)
      return { url: servingUrl(started, name), ownerUrl: ownerUrl(started, name) }
    },
    stop,
  }
}
