import { describe, expect, test } from 'vitest'
import { startBroker } from '../broker.ts'
import { describePostgres } from '../harness.ts'
import { startUpstream, type Intercept } from '../upstream.ts'
import { admin, ask, call, hurryCalls, lend, lifeOf, listRoles, look, minuteMs, opens, passTime, startLending, type Answer, type Lending } from './lending.ts'

const wish = { tool: 'ledger', actions: ['read'] }

/** What a caller may be told of a tool that failed: a sentence, and nothing secret. */
function expectFailed(answer: Answer, status: number): void {
  expect(answer).toMatchObject({ status, body: { status, detail: expect.stringMatching(/^\S.*\.$/s) } })
  expect(answer.text).not.toMatch(/password=|root-password|stint_[0-9a-v]{8}_|at .*\.ts:\d/)
  expect(answer.body).not.toHaveProperty('credential')
}

async function lastGrant({ broker }: Pick<Lending, 'broker'>): Promise<string> {
  const minting = (await broker.events()).findLast((event) => event.type === 'grant.minting')
  return minting?.type === 'grant.minting' ? minting.grant : ''
}

describePostgres('A database server that', () => {
  test('does not answer at all is waited for no longer than a call may take, and nothing is left', async () => {
    const lending = await startLending('sqlite')
    const { broker, agent, wire } = lending
    hurryCalls(broker, 500)
    wire.onRequest = () => 'drop'
    const answer = await ask(broker, agent, wish)
    expectFailed(answer, 503)
    expect(Number(answer.headers.get('retry-after'))).toBeGreaterThan(0)
    expect((await look(lending, await lastGrant(lending))).state).toBe('failed')
    expect(await listRoles(lending)).toEqual([])
    wire.cutAll()
    wire.onRequest = () => 'forward'
    expect(await opens(lending, await lend(broker, agent, wish))).toBe(true)
  })

  test.each([
    ['never hears the COMMIT', 'request'],
    ['does it, and its answer is lost', 'answer'],
  ] as const)('%s leaves an unknown outcome, which is undone', async (_, lost) => {
    const lending = await startLending('sqlite')
    const { broker, agent, wire } = lending
    hurryCalls(broker, 1_500)
    let committing = false
    wire.onRequest = (data) => {
      committing ||= data.includes('commit\0')
      return committing && lost === 'request' ? 'drop' : 'forward'
    }
    wire.onAnswer = (_data, connection) => {
      if (committing && lost === 'answer') connection.cut()
      return committing ? 'drop' : 'forward'
    }
    const answer = await ask(broker, agent, wish)
    expectFailed(answer, answer.status === 503 ? 503 : 502)
    expect(answer.body.detail).toContain('Whether anything was made is not known; if so, it is undone. Ask again.')
    const grant = await lastGrant(lending)
    expect(await look(lending, grant)).toMatchObject({ state: 'minting', problem: expect.any(String) })
    wire.onRequest = () => 'forward'
    wire.onAnswer = () => 'forward'
    wire.cutAll()
    // Asked for again, it is another grant, and both are accounted for.
    const second = await lend(broker, agent, wish)
    await passTime(broker, 61_000)
    expect(await look(lending, grant)).toMatchObject({ state: 'revoked' })
    expect(await lifeOf(broker, grant)).toEqual(['grant.minting', 'grant.ended'])
    expect((await broker.events()).find((event) => event.type === 'grant.ended')).toMatchObject({ grant, cause: 'undone' })
    expect((await listRoles(lending)).map((role) => role.slice(-26))).toEqual([second.grant.slice(-26)])
  })

  test.each([
    ['talks garbage', (client: { write(data: string | Buffer): unknown }, _data: Buffer) => void client.write('HTTP/1.1 400 Bad Request\r\n\r\n')],
    ['breaks off in the middle of an answer', (client: { write(data: string | Buffer): unknown; destroySoon(): void }, data: Buffer) => (client.write(data.subarray(0, 3)), client.destroySoon())],
  ])('%s makes nothing that could be used, and leaves nothing', async (_, answerWith) => {
    const lending = await startLending('sqlite')
    const { broker, agent, wire } = lending
    hurryCalls(broker, 1_500)
    wire.onAnswer = (data, { client }) => (answerWith(client, data), 'drop')
    const answer = await ask(broker, agent, wish)
    expectFailed(answer, answer.status === 503 ? 503 : 502)
    wire.onAnswer = () => 'forward'
    wire.cutAll()
    await passTime(broker, 61_000)
    expect(['failed', 'revoked']).toContain((await look(lending, await lastGrant(lending))).state)
    expect(await listRoles(lending)).toEqual([])
  })

  test('does not answer when it is told to end something is told again, and others are not held up', async () => {
    const lending = await startLending('sqlite')
    const { broker, agent, wire } = lending
    const [lent, other] = [await lend(broker, agent, wish), await lend(broker, agent, { ...wish, tool: 'archive' })]
    hurryCalls(broker, 700)
    wire.onRequest = () => 'drop'
    const { body } = await admin(broker, 'POST', '/v1/revocations', { workload: 'bot' })
    const outcomes = Object.fromEntries(body.grants.map((one: { readonly grant: string; readonly outcome: string }) => [one.grant, one.outcome]))
    expect(outcomes).toEqual({ [lent.grant]: 'retrying', [other.grant]: 'revoked' })
    expect(await opens(lending, other)).toBe(false)
    wire.cutAll()
    wire.onRequest = () => 'forward'
    await passTime(broker, minuteMs)
    expect(await opens(lending, lent)).toBe(false)
    expect(await look(lending, lent.grant)).toMatchObject({ state: 'revoked' })
  })

  test('hangs does not keep what other tools have lent from ending in time', { timeout: 60_000 }, async () => {
    const lending = await startLending('sqlite')
    const { broker, agent, wire, site } = lending
    for (let i = 0; i < 6; i++) await lend(broker, agent, { ...wish, ttl_seconds: 60 })
    const other = await lend(broker, agent, { ...wish, tool: 'archive', ttl_seconds: 62 })
    hurryCalls(broker, 15_000)
    wire.onRequest = () => 'drop'
    broker.clock.advance(minuteMs)
    const beganMs = performance.now()
    const hanging = broker.scheduler.tick()
    await new Promise((resolve) => setTimeout(resolve, 300))
    // Due while the others are being waited for.
    broker.clock.advance(2_000)
    const ticking = setInterval(() => void broker.scheduler.tick(), 100)
    while ((await opens({ site }, other)) && performance.now() - beganMs < 15_000) await new Promise((resolve) => setTimeout(resolve, 100))
    clearInterval(ticking)
    // Long before the calls that hang are given up.
    expect(performance.now() - beganMs).toBeLessThan(10_000)
    wire.cutAll()
    wire.onRequest = () => 'forward'
    await hanging
  })
})

describePostgres('A root credential that', () => {
  test.each([
    ['has a wrong password', (url: string) => url.replace('root-password', 'wrong'), /does not let the root role \S+ in: an admin puts its right password/],
    ['names no database that is there', (url: string) => url.replace(/\/db_\w+/, '/db_nowhere'), /has no database db_nowhere: an admin puts the right one/],
    ['is not there', () => '', /LEDGER_URL is not set/],
    ['is no URL of a database', () => 'hello there', /URL/],
  ])('%s is told to whoever asks, and how it is mended; once it is, all goes on', async (_, spoil, sentence) => {
    const lending = await startLending('sqlite')
    const { broker, agent, env } = lending
    const lent = await lend(broker, agent, wish)
    const good = env['LEDGER_URL'] ?? ''
    env['LEDGER_URL'] = spoil(good)
    const answer = await ask(broker, agent, wish)
    expectFailed(answer, 502)
    // What an agent cannot mend it need not know: of the broker's own settings, where to look is enough.
    expect(answer.body.detail).toMatch(env['LEDGER_URL'] === '' ? /stint tool check/ : sentence)
    expect((await look(lending, await lastGrant(lending))).state).toBe('failed')
    const { body: checked } = await admin(broker, 'POST', '/v1/tools/ledger/check')
    expect(checked.ok).toBe(false)
    expect(checked.findings.map(({ sentence: said }: { readonly sentence: string }) => said).join('\n')).toMatch(sentence)
    const { body: ended } = await call(broker, agent, 'DELETE', `/v1/grants/${lent.grant}`)
    expect(ended).toMatchObject({ outcome: 'retrying', problem: expect.any(String) })
    env['LEDGER_URL'] = good
    await passTime(broker, minuteMs)
    expect(await look(lending, lent.grant)).toMatchObject({ state: 'revoked' })
    expect(await opens(lending, await lend(broker, agent, wish))).toBe(true)
  })

  test('is short of a right makes nothing, and the check says of which', async () => {
    const lending = await startLending('sqlite')
    const { broker, agent, site } = lending
    await site.admin(`revoke ${site.reader} from ${site.root}`)
    const answer = await ask(broker, agent, wish)
    expectFailed(answer, 502)
    expect(await listRoles(lending)).toEqual([])
    expect((await look(lending, await lastGrant(lending))).state).toBe('failed')
    const { body } = await admin(broker, 'POST', '/v1/tools/ledger/check')
    const wrong = body.findings.filter(({ ok }: { readonly ok: boolean }) => !ok)
    expect(JSON.stringify(wrong)).toContain(site.reader)
    await site.admin(`grant ${site.reader} to ${site.root} with admin true, inherit false, set false`)
    expect((await admin(broker, 'POST', '/v1/tools/ledger/check')).body.ok).toBe(true)
    expect(await opens(lending, await lend(broker, agent, wish))).toBe(true)
  })
})

const crm = (issuer: string) => `tool: crm
connector: oauth-client
sensitivity: medium
ttl: { default: 10m, max: 1h }
actions:
  contacts.read: { scopes: [contacts.read] }
config:
  issuer: ${issuer}
  client_id: by-basic
  client_secret: { from: "env:CRM_SECRET" }
  token_seconds_max: 600
  tokens_are_checked: true
  private_network: true
`

const big = Buffer.alloc(100 * 1024 * 1024, 0x20)
const asJson = { 'content-type': 'application/json' }

describe('A tool that is asked by HTTP and', () => {
  test.each<[string, Intercept, { readonly status: number; readonly retryAfter?: string; readonly state: 'failed' | 'unknown' }]>([
    ['answers 500', async () => ({ status: 500, body: 'out of order' }), { status: 502, state: 'unknown' }],
    ['answers 429 with Retry-After', async () => ({ status: 429, headers: { ...asJson, 'retry-after': '7' }, body: '{"error":"slow_down"}' }), { status: 503, retryAfter: '7', state: 'failed' }],
    ['refuses', async () => ({ status: 401, headers: asJson, body: '{"error":"invalid_client"}' }), { status: 502, state: 'failed' }],
    ['answers garbage', async () => ({ status: 200, headers: asJson, body: '<html>\u0000{' }), { status: 502, state: 'unknown' }],
    ['answers another thing', async () => ({ status: 200, headers: asJson, body: '[1,2,3]' }), { status: 502, state: 'unknown' }],
    ['answers 100 MB', async () => ({ status: 200, headers: asJson, body: big }), { status: 502, state: 'unknown' }],
    ['breaks off', async (_, forward) => (await forward(), 'cut'), { status: 502, state: 'unknown' }],
    ['does not answer in time', (_, forward) => new Promise((resolve) => setTimeout(() => void forward().then(resolve, () => resolve('cut')), 3_000)), { status: 502, state: 'unknown' }],
  ])('%s gives nothing, and what may live is told', async (_, intercept, { status, retryAfter, state }) => {
    const upstream = await startUpstream()
    const rules = '@id("works")\npermit (principal in Team::"support", action, resource);\n'
    const broker = await startBroker('sqlite', { env: { CRM_SECRET: upstream.clientSecret }, policies: new Map([['tools/crm.yaml', crm(upstream.issuer)], ['rules.cedar', rules]]) })
    const agent = await broker.register('bot')
    hurryCalls(broker, 1_500)
    upstream.intercept('/token', intercept)
    const answer = await ask(broker, agent, { tool: 'crm', actions: ['contacts.read'] })
    expect(answer.status, answer.text).toBe(retryAfter === undefined && answer.status === 503 ? 503 : status)
    expectFailed(answer, answer.status)
    if (retryAfter !== undefined) expect(answer.headers.get('retry-after')).toBe(retryAfter)
    expect(answer.text.length).toBeLessThan(2_000)
    if (state === 'unknown') expect(answer.body.detail).toContain('it was given to nobody, and ends by itself within 10m. Ask again.')
    expect(answer.text).not.toContain(upstream.clientSecret)
    upstream.intercept('/token', undefined)
    const grant = await lastGrant({ broker })
    await passTime(broker, 61_000)
    const stands = await look({ broker, agent }, grant)
    expect(stands.state).toBe(state)
    if (state === 'failed') return expect(await lifeOf(broker, grant)).toEqual(['grant.minting', 'grant.failed'])
    // It cannot be found there: so Stint says until when it may live, and then that it is over.
    expect(stands.may_live_until).toBe('2026-01-15T12:11:01.000Z')
    expect(await broker.lastEvent('grant.unknown')).toMatchObject({ grant, may_live_until: stands.may_live_until })
    expect((await admin(broker, 'POST', '/v1/revocations', { grant })).body.grants).toMatchObject([{ outcome: 'lives_until', until: stands.may_live_until }])
    await passTime(broker, 10 * minuteMs)
    expect(['expired', 'revoked']).toContain((await look({ broker, agent }, grant)).state)
    expect((await lifeOf(broker, grant)).at(-1)).toBe('grant.ended')
  })

  test('answers 429 with Retry-After when it is told to end something is not asked again before that', async () => {
    const upstream = await startUpstream()
    const rules = '@id("works")\npermit (principal in Team::"support", action, resource);\n'
    const broker = await startBroker('sqlite', { env: { CRM_SECRET: upstream.clientSecret }, policies: new Map([['tools/crm.yaml', crm(upstream.issuer)], ['rules.cedar', rules]]) })
    const agent = await broker.register('bot')
    const lent = await lend(broker, agent, { tool: 'crm', actions: ['contacts.read'] })
    upstream.intercept('/token/revocation', async () => ({ status: 429, headers: { ...asJson, 'retry-after': '120' }, body: '{}' }))
    expect((await call(broker, agent, 'DELETE', `/v1/grants/${lent.grant}`)).body).toMatchObject({ outcome: 'retrying' })
    expect(await look({ broker, agent }, lent.grant)).toMatchObject({ next_try_at: '2026-01-15T12:02:00.000Z' })
    upstream.intercept('/token/revocation', undefined)
    await passTime(broker, 119_000)
    expect((await look({ broker, agent }, lent.grant)).state).toBe('ending')
    await passTime(broker, 1_000)
    expect((await look({ broker, agent }, lent.grant)).state).toBe('revoked')
    expect(await upstream.isActive(String(lent.credential['access_token']))).toBe(false)
  })

  test('asks for a wait that is longer than the token lives is not asked again once it has died', async () => {
    const upstream = await startUpstream()
    const rules = '@id("works")\npermit (principal in Team::"support", action, resource);\n'
    const broker = await startBroker('sqlite', { env: { CRM_SECRET: upstream.clientSecret }, policies: new Map([['tools/crm.yaml', crm(upstream.issuer)], ['rules.cedar', rules]]) })
    const agent = await broker.register('bot')
    const lent = await lend(broker, agent, { tool: 'crm', actions: ['contacts.read'], ttl_seconds: 60 })
    upstream.intercept('/token/revocation', async () => ({ status: 429, headers: { ...asJson, 'retry-after': '86400' }, body: '{}' }))
    const { body } = await call(broker, agent, 'DELETE', `/v1/grants/${lent.grant}`)
    const { next_try_at: nextAt, may_live_until: untilAt } = await look({ broker, agent }, lent.grant)
    expect([body.outcome, untilAt]).toEqual([expect.stringMatching(/^(?:retrying|lives_until)$/), expect.any(String)])
    // Ten minutes are the longest wait, and what has died needs none.
    expect(Date.parse(nextAt)).toBeLessThanOrEqual(Math.min(Date.parse(untilAt), broker.clock.nowMs() + 600_000))
    await passTime(broker, Date.parse(untilAt) - broker.clock.nowMs())
    for (let i = 0; i < 8; i++) await passTime(broker, 600_000)
    expect((await look({ broker, agent }, lent.grant)).state).toMatch(/^(?:revoked|expired)$/)
  })
})
