import type { IncomingMessage, ServerResponse } from 'node:http'
import { decodeJwt } from 'jose'
import { describe, expect, it } from 'vitest'
import { createAgentClient, type AgentClientOptions } from '../../src/client/agent.ts'
import { generatePrivateJwk, importAgentKey } from '../../src/client/key.ts'
import { listen } from '../listen.ts'

const key = await importAgentKey(await generatePrivateJwk())
const token = {
  access_token: 'aa.bb.cc',
  token_type: 'Bearer',
  expires_in: 600,
  scope: 'tickets:read',
  authorization_details: [],
}

interface Script {
  /** Members of the metadata that differ from a good broker's. */
  readonly metadata?: (origin: string) => Record<string, unknown>
  readonly answer?: (form: URLSearchParams, response: ServerResponse) => void
}

/** A server that says what the script says, and a client for it. Answers that a real broker would not give. */
async function connect(script: Script = {}, options: Partial<AgentClientOptions> = {}) {
  const paths: string[] = []
  const forms: URLSearchParams[] = []
  const origin: string = await listen(async (request: IncomingMessage, response: ServerResponse) => {
    const path = request.url ?? ''
    paths.push(path)
    response.setHeader('content-type', 'application/json')
    if (path === '/.well-known/oauth-authorization-server') {
      const good = {
        issuer: origin,
        token_endpoint: `${origin}/oauth2/token`,
        introspection_endpoint: `${origin}/oauth2/introspect`,
        revocation_endpoint: `${origin}/oauth2/revoke`,
        stint_trust_domain: 'example.com',
      }
      response.end(JSON.stringify({ ...good, ...script.metadata?.(origin) }))
      return
    }
    const form = new URLSearchParams(Buffer.concat(await request.toArray()).toString())
    forms.push(form)
    if (script.answer === undefined) response.end(JSON.stringify(token))
    else script.answer(form, response)
  })
  const identity = options.clientId === undefined ? { workload: 'triage-bot' } : {}
  return { origin, paths, forms, client: createAgentClient({ url: origin, key, ...identity, ...options }) }
}

describe('discovery', () => {
  it('asks once, also for requests at the same time, and again when an hour is over', async () => {
    let nowMs = Date.now()
    const { client, paths } = await connect({}, { clock: { nowMs: () => nowMs } })
    const ask = () => client.requestToken({ actions: ['tickets:read'] })
    await Promise.all([ask(), ask()])
    const asked = (): number => paths.filter((path) => path.startsWith('/.well-known')).length
    expect(asked()).toBe(1)
    nowMs += 3_600_001
    await ask()
    expect(asked()).toBe(2)
  })

  it('does not remember a failure', async () => {
    let bad = true
    const { client } = await connect({ metadata: () => (bad ? { issuer: 'https://other.example' } : {}) })
    await expect(client.requestToken({ actions: ['tickets:read'] })).rejects.toThrow('calls itself "https://other.example"')
    bad = false
    await expect(client.requestToken({ actions: ['tickets:read'] })).resolves.toMatchObject({ accessToken: 'aa.bb.cc' })
  })

  it.each<[string, (origin: string) => Record<string, unknown>]>([
    ['another issuer (RFC 8414 §3.3)', () => ({ issuer: 'https://stint.example.com' })],
    ['its issuer with a slash', (origin) => ({ issuer: `${origin}/` })],
    ['no issuer', () => ({ issuer: undefined })],
    ['a foreign token endpoint', () => ({ token_endpoint: 'https://evil.example/oauth2/token' })],
    ['a token endpoint with a user', (origin) => ({ token_endpoint: origin.replace('http://', 'http://x@') })],
    ['a token endpoint that is another host as a path', (origin) => ({ token_endpoint: `${origin}//evil.example/` })],
    ['a relative token endpoint', () => ({ token_endpoint: '/oauth2/token' })],
    ['no trust domain', () => ({ stint_trust_domain: undefined })],
    ['a trust domain with a path', () => ({ stint_trust_domain: 'example.com/admin' })],
  ])('refuses %s, and sends no assertion', async (_what, metadata) => {
    const { client, forms } = await connect({ metadata })
    await expect(client.requestToken({ actions: ['tickets:read'] })).rejects.toMatchObject({ code: 'bad_answer' })
    expect(forms).toEqual([])
  })
})

describe('requestToken', () => {
  it('proves the workload by an assertion for this broker', async () => {
    const { client, forms, origin } = await connect()
    await client.requestToken({ actions: ['tickets:read'] })
    await client.requestToken({ actions: ['tickets:read'] })
    const claims = forms.map((form) => decodeJwt(form.get('client_assertion') ?? ''))
    const id = 'spiffe://example.com/triage-bot'
    expect(claims[0]).toMatchObject({ iss: id, sub: id, aud: origin })
    expect(claims[0]?.jti).not.toBe(claims[1]?.jti)
    expect(forms[0]?.get('grant_type')).toBe('client_credentials')
    expect(forms[0]?.get('client_assertion_type')).toBe('urn:ietf:params:oauth:client-assertion-type:jwt-bearer')
  })

  it('asks by scope for actions alone, else by authorization_details, never by both', async () => {
    const { client, forms } = await connect()
    await client.requestToken({ actions: ['tickets:read', 'tickets:comment'], resource: 'https://tickets.example.com' })
    await client.requestToken({ actions: ['tickets:read'], target: 'a b', task: 't"1', ttlSeconds: 60 })
    expect(forms.map((form) => [form.get('scope'), form.get('authorization_details'), form.get('resource')])).toEqual([
      ['tickets:read tickets:comment', null, 'https://tickets.example.com'],
      [null, '[{"type":"stint","actions":["tickets:read"],"target":"a b","task":"t\\"1","ttl_seconds":60}]', null],
    ])
  })

  it('returns what was granted', async () => {
    const nowMs = 1_800_000_000_000
    const answer = (_form: URLSearchParams, response: ServerResponse): void => {
      const given = { ...token, token_type: 'bearer', authorization_details: [{ type: 'stint' }] }
      response.setHeader('stint-audit-index', '12').end(JSON.stringify(given))
    }
    const { client } = await connect({ answer }, { clock: { nowMs: () => nowMs } })
    expect(await client.requestToken({ actions: ['tickets:read'] })).toEqual({
      accessToken: 'aa.bb.cc',
      tokenType: 'Bearer',
      expiresIn: 600,
      expiresAt: new Date(nowMs + 600_000),
      scope: 'tickets:read',
      authorizationDetails: [{ type: 'stint' }],
      auditIndex: 12,
    })
  })

  it.each([
    ['an earlier exp', { exp: 1_800_000_599 }, 1_800_000_599_000],
    ['a later exp', { exp: 1_800_000_700 }, 1_800_000_600_500],
    ['an exp that is no time', { exp: -1 }, 1_800_000_600_500],
    ['no exp', {}, 1_800_000_600_500],
  ])('says that a token with %s expires no later than either clock says', async (_what, claims, expected) => {
    const body = { ...token, access_token: `aa.${Buffer.from(JSON.stringify(claims)).toString('base64url')}.cc` }
    const answer = (_form: URLSearchParams, response: ServerResponse): void => void response.end(JSON.stringify(body))
    const { client } = await connect({ answer }, { clock: { nowMs: () => 1_800_000_000_500 } })
    expect((await client.requestToken({ actions: ['tickets:read'] })).expiresAt.getTime()).toBe(expected)
  })

  it.each([
    ['no token', { access_token: undefined }],
    ['a token that is no text', { access_token: ['aa'] }],
    ['a token with a line break', { access_token: 'aa\r\nx: y' }],
    ['a token with an escape sequence', { access_token: '\u001b[31maa' }],
    ['another token type', { token_type: 'DPoP' }],
    ['no lifetime', { expires_in: undefined }],
    ['a lifetime that is text', { expires_in: '600' }],
    ['a negative lifetime', { expires_in: -1 }],
    ['a lifetime beyond all dates', { expires_in: 1e300 }],
  ])('refuses an answer with %s', async (_what, members) => {
    const body = JSON.stringify({ ...token, ...members })
    const { client } = await connect({ answer: (_form, response) => void response.end(body) })
    await expect(client.requestToken({ actions: ['tickets:read'] })).rejects.toMatchObject({ code: 'bad_answer' })
  })

  it.each([
    [{ actions: [] }],
    [{ actions: ['tickets:read tickets:delete'] }],
    [{ actions: [''] }],
    [{ actions: ['tickets:"x"'] }],
    [{ actions: ['tickets:read'], ttlSeconds: 0 }],
    [{ actions: ['tickets:read'], ttlSeconds: 1.5 }],
  ])('sends nothing for %j', async (request) => {
    const { client, forms } = await connect()
    await expect(client.requestToken(request)).rejects.toMatchObject({ code: 'invalid_option' })
    expect(forms).toEqual([])
  })

  it.each([
    [-93_000, /93 s ahead of the broker's/],
    [93_000, /93 s behind the broker's/],
    [0, /^Nope\.$/],
  ])('names a wrong clock (%i ms) as a reason of invalid_client', async (offMs, message) => {
    const nowMs = Date.parse('2026-11-21T10:00:00Z')
    const answer = (_form: URLSearchParams, response: ServerResponse): void => {
      response.writeHead(401, { date: new Date(nowMs + offMs).toUTCString() })
      response.end('{"error":"invalid_client","error_description":"Nope."}')
    }
    const { client } = await connect({ answer }, { clock: { nowMs: () => nowMs } })
    const asked = client.requestToken({ actions: ['tickets:read'] })
    await expect(asked).rejects.toThrow(message)
    await expect(asked).rejects.toMatchObject({ code: 'invalid_client', status: 401 })
  })
})

describe('introspect and revoke', () => {
  it('send the token and the proof', async () => {
    const { client, forms, paths } = await connect({
      answer: (_form, response) => void response.end(forms.length === 1 ? '{"active":true,"sub":"x"}' : ''),
    })
    expect(await client.introspect('aa.bb.cc')).toEqual({ active: true, sub: 'x' })
    expect(await client.revoke('aa.bb.cc')).toBeUndefined()
    expect(paths.slice(1)).toEqual(['/oauth2/introspect', '/oauth2/revoke'])
    for (const form of forms) expect([form.get('token'), form.has('client_assertion')]).toEqual(['aa.bb.cc', true])
  })

  it('take nothing for active but true', async () => {
    const { client } = await connect({ answer: (_form, response) => void response.end('{"active":"true"}') })
    await expect(client.introspect('aa.bb.cc')).rejects.toMatchObject({ code: 'bad_answer' })
  })

  it('send nothing for a malformed token, and do not repeat it', async () => {
    const { client, forms } = await connect()
    const error = await client.revoke('secret token').catch((caught: unknown) => caught)
    expect(error).toMatchObject({ code: 'invalid_option' })
    expect(String(error)).not.toContain('secret token')
    expect(forms).toEqual([])
  })
})

describe('options', () => {
  it.each<[string, Partial<AgentClientOptions>]>([
    ['neither workload nor clientId', {}],
    ['both', { workload: 'bot', clientId: 'spiffe://example.com/bot' }],
    ['a workload that is a path', { workload: '../admin' }],
    ['a workload in upper case', { workload: 'Bot' }],
    ['a clientId that is no SPIFFE ID', { clientId: 'bot' }],
    ['a SPIFFE ID with a deeper path', { clientId: 'spiffe://example.com/a/b' }],
  ])('refuse %s', (_what, options) => {
    const make = () => createAgentClient({ url: 'https://a.example', key, ...options })
    expect(make).toThrow(expect.objectContaining({ code: 'invalid_option' }))
  })

  it('take a SPIFFE ID as it is', async () => {
    const { client, forms } = await connect({}, { clientId: 'spiffe://other.example/bot' })
    await client.requestToken({ actions: ['tickets:read'] })
    expect(decodeJwt(forms[0]?.get('client_assertion') ?? '').sub).toBe('spiffe://other.example/bot')
  })
})
