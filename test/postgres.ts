import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { TestProject } from 'vitest/node'
import { migrateTemplate } from './template.ts'

declare module 'vitest' {
  interface ProvidedContext {
    postgres: PostgresUnderTest
  }
}

/** A real PostgreSQL for the whole run, or why there is none. */
export type PostgresUnderTest =
  | { readonly port: number; readonly password: string; readonly missing?: undefined }
  | { readonly missing: string }

/** Starts PostgreSQL on a free port before all tests and stops it after them. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const server = fork(fileURLToPath(new URL('postgres-server.ts', import.meta.url)), { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] })
  const exited = once(server, 'exit')
  const started = await Promise.race([
    once(server, 'message').then(([message]) => message as PostgresUnderTest),
    exited.then(([code]) => ({ missing: `its process ended with ${String(code)}` })),
  ])
  if (started.missing === undefined) await migrateTemplate(started)
  else if (process.env['CI'] !== undefined) throw new Error(`no PostgreSQL could be started here: ${started.missing}`)
  else console.warn(`The tests on PostgreSQL are skipped: it could not be started here: ${started.missing}`)
  project.provide('postgres', started)
  return async () => {
    if (server.connected) server.disconnect()
    await exited
  }
}
