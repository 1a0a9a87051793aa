import { createPrivateKey, generateKeyPairSync } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { createCustody } from '../../src/broker/custody.ts'
import { createSecretReader, putSecret } from '../../src/broker/secrets.ts'
import { ConnectorError, type Custody, type MintRequest, type OpenTool } from '../../src/connectors/connector.ts'
import { oauthClientConnector } from '../../src/connectors/oauth-client.ts'
import { systemClock } from '../../src/kernel/clock.ts'
import { Secret } from '../../src/kernel/secret.ts'
import { parseTool, type Tool } from '../../src/policy/catalog.ts'
import { startBroker, type TestBroker } from '../broker.ts'
import { keyAlgs, startUpstream, type Upstream, type UpstreamOptions } from '../upstream.ts'
import { createToolContext } from './tool-context.ts'

const admin = { actor: { kind: 'operator', id: 'test' } } as const
const never = new AbortController().signal
const clientSecret = 'client_secret: { from: "sealed:crm-client" }'
const byKey = 'private_key: { from: "sealed:crm-client" }'

/** The tool `crm` as its catalog file describes it. */
function parseCrm(issuer: string, lines: readonly string[]): Tool {
  const config = [`issuer: ${issuer}`, 'private_network: true', ...lines].map((line) => `  ${line}\n`).join('')
  const text = `tool: crm
connector: oauth-client
sensitivity: medium
ttl: { default: 5m, max: 10m }
actions:
  contacts.read: { scopes: [contacts.read] }
  contacts.write: { scopes: [contacts.write, contacts.read] }
config:
${config}`
  const parsed = parseTool('tools/crm.yaml', text)
  if (!('tool' in parsed)) throw new Error(JSON.stringify(parsed.problems))
  return parsed.tool
}

interface SetUp extends UpstreamOptions {
  /** Lines of the tool's config beside the issuer. */
  readonly config?: readonly string[]
  /** What `sealed:crm-client` holds: by default the client's secret. */
  readonly credential?: (upstream: Upstream) => string
}

const basic = ['client_id: by-basic', clientSecret, 'token_seconds_max: 600']
const refreshing = [...basic, 'refresh_token: { from: "sealed:crm-refresh" }']

async function setUp({ config = basic, credential = ({ clientSecret: secret }) => secret, ...options }: SetUp = {}) {
  const upstream = await startUpstream(options)
  const broker = await startBroker('sqlite', { clock: systemClock })
  await put(broker, 'crm-client', credential(upstream))
  if (config.some((line) => line.includes('crm-refresh'))) await put(broker, 'crm-refresh', await upstream.connect('by-basic', 'contacts.read contacts.write'))
  const clock = { aheadMs: 0 }
  const tool = parseCrm(upstream.issuer, config)
  const openTool = (wrap = (custody: Custody): Custody => custody): OpenTool => {
    const custody = createCustody(broker.broker)
    const readSecret = createSecretReader({ ...broker.broker, env: {} })
    const open = oauthClientConnector.open(tool, createToolContext({ nowMs: () => Date.now() + clock.aheadMs, readSecret, custody: wrap(custody) }))
    onTestFinished(async () => {
      await open.close()
      await custody.close()
    })
    return open
  }
  return { upstream, broker, tool, open: openTool(), openTool, clock }
}

const put = ({ broker }: TestBroker, name: string, value: string) => putSecret(broker, admin, name, new Secret(value))

function requestFor(tool: Tool, verbs: readonly string[] = ['contacts.read']): MintRequest {
  const actions = verbs.map((verb) => tool.actions.get(`crm:${verb}`) ?? expect.fail(`no action ${verb}`))
  const nowMs = Date.now()
  return { grant: `grant_${'0'.repeat(26)}`, workload: 'bot', owner: 'support', actions, nowMs, expiresAtMs: nowMs + 300_000 }
}

async function mint(open: OpenTool, tool: Tool, verbs?: readonly string[], signal = never) {
  const minted = await open.mint(requestFor(tool, verbs), signal)
  const token = minted.token?.reveal() ?? expect.fail('no token')
  return { ...minted, token, revoke: (signal = never) => open.revoke({ grant: 'grant', ...(minted.handle && { handle: minted.handle }) }, signal) }
}

const failureOf = (promise: Promise<unknown>): Promise<ConnectorError> =>
  promise.then(
    () => expect.fail('it did not fail'),
    (error: unknown) => (error instanceof ConnectorError ? error : expect.fail(`no ConnectorError: ${String(error)}`)),
  )

const json = (body: unknown, status = 200, headers = {}) => ({ status, headers: { 'content-type': 'application/json', ...headers }, body: JSON.stringify(body) })
const typesOf = async (broker: TestBroker) => (await broker.events()).map(({ type }) => type).filter((type) => /^(?:secret|tool)\./.test(type))

describe('Client credentials', () => {
  test('give a token for just the scopes of the actions, in the form that OAuth clients take', async () => {
    const { upstream, tool, open } = await setUp()
    const minted = await mint(open, tool, ['contacts.read', 'contacts.write'])
    expect(minted.credential).toEqual({ access_token: expect.any(Secret), token_type: 'Bearer', expires_in: expect.any(Number), scope: expect.any(String) })
    expect(String(minted.credential['scope']).split(' ').toSorted()).toEqual(['contacts.read', 'contacts.write'])
    // Of the token's ten minutes the grant has five.
    expect(Number(minted.credential['expires_in'])).toBeGreaterThan(290)
    expect(Number(minted.credential['expires_in'])).toBeLessThanOrEqual(300)
    expect(Math.abs((minted.diesAtMs ?? 0) - Date.now() - 600_000)).toBeLessThan(5_000)
    expect(Object.entries(minted.environment).map(([name, value]) => [name, value instanceof Secret && value.reveal()])).toEqual([['CRM_TOKEN', minted.token]])
    expect(upstream.asked('client_credentials').map(({ form }) => form['scope'])).toEqual(['contacts.read contacts.write'])
    expect(await upstream.isActive(minted.token)).toBe(true)
    expect(JSON.stringify(minted.credential)).not.toContain(minted.token)
    expect(await upstream.isActive((await mint(open, tool)).token)).toBe(true)
    expect(upstream.asked('client_credentials').at(-1)?.form['scope']).toBe('contacts.read')
  })

  test.each(keyAlgs)('prove the client by private_key_jwt with a JWK of %s', async (alg) => {
    const { upstream, tool, open, clock } = await setUp({ config: ['client_id: by-key', byKey, 'token_seconds_max: 600'], credential: ({ keys }) => JSON.stringify(keys[alg]) })
    clock.aheadMs = 8_000
    const { token, revoke } = await mint(open, tool)
    expect(await upstream.isActive(token)).toBe(true)
    await revoke()
    expect(await upstream.isActive(token)).toBe(false)
    const [asked] = upstream.asked('client_credentials')
    const [header, claims] = (asked?.form['client_assertion'] ?? '').split('.', 2).map((part) => JSON.parse(Buffer.from(part, 'base64url').toString()) as Record<string, unknown>)
    expect([header, claims]).toMatchObject([{ alg, kid: alg }, { iss: 'by-key', sub: 'by-key', aud: upstream.issuer }])
    expect(claims?.['nbf']).toBe(undefined)
    expect(Number(claims?.['exp']) - Number(claims?.['iat'])).toBe(60)
    // By Stint's own clock (invariant 12).
    expect(Number(claims?.['iat']) * 1000 - Date.now()).toBeGreaterThan(1_000)
  })

  test.each([['PKCS#8', 'pkcs8', 'RS256'], ['PKCS#1', 'pkcs1', 'RS256'], ['SEC1', 'sec1', 'ES256']] as const)('take a key as PEM, too (%s)', async (_, type, alg) => {
    const pemOf = ({ keys }: Upstream) => createPrivateKey({ key: { ...keys[alg] }, format: 'jwk' }).export({ type, format: 'pem' }).toString()
    const { upstream, tool, open } = await setUp({ config: ['client_id: by-key', byKey, 'token_seconds_max: 600'], credential: pemOf })
    expect(await upstream.isActive((await mint(open, tool)).token)).toBe(true)
  })

  test.each(['by-basic', 'by-post'])('prove the client by its secret (%s)', async (client) => {
    const { upstream, tool, open } = await setUp({ config: [`client_id: ${client}`, clientSecret, 'token_seconds_max: 600'] })
    if (client === 'by-post') {
      upstream.intercept('/.well-known/oauth-authorization-server', async (_, forward) => {
        const answer = await forward()
        return json({ ...(JSON.parse(String(answer.body)) as object), token_endpoint_auth_methods_supported: ['client_secret_post'] })
      })
    }
    expect(await upstream.isActive((await mint(open, tool)).token)).toBe(true)
    expect(upstream.asked('client_credentials').map(({ form, headers }) => [form['client_secret'] !== undefined, headers.authorization !== undefined])).toEqual([
      [client === 'by-post', client === 'by-basic'],
    ])
  })

  const keyConfig = ['client_id: by-key', byKey, 'token_seconds_max: 600']
  test.each([
    ['another client secret', { credential: () => 'wrong' }, /answered invalid_client \(401\): an admin looks at client_id/],
    ['no key', { config: keyConfig, credential: () => 'marked, no key' }, /private key cannot be used: it is neither a private JWK nor/],
    ['half a JWK', { config: keyConfig, credential: () => '{"kty":"EC","d":"marked"' }, /neither a JWK nor PEM/],
    ['a public key', { config: keyConfig, credential: ({ keys }) => JSON.stringify({ ...keys.ES256, d: undefined }) }, /neither a private JWK/],
    ['a key of another kind than it says', { config: keyConfig, credential: ({ keys }) => JSON.stringify({ ...keys.ES256, alg: 'RS256' }) }, /"alg" does not fit/],
    ["a key that is none of the client's", { config: keyConfig, credential: () => JSON.stringify(generateKeyPairSync('ed25519').privateKey.export({ format: 'jwk' })) }, /invalid_client/],
    ['an RSA key that is too short', { config: keyConfig, credential: () => generateKeyPairSync('rsa', { modulusLength: 1024 }).privateKey.export({ type: 'pkcs8', format: 'pem' }).toString() }, /2048 bits or more/],
    ['a client that may not', { config: ['client_id: no-machine', clientSecret, 'token_seconds_max: 600'] }, /invalid_request \(400\): an admin looks at what the client may do there/],
  ] as [string, SetUp, RegExp][])('refuse with words of what is wrong: %s', async (_, options, sentence) => {
    const { tool, open } = await setUp(options)
    const failure = await failureOf(mint(open, tool))
    expect(failure).toMatchObject({ outcome: 'nothing_done', publicMessage: expect.stringMatching(sentence) })
    expect(failure.publicMessage).not.toContain('marked')
  })

  test('refuse scopes that the client has not got', async () => {
    const { tool, open, upstream } = await setUp()
    upstream.intercept('/token', async (_, forward) => {
      await forward()
      return json({ error: 'invalid_scope', error_description: 'a secret of the upstream' }, 400)
    })
    const failure = await failureOf(mint(open, tool))
    expect(failure).toMatchObject({ outcome: 'nothing_done', publicMessage: expect.stringContaining('invalid_scope (400): the client, or whoever connected it') })
    expect(failure.publicMessage).not.toContain('a secret of the upstream')
  })

  test('say what is missing where the root credential is', async () => {
    const { tool, open } = await setUp({ config: ['client_id: by-basic', 'client_secret: { from: "sealed:nothing" }', 'token_seconds_max: 600'] })
    const failure = await failureOf(mint(open, tool))
    expect(failure).toMatchObject({ outcome: 'nothing_done', adminMessage: expect.stringContaining('stint secret put nothing') })
    expect(failure.publicMessage).not.toContain('nothing')
  })
})

describe('A token that is not what was asked for', () => {
  const cases: readonly (readonly [string, Readonly<Record<string, unknown>>, RegExp])[] = [
    ['has more scopes', { scope: 'contacts.read admin.all' }, /more scopes than were asked for: admin\.all/],
    ['has fewer scopes', { scope: '' }, /fewer scopes than were asked for, without contacts\.read/],
    ['has scopes in another form', { scope: ['contacts.read'] }, /does not say as text/],
    ['is bound to a key', { token_type: 'DPoP' }, /bound to a key \(DPoP\)/],
    ['is of no type', { token_type: undefined }, /another type than Bearer/],
    ['lives longer than the catalog says', { expires_in: 601 }, /live for 601 s, and its catalog file says 600 s/],
    ['has no sensible life', { expires_in: -1 }, /does not say in seconds/],
    ['has a life in words', { expires_in: 'an hour' }, /does not say in seconds/],
  ]
  test.each(cases)('is revoked at once, and given to nobody: one that %s', async (_, members, sentence) => {
    const { upstream, tool, open } = await setUp()
    let made = ''
    upstream.intercept('/token', async (_, forward) => {
      const body = JSON.parse(String((await forward()).body)) as { access_token: string }
      made = body.access_token
      return json({ ...body, ...members })
    })
    const failure = await failureOf(mint(open, tool))
    expect(failure).toMatchObject({ outcome: 'nothing_done', publicMessage: expect.stringMatching(sentence) })
    expect(failure.publicMessage).toContain('The token was ended at once')
    expect([made !== '', await upstream.isActive(made)]).toEqual([true, false])
  })

  test('is an unknown outcome where it cannot be revoked', async () => {
    const { upstream, tool, open } = await setUp()
    upstream.intercept('/token', async (_, forward) => json({ ...(JSON.parse(String((await forward()).body)) as object), token_type: 'mac' }))
    upstream.intercept('/token/revocation', async () => ({ status: 500 }))
    expect(await failureOf(mint(open, tool))).toMatchObject({ outcome: 'unknown', publicMessage: expect.stringContaining('could not be ended') })
  })

  test.each([
    ['a line break', 'abc\r\nx-evil: 1'],
    ['100 KB', 'a'.repeat(100_000)],
  ])('nor one that no client could send: with %s', async (_, accessToken) => {
    const { upstream, tool, open } = await setUp()
    upstream.intercept('/token', async () => json({ access_token: accessToken, token_type: 'Bearer', expires_in: 60 }))
    expect((await failureOf(mint(open, tool))).publicMessage).toContain('no client can send')
  })

  test('lives as long as the catalog says where the upstream does not say how long', async () => {
    const { upstream, tool, open } = await setUp()
    upstream.intercept('/token', async (_, forward) => json({ ...(JSON.parse(String((await forward()).body)) as object), expires_in: undefined, scope: undefined, token_type: 'bearer' }))
    const minted = await mint(open, tool)
    expect(Math.abs((minted.diesAtMs ?? 0) - Date.now() - 600_000)).toBeLessThan(5_000)
    expect(minted.credential['scope']).toBe('contacts.read')
  })
})

describe('The end of a token', () => {
  const checked = [...basic, 'tokens_are_checked: true']

  test('is immediate where the upstream is asked about each, and the same again and again', async () => {
    const { upstream, tool, open } = await setUp({ config: checked })
    expect([open.effect, open.undo]).toEqual(['immediate', { livesSecondsMax: 600 }])
    const { token, revoke } = await mint(open, tool)
    for (let i = 0; i < 3; i++) {
      expect(await revoke()).toEqual({ status: 'ended' })
      expect(await upstream.isActive(token)).toBe(false)
    }
    expect(await Promise.all(Array.from({ length: 10 }, () => revoke()))).toEqual(Array.from({ length: 10 }, () => ({ status: 'ended' })))
    expect(upstream.requests.filter(({ path }) => path === '/token/revocation').map(({ form }) => form['token_type_hint'])[0]).toBe('access_token')
  })

  test('promises nothing to those who verify offline: told to the upstream, and over at its own time', async () => {
    const { upstream, tool, open, clock } = await setUp()
    expect(open.effect).toBe('expiry')
    const { token, revoke, diesAtMs } = await mint(open, tool)
    expect(await revoke()).toEqual({ status: 'lives_until', untilMs: diesAtMs })
    expect(await upstream.isActive(token)).toBe(false)
    clock.aheadMs = 600_001
    expect(await revoke()).toEqual({ status: 'ended' })
  })

  test('leaves the token alone where the catalog says so', async () => {
    const { upstream, tool, open } = await setUp({ config: [...basic, 'revocation: false'] })
    const { token, revoke, diesAtMs } = await mint(open, tool)
    expect(await revoke()).toEqual({ status: 'lives_until', untilMs: diesAtMs })
    expect(await upstream.isActive(token)).toBe(true)
  })

  test('without the token is not to be had before the longest life there is', async () => {
    const { open } = await setUp({ config: checked })
    const ended = await open.revoke({ grant: 'grant' }, never)
    expect(ended.status === 'lives_until' && Math.abs(ended.untilMs - Date.now() - 600_000) < 5_000).toBe(true)
  })

  test.each([
    ['unsupported_token_type', async () => json({ error: 'unsupported_token_type' }, 400)],
    ['no endpoint', undefined],
  ])('is its own time where the upstream revokes none: %s', async (_, answer) => {
    const { upstream, tool, open } = await setUp()
    if (answer === undefined) {
      upstream.intercept('/.well-known/oauth-authorization-server', async (_, forward) => json({ ...(JSON.parse(String((await forward()).body)) as object), revocation_endpoint: undefined }))
    } else upstream.intercept('/token/revocation', answer)
    const { revoke, diesAtMs } = await mint(open, tool)
    expect(await revoke()).toEqual({ status: 'lives_until', untilMs: diesAtMs })
  })

  test('is not promised by a tool that has no endpoint for it: nothing is lent', async () => {
    const { upstream, tool, open } = await setUp({ config: checked })
    upstream.intercept('/.well-known/oauth-authorization-server', async (_, forward) => json({ ...(JSON.parse(String((await forward()).body)) as object), revocation_endpoint: undefined }))
    expect(await failureOf(mint(open, tool))).toMatchObject({ outcome: 'nothing_done', publicMessage: expect.stringContaining('tokens_are_checked: false') })
    expect(upstream.asked('client_credentials')).toEqual([])
  })

  test.each([
    ['500', async () => ({ status: 500, body: 'oops' }), undefined],
    ['503 with Retry-After', async () => ({ status: 503, headers: { 'retry-after': '7' } }), 7],
    ['a cut connection', async () => 'cut' as const, undefined],
    ['401', async () => json({ error: 'invalid_client' }, 401), undefined],
  ])('is tried again after %s, and has come by itself when the time is over', async (_, answer, retryAfterSeconds) => {
    const { upstream, tool, open, clock } = await setUp({ config: checked })
    const { token, revoke } = await mint(open, tool)
    upstream.intercept('/token/revocation', answer)
    const failure = await failureOf(revoke())
    expect(failure.retryAfterSeconds).toBe(retryAfterSeconds)
    expect(failure.publicMessage).not.toContain(token)
    clock.aheadMs = 600_001
    expect(await revoke()).toEqual({ status: 'ended' })
    clock.aheadMs = 0
    upstream.intercept('/token/revocation', undefined)
    expect([await revoke(), await upstream.isActive(token)]).toEqual([{ status: 'ended' }, false])
  })
})

describe('A refresh token', () => {
  test('is replaced at each use; scopes are narrowed to those of the actions', async () => {
    const { upstream, broker, tool, open } = await setUp({ config: refreshing })
    const first = await mint(open, tool)
    const second = await mint(open, tool, ['contacts.write'])
    expect([await upstream.isActive(first.token), await upstream.isActive(second.token)]).toEqual([true, true])
    const sent = upstream.asked('refresh_token')
    expect(sent.map(({ form }) => form['scope'])).toEqual(['contacts.read', 'contacts.write contacts.read'])
    expect(first.credential['scope']).toBe('contacts.read')
    expect(new Set(sent.map(({ form }) => form['refresh_token'])).size).toBe(2)
    expect(await typesOf(broker)).toEqual(Array.from({ length: 4 }, () => 'secret.stored'))
    // What an upstream ends together with an access token is not for a grant to end.
    expect(await first.revoke()).toEqual({ status: 'lives_until', untilMs: first.diesAtMs })
    expect(await upstream.isActive((await mint(open, tool)).token)).toBe(true)
    const everything = JSON.stringify([await broker.events(), broker.logLines])
    for (const { form } of sent) expect(everything).not.toContain(form['refresh_token'])
  })

  test('that is not replaced stays', async () => {
    const { upstream, broker, tool, open } = await setUp({ config: refreshing, rotates: false })
    await mint(open, tool)
    await mint(open, tool)
    expect(new Set(upstream.asked('refresh_token').map(({ form }) => form['refresh_token'])).size).toBe(1)
    expect(await typesOf(broker)).toEqual(['secret.stored', 'secret.stored'])
  })

  test('serves 20 grants at once, of two processes, each with a refresh token of its own', async () => {
    const { upstream, tool, open, openTool } = await setUp({ config: refreshing })
    const other = openTool()
    const minted = await Promise.all(Array.from({ length: 20 }, (_, i) => mint(i % 2 === 0 ? open : other, tool)))
    expect(new Set(minted.map(({ token }) => token)).size).toBe(20)
    expect(new Set(upstream.asked('refresh_token').map(({ form }) => form['refresh_token'])).size).toBe(20)
    for (const { token } of minted) expect(await upstream.isActive(token)).toBe(true)
  })

  test.each([
    ['the connection was cut after the upstream had answered', async (_: unknown, forward: () => Promise<unknown>) => (await forward(), 'cut' as const)],
    ['a proxy answered 504 in its place', async (_: unknown, forward: () => Promise<unknown>) => (await forward(), { status: 504 })],
    ['it was garbage', async (_: unknown, forward: () => Promise<unknown>) => (await forward(), { status: 200, body: '<html>' })],
    ['it was 100 MB', async (_: unknown, forward: () => Promise<unknown>) => (await forward(), { status: 200, body: Buffer.alloc(100 * 1024 * 1024, ' ') })],
    ['it was a redirect', async (_: unknown, forward: () => Promise<unknown>) => (await forward(), { status: 302, headers: { location: '/elsewhere' } })],
    ['it was a refusal that some say late', async (_: unknown, forward: () => Promise<unknown>) => (await forward(), json({ error: 'invalid_target' }, 400))],
    ['its refresh token was unreadable', async (_: unknown, forward: () => Promise<unknown>) => (await forward(), json({ access_token: 'x', token_type: 'Bearer', refresh_token: 7 }))],
  ])('whose answer was lost (%s) is never sent again; the tool waits for a fresh one', async (_, fault) => {
    const { upstream, broker, tool, open, openTool } = await setUp({ config: refreshing })
    upstream.intercept('/token', fault)
    const failure = await failureOf(mint(open, tool))
    expect(failure).toMatchObject({ outcome: 'unknown', publicMessage: expect.stringContaining('stint secret put crm-refresh') })
    upstream.intercept('/token', undefined)
    for (const one of [open, openTool()]) {
      expect(await failureOf(mint(one, tool))).toMatchObject({ outcome: 'nothing_done', publicMessage: expect.stringMatching(/^The tool crm needs reconnection/) })
    }
    expect(upstream.asked('refresh_token')).toHaveLength(1)
    expect(await broker.lastEvent('tool.needs_reconnection')).toMatchObject({ tool: 'crm' })

    await put(broker, 'crm-refresh', await upstream.connect('by-basic', 'contacts.read'))
    expect(await upstream.isActive((await mint(open, tool)).token)).toBe(true)
    expect(await typesOf(broker)).toEqual(['secret.stored', 'secret.stored', 'tool.needs_reconnection', 'secret.stored', 'secret.stored'])
  })

  test.each([
    ['it was asked too often', async () => json({ error: 'slow_down' }, 429, { 'retry-after': '3' }), 3],
    ['a firewall refused it', async () => ({ status: 403, body: 'no' }), undefined],
    ['the client was not believed', async () => json({ error: 'invalid_client' }, 401), undefined],
  ])('is as good as before where %s', async (_, answer, retryAfterSeconds) => {
    const { upstream, broker, tool, open } = await setUp({ config: refreshing })
    upstream.intercept('/token', answer)
    expect(await failureOf(mint(open, tool))).toMatchObject({ outcome: 'nothing_done', retryAfterSeconds })
    upstream.intercept('/token', undefined)
    expect(await upstream.isActive((await mint(open, tool)).token)).toBe(true)
    expect(await typesOf(broker)).not.toContain('tool.needs_reconnection')
  })

  test('is as good as before where the upstream cannot be reached, or its scopes do not reach', async () => {
    const { upstream, broker, tool, open } = await setUp({ config: refreshing })
    await put(broker, 'crm-refresh', await upstream.connect('by-basic', 'contacts.read'))
    expect((await failureOf(mint(open, tool, ['contacts.write']))).publicMessage).toContain('invalid_scope')
    expect(await upstream.isActive((await mint(open, tool)).token)).toBe(true)
  })

  test('that the upstream refuses is used up', async () => {
    const { upstream, broker, tool, open } = await setUp({ config: refreshing })
    await put(broker, 'crm-refresh', 'of another client')
    expect(await failureOf(mint(open, tool))).toMatchObject({ outcome: 'nothing_done', publicMessage: expect.stringMatching(/needs reconnection: .*stint secret put crm-refresh$/) })
    expect(await broker.lastEvent('tool.needs_reconnection')).toMatchObject({ detail: expect.stringContaining('(invalid_grant)') })
    await failureOf(mint(open, tool))
    expect(upstream.asked('refresh_token')).toHaveLength(1)
  })

  test('is not lost by who has no time: its answer is waited for, and the token that came of it is ended', async () => {
    const { upstream, broker, tool, open } = await setUp({ config: [...refreshing, 'revocation: true'] })
    let made = ''
    upstream.intercept('/token', async (_, forward) => {
      const answer = await forward()
      made = (JSON.parse(String(answer.body)) as { access_token: string }).access_token
      await pause(400)
      return answer
    })
    const beganMs = performance.now()
    expect(await failureOf(mint(open, tool, undefined, AbortSignal.timeout(200)))).toMatchObject({ outcome: 'unknown', publicMessage: expect.stringContaining('did not answer in time') })
    expect(performance.now() - beganMs).toBeLessThan(390)
    expect(await upstream.isActive(made)).toBe(true)
    while (await upstream.isActive(made)) await pause(20)
    expect(await typesOf(broker)).toEqual(['secret.stored', 'secret.stored', 'secret.stored'])
  })

  test('is not taken by who has no time left, and waits for its turn no longer than that', async () => {
    const { upstream, broker, tool, open } = await setUp({ config: refreshing })
    expect((await failureOf(mint(open, tool, undefined, AbortSignal.abort()))).outcome).toBe('nothing_done')
    upstream.intercept('/token', async (_, forward) => {
      await pause(500)
      return forward()
    })
    const first = mint(open, tool)
    await pause(100)
    expect(await failureOf(mint(open, tool, undefined, AbortSignal.timeout(100)))).toMatchObject({ outcome: 'nothing_done' })
    expect(await upstream.isActive((await first).token)).toBe(true)
    expect(upstream.asked('refresh_token')).toHaveLength(1)
    expect(await typesOf(broker)).not.toContain('tool.needs_reconnection')
  })

  test('is not sent by who ran out of time as it was taken', async () => {
    const { upstream, broker, tool, open, openTool } = await setUp({ config: refreshing })
    const caller = new AbortController()
    const late = openTool((custody) => ({
      lend: (source, name, use, signal) =>
        custody.lend(source, name, async (secret) => {
          caller.abort()
          return use(secret)
        }, signal),
    }))
    expect((await failureOf(mint(late, tool, undefined, caller.signal))).outcome).toBe('nothing_done')
    expect(await upstream.isActive((await mint(open, tool)).token)).toBe(true)
    expect(upstream.asked('refresh_token')).toHaveLength(1)
    expect(await typesOf(broker)).not.toContain('tool.needs_reconnection')
  })

  test('whose successor is not known leaves no access token behind that can be revoked', async () => {
    const { upstream, tool, open } = await setUp({ config: [...refreshing, 'revocation: true'] })
    let made = ''
    upstream.intercept('/token', async (_, forward) => {
      const body = JSON.parse(String((await forward()).body)) as { access_token: string }
      made = body.access_token
      return json({ ...body, refresh_token: 7 })
    })
    expect(await failureOf(mint(open, tool))).toMatchObject({ outcome: 'nothing_done', publicMessage: expect.stringContaining('needs reconnection') })
    expect(await upstream.isActive(made)).toBe(false)
  })

  test('may end with the access token that came of it: then revocation is not for this tool', async () => {
    const { upstream, tool, open } = await setUp({ config: [...refreshing, 'revocation: true'] })
    const { revoke } = await mint(open, tool)
    await revoke()
    // node-oidc-provider ends the whole family (RFC 7009 §2.1 allows it).
    expect((await failureOf(mint(open, tool))).publicMessage).toContain('needs reconnection')
    expect(upstream.asked('refresh_token')).toHaveLength(2)
  })
})

describe('The upstream', () => {
  const documents = ['/.well-known/oauth-authorization-server', '/.well-known/openid-configuration']

  test('may publish its metadata by OpenID Connect Discovery alone; they are asked for once', async () => {
    const { upstream, tool, open } = await setUp()
    upstream.intercept('/.well-known/oauth-authorization-server', async () => ({ status: 404, body: 'not here' }))
    await Promise.all(Array.from({ length: 5 }, () => mint(open, tool)))
    expect(upstream.requests.filter(({ method }) => method === 'GET').map(({ path }) => path)).toEqual(documents)
  })

  test('that does not publish its metadata any more is told of an end all the same', async () => {
    const { upstream, tool, open } = await setUp()
    const { token, revoke } = await mint(open, tool)
    for (const path of documents) upstream.intercept(path, async () => ({ status: 500 }))
    // They are asked for again by now.
    const passed = performance.now() + 700_000
    const later = vi.spyOn(performance, 'now').mockImplementation(() => passed)
    onTestFinished(() => later.mockRestore())
    await revoke()
    expect(await upstream.isActive(token)).toBe(false)
    expect(upstream.requests.filter(({ method }) => method === 'GET').length).toBeGreaterThan(1)
  })

  test.each([
    ['names another issuer', async () => json({ issuer: 'https://evil.example', token_endpoint: 'https://evil.example/token' }), /name another issuer/],
    ['has no document', async () => ({ status: 404, body: '' }), /answers 404/],
    ['has a page in its place', async () => ({ status: 200, body: '<html>' }), /answers 200 without a JSON object/],
    ['is broken', async () => ({ status: 500, body: '' }), /answers 500/],
    ['hangs up', async () => 'cut' as const, /broke before its answer/],
  ])('is not asked for a token when it %s', async (_, answer, sentence) => {
    const { upstream, tool, open } = await setUp()
    for (const path of documents) upstream.intercept(path, answer)
    expect(await failureOf(mint(open, tool))).toMatchObject({ outcome: 'nothing_done', publicMessage: expect.stringMatching(sentence) })
    expect(upstream.requests.filter(({ method }) => method === 'POST')).toEqual([])
  })

  test.each([
    ['on another host', 'http://127.0.0.2:1/token', /127\.0\.0\.2:1 is not one that the tool's catalog file names/],
    ['on another port', 'http://127.0.0.1:1/token', /is not one that the tool's catalog file names/],
    ['nowhere', undefined, /token_endpoint in the metadata .* is missing or cannot be used/],
    ['that is no URL', 'javascript:alert(1)', /cannot be used/],
  ])('gets no credential at an endpoint %s', async (_, endpoint, sentence) => {
    const { upstream, tool, open } = await setUp({ config: refreshing })
    upstream.intercept('/.well-known/oauth-authorization-server', async (_, forward) => json({ ...(JSON.parse(String((await forward()).body)) as object), token_endpoint: endpoint }))
    expect(await failureOf(mint(open, tool))).toMatchObject({ outcome: 'nothing_done', publicMessage: expect.stringMatching(sentence) })
    expect(upstream.requests.filter(({ method }) => method === 'POST')).toEqual([])
  })

  test.each([
    ['is cut', async (_: unknown, forward: () => Promise<unknown>) => (await forward(), 'cut' as const)],
    ['is 500', async () => ({ status: 500, body: 'oops' })],
    ['is garbage', async () => ({ status: 200, body: '{"access_token":' })],
    ['has no token', async () => json({ token_type: 'Bearer' })],
    ['is 100 MB', async () => ({ status: 200, body: Buffer.alloc(100 * 1024 * 1024, '{') })],
  ])('may have issued a token where its answer %s', async (_, answer) => {
    const { upstream, tool, open } = await setUp()
    upstream.intercept('/token', answer)
    expect((await failureOf(mint(open, tool))).outcome).toBe('unknown')
  })

  test('that is slow is not waited for beyond the signal', async () => {
    const { upstream, tool, open } = await setUp()
    upstream.intercept('/token', async (_, forward) => {
      await pause(1_000)
      return forward()
    })
    const beganMs = performance.now()
    expect((await failureOf(mint(open, tool, undefined, AbortSignal.timeout(150)))).outcome).toBe('unknown')
    expect(performance.now() - beganMs).toBeLessThan(900)
  })

  test('within a private network is not called unless the catalog allows it', async () => {
    const upstream = await startUpstream()
    const { broker } = await setUp()
    const tool = parseCrm(upstream.issuer, basic)
    const open = oauthClientConnector.open(
      { ...tool, config: { ...(tool.config as object), private_network: false } },
      createToolContext({ readSecret: createSecretReader({ ...broker.broker, env: {} }), custody: createCustody(broker.broker) }),
    )
    onTestFinished(() => open.close())
    expect(await failureOf(mint(open, tool))).toMatchObject({ outcome: 'nothing_done' })
    expect(upstream.requests).toEqual([])
  })
})

describe('check', () => {
  const problemsOf = async (open: OpenTool) => (await open.check(never)).filter(({ ok }) => !ok).map(({ sentence }) => sentence)

  test('finds nothing wrong where all is right, and makes nothing', async () => {
    for (const config of [basic, refreshing, [...refreshing, 'revocation: true'], [...basic, 'tokens_are_checked: true']]) {
      const { upstream, open } = await setUp({ config })
      const findings = await open.check(never)
      expect(findings.filter(({ ok }) => !ok)).toEqual([])
      expect(findings.length).toBeGreaterThan(4)
      expect(upstream.requests.filter(({ path }) => path === '/token')).toEqual([])
      expect(findings.some(({ sentence }) => sentence === 'The client is believed.')).toBe(config !== refreshing)
    }
  })

  test.each([
    ['wrong secret', { credential: () => 'wrong' }, undefined, /^The client was not believed.*invalid_client/],
    ['no key', { config: ['client_id: by-key', byKey, 'token_seconds_max: 600'], credential: () => 'none' }, undefined, /private key cannot be used/],
    ['no refresh token', { config: [...basic, 'refresh_token: { from: "sealed:not-there" }'] }, undefined, /stint secret put not-there/],
    ['grant type', {}, { grant_types_supported: ['authorization_code'] }, /do not offer the grant type client_credentials/],
    ['method', {}, { token_endpoint_auth_methods_supported: ['tls_client_auth'] }, /would prove itself by client_secret_basic, and the metadata offer tls_client_auth/],
    ['no revocation', { config: [...basic, 'tokens_are_checked: true'] }, { revocation_endpoint: undefined }, /tokens_are_checked cannot be kept/],
    ['another issuer', {}, { issuer: 'https://evil.example' }, /name another issuer/],
  ] as [string, SetUp, Record<string, unknown> | undefined, RegExp][])('says what is wrong: %s', async (_, options, members, sentence) => {
    const { upstream, open } = await setUp(options)
    if (members !== undefined) {
      for (const path of ['/.well-known/oauth-authorization-server', '/.well-known/openid-configuration']) {
        upstream.intercept(path, async (_, forward) => json({ ...(JSON.parse(String((await forward()).body)) as object), ...members }))
      }
    }
    expect(await problemsOf(open)).toEqual([expect.stringMatching(sentence)])
  })

  test('says that a refresh token is used up', async () => {
    const { broker, tool, open } = await setUp({ config: refreshing })
    await put(broker, 'crm-refresh', 'of another client')
    await failureOf(mint(open, tool))
    expect(await problemsOf(open)).toEqual([expect.stringMatching(/^The tool crm needs reconnection/)])
  })
})
