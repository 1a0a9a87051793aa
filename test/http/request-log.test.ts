import { connect } from 'node:net'
import { fileURLToPath } from 'node:url'
import { describe, expect, onTestFinished, test } from 'vitest'
import { startDevelopment } from '../../src/main.ts'
import { startBroker, type TestBroker } from '../broker.ts'
import { findFreePort } from '../free-port.ts'
import { createTestFolder, createTestLog, describeEngines } from '../harness.ts'

/** The lines of this kind that a broker wrote, oldest first, without what differs from run to run. */
function requestLines({ logLines }: Pick<TestBroker, 'logLines'>): Record<string, unknown>[] {
  const all = logLines.map((line) => JSON.parse(line) as Record<string, unknown>)
  return all.filter(({ message }) => message === 'request')
}

function lastRequest(broker: TestBroker): Record<string, unknown> {
  const { time: _, message: __, ...line } = requestLines(broker).at(-1) ?? {}
  return line
}

const common = { request_id: expect.stringMatching(/^req_\w{26}$/), duration_ms: expect.any(Number), address: 'unknown' }

describe('The line of a request', () => {
  test('says what was asked for, by whom, and what came of it', async () => {
    const broker = await startBroker('sqlite')
    const bot = await broker.register('bot')
    const operator = expect.stringMatching(/^[0-9a-f]{16}$/)
    const form = (scope: string) => ({ form: bot.form({ grant_type: 'client_credentials', scope }) })
    const admin = { headers: { authorization: `Bearer ${broker.adminCredential}` } }
    const spent = form('tickets:read')
    const cases: readonly (readonly [string, string, Parameters<TestBroker['send']>[2], Record<string, unknown>])[] = [
      ['POST', '/oauth2/token', spent, { level: 'info', method: 'POST', route: '/oauth2/token', status: 200, caller: 'bot', audit_index: expect.any(Number) }],
      ['POST', '/oauth2/token', spent, { level: 'info', method: 'POST', route: '/oauth2/token', status: 401, code: 'invalid_client' }],
      ['POST', '/oauth2/token', form('tickets:purge'), { level: 'info', method: 'POST', route: '/oauth2/token', status: 400, code: 'access_denied', caller: 'bot' }],
      ['POST', '/oauth2/introspect', { form: bot.form({ token: 'x' }) }, { level: 'info', method: 'POST', route: '/oauth2/introspect', status: 200, caller: 'bot' }],
      ['POST', '/oauth2/revoke', { form: { token: 'x' }, ...admin }, { level: 'info', method: 'POST', route: '/oauth2/revoke', status: 200, caller: operator }],
      ['GET', '/v1/workloads/bot', admin, { level: 'info', method: 'GET', route: '/v1/workloads/:name', status: 200, caller: operator }],
      ['HEAD', '/v1/workloads/bot', admin, { level: 'info', method: 'HEAD', route: '/v1/workloads/:name', status: 200, caller: operator }],
      ['GET', '/v1/workloads/other?limit=1', admin, { level: 'info', method: 'GET', route: '/v1/workloads/:name', status: 400, code: 'invalid_input', caller: operator }],
      ['GET', '/v1/workloads/bot', {}, { level: 'info', method: 'GET', route: '/v1/workloads/:name', status: 401, code: 'unauthenticated' }],
      ['POST', '/v1/workloads/bot/suspend', { json: {}, ...admin }, { level: 'info', method: 'POST', route: '/v1/workloads/:name/suspend', status: 200, caller: operator, audit_index: expect.any(Number) }],
      ['DELETE', '/oauth2/token', {}, { level: 'info', method: 'DELETE', route: '/oauth2/token', status: 405, code: 'method_not_allowed' }],
      ['BREW', '/oauth2/token', {}, { level: 'info', method: '_OTHER', route: '/oauth2/token', status: 405, code: 'method_not_allowed' }],
      ['GET', '/nowhere?secret=1', {}, { level: 'info', method: 'GET', path: '/nowhere', status: 404, code: 'not_found' }],
      ['GET', '/healthz', {}, { level: 'debug', method: 'GET', route: '/healthz', status: 200 }],
      ['GET', '/readyz', {}, { level: 'debug', method: 'GET', route: '/readyz', status: 200 }],
      ['GET', '/metrics', admin, { level: 'debug', method: 'GET', route: '/metrics', status: 200, caller: operator }],
    ]
    for (const [method, path, options, expected] of cases) {
      const response = await broker.send(method, path, options)
      expect([method, path, lastRequest(broker)]).toEqual([method, path, { ...common, ...expected }])
      expect(lastRequest(broker)['request_id']).toBe(response.headers.get('stint-request-id'))
    }
    expect(requestLines(broker)).toHaveLength(cases.length + 1)
  })

  test('shows of an unknown path nothing that may be more than a word of an address', async () => {
    const broker = await startBroker('sqlite')
    const credential = `stint_op_${'0'.repeat(16)}_${'a'.repeat(43)}`
    const cases = [
      ['/oauth/token', '/oauth/token'],
      ['/.well-known/openid-configuration/x', '/.well-known/openid-configuration/x'],
      [`/oauth2/token/${credential}`, '/oauth2/token/…'],
      ['/a/b/c/d/e/f/g', '/a/b/c/d/…'],
      [`/${'word'.repeat(9)}/x`, '/…/x'],
      [`/${'x/'.repeat(4_000)}`, '/x/x/x/x/…'],
      ['/x/%1b%5b31mred', '/x/…'],
      ['/x/%0aforged', '/x/…'],
      ['/x/ü', '/x/…'],
      ['/x/%E2%80%AEred', '/x/…'],
      ['/x/a=b;c', '/x/…'],
    ] as const
    for (const [path, shown] of cases) {
      await broker.send('GET', path)
      expect([path, lastRequest(broker)['path']]).toEqual([path, shown])
    }
  })

  test('is a detail in development, where the terminal is for people', async () => {
    const broker = await startBroker('sqlite', { development: true, issuer: 'http://127.0.0.1:7846' })
    await broker.send('GET', '/v1/audit', { headers: { host: '127.0.0.1:7846', authorization: `Bearer ${broker.adminCredential}` } })
    expect(lastRequest(broker)).toMatchObject({ level: 'debug', status: 200 })
  })

  test('tells the address of the connection', async () => {
    const port = await findFreePort()
    const { log, lines } = createTestLog()
    const policyFolder = fileURLToPath(new URL('../../policies', import.meta.url))
    const running = await startDevelopment({ folder: createTestFolder(), policyFolder, port, log })
    onTestFinished(() => running.close())
    const socket = connect(port, '127.0.0.1')
    socket.write(`GET /nowhere HTTP/1.1\r\nhost: 127.0.0.1:${port}\r\nx-forwarded-for: 192.0.2.1\r\nconnection: close\r\n\r\n`)
    await socket.toArray()
    expect(requestLines({ logLines: lines }).at(-1)).toMatchObject({ path: '/nowhere', address: '127.0.0.1' })
  })
})

describe('A broker that is told to stop', () => {
  test('says what it waits for, and when it is done', async () => {
    const port = await findFreePort()
    const { log, lines } = createTestLog()
    const policyFolder = fileURLToPath(new URL('../../policies', import.meta.url))
    const running = await startDevelopment({ folder: createTestFolder(), policyFolder, port, log })
    const told = () => lines.map((line) => JSON.parse(line) as { message: string }).filter(({ message }) => /^(?:waiting|stopped|what was)/.test(message))
    const socket = connect(port, '127.0.0.1')
    socket.write(`POST /oauth2/token HTTP/1.1\r\nhost: 127.0.0.1:${port}\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: 3\r\n\r\na`)
    // An answer on another connection comes after the server has read what was sent on this one.
    await expect.poll(async () => (await fetch(`http://127.0.0.1:${port}/healthz`)).status).toBe(200)
    const closed = running.close()
    expect(told()).toMatchObject([{ message: 'waiting for the requests that are under way', connections: 1 }])
    expect((await running.composition.app.request('/readyz', { headers: { host: `127.0.0.1:${port}` } })).status).toBe(503)
    socket.write('=1')
    await socket.toArray()
    await closed
    expect(told().map(({ message }) => message)).toEqual(['waiting for the requests that are under way', 'stopped'])
    expect(requestLines({ logLines: lines }).at(-1)).toMatchObject({ route: '/oauth2/token', status: 400 })
  })
})

describeEngines('What goes wrong with a request', (engine) => {
  test('is told under its id, and never by the path that was sent', async () => {
    const broker = await startBroker(engine)
    await broker.broker.database.close()
    const secret = `stint_op_${'0'.repeat(16)}_${'b'.repeat(43)}`
    const response = await broker.sendAsAdmin('POST', `/v1/workloads/${secret.slice(0, 60)}/suspend`, {})
    expect(response.status).toBeGreaterThanOrEqual(500)
    const own = broker.logLines.filter((line) => line.includes(response.headers.get('stint-request-id') ?? '?')).map((line) => JSON.parse(line) as object)
    expect(own).toMatchObject([
      { level: 'error', message: 'a request failed', route: '/v1/workloads/:name/suspend' },
      { level: 'info', message: 'request', status: response.status },
    ])
    expect(broker.logLines.join('')).not.toContain(secret.slice(0, 60))
  })

  test('and what was sent with it are in no line and no figure', async () => {
    const broker = await startBroker(engine)
    const bot = await broker.register('bot')
    const canary = 'canary-0123456789'
    const assertion = bot.assert()
    const sent: readonly Parameters<TestBroker['send']>[] = [
      ['POST', `/oauth2/token?q=${canary}`, { form: { client_assertion: canary } }],
      ['POST', '/oauth2/token', { form: { ...bot.form({ grant_type: canary, scope: canary }), client_assertion: assertion } }],
      ['POST', '/oauth2/token', { form: bot.form({ grant_type: 'client_credentials', scope: canary }) }],
      ['POST', '/v1/workloads', { json: { name: canary, jwks: { keys: [{ d: canary }] } }, headers: { authorization: `Bearer ${canary}` } }],
      ['GET', `/v1/audit?task=${canary}`, { headers: { authorization: `Bearer ${broker.adminCredential}`, cookie: canary, 'x-forwarded-for': canary } }],
      [canary, `/v1/workloads/${canary}`, {}],
    ]
    for (const request of sent) await broker.send(...request)
    const seen = `${broker.logLines.join('')}${await broker.broker.metrics.read()}`
    for (const secret of [canary, assertion, broker.adminCredential]) expect(seen).not.toContain(secret)
  })
})
