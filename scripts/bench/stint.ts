import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { findFreePort } from '../../test/free-port.ts'
import { checkToken } from './check-token.ts'
import { root, type Children, type Server } from './children.ts'
import { exchange } from './exchange.ts'
import type { Backlog } from './seed-backlog.ts'
import type { Seed } from './seed.ts'
import { createSigners, trustDomain } from './signers.ts'
import type { Subject } from './subject.ts'

/** How a broker under test differs from others. */
export interface StintOptions {
  readonly name: string
  /** The names of the workloads that ask, and their teams, by turns. */
  readonly workloads: readonly string[]
  readonly teams: readonly string[]
  readonly scope: string
  readonly resource: string
  /** The policy folder: the sample set where it is left out. */
  readonly policies?: string
  /** How many entries the log has when the broker starts. */
  readonly entries?: number
  /** What is in an outside tool, and over, when the broker starts. */
  readonly backlog?: Backlog
  /** The URLs of a PostgreSQL database, of the role that serves and of the owner; SQLite where they are left out. */
  readonly postgres?: { readonly url: string; readonly ownerUrl: string }
  readonly processes?: number
  readonly nodeOptions?: readonly string[]
}

const issuer = 'https://stint.bench'
const program = join(root, 'scripts/stint.mjs')
const seeder = join(root, 'scripts/bench/seed.ts')
const urlVariable = 'STINT_BENCH_DATABASE_URL'
const ownerUrlVariable = 'STINT_BENCH_OWNER_URL'

/**
 * Prepares a database as an operator would, fills it, and starts the broker on it in production mode, behind a proxy as far
 * as it knows: plain HTTP on loopback. Its log goes to a file, as a service manager would keep it.
 */
export async function startStint(children: Children, folder: string, options: StintOptions): Promise<Subject> {
  const { name, workloads, teams, scope, resource, entries = 0, backlog, postgres, processes = 1, nodeOptions = [] } = options
  const home = join(folder, name)
  mkdirSync(home, { mode: 0o700 })
  const signersFile = join(home, 'signers.json')
  writeFileSync(signersFile, JSON.stringify(await createSigners(workloads)), { mode: 0o600 })
  writeFileSync(join(home, 'root.key'), randomBytes(32).toString('base64'), { mode: 0o600 })
  const ports = await findPorts(processes)
  const configFiles = ports.map((port) => writeConfig(home, port, options))
  const [configFile = ''] = configFiles
  const env = postgres === undefined ? {} : { [urlVariable]: postgres.url, [ownerUrlVariable]: postgres.ownerUrl }
  const logFile = join(home, 'stint.log')

  const beganMs = performance.now()
  // A SQLite file is made and migrated by whoever opens it first.
  if (postgres !== undefined) await children.run({ script: program, args: ['migrate', '--config', configFile], env, logFile })
  const seed: Seed = { configFile, signersFile, teams, entries, scope, ...(backlog && { backlog }) }
  const credential = await children.run({ script: seeder, args: [JSON.stringify(seed)], env, logFile })
  const seededMs = performance.now()
  const servers: Server[] = []
  for (const [i, port] of ports.entries()) {
    const start = { script: program, args: ['serve', '--config', configFiles[i] ?? ''], nodeOptions, env, logFile }
    servers.push(await children.serve(start, async () => (await exchange(`http://127.0.0.1:${port}/readyz`)).status === 200))
  }
  const readyMs = performance.now()

  const [firstPort = 0] = ports
  const base = `http://127.0.0.1:${firstPort}`
  return {
    name,
    servers,
    urls: ports.map((port) => `http://127.0.0.1:${port}/oauth2/token`),
    audience: issuer,
    signersFile,
    signerCount: workloads.length,
    form: new URLSearchParams({ grant_type: 'client_credentials', scope, resource }).toString(),
    log: { url: base, credential },
    notes: { prepared_seconds: toSeconds(seededMs - beganMs), started_seconds: toSeconds(readyMs - seededMs) },
    async check(body) {
      const { answer, claims } = await checkToken(`${base}/oauth2/token`, body, { issuer, audience: resource, scope, jwksUrl: `${base}/oauth2/jwks` })
      const index = Number(answer.headers['stint-audit-index'])
      const found = await exchange(`${base}/v1/audit?grant=${String(claims.jti)}`, { bearer: credential })
      // Judged by what follows.
      const log = JSON.parse(found.text) as { entries?: { index: number; type: string; event: Record<string, unknown> }[] }
      const [entry] = log.entries ?? []
      assert.ok(entry?.index === index && entry.type === 'grant.issued', `the token's entry is not in the log: ${found.text.slice(0, 500)}`)
      assert.ok(entry.event['decision'] !== undefined, 'the entry does not tell the decision')
      return { index }
    },
  }
}

async function findPorts(count: number): Promise<number[]> {
  const ports: number[] = []
  while (ports.length < count) {
    const port = await findFreePort()
    if (!ports.includes(port)) ports.push(port)
  }
  return ports
}

function writeConfig(home: string, port: number, { policies = join(root, 'policies'), postgres }: StintOptions): string {
  const config = {
    issuer,
    trust_domain: trustDomain,
    listen: { host: '127.0.0.1', port },
    proxy: { addresses: ['127.0.0.1'] },
    database:
      postgres === undefined
        ? { sqlite: { file: join(home, 'stint.db') } }
        : { postgres: { url: { from: `env:${urlVariable}` }, migrate_url: { from: `env:${ownerUrlVariable}` } } },
    root_key: { from: `file:${join(home, 'root.key')}` },
    anchors: [{ file: join(home, 'stint.checkpoints') }],
    policies: { folder: policies, reload: 'never' },
    // One workload asks as often as it can: its share is not what is measured.
    limits: { requests_per_second_per_workload: 1_000_000 },
  }
  const file = join(home, `stint-${port}.yaml`)
  // JSON is YAML.
  writeFileSync(file, JSON.stringify(config, undefined, 2), { mode: 0o600 })
  return file
}

function toSeconds(ms: number): number {
  return Math.round(ms / 100) / 10
}
