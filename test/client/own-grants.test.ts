import type { IncomingMessage, ServerResponse } from 'node:http'
import { decodeJwt } from 'jose'
import { describe, expect, it } from 'vitest'
import { createAgentClient, type AgentClient } from '../../src/client/agent.ts'
import { StintError } from '../../src/client/errors.ts'
import { generatePrivateJwk, importAgentKey } from '../../src/client/key.ts'
import { listen } from '../listen.ts'

const key = await importAgentKey(await generatePrivateJwk())
const id = `grant_${'0'.repeat(25)}1`
const password = 'a-very-secret-password'
const lent = {
  grant: id,
  tool: 'ledger',
  actions: ['ledger:read'],
  state: 'active',
  issued_at: '2026-01-01T00:00:00.000Z',
  expires_at: '2026-01-01T00:10:00.000Z',
  ends: { effect: 'immediate', meaning: 'At once.' },
  credential: { host: 'db', port: 5432, password },
  environment: { PGPASSWORD: password },
  audit_index: 7,
}
const ended = { grant: id, workload: 'bot', tool: 'ledger', outcome: 'revoked', effect: 'immediate' }

interface Asked {
  readonly request: string
  readonly headers: IncomingMessage['headers']
  readonly json: unknown
}

type Answer = (response: ServerResponse, asked: Asked) => void

const answer = (status: number, body: unknown): Answer => (response) => response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
const problem = (status: number, code: string, detail: string): Answer => (response) =>
  response.writeHead(status, { 'content-type': 'application/problem+json' }).end(JSON.stringify({ type: `urn:stint:problem:${code}`, detail }))
const cut: Answer = (response) => response.destroy()
const cutInTheMiddle: Answer = (response) => {
  response.writeHead(201, { 'content-type': 'application/json', 'content-length': '10000' }).write(JSON.stringify(lent), () => response.destroy())
}

/** A server that gives these answers, one after the other, and a client for it. */
async function connect(...answers: readonly Answer[]): Promise<{ readonly client: AgentClient; readonly asked: readonly Asked[]; readonly origin: string }> {
  const asked: Asked[] = []
  const rest = [...answers]
  const origin: string = await listen(async (request, response) => {
    if (request.url?.startsWith('/.well-known/')) {
      const endpoints = { token_endpoint: `${origin}/token`, introspection_endpoint: `${origin}/introspect`, revocation_endpoint: `${origin}/revoke` }
      response.setHeader('content-type', 'application/json')
      response.end(JSON.stringify({ issuer: origin, ...endpoints, stint_trust_domain: 'example.com' }))
      return
    }
    const text = Buffer.concat(await request.toArray()).toString()
    const one = { request: `${request.method} ${request.url}`, headers: request.headers, json: text === '' ? undefined : JSON.parse(text) }
    asked.push(one)
    const next = rest.shift()
    if (next === undefined) throw new Error('one request too many')
    next(response, one)
  })
  return { client: createAgentClient({ url: origin, workload: 'bot', key }), asked, origin }
}

async function failure(promise: Promise<unknown>): Promise<StintError> {
  const error: unknown = await promise.then(() => undefined, (caught: unknown) => caught)
  if (error instanceof StintError) return error
  throw new Error('not refused', { cause: error })
}

/** Everything that a log could show of an error. */
function everythingOf(error: StintError): string {
  return `${JSON.stringify(error)} ${error.message} ${error.stack} ${String(error.cause)}`
}

describe('requestGrant', () => {
  it('proves itself by a header, names the request, and reads what was given', async () => {
    const { client, asked, origin } = await connect(answer(201, lent), answer(201, { ...lent, target: 'eu', task: 't-1', renews: id, conceals: ['PGSERVICE'] }))
    expect(await client.requestGrant({ tool: 'ledger', actions: ['read'] })).toEqual({
      grant: id,
      tool: 'ledger',
      actions: ['ledger:read'],
      issuedAt: new Date('2026-01-01T00:00:00Z'),
      expiresAt: new Date('2026-01-01T00:10:00Z'),
      ends: { effect: 'immediate', meaning: 'At once.' },
      credential: lent.credential,
      environment: lent.environment,
      auditIndex: 7,
    })
    const wish = { tool: 'ledger', actions: ['ledger:read'], target: 'eu', ttlSeconds: 60, task: 't-1', reason: 'a report', idempotencyKey: 'mine' }
    expect(await client.requestGrant(wish)).toMatchObject({ target: 'eu', task: 't-1', renews: id, conceals: ['PGSERVICE'] })
    const [first, second] = asked
    expect([first?.request, first?.json]).toEqual(['POST /v1/grants', { tool: 'ledger', actions: ['read'] }])
    expect(first?.headers['idempotency-key']).toMatch(/^[0-9a-f-]{36}$/)
    expect(first?.headers.authorization).toBeUndefined()
    const claims = decodeJwt(String(first?.headers['client-assertion']))
    expect(claims).toMatchObject({ iss: 'spiffe://example.com/bot', sub: 'spiffe://example.com/bot', aud: origin })
    expect(second?.headers['idempotency-key']).toBe('mine')
    expect(second?.json).toEqual({ tool: 'ledger', actions: ['ledger:read'], target: 'eu', ttl_seconds: 60, task: 't-1', reason: 'a report' })
  })

  it.each([['cut off', cut], ['cut off in the middle', cutInTheMiddle], ["lost by a proxy", answer(502, 'bad')], ['late for a proxy', answer(504, 'late')]])(
    'asks once more by the same key where the answer is %s, with a fresh proof',
    async (_what, lost) => {
      const { client, asked } = await connect(lost, answer(201, lent))
      expect(await client.requestGrant({ tool: 'ledger', actions: ['read'] })).toMatchObject({ grant: id })
      const [first, second] = asked
      expect(asked).toHaveLength(2)
      expect(second?.headers['idempotency-key']).toBe(first?.headers['idempotency-key'])
      expect(second?.json).toEqual(first?.json)
      expect(decodeJwt(String(second?.headers['client-assertion'])).jti).not.toBe(decodeJwt(String(first?.headers['client-assertion'])).jti)
    },
  )

  it('asks no third time, and says what may live', async () => {
    const lost = await connect(cut, cut)
    expect(await failure(lost.client.requestGrant({ tool: 'ledger', actions: ['read'] }))).toMatchObject({
      code: 'connection_failed',
      message: expect.stringContaining('Whether the request was carried out is not known.'),
    })
    expect(lost.asked).toHaveLength(2)
    const refused = await connect(cut, problem(409, 'conflict', 'What it gave is not ended yet.'))
    expect(await failure(refused.client.requestGrant({ tool: 'ledger', actions: ['read'] }))).toMatchObject({
      code: 'conflict',
      status: 409,
      message: 'What it gave is not ended yet. (The answer to a first request was lost: if that gave anything, it ends at its own time.)',
    })
  })

  it.each([[403, 'denied'], [409, 'conflict'], [502, 'tool-failed'], [503, 'tool-unavailable'], [500, 'internal']])('asks once where it is answered %d %s', async (status, code) => {
    const { client, asked } = await connect(problem(status, code, 'No.'))
    expect(await failure(client.requestGrant({ tool: 'ledger', actions: ['read'] }))).toMatchObject({ status, code: code.replace('-', '_'), message: 'No.' })
    expect(asked).toHaveLength(1)
  })

  it('keeps its proof out of an error that repeats it', async () => {
    const { client, asked } = await connect((response, { headers }) => problem(400, 'invalid-input', `bad: ${String(headers['client-assertion'])}`)(response, asked[0] ?? { request: '', headers, json: undefined }))
    const error = await failure(client.requestGrant({ tool: 'ledger', actions: ['read'] }))
    expect(error.message).toBe('bad: [redacted]')
    expect(everythingOf(error)).not.toContain(String(asked[0]?.headers['client-assertion']))
  })

  it.each<[string, Record<string, unknown>]>([
    ['no grant', { grant: undefined }],
    ['an id that a shell would not take for a word', { grant: 'grant_$(reboot)' }],
    ['a time that is none', { expires_at: 'soon' }],
    ['no credential', { credential: undefined }],
    ['a credential of objects', { credential: { password: { value: password } } }],
    ['a variable whose name is a command', { environment: { 'A=1;reboot;B': password } }],
    ['a variable with a NUL', { environment: { PGPASSWORD: `${password}\0` } }],
    ['a name to conceal that is a command', { conceals: ['A;reboot'] }],
    ['a variable that is a number', { environment: { PGPASSWORD: password, PGPORT: 1 } }],
    ['no word on how it ends', { ends: { effect: 'immediate' } }],
  ])('refuses an answer with %s, and shows nothing of the secret', async (_what, change) => {
    const { client } = await connect(answer(201, { ...lent, ...change }))
    const error = await failure(client.requestGrant({ tool: 'ledger', actions: ['read'] }))
    expect(error.code).toBe('bad_answer')
    expect(everythingOf(error)).not.toContain(password)
  })

  it.each([
    [{ actions: [] }, 'name at least one action'],
    [{ ttlSeconds: 0 }, 'ttlSeconds'],
    [{ ttlSeconds: 1.5 }, 'ttlSeconds'],
    [{ idempotencyKey: '' }, 'idempotencyKey'],
    [{ idempotencyKey: 'a b' }, 'idempotencyKey'],
    [{ idempotencyKey: 'a\r\nx: y' }, 'idempotencyKey'],
    [{ idempotencyKey: 'a'.repeat(256) }, 'idempotencyKey'],
  ])('refuses %j before it asks', async (wrong, message) => {
    const { client, asked } = await connect()
    expect(await failure(client.requestGrant({ tool: 'ledger', actions: ['read'], ...wrong }))).toMatchObject({ code: 'invalid_option', message: expect.stringContaining(message) })
    expect(asked).toEqual([])
  })
})

describe('a grant of its own', () => {
  it('goes on with the same credential or with another', async () => {
    const same = { grant: id, expires_at: '2026-01-01T00:20:00Z', renewable_until: '2026-01-01T01:00:00Z', audit_index: 9 }
    const { client, asked } = await connect(answer(200, same), answer(201, { ...lent, renews: id }))
    const prolonged = { grant: id, expiresAt: new Date('2026-01-01T00:20:00Z'), renewableUntil: new Date('2026-01-01T01:00:00Z'), auditIndex: 9 }
    expect(await client.renewGrant(id, { ttlSeconds: 600 })).toEqual(prolonged)
    expect(await client.renewGrant(id)).toMatchObject({ renews: id, credential: lent.credential })
    expect(asked.map(({ request, json }) => [request, json])).toEqual([
      [`POST /v1/grants/${id}/renew`, { ttl_seconds: 600 }],
      [`POST /v1/grants/${id}/renew`, {}],
    ])
  })

  it('is shown, given back and completed with its task as the API says it', async () => {
    const record = { ...lent, workload: 'bot', credential: undefined, environment: undefined }
    const { client, asked } = await connect(answer(200, record), answer(200, { ...ended, audit_index: 8 }), answer(200, { grants: [ended], audit_index: 9 }), answer(200, { grants: [] }))
    expect(await client.showGrant(id)).toMatchObject({ workload: 'bot', state: 'active' })
    expect(await client.giveBackGrant(id)).toEqual({ ...ended, audit_index: 8 })
    expect(await client.completeTask('acme/web#12:a+b')).toEqual({ grants: [ended], audit_index: 9 })
    expect(await client.completeTask('t-1')).toEqual({ grants: [] })
    expect(asked.map(({ request }) => request)).toEqual([
      `GET /v1/grants/${id}`,
      `DELETE /v1/grants/${id}`,
      'POST /v1/tasks/acme/web%2312%3Aa%2Bb/complete',
      'POST /v1/tasks/t-1/complete',
    ])
    expect(new Set(asked.map(({ headers }) => decodeJwt(String(headers['client-assertion'])).jti)).size).toBe(4)
  })

  it('is never another address', async () => {
    const { client, asked } = await connect()
    for (const name of ['', '.', '..']) {
      expect((await failure(client.showGrant(name))).code).toBe('invalid_option')
      expect((await failure(client.giveBackGrant(name))).code).toBe('invalid_option')
      expect((await failure(client.renewGrant(name))).code).toBe('invalid_option')
    }
    for (const task of ['', '.', '..', 'a/../b', 'a//b', 'a/', '/a']) expect((await failure(client.completeTask(task))).code).toBe('invalid_option')
    expect(asked).toEqual([])
  })
})
