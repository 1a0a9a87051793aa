import pg from 'pg'
import { expect, onTestFinished, vi } from 'vitest'
import { sweep } from '../../src/broker/sweep.ts'
import { instanceOf } from '../../src/broker/tools.ts'
import { endTriesMax, retryDelayMs } from '../../src/grant/lifetime.ts'
import type { Engine } from '../../src/storage/engine.ts'
import { startBroker, type BrokerOptions, type TestAgent, type TestBroker } from '../broker.ts'
import { createSite, type Site } from '../connectors/postgres-tool.ts'
import { startTcpProxy, type TcpProxy } from '../storage/tcp-proxy.ts'

const { escapeIdentifier: quote } = pg

/** A broker that lends roles of a real PostgreSQL to workloads of the team `support`. */
export interface Lending {
  readonly broker: TestBroker
  readonly agent: TestAgent
  readonly site: Site
  /** Between the broker and the server, which the test reaches directly. */
  readonly wire: TcpProxy
  /** What the broker reads its root credentials from. */
  readonly env: Record<string, string>
  readonly policies: ReadonlyMap<string, string>
}

const tokenTools = {
  'tools/tickets.yaml': `tool: tickets
connector: jwt
audience: https://tickets.test
sensitivity: low
ttl: { default: 10m, max: 1h }
actions: { read: {}, comment: {} }
`,
  'tools/payments.yaml': `tool: payments
connector: jwt
audience: https://payments.test
sensitivity: high
ttl: { default: 5m, max: 15m }
target: { name: account, required: true, pattern: "acct-[0-9]+" }
actions: { read: {} }
`,
  'tools/stint.yaml': `tool: stint
connector: jwt
audience: urn:stint:broker
sensitivity: low
ttl: { default: 10m, max: 1h }
actions: { grants: {}, other: {} }
`,
  'rules.cedar': `@id("support-works")
permit (principal in Team::"support", action, resource);
@id("nobody-purges")
forbid (principal, action == Action::"ledger:purge", resource);
`,
}

/** The catalog and the rules of a broker that lends roles of this site. */
export function writePolicies({ reader, writer, heir }: Pick<Site, 'reader' | 'writer' | 'heir'>, config = ''): ReadonlyMap<string, string> {
  const write = (tool: string, url: string) => `tool: ${tool}
connector: postgres
sensitivity: low
ttl: { default: 10m, max: 1h }
actions:
  read: { roles: [${reader}] }
  write: { roles: [${writer}] }
  purge: { roles: [${writer}] }
config:
  url: { from: "env:${url}" }
  reassign_to: ${heir}
  private_network: true
  ${config}
`
  return new Map(Object.entries({ ...tokenTools, 'tools/ledger.yaml': write('ledger', 'LEDGER_URL'), 'tools/archive.yaml': write('archive', 'ARCHIVE_URL') }))
}

export async function startLending(engine: Engine, { config, ...options }: Pick<BrokerOptions, 'pass' | 'rootKey'> & { readonly config?: string } = {}): Promise<Lending> {
  const site = await createSite()
  const wire = await startTcpProxy(site.server.port)
  // The tool `archive` is the same server, by a way that never fails.
  const env: Record<string, string> = { LEDGER_URL: site.rootUrl.replace(`:${site.server.port}/`, `:${wire.port}/`), ARCHIVE_URL: site.rootUrl }
  const policies = writePolicies(site, config)
  const broker = await startBroker(engine, { policies, env, ...options })
  const lending = { broker, agent: await broker.register('bot'), site, wire, env, policies }
  onTestFinished(() => dropRoles(lending))
  return lending
}

/** Another process on the same database; on SQLite only once the first is closed. */
export async function startBeside({ broker, env }: Lending, options: Pick<BrokerOptions, 'pass' | 'rootKey'> = {}): Promise<TestBroker> {
  if (broker.database.engine === 'sqlite') await broker.close()
  return startBroker(broker.database.engine, { beside: broker, env, ...options })
}

async function readInstance({ broker: { broker } }: Pick<Lending, 'broker'>): Promise<string> {
  const { leaf_hash: leaf } = await broker.database.read.selectFrom('audit_event').select('leaf_hash').where('idx', '=', 0).executeTakeFirstOrThrow()
  return instanceOf(leaf)
}

async function dropRoles(lending: Lending): Promise<void> {
  for (const role of await listRoles(lending).catch(() => [])) await lending.site.admin(`drop owned by ${quote(role)} cascade; drop role ${quote(role)}`)
}

const instances = new WeakMap<object, string>()

/** The roles that the broker has made and that are still there, sorted. */
export async function listRoles(lending: Pick<Lending, 'broker' | 'site'>): Promise<string[]> {
  const instance = instances.get(lending.site) ?? (await readInstance(lending))
  instances.set(lending.site, instance)
  const rows = await lending.site.admin<{ name: string }>('select rolname as name from pg_roles where rolname ~ $1 order by 1', [`^stint_${instance}_`])
  return rows.map(({ name }) => name)
}

/** An answer, read to its end. */
export interface Answer {
  readonly status: number
  // What is looked at is compared with what it must be.
  // oxlint-disable-next-line typescript/no-explicit-any
  readonly body: any
  readonly text: string
  readonly headers: Headers
}

export type Wish = Readonly<Record<string, unknown>>

/** A workload's request, with a fresh assertion unless the headers prove it otherwise. */
export async function call(broker: TestBroker, agent: TestAgent, method: string, path: string, json?: unknown, headers?: Readonly<Record<string, string>>): Promise<Answer> {
  const proven = headers !== undefined && ('authorization' in headers || 'client-assertion' in headers)
  return read(await broker.send(method, path, { ...(json !== undefined && { json }), headers: { ...(!proven && { 'client-assertion': agent.assert() }), ...headers } }))
}

/** An admin's request. */
export async function admin(broker: TestBroker, method: string, path: string, json?: unknown): Promise<Answer> {
  return read(await broker.sendAsAdmin(method, path, json))
}

async function read(response: Response): Promise<Answer> {
  const text = await response.text()
  return { status: response.status, body: text === '' ? undefined : JSON.parse(text), text, headers: response.headers }
}

export function ask(broker: TestBroker, agent: TestAgent, wish: Wish, headers?: Readonly<Record<string, string>>): Promise<Answer> {
  return call(broker, agent, 'POST', '/v1/grants', wish, headers)
}

/** What was lent: an answer of 201. */
export interface Lent {
  readonly grant: string
  readonly credential: Readonly<Record<string, string | number>>
  readonly environment: Readonly<Record<string, string>>
  readonly conceals?: readonly string[]
  readonly expires_at: string
  readonly ends: { readonly effect: string; readonly meaning: string }
  readonly audit_index: number
}

export async function lend(broker: TestBroker, agent: TestAgent, wish: Wish = { tool: 'ledger', actions: ['read'] }, headers?: Readonly<Record<string, string>>): Promise<Lent> {
  const { status, body, text } = await ask(broker, agent, wish, headers)
  if (status !== 201) throw new Error(`not lent: ${status} ${text}`)
  return body as Lent
}

/** A connection by what was lent, straight to the server; closed after the test. */
export async function connect({ site }: Pick<Lending, 'site'>, { credential }: Pick<Lent, 'credential'>): Promise<pg.Client> {
  const { host, database, user, password } = credential as Record<string, string>
  const client = new pg.Client({ host, database, user, password, port: site.server.port, ssl: false })
  client.on('error', () => undefined)
  onTestFinished(() => client.end().catch(() => undefined))
  await client.connect()
  return client
}

/** Whether it logs in and reads what the action `read` allows. */
export async function opens(lending: Pick<Lending, 'site'>, lent: Pick<Lent, 'credential'>): Promise<boolean> {
  let client: pg.Client | undefined
  try {
    client = await connect(lending, lent)
    return (await client.query('select text from work.notes')).rows.length > 0
  } catch (error) {
    // Refused, or cut while it was let in; anything else is a fault of the test.
    if (error instanceof Error && (/^(?:28P01|28000|57P01|3D000)$/.test('code' in error ? String(error.code) : '') || /terminated/.test(error.message))) return false
    throw error
  } finally {
    await client?.end().catch(() => undefined)
  }
}

/** How the workload is told that its grant stands. */
export async function look({ broker, agent }: Pick<Lending, 'broker' | 'agent'>, grant: string): Promise<Answer['body']> {
  return (await call(broker, agent, 'GET', `/v1/grants/${grant}`)).body
}

/** Lets that much time pass, and what runs by itself run to its end. */
export async function passTime(broker: TestBroker, ms: number): Promise<void> {
  broker.clock.advance(ms)
  await runJobs(broker)
}

/** Lets the time of all tries pass that are left after so many, of something that nobody can end. */
export async function exhaustTries(broker: TestBroker, after: number): Promise<void> {
  // No tool of these tests asks for more time than half a minute.
  for (let tries = after; tries < endTriesMax; tries++) await passTime(broker, retryDelayMs(tries, 0, 30))
}

/** What is due by now, done. */
export async function runJobs({ broker, scheduler }: TestBroker): Promise<void> {
  await scheduler.tick()
  await sweep(broker)
  // What the job has begun goes on by itself. A mint's own lease is nothing that anybody waits for.
  const ending = broker.database.read.selectFrom('credential').select('grant_id').where('state', '=', 'ending').where('owner', 'is not', null).where('tries', '>', 0)
  await vi.waitFor(async () => expect(await ending.execute()).toEqual([]), { timeout: 10_000, interval: 5 })
}

/** The types of the events about one grant, in order. */
export async function lifeOf(broker: TestBroker, grant: string): Promise<string[]> {
  return (await broker.events()).filter((event) => 'grant' in event && event.grant === grant).map(({ type }) => type)
}

export const minuteMs = 60_000

/** Gives each call to a tool no more than that much time, in this process and of the machine's clock. */
export function hurryCalls({ broker }: TestBroker, msMax: number): void {
  const { tools } = broker
  Object.assign(broker, { tools: { ...tools, call: (tool, body) => tools.call(tool, body, msMax) } satisfies typeof tools })
}
