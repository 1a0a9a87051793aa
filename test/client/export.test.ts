import type { IncomingMessage, ServerResponse } from 'node:http'
import { describe, expect, it } from 'vitest'
import { createAdminClient } from '../../src/client/admin.ts'
import type { AuditExport, AuditExportQuery } from '../../src/client/log-records.ts'
import { listen } from '../listen.ts'

const token = `stint_op_${'0'.repeat(16)}_${'A'.repeat(43)}`
const header = 'index,time\r\n'
const line = (index: number, format = 'jsonl') => (format === 'csv' ? `${index},"é"\r\n` : `{"a":"é","index":${index}}\n`)

interface Answered {
  readonly url: URL
  readonly respond: ServerResponse
}

/** A broker that answers exports as the test says, call by call; the queries that came. */
async function serve(...answers: readonly ((answered: Answered) => void)[]) {
  const queries: Record<string, string>[] = []
  const url = await listen((request: IncomingMessage, respond) => {
    const asked = new URL(request.url ?? '', 'http://a')
    expect([asked.pathname, request.headers.authorization]).toEqual(['/v1/audit/export', `Bearer ${token}`])
    queries.push(Object.fromEntries(asked.searchParams))
    const answer = answers[queries.length - 1]
    if (answer === undefined) respond.writeHead(503, { 'content-type': 'application/problem+json' }).end('{"type":"urn:stint:problem:unavailable"}')
    else answer({ url: asked, respond })
  })
  const begin = (query: AuditExportQuery = { workload: 'bot' }) => createAdminClient({ url, token, timeoutMs: 300 }).exportAudit(query, { pauseMs: 1, retriesMax: 3 })
  return { begin, queries }
}

const open = (respond: ServerResponse, first = 0, last = 9) =>
  respond.writeHead(200, { 'stint-export-first': first, 'stint-export-last': last, 'stint-audit-index': 10 })
/** Sends this much, and cuts the connection once it is on its way. */
const cut = (text: string | Buffer) => ({ respond }: Answered) => void open(respond).write(text, () => setTimeout(() => respond.destroy(), 20))
const whole = (text: string | Buffer) => ({ respond }: Answered) => void open(respond).end(text)

async function read({ lines }: AuditExport): Promise<string> {
  const pieces: Uint8Array[] = []
  for await (const { bytes, entries, last_index: last } of lines) {
    const text = Buffer.from(bytes).toString()
    expect(text.endsWith('\n')).toBe(true)
    expect(entries).toBe(text.split('\n').length - 1 - (text.startsWith('index') ? 1 : 0))
    if (entries > 0) expect(text).toMatch(new RegExp(`(?:"index":${last}}|^${last},"é"\r)\n$`, 'm'))
    pieces.push(bytes)
  }
  return Buffer.concat(pieces).toString()
}

const problem = (respond: ServerResponse, status: number, type: string) =>
  void respond.writeHead(status, { 'content-type': 'application/problem+json', 'retry-after': '0' }).end(JSON.stringify({ type: `urn:stint:problem:${type}`, detail: `It is ${type}.` }))

describe('exportAudit', () => {
  it('gives whole lines, wherever the transfer divides them', async () => {
    const bytes = Buffer.from(line(0) + line(1) + line(2))
    for (let at = 1; at < bytes.length; at++) {
      const { begin } = await serve(({ respond }) => {
        open(respond).write(bytes.subarray(0, at), () => setTimeout(() => respond.end(bytes.subarray(at)), 2))
      })
      const exported = await begin()
      expect(exported).toMatchObject({ first: 0, last: 9, audit_index: 10 })
      expect(await read(exported)).toBe(bytes.toString())
    }
  })

  it.each(['jsonl', 'csv'] as const)('as %s goes on behind the last whole entry, wherever it was cut', async (format) => {
    const text = (format === 'csv' ? header : '') + line(0, format) + line(1, format)
    const bytes = Buffer.from(text)
    for (let at = 0; at <= bytes.length; at++) {
      const { begin, queries } = await serve(cut(bytes.subarray(0, at)), ({ url, respond }) => {
        const after = url.searchParams.get('after')
        const from = after === null ? 0 : text.indexOf(line(Number(after), format)) + line(Number(after), format).length
        open(respond, after === null ? 0 : Number(after) + 1).end(text.slice(from) + line(2, format))
      })
      const exported = await begin({ format, workload: 'bot' })
      expect([at, await read(exported)]).toEqual([at, text + line(2, format)])
      expect(queries).toHaveLength(2)
      expect(queries[1]).toMatchObject({ format, workload: 'bot', until: '9' })
    }
  })

  it('keeps to what it was asked to go on behind, and gives up when nothing new comes', async () => {
    const { begin, queries } = await serve(cut(''), cut(line(7)), cut(''))
    const exported = await begin({ after: 6, until: 9, tool: 'x' })
    await expect(read(exported)).rejects.toMatchObject({ code: 'unavailable', status: 503 })
    // Three tries in a row without an entry, counted anew after each.
    expect(queries.map(({ after }) => after)).toEqual(['6', '6', '7', '7', '7'])
    expect(queries.every(({ until }) => until === '9')).toBe(true)
  })

  it('takes an empty one for what it is', async () => {
    for (const text of ['', header]) {
      const { begin } = await serve(({ respond }) => void open(respond, 5, 4).end(text))
      expect(await read(await begin({ format: text === '' ? 'jsonl' : 'csv' }))).toBe(text)
    }
    const { begin, queries } = await serve(({ respond }) => void open(respond, 5, 4).write('x', () => respond.destroy()), whole(''))
    await read(await begin())
    expect(queries[1]).toEqual({ workload: 'bot' })
  })

  it('waits when it is told to, and tries no more when it is refused', async () => {
    const waited = await serve(cut(line(0)), ({ respond }) => problem(respond, 429, 'rate-limited'), whole(line(1)))
    expect(await read(await waited.begin())).toBe(line(0) + line(1))
    const refused = await serve(cut(line(0)), ({ respond }) => problem(respond, 401, 'unauthenticated'))
    await expect(read(await refused.begin())).rejects.toMatchObject({ code: 'unauthenticated' })
    expect(refused.queries).toHaveLength(2)
    const atOnce = await serve(({ respond }) => problem(respond, 403, 'forbidden'))
    await expect(atOnce.begin()).rejects.toMatchObject({ code: 'forbidden', message: 'It is forbidden.' })
  })

  it('is given up when nothing comes for too long', async () => {
    const { begin, queries } = await serve(...Array.from({ length: 4 }, () => ({ respond }: Answered) => void open(respond).write('')))
    await expect(read(await begin())).rejects.toMatchObject({ code: 'timed_out' })
    expect(queries).toHaveLength(4)
  })

  it.each([
    ['no entries', 'hello\n', 'no entry'],
    ['what was there already', line(3), 'sent entry 3 after entry 5'],
    ['a line without an end', 'x'.repeat(1_100_000), 'without an end'],
  ])('refuses %s', async (_, text, message) => {
    const { begin } = await serve(whole(text))
    await expect(read(await begin({ after: 5, tool: 'x' }))).rejects.toMatchObject({ code: 'bad_answer', message: expect.stringContaining(message) })
  })

  it('that looks complete and is not is gone on with', async () => {
    const { begin, queries } = await serve(whole(`${line(0)}{"index"`), whole(line(1)), whole(line(9)))
    // With a filter nobody knows which entry is the last.
    expect(await read(await begin())).toBe(line(0) + line(1))
    const all = await serve(whole(line(0)), whole(''), whole(line(1) + line(9)))
    expect(await read(await all.begin({}))).toBe(line(0) + line(1) + line(9))
    expect([queries.length, all.queries.length]).toEqual([2, 3])
    const never = await serve(...Array.from({ length: 5 }, () => whole('')))
    await expect(read(await never.begin({}))).rejects.toMatchObject({ code: 'connection_failed', message: expect.stringContaining('before its last entry, 9') })
  })

  it('refuses an answer that is no export', async () => {
    const { begin } = await serve(({ respond }) => void respond.writeHead(200, { 'content-type': 'text/html' }).end('<p>hello'))
    await expect(begin()).rejects.toMatchObject({ code: 'bad_answer', message: expect.stringContaining('stint-export-first') })
  })
})
