import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { getRequestListener } from '@hono/node-server'
import { expect, onTestFinished, test } from 'vitest'
import { csvHeader, formatCsvLine } from '../../src/audit/csv.ts'
import { createExportPlaces } from '../../src/broker/export-audit.ts'
import { getToken, startBroker, type TestBroker } from '../broker.ts'
import { naiveLeaf } from '../audit/naive-tree.ts'
import { describeEngines } from '../harness.ts'
import { listen } from '../listen.ts'
import { note } from '../storage/changes.ts'
import { unrecorded } from './admin-requests.ts'

const path = '/v1/audit/export'
const linesOf = (text: string): string[] => text.split('\n').filter((line) => line !== '')
const indexesOf = (text: string): number[] => linesOf(text).map((line) => Number((JSON.parse(line) as { index: number }).index))

async function exportAs(broker: TestBroker, query = '') {
  const response = await broker.sendAsAdmin('GET', `${path}${query}`)
  return { status: response.status, headers: response.headers, text: await response.text() }
}

/** Everything that is stored, oldest first. */
const readRows = ({ broker }: TestBroker) => broker.database.read.selectFrom('audit_event').selectAll().orderBy('idx').execute()

/** A log of some hundred entries: more than one page. */
async function addEntries({ broker }: TestBroker, count = 600): Promise<void> {
  await Promise.all(Array.from({ length: count }, (_, i) => broker.ledger.append({ events: [note(`${i}`)] })))
}

describeEngines('An export', (engine) => {
  test('holds the very bytes that were hashed, of every entry that there was, and is recorded before it is given', async () => {
    const broker = await startBroker(engine)
    await addEntries(broker)
    await broker.broker.ledger.append({ events: [note('Ünïcödé ✓ \u2028 "quoted"')] })
    const rows = await readRows(broker)
    const { status, headers, text } = await exportAs(broker)
    expect(status).toBe(200)
    expect(text.endsWith('\n')).toBe(true)
    const lines = linesOf(text)
    expect(lines).toEqual(rows.map((row) => row.body))
    expect(lines.map((line) => naiveLeaf(Buffer.from(line)))).toEqual(rows.map((row) => Buffer.from(row.leaf_hash)))
    const last = rows.length - 1
    expect(Object.fromEntries(headers)).toMatchObject({
      'content-type': 'application/jsonl',
      'content-disposition': `attachment; filename="stint-audit-0-${last}.jsonl"`,
      'cache-control': 'no-store',
      'stint-export-first': '0',
      'stint-export-last': String(last),
      'stint-audit-index': String(rows.length),
    })
    const event = await broker.lastEvent('audit.exported')
    const requestId = headers.get('stint-request-id')
    expect(event).toMatchObject({ index: rows.length, format: 'jsonl', selector: {}, first: 0, last, actor: { kind: 'operator' }, request_id: requestId })
  })

  test('as CSV has one header and a line for each entry', async () => {
    const broker = await startBroker(engine)
    await addEntries(broker)
    const rows = await readRows(broker)
    const { headers, text } = await exportAs(broker, '?format=csv')
    expect(text).toBe(csvHeader + rows.map((row) => formatCsvLine(row.body)).join(''))
    expect(headers.get('content-type')).toBe('text/csv; charset=utf-8')
    expect(headers.get('content-disposition')).toBe(`attachment; filename="stint-audit-0-${rows.length - 1}.csv"`)
    expect(await broker.lastEvent('audit.exported')).toMatchObject({ format: 'csv' })
    const rest = await exportAs(broker, '?format=csv&after=600')
    expect(rest.headers.get('content-type')).toBe('text/csv; charset=utf-8; header=absent')
    expect(rest.text.startsWith('601,')).toBe(true)
    expect((await exportAs(broker, '?format=csv&workload=nobody&type=grant.issued')).text).toBe(csvHeader)
  })

  test('holds what fits its selection, which the log has too', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('one')
    await broker.register('two')
    broker.clock.advance(60_000)
    const detail = JSON.stringify([{ type: 'stint', actions: ['tickets:read'], task: 'ticket-7' }])
    await getToken(broker, agent, { authorization_details: detail })
    await addEntries(broker)
    broker.clock.advance(60_000)
    await getToken(broker, agent, { scope: 'tickets:read' })
    const events = await broker.events()
    const issued = events.flatMap((event) => (event.type === 'grant.issued' ? [event] : []))
    const [first, second] = issued.map((event) => event.index)
    const registered = events.find((event) => event.type === 'workload.registered')?.index
    const cases: readonly (readonly [string, readonly (number | undefined)[], object])[] = [
      ['?tool=tickets', [first, second], { tool: 'tickets' }],
      ['?tool=nothing', [], { tool: 'nothing' }],
      ['?task=ticket-7', [first], { task: 'ticket-7' }],
      [`?grant=${issued[1]?.grant}`, [second], { grant: issued[1]?.grant }],
      ['?workload=one', [registered, first, second], { workload: 'one' }],
      ['?workload=one&type=grant.issued&tool=tickets&task=ticket-7', [first], { workload: 'one', type: 'grant.issued', tool: 'tickets', task: 'ticket-7' }],
      ['?type=grant.issued&from=2026-01-15T12:02:00Z', [second], { type: 'grant.issued', from: '2026-01-15T12:02:00.000Z' }],
      ['?tool=tickets&from=2026-01-15T13:01:00%2B01:00&to=2026-01-15T12:02:00Z', [first], { tool: 'tickets', from: '2026-01-15T12:01:00.000Z', to: '2026-01-15T12:02:00.000Z' }],
      ['?workload=nobody', [], { workload: 'nobody' }],
    ]
    for (const [query, expected, selector] of cases) {
      expect([query, indexesOf((await exportAs(broker, query)).text)]).toEqual([query, expected])
      expect((await broker.lastEvent('audit.exported'))['selector']).toEqual(selector)
    }
  })

  test('of a time at which there was nothing is empty, and says so', async () => {
    const broker = await startBroker(engine)
    const size = (await broker.events()).length
    for (const [query, first] of [
      ['?to=2026-01-15T12:00:00Z', 0],
      ['?to=1999-12-31', 0],
      ['?from=2026-01-15T12:00:00.001Z', size + 2],
      ['?from=9999-12-31&to=9999-12-31', size + 3],
    ] as const) {
      const { status, headers, text } = await exportAs(broker, query)
      expect([query, status, text]).toEqual([query, 200, ''])
      expect([headers.get('stint-export-first'), headers.get('stint-export-last')]).toEqual([String(first), String(first - 1)])
      expect(await broker.lastEvent('audit.exported')).toMatchObject({ first, last: first - 1 })
    }
    expect((await exportAs(broker, '?from=1999-12-31&to=9999-12-31')).headers.get('stint-export-first')).toBe('0')
  })

  test('goes on behind any entry, to where it would have ended', async () => {
    const broker = await startBroker(engine)
    const size = (await broker.events()).length
    const whole = linesOf((await exportAs(broker)).text)
    for (let after = 0; after < size; after++) {
      const { headers, text } = await exportAs(broker, `?after=${after}&until=${size - 1}`)
      expect(linesOf(text)).toEqual(whole.slice(after + 1))
      expect([headers.get('stint-export-first'), headers.get('stint-export-last')]).toEqual([String(after + 1), String(size - 1)])
      expect(await broker.lastEvent('audit.exported')).toMatchObject({ selector: {}, first: after + 1, last: size - 1 })
    }
  })

  test('ends with the newest entry of its beginning, however many are added meanwhile', async () => {
    const broker = await startBroker(engine)
    await addEntries(broker)
    const size = (await broker.events()).length
    const reader = (await broker.sendAsAdmin('GET', path)).body?.getReader()
    let text = ''
    for (let read = await reader?.read(); read?.value !== undefined; read = await reader?.read()) {
      text += Buffer.from(read.value).toString()
      await addEntries(broker, 50)
    }
    expect(indexesOf(text)).toEqual(Array.from({ length: size }, (_, i) => i))
  })

  test('takes no part that it cannot honour, and records nothing then', async () => {
    const broker = await startBroker(engine)
    const size = (await broker.events()).length
    await unrecorded(broker, async () => {
      for (const [query, message] of [
        ['?from=2026-02-01&to=2026-01-01', 'from must not be after to'],
        ['?after=3&until=2', 'after must not be beyond until'],
        [`?after=${size}`, `after is ${size}, and the log has only ${size} entries, counted from 0.`],
        [`?until=${size}`, `until is ${size}, and the log has only ${size} entries, counted from 0.`],
        ['?format=xml', 'format must be one of jsonl, csv'],
        ['?format=jsonl&format=csv', 'The parameter format was sent twice.'],
        ['?from=yesterday', 'from must be a time such as 2026-11-21 or 2026-11-21T10:00:00Z'],
        ['?since=2026-01-01', 'since is not known here'],
        ['?after=-1', 'after must be a whole number'],
        ['?type=grant.isued', 'type is not known; did you mean grant.issued?'],
        ['?workload=No%20Name', 'workload must be the name of a workload'],
      ] as const) {
        const { status, text } = await exportAs(broker, query)
        expect([query, status]).toEqual([query, 400])
        expect(JSON.parse(text).detail).toContain(message)
      }
    })
  })

  test('is for admins and auditors', async () => {
    const broker = await startBroker(engine)
    const [auditor, approver] = [await broker.createOperator('auditor'), await broker.createOperator('approver')]
    await unrecorded(broker, async () => {
      expect((await broker.sendAs(approver, 'GET', path)).status).toBe(403)
      expect((await broker.send('GET', path)).status).toBe(401)
    })
    const response = await broker.sendAs(auditor, 'GET', path)
    expect([response.status, (await response.text()) !== '']).toEqual([200, true])
    await broker.lastEvent('audit.exported')
  })

  test('is neither begun nor recorded by HEAD', async () => {
    const broker = await startBroker(engine)
    const size = (await broker.events()).length
    await unrecorded(broker, async () => {
      const response = await broker.sendAsAdmin('HEAD', `${path}?format=csv`)
      expect([response.status, await response.text()]).toEqual([200, ''])
      expect(Object.fromEntries(response.headers)).toMatchObject({ 'content-type': 'text/csv; charset=utf-8', 'stint-export-last': String(size - 1) })
      for (let i = 0; i < 10; i++) expect((await broker.sendAsAdmin('HEAD', path)).status).toBe(200)
    })
  })

  test('is not given while the log cannot be written', async () => {
    const broker = await startBroker(engine)
    await broker.broker.ledger.close()
    for (let i = 0; i < 6; i++) {
      const { status, text } = await exportAs(broker)
      expect([status, text.includes('log.opened')]).toEqual([503, false])
    }
  })

  test('waits for a place when four are running, and gives its own back when its reader has gone', async () => {
    const broker = await startBroker(engine)
    const running = await Promise.all(Array.from({ length: 4 }, () => broker.sendAsAdmin('GET', path)))
    const fifth = await unrecorded(broker, () => broker.sendAsAdmin('GET', path))
    expect([fifth.status, fifth.headers.get('retry-after')]).toEqual([429, '10'])
    await running[0]?.body?.cancel()
    expect((await exportAs(broker)).status).toBe(200)
    await Promise.all(running.slice(1).map((response) => response.text()))
    for (let i = 0; i < 5; i++) expect((await exportAs(broker)).status).toBe(200)
  })

  test('ends when whoever asked for it is no operator any more', async () => {
    const broker = await startBroker(engine)
    await addEntries(broker)
    const auditor = await broker.createOperator('auditor')
    const reader = (await broker.sendAs(auditor, 'GET', path)).body?.getReader()
    expect((await reader?.read())?.value?.length).toBeGreaterThan(0)
    await broker.broker.database.maintenance.updateTable('operator').set({ revoked_at: '2026-01-15T12:00:00.000Z' }).where('role', '=', 'auditor').execute()
    broker.clock.advance(5_000)
    await expect(reader?.read()).rejects.toMatchObject({ code: 'unauthenticated' })
    expect(broker.logLines.join('')).toContain('an export was cut off')
  })
})

test('places are given back once, however often that is said', () => {
  const places = createExportPlaces({ atOnceMax: 2 })
  const [one] = [places.take('a'), places.take('b')]
  expect(() => places.take('c')).toThrow('2 exports are running already')
  one?.()
  one?.()
  places.take('a')
  expect(() => places.take('c')).toThrow('running already')
})

test('one operator cannot take all the places', () => {
  const places = createExportPlaces({ atOnceMax: 4, perOperatorMax: 2 })
  const [first] = [places.take('a'), places.take('a')]
  expect(() => places.take('a')).toThrow('2 exports of yours are running already')
  places.take('b')
  first?.()
  places.take('a')
})

/** The broker behind a real server; returns its port. */
async function serve({ app }: TestBroker): Promise<number> {
  return Number(new URL(await listen(getRequestListener(app.fetch))).port)
}

const authorize = ({ adminCredential }: TestBroker) => ({ authorization: `Bearer ${adminCredential}` })

/** A client that reads nothing by itself. */
async function ask(broker: TestBroker, port: number, version = '1.1'): Promise<Socket> {
  const socket = connect(port, '127.0.0.1')
  onTestFinished(() => void socket.destroy())
  await once(socket, 'connect')
  socket.write(`GET ${path} HTTP/${version}\r\nHost: a\r\nAuthorization: ${authorize(broker).authorization}\r\n\r\n`)
  return socket
}

/** Entries enough that neither the server's nor the client's side can hold them all. */
async function fill(broker: TestBroker): Promise<void> {
  const detail = 'x'.repeat(50_000)
  for (let i = 0; i < 8; i++) await Promise.all(Array.from({ length: 64 }, () => broker.broker.ledger.append({ events: [note(detail)] })))
}

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 10))
}

describeEngines('Over a connection, an export', (engine) => {
  test('that fails in the middle is an error for the client, and tells it nothing', async () => {
    const broker = await startBroker(engine)
    await fill(broker)
    const port = await serve(broker)
    const response = await fetch(`http://127.0.0.1:${port}${path}`, { headers: authorize(broker) })
    expect(response.status).toBe(200)
    expect(response.headers.get('transfer-encoding')).toBe('chunked')
    const raw = await ask(broker, port)
    const [head] = (await once(raw, 'data')) as [Buffer]
    raw.pause()
    await broker.broker.database.close()
    await expect(response.text()).rejects.toThrow('terminated')
    let rest = head.toString('latin1')
    raw.on('data', (piece: Buffer) => (rest += piece.toString('latin1')))
    raw.on('error', () => undefined).resume()
    await once(raw, 'close')
    expect(rest).toContain('"type":"log.opened"')
    expect(rest).not.toMatch(/\r\n0\r\n|Error/)
    expect(broker.logLines.filter((line) => line.includes('an export was cut off'))).toHaveLength(2)
  })

  test('waits for a reader that is slow, and ends when the reader goes away', async () => {
    const broker = await startBroker(engine)
    await fill(broker)
    const port = await serve(broker)
    const slow = await Promise.all(Array.from({ length: 4 }, () => ask(broker, port)))
    await until(async () => (await broker.sendAsAdmin('HEAD', path)).status === 200 && slow.every((socket) => socket.bytesRead > 0))
    // What is open holds up nobody.
    await addEntries(broker, 100)
    expect((await broker.sendAsAdmin('GET', path)).status).toBe(429)
    for (const socket of slow) socket.destroy()
    await until(async () => {
      const again = await broker.sendAsAdmin('GET', path)
      await again.body?.cancel()
      return again.status === 200
    })
  })

  test('that is short comes whole', async () => {
    const broker = await startBroker(engine)
    const rows = await readRows(broker)
    const port = await serve(broker)
    const response = await fetch(`http://127.0.0.1:${port}${path}`, { headers: authorize(broker) })
    expect(linesOf(await response.text())).toEqual(rows.map((row) => row.body))
  })

  test('is refused by HTTP/1.0, where nobody could tell a part of it from the whole', async () => {
    const broker = await startBroker(engine)
    const port = await serve(broker)
    await unrecorded(broker, async () => {
      const socket = await ask(broker, port, '1.0')
      const text = Buffer.concat(await socket.toArray()).toString()
      expect(text).toMatch(/^HTTP\/1\.1 400 /)
      expect(text).toContain('proxy_http_version 1.1')
    })
  })
})
