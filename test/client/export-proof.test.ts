import type { IncomingMessage, ServerResponse } from 'node:http'
import { describe, expect, it } from 'vitest'
import { createAdminClient } from '../../src/client/admin.ts'
import type { AuditProofQuery, ProofLines } from '../../src/client/log-records.ts'
import { listen } from '../listen.ts'

const token = `stint_op_${'0'.repeat(16)}_${'A'.repeat(43)}`
const set = '{"policy_set":"é","files":{"a.cedar":"permit"}}\n'
const gap = (start: number, end: number) => `{"gap":[${start},${end}],"hashes":["AA=="]}\n`
const checkpoint = '{"checkpoint":"a note"}\n'
const proof = set + gap(0, 7) + gap(9, 12) + checkpoint

type Answer = (respond: ServerResponse) => void

/** A broker that answers proofs as the test says, call by call; the queries that came. */
async function serve(...answers: readonly Answer[]) {
  const queries: Record<string, string>[] = []
  const url = await listen((request: IncomingMessage, respond) => {
    const asked = new URL(request.url ?? '', 'http://a')
    expect([asked.pathname, request.headers.authorization]).toEqual(['/v1/audit/proof', `Bearer ${token}`])
    queries.push(Object.fromEntries(asked.searchParams))
    const answer = answers[queries.length - 1]
    if (answer === undefined) problem(503, 'unavailable')(respond)
    else answer(respond)
  })
  const prove = (query: AuditProofQuery = { first: 0, last: 11 }) => createAdminClient({ url, token, timeoutMs: 300 }).proveExport(query, { pauseMs: 1, retriesMax: 3 })
  return { prove, queries }
}

const open = (respond: ServerResponse, size = 12) => respond.writeHead(200, { 'stint-checkpoint-size': size })
const whole = (text: string | Buffer, size = 12): Answer => (respond) => void open(respond, size).end(text)
const cut = (text: string | Buffer): Answer => (respond) => void open(respond).write(text, () => setTimeout(() => respond.destroy(), 20))
const problem = (status: number, type: string): Answer => (respond) =>
  void respond.writeHead(status, { 'content-type': 'application/problem+json', 'retry-after': '0' }).end(JSON.stringify({ type: `urn:stint:problem:${type}`, detail: `It is ${type}.` }))

async function read(lines: AsyncIterable<ProofLines>): Promise<string> {
  let text = ''
  for await (const { bytes, checkpoint_size: size, reached } of lines) {
    const piece = Buffer.from(bytes).toString()
    expect([size, piece.endsWith('\n')]).toEqual([12, true])
    const last = piece.trimEnd().split('\n').at(-1)
    expect(reached).toBe([7, 12].find((end) => last === gap(end === 7 ? 0 : 9, end).trimEnd()))
    text += piece
  }
  return text
}

describe('proveExport', () => {
  it('asks for what the export was, and gives whole lines wherever the transfer divides them', async () => {
    const bytes = Buffer.from(proof)
    for (let at = 1; at < bytes.length; at += 3) {
      const { prove, queries } = await serve((respond) => {
        open(respond).write(bytes.subarray(0, at), () => setTimeout(() => respond.end(bytes.subarray(at)), 2))
      })
      expect(await read(prove({ first: 3, last: 11, workload: 'bot', type: undefined }))).toBe(proof)
      expect(queries).toEqual([{ first: '3', last: '11', workload: 'bot' }])
    }
  })

  it('wherever it was cut, is taken up from its start, and gives no line twice', async () => {
    const bytes = Buffer.from(proof)
    for (let at = 0; at < bytes.length; at += 2) {
      const { prove, queries } = await serve(cut(bytes.subarray(0, at)), cut(bytes.subarray(0, Math.max(0, at - 40))), whole(bytes))
      expect([at, await read(prove())]).toEqual([at, proof])
      expect(queries).toHaveLength(3)
    }
  })

  it('that is another than before is refused, and never mixed with it', async () => {
    const { prove } = await serve(cut(set + gap(0, 7)), whole(set + gap(0, 8) + checkpoint))
    await expect(read(prove())).rejects.toMatchObject({ code: 'bad_answer', message: expect.stringContaining('differently from a moment ago') })
  })

  it.each<[string, Answer, Answer]>([
    ['without its checkpoint', whole(set + gap(0, 7)), whole(proof)],
    ['without anything', whole(''), whole(proof)],
    ['in the middle of a line', whole(proof.slice(0, -5)), whole(proof)],
    ['while nobody could answer', problem(503, 'unavailable'), whole(proof)],
    ['because too many were running', problem(429, 'rate_limited'), whole(proof)],
  ])('that ended %s is asked for again', async (_, first, second) => {
    const { prove, queries } = await serve(first, second)
    const text = await read(prove())
    expect([text.slice(-checkpoint.length), queries.length]).toEqual([checkpoint, 2])
  })

  it('gives up when nothing new comes', async () => {
    const { prove, queries } = await serve(...Array.from({ length: 9 }, () => cut(set)))
    await expect(read(prove())).rejects.toMatchObject({ code: 'connection_failed' })
    // Three tries in a row after the one that gave a line.
    expect(queries).toHaveLength(4)
    // Counted anew after each line.
    const gaps = Array.from({ length: 7 }, (_, i) => gap(2 * i, 2 * i + 1))
    const slow = await serve(...gaps.map((_, i) => cut(gaps.slice(0, i + 1).join(''))), whole(gaps.join('') + checkpoint))
    let text = ''
    for await (const { bytes } of slow.prove()) text += Buffer.from(bytes).toString()
    expect(text).toBe(gaps.join('') + checkpoint)
    const never = await serve(...Array.from({ length: 9 }, () => whole(set)))
    await expect(read(never.prove())).rejects.toMatchObject({ code: 'connection_failed', message: expect.stringContaining('before its checkpoint') })
  })

  it('that the broker does not give, or refuses, is not asked for twice', async () => {
    for (const [status, code] of [[404, 'not_found'], [403, 'forbidden'], [400, 'invalid_input']] as const) {
      const { prove, queries } = await serve(problem(status, code))
      await expect(read(prove())).rejects.toMatchObject({ code, status })
      expect(queries).toHaveLength(1)
    }
  })

  it('refuses an answer that is no proof', async () => {
    const { prove } = await serve((respond) => void respond.writeHead(200, { 'content-type': 'text/html' }).end('<p>hello'))
    await expect(read(prove())).rejects.toMatchObject({ code: 'bad_answer', message: expect.stringContaining('stint-checkpoint-size') })
  })
})
