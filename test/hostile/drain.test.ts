import { randomBytes } from 'node:crypto'
import { cpSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { decodeJwt } from 'jose'
import { describe, expect, test, vi } from 'vitest'
import { systemClock } from '../../src/kernel/clock.ts'
import { openSqlite } from '../../src/storage/sqlite.ts'
import { createAgent } from '../broker.ts'
import { findFreePort } from '../free-port.ts'
import { createTestFolder } from '../harness.ts'
import { startProgram } from '../program.ts'
import { runRecorded } from '../cli/recorder.ts'
import { head, listen, readAll, tokenRequest } from './wire.ts'

vi.setConfig({ testTimeout: 60_000 })

const slowForm = head('POST /oauth2/token HTTP/1.1\nhost: a\ncontent-type: application/x-www-form-urlencoded\ncontent-length: 100')

describe('A server that is drained', () => {
  test('answers what was begun, tells the client that it is the last, and takes nothing new', async () => {
    const listening = await listen({}, { times: { drainMs: 20_000 } })
    const agent = await listening.broker.register('bot')
    const [first = '', body = ''] = tokenRequest(agent).replace('connection: close\r\n', '').split('\r\n\r\n')
    const begun = listening.open()
    const answer = readAll(begun)
    begun.write(`${first}\r\n\r\n`)
    // Its head is not even complete.
    const early = listening.open()
    const earlyAnswer = readAll(early)
    early.write('GET /healthz HTTP/1.1\r\n')
    const idle = listening.open()
    const idleAnswer = readAll(idle)
    idle.write(head('GET /healthz HTTP/1.1\nhost: a'))
    await setTimeout(300)

    const beganMs = performance.now()
    const drained = listening.drain()
    expect(await idleAnswer).toMatch(/^HTTP\/1\.1 200 /)
    expect(await listening.exchange(head('GET /healthz HTTP/1.1\nhost: a'))).toBe('')
    begun.write(body)
    expect(await answer).toMatch(/^HTTP\/1\.1 200 [^]*\r\nconnection: close\r\n[^]*access_token/i)
    early.write('host: a\r\n\r\n')
    expect(await earlyAnswer).toMatch(/^HTTP\/1\.1 200 [^]*\r\nconnection: close\r\n/i)
    await drained
    // Not at the deadline for what hangs.
    expect(performance.now() - beganMs).toBeLessThan(10_000)
  })

  test('cuts at the deadline what does not come to its end', async () => {
    const listening = await listen({}, { times: { drainMs: 500 } })
    const answers = [slowForm, 'GET /heal', ''].map((bytes) => {
      const socket = listening.open()
      socket.write(bytes)
      return readAll(socket)
    })
    await setTimeout(200)
    const beganMs = performance.now()
    await listening.drain()
    expect(performance.now() - beganMs).toBeLessThan(5_000)
    expect(await Promise.all(answers)).toEqual(['', '', ''])
  })
})

/** The answer's body, or `undefined` where none came. */
function post(port: number, path: string, body: string, headers: Readonly<Record<string, string>>): Promise<{ status: number; body: Record<string, unknown> } | undefined> {
  return new Promise((resolve) => {
    const outgoing = request({ port, host: '127.0.0.1', path, method: 'POST', agent: false, headers }, (response) => {
      const pieces: Buffer[] = []
      response.on('data', (piece: Buffer) => pieces.push(piece))
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body: JSON.parse(Buffer.concat(pieces).toString()) as Record<string, unknown> }))
      response.on('error', () => resolve(undefined))
    })
    outgoing.on('error', () => resolve(undefined))
    outgoing.end(body)
  })
}

/** A broker in production, behind a proxy on this machine, as a process of its own. */
async function startSite() {
  const folder = createTestFolder()
  const port = await findFreePort()
  const config = join(folder, 'stint.yaml')
  const issuer = 'https://stint.test'
  cpSync(fileURLToPath(new URL('../../policies', import.meta.url)), join(folder, 'policies'), { recursive: true })
  writeFileSync(join(folder, 'root.key'), randomBytes(32).toString('base64'), { mode: 0o600 })
  writeFileSync(
    config,
    `issuer: ${issuer}
trust_domain: stint.test
listen: { port: ${port} }
proxy: { addresses: [127.0.0.1] }
database: { sqlite: { file: ${folder}/stint.db } }
anchors: [{ file: ${folder}/checkpoints }]
root_key: { from: "file:${folder}/root.key" }
policies: { folder: ${folder}/policies }
limits: { requests_per_second_per_workload: 1000000 }
`,
  )
  const { out } = await runRecorded(['migrate', '--config', config, '--admin', 'ada'])
  const program = startProgram(['serve', '--config', config], { cwd: folder })
  await program.until('Stint is ready')
  const agent = await createAgent('triage-bot', issuer, { nowMs: systemClock.nowMs, advance: () => undefined, set: () => undefined })
  const registration = {
    name: 'triage-bot',
    environment: 'test',
    stage: 'pilot',
    owner: { team: 'support', contact: 'oncall:support' },
    purpose: 'Asks while the broker stops',
    tags: [],
    review_at: new Date(Date.now() + 86_400_000 * 30).toISOString(),
    jwks: { keys: [agent.publicJwk] },
  }
  const registered = await post(port, '/v1/workloads', JSON.stringify(registration), { 'content-type': 'application/json', authorization: `Bearer ${out.trim()}` })
  expect(registered).toMatchObject({ status: 201 })
  return { folder, port, program, agent }
}

describe.each(['SIGTERM', 'SIGKILL'] as const)('A broker that is stopped by %s under load', (signal) => {
  test('has every token that a client received in its log', async () => {
    const { folder, port, program, agent } = await startSite()
    const received: string[] = []
    const statuses = new Set<number>()
    async function askOn(): Promise<void> {
      // Until it is no longer answered.
      for (;;) {
        const form = new URLSearchParams(agent.form({ grant_type: 'client_credentials', scope: 'tickets:read' })).toString()
        const answer = await post(port, '/oauth2/token', form, { 'content-type': 'application/x-www-form-urlencoded' })
        if (answer === undefined) return
        statuses.add(answer.status)
        if (answer.status === 200) received.push(decodeJwt(String(answer.body['access_token'])).jti ?? '')
      }
    }
    const asking = Promise.all(Array.from({ length: 16 }, askOn))
    while (received.length < 50) await setTimeout(10)
    const ended = await program.stop(signal)
    await asking
    if (signal === 'SIGTERM') {
      expect(ended).toMatchObject({ code: 0, signal: null })
      expect(ended.err).not.toMatch(/"level":"(?:warn|error)"/)
    }
    expect([...statuses]).toEqual([200])

    const database = openSqlite({ file: join(folder, 'stint.db') })
    try {
      const rows = await database.read.selectFrom('audit_event').select('body').where('type', '=', 'grant.issued').execute()
      const recorded = new Set(rows.map(({ body }) => (JSON.parse(body) as { grant: string }).grant))
      expect(received.filter((grant) => !recorded.has(grant))).toEqual([])
      expect(new Set(received).size).toBe(received.length)
    } finally {
      await database.close()
    }
  })
})
