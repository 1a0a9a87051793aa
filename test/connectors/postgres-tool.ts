import { randomBytes } from 'node:crypto'
import pg from 'pg'
import { inject, onTestFinished } from 'vitest'
import { ConnectorError, type Minted, type MintRequest, type OpenTool } from '../../src/connectors/connector.ts'
import { postgresConnector } from '../../src/connectors/postgres.ts'
import { newId } from '../../src/kernel/ids.ts'
import { Secret } from '../../src/kernel/secret.ts'
import { parseTool, type Tool } from '../../src/policy/catalog.ts'
import { ownerUrl, type Server } from '../template.ts'
import { createToolContext } from './tool-context.ts'

const { escapeIdentifier: quote } = pg

/** A database of its own with the roles that an admin makes for Stint, all removed after the test. */
export interface Site {
  readonly server: Server
  readonly database: string
  /** 8 characters that begin the names of this site's roles; Stint's name for itself, too. */
  readonly id: string
  readonly root: string
  readonly heir: string
  /** Group roles: may read `work.notes`; may write it and create in the schema `work`. */
  readonly reader: string
  readonly writer: string
  /** As a superuser, in the site's database. */
  admin<Row extends object = Record<string, unknown>>(text: string, values?: readonly unknown[]): Promise<readonly Row[]>
  open(options?: OpenOptions): OpenTool
  readonly rootUrl: string
}

export interface OpenOptions {
  readonly url?: string | (() => string)
  /** Further lines of the file's `config`. */
  readonly config?: string
  readonly privateNetwork?: boolean
  readonly instance?: string
  readonly readRoles?: readonly string[]
  readonly nowMs?: () => number
}

export async function createSite(at?: Server, { rootAttributes = 'createrole' }: { readonly rootAttributes?: string } = {}): Promise<Site> {
  const injected = inject('postgres')
  const server = at ?? (injected.missing === undefined ? injected : undefined)
  if (server === undefined) throw new Error('there is no PostgreSQL')
  const id = newName()
  const [database, root, heir, reader, writer] = [`db_${id}`, `root_${id}`, `heir_${id}`, `reader_${id}`, `writer_${id}`] as const
  const cluster = await connectAs(ownerUrl(server, 'postgres'))
  await cluster.query(`create database ${database}`)
  const owner = await connectAs(ownerUrl(server, database))
  onTestFinished(async () => {
    await owner.end().catch(() => undefined)
    const again = await connectAs(ownerUrl(server, 'postgres'))
    const { rows: databases } = await again.query<{ name: string }>(`select datname as name from pg_database where datname like '%\\_${id}%'`)
    for (const { name } of databases) await again.query(`drop database ${quote(name)} with (force)`)
    const { rows: roles } = await again.query<{ name: string }>(`select rolname as name from pg_roles where rolname like '%\\_${id}%'`)
    for (const { name } of roles) await again.query(`drop owned by ${quote(name)} cascade`)
    for (const { name } of roles) await again.query(`drop role if exists ${quote(name)}`)
    await again.end()
  })
  await cluster.end()
  await owner.query(`
    create role ${root} login ${rootAttributes} password 'root-password'; grant pg_use_reserved_connections to ${root};
    create role ${heir} nologin; grant ${heir} to ${root} with inherit true, set true;
    create role ${reader} nologin; grant ${reader} to ${root} with admin true, inherit false, set false;
    create role ${writer} nologin; grant ${writer} to ${root} with admin true, inherit false, set false;
    create schema work; create table work.notes (text text); insert into work.notes values ('a note');
    create schema hidden; create table hidden.secrets (text text);
    grant usage on schema work to ${reader}, ${writer}; grant select on work.notes to ${reader};
    grant insert on work.notes to ${writer}; grant create on schema work to ${writer}; grant create on database ${database} to ${writer}`)
  const rootUrl = `postgres://${root}:root-password@127.0.0.1:${server.port}/${database}?sslmode=disable`
  return {
    server, database, id, root, heir, reader, writer, rootUrl,
    async admin<Row extends object>(text: string, values: readonly unknown[] = []) {
      const answer: unknown = await (values.length === 0 ? owner.query(text) : owner.query(text, [...values]))
      const last = Array.isArray(answer) ? (answer.at(-1) as pg.QueryResult<Row>) : (answer as pg.QueryResult<Row>)
      return last.rows
    },
    open({ url = rootUrl, config = '', privateNetwork = true, instance = id, readRoles = [reader], nowMs = Date.now } = {}) {
      const tool = createTool(`
tool: ledger
connector: postgres
sensitivity: low
ttl: { default: 10m, max: 1h }
actions:
  read: { roles: ${JSON.stringify(readRoles)} }
  write: { roles: [${writer}] }
config:
  url: { from: "env:LEDGER_URL" }
  reassign_to: ${heir}
  private_network: ${privateNetwork}
  ${config}`)
      const opened = postgresConnector.open(tool, createToolContext({ instance, nowMs, readSecret: async () => new Secret(typeof url === 'string' ? url : url()) }))
      tools.set(opened, tool)
      onTestFinished(() => opened.close())
      return opened
    },
  }
}

const tools = new WeakMap<OpenTool, Tool>()

export function createTool(text: string): Tool {
  const parsed = parseTool('tools/ledger.yaml', text)
  if ('problems' in parsed) throw new Error(JSON.stringify(parsed.problems))
  return parsed.tool
}

/** 8 characters that no other test uses. */
export function newName(): string {
  return newId('x', 0, randomBytes).slice(-8)
}

export function newGrant(): string {
  return newId('grant', Date.now(), randomBytes)
}

/** As long as the broker gives a call, unless the test says otherwise. */
export function within(ms = 20_000): AbortSignal {
  return AbortSignal.timeout(ms)
}

export function request(tool: OpenTool, { grant = newGrant(), verbs = ['read'], lifeMs = 600_000 }: { readonly grant?: string; readonly verbs?: readonly string[]; readonly lifeMs?: number } = {}): MintRequest {
  const actions = verbs.map((verb) => tools.get(tool)?.actions.get(`ledger:${verb}`)).filter((action) => action !== undefined)
  const nowMs = Date.now()
  return { grant, workload: 'bot', owner: 'support', actions, nowMs, expiresAtMs: nowMs + lifeMs }
}

/** What the agent gets: secrets as their text. */
export function reveal(minted: Minted): { readonly credential: pg.ClientConfig & { connectionString: string; user: string; password: string }; readonly environment: Record<string, string> } {
  const open = (members: Readonly<Record<string, unknown>>) => Object.fromEntries(Object.entries(members).map(([name, value]) => [name, value instanceof Secret ? value.reveal() : value]))
  // As JSON it reaches the agent.
  return { credential: open(minted.credential) as never, environment: open(minted.environment) as never }
}

/** A connection of an agent, or of anybody; closed after the test. */
export async function connectAs(config: pg.ClientConfig | string): Promise<pg.Client> {
  const client = new pg.Client(config)
  client.on('error', () => undefined)
  await client.connect()
  onTestFinished(() => client.end().catch(() => undefined))
  return client
}

/** The grants of whatever is listed, sorted. */
export async function listGrants(tool: OpenTool): Promise<string[]> {
  const grants: string[] = []
  for await (const made of tool.list?.(within()) ?? []) {
    if (made.reference.slice(-26) !== made.grant.slice(-26)) throw new Error('the reference is not the role of the grant')
    grants.push(made.grant)
  }
  return grants.sort()
}

export async function failure(promise: Promise<unknown>): Promise<ConnectorError> {
  const error = await promise.then(
    () => undefined,
    (error: unknown) => error,
  )
  if (error instanceof ConnectorError) return error
  throw new Error('not refused by a ConnectorError', { cause: error })
}
