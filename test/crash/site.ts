import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { Engine } from '../../src/storage/engine.ts'
import { findFreePort } from '../free-port.ts'
import { ownerUrl, runAsOwner, servingUrl, type Server } from '../template.ts'
import { startChild, stintProgram, type Child, type Ended } from './child.ts'
import type { Order } from './hooks.ts'
import { createClient } from './http.ts'

export const siteIssuer = 'https://stint.test'
export const siteTrustDomain = 'stint.test'

/** Everything that a broker in production needs, in a folder of its own, on either engine. */
export interface Site {
  readonly engine: Engine
  readonly folder: string
  readonly configFile: string
  readonly port: number
  /** SQLite: the file. PostgreSQL: the URL of the serving role. */
  readonly database: string
  /** PostgreSQL: the owner's URL, of a user who may do anything. */
  readonly ownerUrl: string
  /** Starts `stint migrate`, which makes an admin too. */
  migrate(admin: string): Child
  /** Starts a broker; another than the first is told on which port it listens. */
  serve(port?: number): Child
  /** Loads one that takes orders, and waits for them. */
  load(): Child
  /** Starts one that takes orders, which may be loaded already: its clock can be moved, and it dies where it is told to. */
  serveWithHooks(orders: readonly Exclude<Order, 'tick'>[], loaded?: Child): Child
}

/** A fresh site. `folder` must exist; on PostgreSQL a database is made on the server. Brokers that are loaded beforehand load these modules too. */
export async function createSite(folder: string, engine: Engine, server?: Server, preload: readonly string[] = []): Promise<Site> {
  const port = await findFreePort()
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  writeFileSync(join(folder, 'root.key'), `${randomBytes(32).toString('base64')}\n`, { mode: 0o600 })
  chmodSync(join(folder, 'root.key'), 0o600)
  const place = engine === 'sqlite' ? createSqlitePlace(folder) : await createPostgresPlace(server)
  const configure = (listenPort: number): string => {
    const file = join(folder, listenPort === port ? 'stint.yaml' : `stint-${listenPort}.yaml`)
    writeFileSync(
      file,
      `issuer: ${siteIssuer}
trust_domain: ${siteTrustDomain}
listen: { port: ${listenPort} }
proxy: { addresses: [127.0.0.1] }
database: ${place.option}
root_key: { from: "file:${folder}/root.key" }
anchors: [{ file: "${folder}/stint.checkpoints" }]
limits: { requests_per_second_per_workload: 1000000, refusals_per_minute_per_address: 1000000 }
log: { level: warn }
`,
    )
    return file
  }
  const configFile = configure(port)
  const start = (script: string, args: readonly string[]): Child => startChild(script, { args, env: place.env, cwd: folder })
  const load = (): Child =>
    startChild(fileURLToPath(new URL('broker-with-hooks.ts', import.meta.url)), {
      args: [configFile, ...preload],
      // It is started again and again: what the first one has compiled saves the others half of their time.
      env: { ...place.env, NODE_COMPILE_CACHE: join(folder, 'compiled') },
      cwd: folder,
      ipc: true,
    })
  return {
    engine,
    folder,
    configFile,
    port,
    database: place.database,
    ownerUrl: place.env['STINT_MIGRATE_URL'] ?? '',
    migrate: (admin) => start(stintProgram, ['migrate', '--config', configFile, '--admin', admin]),
    serve: (on = port) => start(stintProgram, ['serve', '--config', on === port ? configFile : configure(on)]),
    load,
    serveWithHooks(orders, broker = load()) {
      broker.process.send([...orders])
      return broker
    },
  }
}

interface Place {
  readonly option: string
  readonly database: string
  readonly env: Readonly<Record<string, string>>
}

function createSqlitePlace(folder: string): Place {
  const database = join(folder, 'stint.db')
  return { option: `{ sqlite: { file: ${database} } }`, database, env: {} }
}

async function createPostgresPlace(server: Server | undefined): Promise<Place> {
  if (server === undefined) throw new Error('a site on PostgreSQL needs a server')
  const name = `stint_${randomBytes(8).toString('hex')}`
  await runAsOwner(server, `create database ${name}`)
  const database = servingUrl(server, name)
  return {
    option: '{ postgres: { url: { from: "env:STINT_DATABASE_URL" }, migrate_url: { from: "env:STINT_MIGRATE_URL" } } }',
    database,
    env: { STINT_DATABASE_URL: database, STINT_MIGRATE_URL: ownerUrl(server, name) },
  }
}

/** Migrates and returns the admin's credential. Throws with what was said where it fails. */
export async function openSite(site: Site, admin = 'ada'): Promise<string> {
  const { code, out, err } = await site.migrate(admin).ended
  if (code !== 0) throw new Error(`stint migrate ended with ${String(code)}: ${err}`)
  return out.trim()
}

/** Has a broker that takes orders do something, and waits until it has, or has ended. */
export async function order(broker: Child, what: Order): Promise<void> {
  const done = once(broker.process, 'message')
  // It may end in this very moment.
  broker.process.send(what, () => undefined)
  await Promise.race([done, broker.ended])
}

/** Waits until the broker answers at all; throws where it ends before, or takes longer than a minute. */
export async function untilAnswered(broker: Child, port: number): Promise<void> {
  const beganMs = performance.now()
  const client = createClient(port)
  while ((await client.send({ method: 'GET', path: '/healthz' }))?.status !== 200) {
    if (broker.hasEnded()) throw new Error(`the broker did not start: ${describeEnd(await broker.ended)}`)
    if (performance.now() - beganMs > 60_000) throw new Error(`the broker did not answer within a minute: ${broker.said()}`)
    await setTimeout(4)
  }
  client.drop()
}

export function describeEnd({ code, signal, out, err }: Ended): string {
  return `it ended with ${signal ?? String(code)}: ${(out + err).slice(-2_000)}`
}

