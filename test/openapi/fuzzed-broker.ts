import { randomBytes } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { expect } from 'vitest'
import { systemClock } from '../../src/kernel/clock.ts'
import { createAgent, dayMs, issuer, testPolicies, trustDomain, type TestAgent } from '../broker.ts'
import { findFreePort } from '../free-port.ts'
import { createTestFolder } from '../harness.ts'
import { listen } from '../listen.ts'
import { runProgram, startProgram, type Program } from '../program.ts'

/** A broker in production, as a process of its own on a SQLite file, behind a proxy that is not there: plain HTTP on loopback. */
export interface FuzzedBroker {
  readonly url: string
  readonly program: Program
  /** The SQLite file. */
  readonly database: string
  readonly admin: string
  /** Sends JSON as the admin and returns the answer, which must be a success. */
  ask(method: string, path: string, json?: unknown): Promise<Record<string, unknown>>
  register(name: string): Promise<TestAgent>
}

export async function startFuzzedBroker(): Promise<FuzzedBroker> {
  const folder = createTestFolder()
  const port = await findFreePort()
  const database = join(folder, 'stint.db')
  for (const [path, text] of testPolicies) {
    const file = join(folder, 'policies', path)
    mkdirSync(dirname(file), { recursive: true })
    writeFileSync(file, text)
  }
  writeFileSync(join(folder, 'root.key'), randomBytes(32).toString('base64'), { mode: 0o600 })
  // The limits have tests of their own: here they would keep the fuzzer from what is behind them.
  writeFileSync(
    join(folder, 'stint.yaml'),
    `issuer: ${issuer}
trust_domain: ${trustDomain}
listen: { port: ${port} }
proxy: { addresses: [127.0.0.1] }
database: { sqlite: { file: ${database} } }
root_key: { from: "file:${folder}/root.key" }
policies: { folder: ${folder}/policies }
limits: { refusals_per_minute_per_address: 1000000, requests_per_second_per_workload: 1000000 }
log: { level: debug }
`,
  )
  const migrated = await runProgram(['migrate', '--config', 'stint.yaml', '--admin', 'root'], { cwd: folder })
  expect([migrated.code, migrated.err]).toEqual([0, expect.any(String)])
  const admin = migrated.out.trim()
  const program = startProgram(['serve', '--config', 'stint.yaml'], { cwd: folder })
  await program.until('Stint is ready')
  const url = `http://127.0.0.1:${port}`
  const ask: FuzzedBroker['ask'] = async (method, path, json) => {
    const response = await fetch(`${url}${path}`, {
      method,
      headers: { authorization: `Bearer ${admin}`, ...(json !== undefined && { 'content-type': 'application/json' }) },
      ...(json !== undefined && { body: JSON.stringify(json) }),
    })
    const text = await response.text()
    expect([response.status, text]).toEqual([response.status < 300 ? response.status : 'a success', text])
    return JSON.parse(text) as Record<string, unknown>
  }
  return {
    url,
    program,
    database,
    admin,
    ask,
    async register(name) {
      const agent = await createAgent(name, issuer, { ...systemClock, advance: () => undefined, set: () => undefined })
      await ask('POST', '/v1/workloads', {
        name,
        environment: 'test',
        stage: 'pilot',
        owner: { team: 'support', contact: 'oncall:support' },
        purpose: 'Is fuzzed',
        review_at: new Date(Date.now() + 90 * dayMs).toISOString(),
        jwks: { keys: [agent.publicJwk] },
      })
      return agent
    },
  }
}

/** Serves fresh proofs and keys to the fuzzer's hooks, which cannot sign; returns its address. */
export async function startMaker(agent: TestAgent): Promise<string> {
  const origin = await listen((request, response) => {
    void (async () => {
      if (request.url === '/jwks') response.end(JSON.stringify({ keys: [(await createAgent('any', issuer, { nowMs: () => 0, advance: () => undefined, set: () => undefined })).publicJwk] }))
      else response.end(agent.assert())
    })()
  })
  return `${origin}/`
}

