import { connect } from 'node:net'
import { fileURLToPath } from 'node:url'
import { sql, type RawBuilder } from 'kysely'
import { describe, expect, onTestFinished, test } from 'vitest'
import { routes } from '../../src/http/app.ts'
import { startDevelopment } from '../../src/main.ts'
import { openPostgres } from '../../src/storage/postgres.ts'
import { startBroker, type TestBroker } from '../broker.ts'
import { findFreePort } from '../free-port.ts'
import { createTestFolder, createTestLog, describeEngines } from '../harness.ts'
import { pathOf } from './admin-requests.ts'


describe('Every answer', () => {
  test('has a request id of its own, is not to be stored unless it says so, and is what it says it is', async () => {
    const broker = await startBroker('sqlite')
    const ids = new Set<string>()
    const paths = [...new Set(routes.map(({ path }) => pathOf({ path }))), '/', '/nothing']
    for (const path of paths) {
      for (const method of ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']) {
        const response = await broker.send(method, path)
        const call = `${method} ${path} ${response.status}`
        ids.add(response.headers.get('stint-request-id') ?? '')
        expect([call, response.headers.get('x-content-type-options')]).toEqual([call, 'nosniff'])
        const mayBeKept = response.ok && ['/.well-known/oauth-authorization-server', '/.well-known/openid-configuration', '/oauth2/jwks'].includes(path)
        expect([call, response.headers.get('cache-control')]).toEqual([call, mayBeKept ? 'public, max-age=300' : 'no-store'])
        expect(response.status, call).toBeLessThan(500)
        const text = await response.text()
        if (method === 'HEAD') expect([call, text]).toEqual([call, ''])
        else if (!response.ok && path.startsWith('/v1/')) expect(JSON.parse(text)).toMatchObject({ status: response.status, request_id: response.headers.get('stint-request-id') })
      }
    }
    expect(ids.size).toBe(paths.length * 7)
    for (const id of ids) expect(id).toMatch(/^req_[0-9a-hjkmnp-tv-z]{26}$/)
  })

  test('to a method that an address does not take names those that it takes', async () => {
    const broker = await startBroker('sqlite')
    const cases: readonly (readonly [string, string, string])[] = [
      ['DELETE', '/v1/workloads', 'POST, GET, HEAD'],
      ['PUT', '/v1/workloads/bot', 'GET, HEAD, PATCH'],
      ['GET', '/v1/workloads/bot/suspend', 'POST'],
      ['POST', '/v1/policy', 'GET, HEAD, PUT'],
      ['OPTIONS', '/v1/audit', 'GET, HEAD'],
      ['GET', '/oauth2/token', 'POST'],
      ['POST', '/healthz', 'GET, HEAD'],
    ]
    for (const [method, path, allow] of cases) {
      const response = await broker.sendAsAdmin(method, path)
      expect([method, path, response.status, response.headers.get('allow')]).toEqual([method, path, 405, allow])
    }
  })

  test('to HEAD is that to GET without its body, and no way around a guard', async () => {
    const broker = await startBroker('sqlite')
    const [head, get] = [await broker.sendAsAdmin('HEAD', '/v1/audit'), await broker.sendAsAdmin('GET', '/v1/audit')]
    expect([head.status, head.headers.get('content-type'), await head.text()]).toEqual([200, get.headers.get('content-type'), ''])
    expect((await broker.send('HEAD', '/v1/audit')).status).toBe(401)
  })
})

describeEngines('When the database fails', (engine) => {
  test('the answer tells nothing of it, and the log all, under the same id', async () => {
    const broker = await startBroker(engine)
    await broker.register('bot')
    // What the database says of this names a table and shows the statement.
    await asOwner(broker, sql`alter table workload rename to elsewhere`)
    const response = await broker.sendAsAdmin('GET', '/v1/workloads')
    const id = response.headers.get('stint-request-id') ?? '?'
    expect([response.status, await response.json()]).toEqual([
      500,
      {
        type: 'urn:stint:problem:internal',
        title: 'Something went wrong in the broker',
        status: 500,
        detail: 'An unexpected error; the operator finds it under the request id.',
        request_id: id,
      },
    ])
    const line = broker.logLines.find((text) => text.includes(id)) ?? '{}'
    expect(JSON.parse(line)).toMatchObject({
      level: 'error',
      method: 'GET',
      route: '/v1/workloads',
      error: { cause: { message: expect.stringContaining('workload') } },
    })
    expect(line).not.toContain(broker.adminCredential)
  })

  if (engine === 'postgres') {
    test('to answer at all, the caller is told to try again', async () => {
      const broker = await startBroker(engine)
      const owner = openPostgres({ url: broker.database.ownerLocation })
      onTestFinished(() => owner.close())
      const answer = await owner.maintenance.transaction().execute(async (tx) => {
        await sql`lock table workload in access exclusive mode`.execute(tx)
        const asked = broker.sendAsAdmin('GET', '/v1/workloads')
        // The server gives up on what waits for the lock, as its own limits would in some seconds.
        const cancel = sql<{ pid: number }>`select pg_cancel_backend(pid) from pg_stat_activity
          where wait_event_type = 'Lock' and datname = current_database()`
        while ((await cancel.execute(owner.read)).rows.length === 0);
        return asked
      })
      expect([answer.status, answer.headers.get('retry-after'), await answer.json()]).toMatchObject([
        503,
        '2',
        { type: 'urn:stint:problem:unavailable', detail: 'The database does not answer: try again shortly.' },
      ])
    })
  }
})

/** Changes what is in the database as an operator with all rights could. */
async function asOwner(broker: TestBroker, statement: RawBuilder<unknown>): Promise<void> {
  if (broker.database.engine === 'sqlite') {
    await statement.execute(broker.broker.database.maintenance)
    return
  }
  const owner = openPostgres({ url: broker.database.ownerLocation })
  await statement.execute(owner.maintenance).finally(() => owner.close())
}

/** What a broker in development answers to a request of exactly these lines. */
async function startRaw() {
  const port = await findFreePort()
  const policyFolder = fileURLToPath(new URL('../../policies', import.meta.url))
  const running = await startDevelopment({ folder: createTestFolder(), policyFolder, port, log: createTestLog().log })
  onTestFinished(() => running.close())
  async function send(line: string, headers: Readonly<Record<string, string>> = {}): Promise<string> {
    const socket = connect(port, '127.0.0.1')
    const all = Object.entries({ host: `127.0.0.1:${port}`, connection: 'close', ...headers })
    socket.write(`${line} HTTP/1.1\r\n${all.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n`)
    const pieces = await socket.toArray()
    return Buffer.concat(pieces as Buffer[]).toString()
  }
  return { port, send, status: async (...args: Parameters<typeof send>) => Number(/^HTTP\/1\.1 (\d{3}) /.exec(await send(...args))?.[1] ?? 0) }
}

describe('On the wire', () => {
  test('no spelling of an address goes round a guard', async () => {
    const { status } = await startRaw()
    const guarded = [
      '/v1/workloads',
      '//v1/workloads',
      '/v1//workloads',
      '/v1/workloads/',
      '/V1/workloads',
      '/v1/Workloads',
      '/v1/workloads;x',
      '/v1/workloads%2f',
      '/v1%2fworkloads',
      '/%76%31/workloads',
      '/v1/./workloads',
      '/healthz/../v1/workloads',
      '/healthz/%2e%2e/v1/workloads',
      '/healthz/..%2fv1%2fworkloads',
      '/healthz%2f..%2fv1/workloads',
      '/v1/workloads/bot/../../audit',
      '/v1/workloads/%2e%2e/audit',
      '/v1/audit%00',
      '/v1/audit%',
      '/v1/audit#x',
      '\\v1\\workloads',
      'http://127.0.0.1/v1/workloads',
      'http://elsewhere.test/v1/audit',
    ]
    const answers = await Promise.all(guarded.map(async (path) => [path, await status(`GET ${path}`)] as const))
    for (const [path, answered] of answers) expect([path, [400, 401, 404].includes(answered), answered]).toEqual([path, true, answered])
    expect(await status('GET /v1/workloads')).toBe(401)
    expect(await status('GET /healthz')).toBe(200)
    // Nor do headers that some servers take for another method or address.
    for (const header of ['x-http-method-override', 'x-original-url', 'x-rewrite-url', 'x-forwarded-prefix']) {
      expect(await status('GET /v1/workloads', { [header]: header.includes('method') ? 'OPTIONS' : '/healthz' })).toBe(401)
    }
  })

  test('a broker in development answers under its own name alone, and no page of another origin', async () => {
    const { port, send, status } = await startRaw()
    const hosts: readonly (readonly [string, boolean])[] = [
      [`127.0.0.1:${port}`, true],
      [`localhost:${port}`, true],
      [`[::1]:${port}`, true],
      ['127.0.0.1', false],
      [`127.0.0.1:${port + 1}`, false],
      [`rebound.attacker.test:${port}`, false],
      [`127.0.0.1.attacker.test:${port}`, false],
      [`localhost.attacker.test:${port}`, false],
      [`127.0.0.1:${port}.attacker.test`, false],
      [`127.0.0.1:${port}@attacker.test`, false],
      [`0.0.0.0:${port}`, false],
      ['', false],
    ]
    for (const [host, welcome] of hosts) {
      for (const path of ['/healthz', '/oauth2/jwks']) expect([host, await status(`GET ${path}`, { host })]).toEqual([host, welcome ? 200 : 400])
    }
    const origins: readonly (readonly [string, boolean])[] = [
      [`http://127.0.0.1:${port}`, true],
      [`http://localhost:${port}`, true],
      [`https://127.0.0.1:${port}`, false],
      ['http://127.0.0.1', false],
      ['https://attacker.test', false],
      [`http://127.0.0.1:${port}.attacker.test`, false],
      ['null', false],
      ['', false],
    ]
    for (const [origin, welcome] of origins) expect([origin, await status('GET /healthz', { origin })]).toEqual([origin, welcome ? 200 : 400])
    const refused = await send('GET /v1/workloads', { origin: 'https://attacker.test' })
    expect(refused).not.toMatch(/access-control-allow/i)
    expect(refused).toMatch(/\r\nstint-request-id: req_/i)
    // A preflight is answered with no permission either.
    expect(await send('OPTIONS /v1/workloads', { 'access-control-request-method': 'POST', origin: `http://localhost:${port}` })).not.toMatch(/access-control-allow/i)
  })

  test('in production any Host is taken, for the proxy or the certificate has judged it', async () => {
    const broker = await startBroker('sqlite')
    for (const headers of [{ host: 'elsewhere.test' }, { origin: 'https://elsewhere.test' }]) {
      const response = await broker.send('GET', '/healthz', { headers })
      expect([response.status, response.headers.get('access-control-allow-origin')]).toEqual([200, null])
    }
  })
})
