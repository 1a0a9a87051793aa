import { fork, type ChildProcess } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import pg from 'pg'

/** A real PostgreSQL with a few orders in it, for trying things out. */
export interface Warehouse {
  /** The root credential of the tool `warehouse`: a role that may lend `reporting`, and no superuser. */
  readonly rootUrl: string
  stop(): Promise<void>
}

const startMsMax = 60_000
const stopMsMax = 10_000

/** Starts it on a free port of loopback. Throws an error that says why, where the machine or the installation lacks what it needs. */
export async function startWarehouse(): Promise<Warehouse> {
  const [owner, root] = [randomBytes(18).toString('base64url'), randomBytes(18).toString('base64url')]
  const child = fork(fileURLToPath(new URL('warehouse-process.ts', import.meta.url)), {
    // A group of its own: Ctrl-C is for the broker, which needs the server until it has ended what lives there.
    detached: true,
    env: { ...process.env, WAREHOUSE_OWNER_PASSWORD: owner },
    stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
  })
  // The broker may end while the server is still starting, and must not wait for it.
  child.unref()
  try {
    const port = await waitForPort(child)
    await setUp(`postgres://postgres:${owner}@127.0.0.1:${port}`, root)
    return { rootUrl: `postgres://stint:${root}@127.0.0.1:${port}/warehouse?sslmode=disable`, stop: () => stop(child) }
  } catch (error) {
    await stop(child)
    throw error
  }
}

function waitForPort(child: ChildProcess): Promise<number> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error('PostgreSQL did not start in time')), startMsMax)
    const end = (act: () => void): void => {
      clearTimeout(timer)
      act()
    }
    child.once('message', (message: { port?: number; missing?: string }) => {
      end(() => (message.port === undefined ? reject(new Error(message.missing ?? 'PostgreSQL did not start')) : resolve(message.port)))
    })
    child.once('exit', () => end(() => reject(new Error('its package is not installed, or has no PostgreSQL for this machine'))))
    child.once('error', (error) => end(() => reject(error)))
  })
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  const timer = setTimeout(() => child.kill('SIGKILL'), stopMsMax)
  if (child.connected) child.disconnect()
  await gone
  clearTimeout(timer)
}

/** What an admin of the database sets up once, and some orders to read. */
async function setUp(ownerUrl: string, rootPassword: string): Promise<void> {
  await run(`${ownerUrl}/postgres`, ['create database warehouse', 'revoke all on database warehouse from public'])
  await run(`${ownerUrl}/warehouse`, [
    // What agents may do is a group of the database's own.
    'create role reporting nologin',
    'grant connect on database warehouse to reporting',
    'create schema sales',
    `create table sales.orders (id int primary key, customer text not null, total numeric(10, 2) not null)`,
    `insert into sales.orders values (1, 'Ada', 120.50), (2, 'Grace', 80.00), (3, 'Edsger', 42.42)`,
    'grant usage on schema sales to reporting',
    'grant select on sales.orders to reporting',
    // Who owns what agents leave behind.
    'create role leftovers nologin',
    // Stint's own role: it makes roles and lends `reporting`, without its rights.
    `create role stint login createrole password ${pg.escapeLiteral(rootPassword)}`,
    'grant connect on database warehouse to stint',
    // It finds a place also where agents have taken all others.
    'grant pg_use_reserved_connections to stint',
    'grant reporting to stint with admin true, inherit false, set false',
    'grant leftovers to stint with inherit true, set true',
  ])
}

async function run(url: string, statements: readonly string[]): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    for (const statement of statements) await client.query(statement)
  } finally {
    await client.end()
  }
}
