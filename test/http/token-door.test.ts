import { connect } from 'node:net'
import { describe, expect, onTestFinished, test } from 'vitest'
import { createHttpServer } from '../../src/http/server.ts'
import { startBroker, type TestAgent, type TestBroker } from '../broker.ts'
import { findFreePort } from '../free-port.ts'

const formType = 'application/x-www-form-urlencoded'

interface Sent {
  readonly body: string
  readonly headers?: Readonly<Record<string, string>>
}

/** A broker that listens, and how many requests went the short way. */
async function listen() {
  const broker = await startBroker('sqlite', { limits: { refusalsPerMinutePerAddress: 1_000, requestsPerSecondPerWorkload: 1_000 } })
  const port = await findFreePort()
  let short = 0
  const door: typeof broker.door = (request, response) => {
    const taken = broker.door(request, response)
    if (taken) short++
    return taken
  }
  const server = createHttpServer({ fetch: broker.app.fetch, door, broker: broker.broker, connectionsPerAddressMax: 100, times: { drainMs: 100 } })
  await server.listen('127.0.0.1', port)
  onTestFinished(() => server.drain())
  const url = `http://127.0.0.1:${port}/oauth2/token`
  return { broker, port, url, shortWays: () => short }
}

/** What an answer says, but for what differs between any two of them. */
async function describeAnswer(response: Response) {
  const headers = Object.fromEntries(response.headers)
  const { date: _, connection: __, 'keep-alive': ___, 'transfer-encoding': ____, 'content-length': _____, ...kept } = headers
  expect(kept['stint-request-id']).toMatch(/^req_/)
  const body = (await response.json()) as Record<string, unknown>
  if (typeof body['access_token'] === 'string') body['access_token'] = body['access_token'].split('.').length
  return { status: response.status, headers: { ...kept, 'stint-request-id': 'req', ...(kept['stint-audit-index'] && { 'stint-audit-index': 'n' }) }, body }
}

/** The operator's line of the newest request, but for what differs between any two. */
function lastLine({ logLines }: TestBroker) {
  const line = logLines.map((text) => JSON.parse(text) as Record<string, unknown>).findLast(({ message }) => message === 'request')
  const { time: _, duration_ms: duration, request_id: id, audit_index: index, ...rest } = line ?? {}
  return { ...rest, duration: typeof duration, id: typeof id, index: typeof index, order: Object.keys(line ?? {}) }
}

const encode = (parameters: Readonly<Record<string, string>>) => new URLSearchParams(parameters).toString()
const grant = { grant_type: 'client_credentials', scope: 'tickets:read' }

/** Each makes a request anew, for an assertion is good once. */
const plain: readonly (readonly [string, (agent: TestAgent) => Sent])[] = [
  ['a scope that the policy allows', (agent) => ({ body: encode(agent.form(grant)) })],
  ['details', (agent) => ({ body: encode(agent.form({ grant_type: 'client_credentials', authorization_details: '[{"type":"stint","actions":["tickets:read"],"task":"t-1","ttl_seconds":60}]' })) })],
  ['what the policy denies', (agent) => ({ body: encode(agent.form({ ...grant, scope: 'tickets:purge' })) })],
  ['an action that is not there', (agent) => ({ body: encode(agent.form({ ...grant, scope: 'tickets:nothing "x"' })) })],
  ['a wrong resource', (agent) => ({ body: encode(agent.form({ ...grant, resource: 'https://elsewhere.test' })) })],
  ['no grant type', (agent) => ({ body: encode(agent.form({ scope: 'tickets:read' })) })],
  ['another grant type', (agent) => ({ body: encode(agent.form({ ...grant, grant_type: 'password' })) })],
  ['no assertion', () => ({ body: encode(grant) })],
  ['an assertion of another key', (agent) => ({ body: encode({ ...agent.form(grant), client_assertion: `${agent.assert().slice(0, -4)}AAAA` }) })],
  ['an assertion that has expired', (agent) => ({ body: encode({ ...agent.form(grant), client_assertion: agent.assert({ iat: 1, exp: 2 }) }) })],
  ['another client_id', (agent) => ({ body: encode(agent.form({ ...grant, client_id: 'spiffe://stint.test/other' })) })],
  ['an unknown parameter', (agent) => ({ body: encode(agent.form({ ...grant, client_secret: 'x' })) })],
  ['a parameter twice', (agent) => ({ body: `${encode(agent.form(grant))}&scope=tickets%3Aread` })],
  ['an empty parameter', (agent) => ({ body: `${encode(agent.form(grant))}&resource=` })],
  ['what is no form', () => ({ body: '{"grant_type":"client_credentials"}' })],
  ['bytes that are no UTF-8', () => ({ body: 'scope=%ff' })],
  ['nothing', () => ({ body: '' })],
]

const odd: typeof plain = [
  ['an Authorization header', (agent) => ({ body: encode(agent.form(grant)), headers: { authorization: 'Basic eDp5' } })],
  ['a charset', (agent) => ({ body: encode(agent.form(grant)), headers: { 'content-type': `${formType}; charset=utf-8` } })],
  ['another type', (agent) => ({ body: encode(agent.form(grant)), headers: { 'content-type': 'text/plain' } })],
  ['a packed body', (agent) => ({ body: encode(agent.form(grant)), headers: { 'content-encoding': 'gzip' } })],
  ['too much', () => ({ body: `scope=${'x'.repeat(70_000)}` })],
]

describe('The short way to the token endpoint', () => {
  test.for([...plain.map((one) => [...one, 1] as const), ...odd.map((one) => [...one, 0] as const)])('answers %s as the app does', async ([, make, short]) => {
    const { broker, url, shortWays } = await listen()
    const agent = await broker.register('bot')
    const one = make(agent)
    const byServer = await fetch(url, { method: 'POST', body: one.body, headers: { 'content-type': formType, ...one.headers } })
    const answered = await describeAnswer(byServer)
    const told = lastLine(broker)
    const other = make(agent)
    const byApp = await broker.send('POST', '/oauth2/token', { form: other.body, headers: { 'content-type': formType, ...other.headers }, from: '127.0.0.1' })
    expect(answered).toEqual(await describeAnswer(byApp))
    expect(told).toEqual(lastLine(broker))
    expect(shortWays()).toBe(short)
  })

  test.for([
    ['no Host', 'HTTP/1.0', ''],
    ['an empty Host', 'HTTP/1.1', 'Host: \r\n'],
    ['a Host that is none', 'HTTP/1.1', 'Host: a b/@x\r\n'],
    ['two types', 'HTTP/1.1', 'Host: stint.test\r\nContent-Type: text/plain\r\n'],
    ['the type twice', 'HTTP/1.1', `Host: stint.test\r\nContent-Type: ${formType}\r\n`],
  ])('leaves a head with %s to the app, which refuses it', async ([, version, head]) => {
    const { broker, port, shortWays } = await listen()
    const agent = await broker.register('bot')
    const body = encode(agent.form(grant))
    const socket = connect(port, '127.0.0.1')
    const answered = new Promise<string>((resolve) => socket.once('data', (bytes) => resolve(bytes.toString())))
    socket.write(`POST /oauth2/token ${version}\r\nContent-Type: ${formType}\r\nContent-Length: ${body.length}\r\n${head}\r\n${body}`)
    expect(await answered).toMatch(/^HTTP\/1\.1 400 /)
    socket.destroy()
    expect(shortWays()).toBe(0)
  })

  test('records a grant, and answers its index', async () => {
    const { broker, url } = await listen()
    const agent = await broker.register('bot')
    const response = await fetch(url, { method: 'POST', body: encode(agent.form(grant)), headers: { 'content-type': formType } })
    const { index, request_id: id } = await broker.lastEvent('grant.issued')
    expect([response.headers.get('stint-audit-index'), response.headers.get('stint-request-id')]).toEqual([String(index), id])
  })

  test('takes an assertion once, whichever way it comes', async () => {
    const { broker, url } = await listen()
    const agent = await broker.register('bot')
    const body = encode(agent.form(grant))
    const statuses: number[] = []
    for (let i = 0; i < 2; i++) {
      statuses.push((await fetch(url, { method: 'POST', body, headers: { 'content-type': formType } })).status)
      statuses.push((await broker.send('POST', '/oauth2/token', { form: body })).status)
    }
    expect(statuses).toEqual([200, 401, 401, 401])
  })

  test('counts refusals for the address, together with the app', async () => {
    const broker = await startBroker('sqlite', { limits: { refusalsPerMinutePerAddress: 3, requestsPerSecondPerWorkload: 1_000 } })
    const port = await findFreePort()
    const server = createHttpServer({ fetch: broker.app.fetch, door: broker.door, broker: broker.broker, connectionsPerAddressMax: 100, times: { drainMs: 100 } })
    await server.listen('127.0.0.1', port)
    onTestFinished(() => server.drain())
    const send = async () => (await fetch(`http://127.0.0.1:${port}/oauth2/token`, { method: 'POST', body: encode(grant), headers: { 'content-type': formType } })).status
    expect([await send(), await send(), await send(), await send()]).toEqual([401, 401, 401, 429])
  })

  test('outlives a client that goes away in the middle of its body', async () => {
    const { broker, port, url, shortWays } = await listen()
    const agent = await broker.register('bot')
    const socket = connect(port, '127.0.0.1')
    socket.write(`POST /oauth2/token HTTP/1.1\r\nHost: x\r\nContent-Type: ${formType}\r\nContent-Length: 100\r\n\r\nscope=tick`)
    await expect.poll(shortWays).toBe(1)
    socket.destroy()
    await expect.poll(() => lastLine(broker)).toMatchObject({ status: 400, code: 'invalid_input', route: '/oauth2/token' })
    const response = await fetch(url, { method: 'POST', body: encode(agent.form(grant)), headers: { 'content-type': formType } })
    expect(response.status).toBe(200)
  })
})
