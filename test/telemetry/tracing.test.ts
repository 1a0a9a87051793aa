import { execFile } from 'node:child_process'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout } from 'node:timers/promises'
import { promisify } from 'node:util'
import { describe, expect, onTestFinished, test } from 'vitest'
import { createTracer } from '../../src/telemetry/tracing.ts'
import { getToken, startBroker, type TestBroker } from '../broker.ts'
import { findFreePort } from '../free-port.ts'
import { createTestClock, createTestLog, describeEngines } from '../harness.ts'

interface SentSpan {
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId?: string
  readonly name: string
  readonly kind: number
  readonly attributes: Readonly<Record<string, unknown>>
  readonly failed: boolean
}

/** A collector that takes OTLP over HTTP, as JSON, and keeps what it was sent. */
interface Collector {
  readonly url: string
  readonly spans: SentSpan[]
  /** What was posted, as it was. */
  readonly bodies: string[]
  readonly server: Server
}

async function startCollector(answer: number | 'never' = 200): Promise<Collector> {
  const spans: SentSpan[] = []
  const bodies: string[] = []
  const server = createServer(async (request, response) => {
    const pieces = await request.toArray()
    const body = Buffer.concat(pieces as Buffer[]).toString()
    expect([request.method, request.url, request.headers['content-type']]).toEqual(['POST', '/v1/traces', 'application/json'])
    bodies.push(body)
    spans.push(...readSpans(body))
    if (answer !== 'never') response.writeHead(answer, { 'content-type': 'application/json' }).end('{}')
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  // It listens by an address, not by a path.
  const { port } = server.address() as AddressInfo
  return { url: `http://127.0.0.1:${port}/`, spans, bodies, server }
}

/** The spans of an ExportTraceServiceRequest in the JSON encoding of OTLP. */
function readSpans(body: string): SentSpan[] {
  type Value = Readonly<Record<string, unknown>>
  interface Sent {
    resourceSpans: {
      resource: { attributes: { key: string; value: Value }[] }
      scopeSpans: { spans: (Omit<SentSpan, 'attributes' | 'failed'> & { attributes: { key: string; value: Value }[]; status: { code: number } })[] }[]
    }[]
  }
  const plain = (attributes: { key: string; value: Value }[]) => Object.fromEntries(attributes.map(({ key, value }) => [key, Object.values(value)[0]]))
  return (JSON.parse(body) as Sent).resourceSpans.flatMap(({ resource, scopeSpans }) => {
    expect(plain(resource.attributes)).toEqual({ 'service.name': 'stint', 'service.version': expect.stringMatching(/^\d+\.\d+\.\d+$/) })
    return scopeSpans.flatMap((scope) => scope.spans.map(({ status, attributes, ...span }) => ({ ...span, attributes: plain(attributes), failed: status.code === 2 })))
  })
}

/** The spans of the newest request to that route, the outermost first, once they were sent. */
async function traceOf({ spans }: Collector, name: string): Promise<SentSpan[]> {
  await expect.poll(() => spans.some((span) => span.name === name), { timeout: 10_000 }).toBe(true)
  const request = spans.findLast((span) => span.name === name)
  const within = spans.filter((span) => span.traceId === request?.traceId && span !== request)
  return request === undefined ? [] : [request, ...within]
}

const form = (broker: TestBroker, body: Record<string, string>, headers = {}) => broker.send('POST', '/oauth2/token', { form: body, headers })

describeEngines('A trace', (engine) => {
  test('holds the stages of a request, each within the request, with what became of it', async () => {
    const collector = await startCollector()
    const broker = await startBroker(engine, { otlpUrl: collector.url })
    const bot = await broker.register('bot')
    const response = await form(broker, bot.form({ grant_type: 'client_credentials', scope: 'tickets:read' }))
    expect(response.status).toBe(200)
    const [request, ...stages] = await traceOf(collector, 'POST /oauth2/token')
    const index = response.headers.get('stint-audit-index')
    expect(request).toMatchObject({
      kind: 2,
      failed: false,
      attributes: {
        'http.request.method': 'POST',
        'http.route': '/oauth2/token',
        'http.response.status_code': 200,
        'stint.request_id': response.headers.get('stint-request-id'),
        'stint.caller': 'bot',
        'stint.audit_index': Number(index),
      },
    })
    expect(request?.parentSpanId).toBeUndefined()
    expect(stages.map(({ name, attributes }) => [name, attributes])).toEqual([
      ['authenticate', { 'stint.workload': 'bot' }],
      ['decide', { 'stint.tool': 'tickets', 'stint.verdict': 'allow' }],
      ['ledger commit', { 'stint.commit': 'recorded', 'stint.audit_index': Number(index) }],
    ])
    for (const stage of stages) expect([stage.name, stage.kind, stage.parentSpanId]).toEqual([stage.name, 1, request?.spanId])
    // What scheduled jobs and the start commit is part of no request.
    expect(collector.spans.every(({ name, parentSpanId }) => name.includes(' /') === (parentSpanId === undefined))).toBe(true)
  })

  test('of requests at the same time keeps them apart', async () => {
    const collector = await startCollector()
    const broker = await startBroker(engine, { otlpUrl: collector.url })
    const bots = await Promise.all(['one', 'two', 'three'].map((name) => broker.register(name)))
    await Promise.all(bots.map((bot) => getToken(broker, bot, { scope: 'tickets:read' })))
    await broker.close()
    const requests = collector.spans.filter(({ name }) => name === 'POST /oauth2/token')
    expect(requests.map(({ attributes }) => attributes['stint.caller']).toSorted()).toEqual(['one', 'three', 'two'])
    for (const request of requests) {
      const within = collector.spans.filter(({ parentSpanId }) => parentSpanId === request.spanId)
      expect(within.map(({ name }) => name).toSorted()).toEqual(['authenticate', 'decide', 'ledger commit'])
      expect(within.find(({ name }) => name === 'authenticate')?.attributes['stint.workload']).toBe(request.attributes['stint.caller'])
    }
  })

  test('of what is refused, or goes wrong, says why by its kind alone', async () => {
    const collector = await startCollector()
    const broker = await startBroker(engine, { otlpUrl: collector.url })
    const bot = await broker.register('bot')
    await form(broker, bot.form({ grant_type: 'client_credentials', scope: 'tickets:purge' }))
    expect((await traceOf(collector, 'POST /oauth2/token')).map(({ failed, attributes }) => [failed, attributes['stint.verdict']])).toContainEqual([false, 'deny'])
    await form(broker, { ...bot.form({ grant_type: 'client_credentials', scope: 'tickets:read' }), client_assertion: bot.assert({ aud: 'https://elsewhere.test' }) })
    await broker.send('GET', '/nowhere?x=1')
    broker.broker.database.write = async () => {
      throw new Error('disk full at /var/lib')
    }
    expect((await form(broker, bot.form({ grant_type: 'client_credentials', scope: 'tickets:read' }))).status).toBe(503)
    await broker.close()
    const refused = collector.spans.find(({ attributes }) => attributes['stint.refusal'] !== undefined)
    expect([refused?.name, refused?.attributes, refused?.failed]).toEqual(['authenticate', { 'stint.refusal': 'audience_mismatch' }, false])
    const unknown = collector.spans.find(({ name }) => name === 'GET')
    expect([unknown?.attributes['http.response.status_code'], unknown?.attributes['http.route'], unknown?.failed]).toEqual([404, undefined, false])
    const failed = collector.spans.filter((span) => span.failed)
    expect(failed.map(({ name, attributes }) => [name, attributes['error.type']]).toSorted()).toEqual([
      ['POST /oauth2/token', '503'],
      ['ledger commit', 'unavailable'],
    ])
    expect(collector.bodies.join('')).not.toContain('disk full')
  })
})

describe('The trace of a caller', () => {
  const parent = { traceId: '0af7651916cd43dd8448eb211c80319c', spanId: 'b7ad6b7169203331' }
  test.each([
    [`00-${parent.traceId}-${parent.spanId}-01`, true],
    [`01-${parent.traceId}-${parent.spanId}-01-more`, true],
    [`00-${parent.traceId}-${parent.spanId}-01-more`, false],
    [`ff-${parent.traceId}-${parent.spanId}-01`, false],
    [`00-${'0'.repeat(32)}-${parent.spanId}-01`, false],
    [`00-${parent.traceId}-${'0'.repeat(16)}-01`, false],
    [`00-${parent.traceId.toUpperCase()}-${parent.spanId}-01`, false],
    [`00-${parent.traceId}-${parent.spanId}`, false],
    ['garbage', false],
  ])('%s is joined: %s', async (traceparent, joined) => {
    const collector = await startCollector()
    const broker = await startBroker('sqlite', { otlpUrl: collector.url })
    await broker.send('GET', '/healthz', { headers: { traceparent } })
    await broker.close()
    const [span] = await traceOf(collector, 'GET /healthz')
    expect(span?.traceId === parent.traceId && span.parentSpanId === parent.spanId).toBe(joined)
    if (!joined) expect(span?.parentSpanId).toBeUndefined()
  })

  test('that is not recorded is not recorded here', async () => {
    const collector = await startCollector()
    const broker = await startBroker('sqlite', { otlpUrl: collector.url })
    await broker.send('GET', '/healthz', { headers: { traceparent: `00-${parent.traceId}-${parent.spanId}-00` } })
    await broker.close()
    expect(collector.spans).toEqual([])
  })
})

describe('Without a collector', () => {
  test('that is there, requests go on, and the log says so', async () => {
    const broker = await startBroker('sqlite', { otlpUrl: `http://127.0.0.1:${await findFreePort()}` })
    expect((await broker.send('GET', '/healthz')).status).toBe(200)
    const warnings = () => broker.logLines.filter((line) => line.includes('traces could not be sent'))
    await expect.poll(() => warnings().length, { timeout: 10_000 }).toBe(1)
    expect(JSON.parse(warnings()[0] ?? '{}')).toMatchObject({ level: 'warn', spans: 1, reason: expect.stringContaining('ECONNREFUSED') })
  })

  test('that takes anything, the log says so once a minute, with how much was lost', async () => {
    const collector = await startCollector(400)
    const clock = createTestClock()
    const { log, lines } = createTestLog()
    const tracer = createTracer({ url: collector.url, version: '1.2.3', clock, log, delayMs: 5 })
    onTestFinished(() => tracer.close())
    const send = async (): Promise<void> => {
      const sent = collector.spans.length
      tracer.traceRequest('one', undefined, () => undefined)
      await expect.poll(() => collector.spans.length).toBe(sent + 1)
      await setTimeout(20)
    }
    for (let i = 0; i < 3; i++) await send()
    clock.advance(59_000)
    await send()
    expect(lines.map((line) => (JSON.parse(line) as { spans: number }).spans)).toEqual([1])
    clock.advance(1_000)
    await send()
    expect(lines.map((line) => (JSON.parse(line) as { spans: number }).spans)).toEqual([1, 4])
  })

  test('that keeps up, what is too much is dropped', async () => {
    const collector = await startCollector('never')
    const { log } = createTestLog()
    const tracer = createTracer({ url: collector.url, version: '1.2.3', clock: createTestClock(), log, delayMs: 5 })
    for (let i = 0; i < 20_000; i++) tracer.traceRequest('one', undefined, () => undefined)
    await tracer.close()
    expect(collector.spans.length).toBeLessThan(6_000)
  })

  test('that ever answers, the broker closes all the same', async () => {
    const collector = await startCollector('never')
    const broker = await startBroker('sqlite', { otlpUrl: collector.url })
    await broker.send('GET', '/healthz')
    const beganMs = performance.now()
    await broker.close()
    expect(performance.now() - beganMs).toBeLessThan(6_000)
    expect(collector.spans).toHaveLength(1)
  })

  test('in the configuration, what would send to one is not loaded', async () => {
    const main = new URL('../../src/main.ts', import.meta.url).href
    const script = `
      import { registerHooks } from 'node:module'
      const loaded = []
      registerHooks({ resolve: (name, context, next) => (loaded.push(name), next(name, context)) })
      await import('${main}')
      console.log(loaded.some((name) => name === 'prom-client'), loaded.filter((name) => /opentelemetry\\/(?:sdk|exporter|resources)/.test(name)).length)`
    const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', script])
    expect(stdout).toBe('true 0\n')
    expect((await startBroker('sqlite')).broker.tracer).toBeUndefined()
  })
})

test('No secret is in a trace', async () => {
  const collector = await startCollector()
  const broker = await startBroker('sqlite', { otlpUrl: collector.url })
  const bot = await broker.register('bot')
  const canary = 'canary-0123456789'
  const body = bot.form({ grant_type: 'client_credentials', scope: 'tickets:read' })
  const token = (await (await form(broker, body)).json()) as { access_token: string }
  await broker.send('POST', `/oauth2/introspect?${canary}`, { form: bot.form({ token: canary }) })
  await broker.send('POST', '/oauth2/introspect', { form: bot.form({ token: token.access_token }) })
  await broker.send('GET', `/v1/workloads/${canary}?q=${canary}`, { headers: { authorization: `Bearer ${broker.adminCredential}`, tracestate: `a=${canary}` } })
  await broker.send('GET', `/${canary}`, { headers: { authorization: `Bearer ${canary}`, baggage: canary } })
  await broker.close()
  const sent = collector.bodies.join('')
  expect(sent).toContain('GET /v1/workloads/:name')
  for (const secret of [canary, token.access_token, body['client_assertion'] ?? '?', broker.adminCredential]) expect(sent).not.toContain(secret)
})
