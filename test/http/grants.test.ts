import { describe, expect, test } from 'vitest'
import { admin, ask, call, lend, lifeOf, listRoles, look, opens, passTime, runJobs, startLending, type Lending } from '../broker/lending.ts'
import { startBroker } from '../broker.ts'
import { describeEngines, describePostgres } from '../harness.ts'

const ledger = { tool: 'ledger', actions: ['read'] }
const payments = { tool: 'payments', actions: ['read'], target: 'acct-1' }

/** What a refused request leaves: nothing in the tool, no grant, and its record where it was looked at. */
async function expectRefused(lending: Lending, wish: Readonly<Record<string, unknown>>, status: number, recorded: boolean): Promise<string> {
  const { broker, agent } = lending
  const before = await broker.events()
  const answer = await ask(broker, agent, wish)
  expect(answer, JSON.stringify(wish).slice(0, 200)).toMatchObject({ status, body: { status, detail: expect.any(String) } })
  const since = (await broker.events()).slice(before.length)
  expect(since).toMatchObject(recorded ? [{ type: 'grant.refused', workload: 'bot', code: expect.any(String), detail: answer.body.detail }] : [])
  expect(await broker.broker.database.read.selectFrom('grants').selectAll().execute()).toEqual([])
  return answer.body.detail as string
}

describePostgres('Asking for what there is not', () => {
  test('is refused, says what is wrong, and makes nothing', async () => {
    const lending = await startLending('sqlite')
    const wrongNames: readonly [Readonly<Record<string, unknown>>, string][] = [
      [{ tool: 'nowhere', actions: ['read'] }, 'There is no tool nowhere in the catalog.'],
      [{ tool: 'ledger', actions: ['fly'] }, 'There is no action ledger:fly; actions are named tool:verb, in exactly that case.'],
      [{ tool: 'ledger', actions: ['tickets:read'] }, 'The tool is ledger, but the actions are of tickets.'],
      [{ tool: 'ledger', actions: ['read', 'tickets:read'] }, 'One request is for one tool, but this one names ledger and tickets: ask for each apart.'],
      [{ tool: 'ledger', actions: ['read', 'ledger:read'] }, 'The action ledger:read is named twice.'],
      [{ ...ledger, ttl_seconds: 3_601 }, 'The ttl_seconds of 3601 are too many: ledger gives at most 3600.'],
    ]
    for (const [wish, detail] of wrongNames) expect(await expectRefused(lending, wish, 400, true)).toBe(detail)
    const wrongForms: readonly Readonly<Record<string, unknown>>[] = [
      {},
      { tool: 'ledger' },
      { tool: 'ledger', actions: [] },
      { tool: 'ledger', actions: 'read' },
      { tool: 'ledger', actions: ['READ'] },
      { tool: 'ledger', actions: ['*'] },
      { tool: 'ledger', actions: ['ledger:*'] },
      { tool: 'ledger', actions: ['read\n'] },
      { tool: 'ledger', actions: Array.from({ length: 33 }, (_, i) => `a${i}`) },
      { tool: 'x'.repeat(64), actions: ['read'] },
      { ...ledger, ttl_seconds: 0 },
      { ...ledger, ttl_seconds: -1 },
      { ...ledger, ttl_seconds: 1.5 },
      { ...ledger, ttl_seconds: '60' },
      { ...ledger, ttl_seconds: 86_401 },
      { ...ledger, task: '../etc' },
      { ...ledger, task: 'x'.repeat(129) },
      { ...ledger, reason: 'x'.repeat(10_000) },
      { ...ledger, unknown: 1 },
      { ...ledger, target: 'x'.repeat(10_240) },
    ]
    for (const wish of wrongForms) await expectRefused(lending, wish, 400, false)
    expect(await listRoles(lending)).toEqual([])
  })

  test.for([
    ['none where one is needed', undefined],
    ['an empty one', ''],
    ['a quote', `acct-1"`],
    ['a single quote', `acct-1' or '1'='1`],
    ['a wildcard', 'acct-*'],
    ['an SQL wildcard', 'acct-%'],
    ['a newline behind it', 'acct-1\n'],
    ['a newline before it', '\nacct-1'],
    ['two lines of which one fits', 'acct-1\nacct-2'],
    ['the way up', 'acct-1/../acct-2'],
    ['another tool', 'ledger'],
    ["another tool's name for it", 'payments/acct-1'],
    ['a null character', 'acct-1\u0000'],
    ['a half character', 'acct-1\ud800'],
    ['digits of another script', 'acct-١'],
    ['upper case', 'ACCT-1'],
    ['1 KiB that fits', `acct-${'1'.repeat(1_020)}`],
    ['10 KB', `acct-${'1'.repeat(10_000)}`],
  ] as const)('is refused: a target with %s', async ([, target]) => {
    const broker = await startBroker('sqlite')
    const agent = await broker.register('teller', { team: 'finance' })
    const good = await ask(broker, agent, payments)
    expect(good).toMatchObject({ status: 201, body: { target: 'acct-1' } })
    const before = (await broker.events()).length
    const answer = await ask(broker, agent, { ...payments, target })
    expect(answer).toMatchObject({ status: 400, body: { detail: expect.any(String) } })
    // Nothing of it stands in the answer as it came: no line of a log can be forged by it.
    expect(answer.body.detail).toMatch(/^[^\p{Cc}]{1,400}$/u)
    const since = (await broker.events()).slice(before)
    expect(since.filter(({ type }) => type !== 'grant.refused')).toEqual([])
  })

  test('is refused: a target where the tool has none', async () => {
    const lending = await startLending('sqlite')
    expect(await expectRefused(lending, { ...ledger, target: 'work.notes' }, 400, true)).toBe('The tool ledger has no targets: leave the target out.')
  })

  test('is denied by the policy on record, and makes nothing', async () => {
    const lending = await startLending('sqlite')
    const { broker, agent } = lending
    const answer = await ask(broker, agent, { tool: 'ledger', actions: ['read', 'purge'], reason: 'tidying up' })
    expect(answer).toMatchObject({ status: 403, body: { type: 'urn:stint:problem:denied', detail: 'The policy does not allow this.' } })
    expect(await broker.lastEvent('grant.denied')).toMatchObject({ workload: 'bot', tool: 'ledger', actions: ['ledger:read', 'ledger:purge'], reason: 'tidying up', decision: { verdict: 'deny' } })
    expect(await listRoles(lending)).toEqual([])
  })
})

describeEngines("Another workload's grant", (engine) => {
  test('is unknown in every route, and the attempt is on record', async () => {
    const broker = await startBroker(engine)
    const [owner, thief] = [await broker.register('bot'), await broker.register('thief')]
    const { grant } = await lend(broker, owner, { tool: 'tickets', actions: ['read'], task: 'ticket-7' })
    const missing = `${grant.slice(0, -1)}${grant.endsWith('0') ? '1' : '0'}`
    const routes = [
      ['GET', '/v1/grants/:grant'],
      ['DELETE', '/v1/grants/:grant'],
      ['POST', '/v1/grants/:grant/renew'],
    ] as const
    for (const [method, route] of routes) {
      const json = method === 'POST' ? {} : undefined
      const others = await call(broker, thief, method, route.replace(':grant', grant), json)
      expect(await broker.lastEvent('access.refused')).toMatchObject({ workload: 'thief', grant, method, route, proof_kid: thief.kid, actor: { kind: 'workload', id: 'thief' } })
      const size = (await broker.events()).length
      const unknown = await call(broker, thief, method, route.replace(':grant', missing), json)
      expect(await broker.events()).toHaveLength(size)
      const shown = ({ body, headers }: typeof others, id: string) => [{ ...body, request_id: '', detail: body.detail.replace(id, '') }, [...headers.keys()]]
      expect([others.status, unknown.status]).toEqual([404, 404])
      expect(shown(others, grant)).toEqual(shown(unknown, missing))
    }
    // A task is the caller's own name: of another one's grants under the same name nothing happens.
    expect((await call(broker, thief, 'POST', '/v1/tasks/ticket-7/complete')).body).toEqual({ grants: [] })
    expect(await look({ broker, agent: owner }, grant)).toMatchObject({ state: 'active' })
    // Nor are the routes of admins for it.
    for (const path of [`/v1/grants/${grant}/retry`, `/v1/grants/${grant}/write-off`]) {
      expect(await call(broker, thief, 'POST', path, { reason: 'mine' })).toMatchObject({ status: 401 })
    }
  })

  test('is refused before it is looked for, where nobody is proven', async () => {
    const broker = await startBroker(engine)
    const owner = await broker.register('bot')
    const { grant } = await lend(broker, owner, { tool: 'tickets', actions: ['read'] })
    const strangers = [{}, { 'client-assertion': 'x' }, { authorization: 'Bearer x' }]
    for (const headers of strangers) {
      for (const [method, path, json] of [['GET', `/v1/grants/${grant}`], ['DELETE', `/v1/grants/${grant}`], ['POST', `/v1/grants/${grant}/renew`, {}], ['POST', '/v1/grants', ledger], ['POST', '/v1/tasks/x/complete']] as const) {
        const response = await broker.send(method, path, { headers, ...(json && { json }) })
        expect([method, path, response.status]).toEqual([method, path, 401])
      }
    }
    expect(await lifeOf(broker, grant)).toEqual(['grant.issued'])
  })

  test.each(['approver', 'auditor'] as const)('is not for an %s to end, retry or write off', async (role) => {
    const broker = await startBroker(engine)
    const owner = await broker.register('bot')
    const { grant } = await lend(broker, owner, { tool: 'tickets', actions: ['read'] })
    const credential = await broker.createOperator(role)
    const send = async (method: string, path: string, json?: unknown) => (await broker.sendAs(credential, method, path, json)).status
    expect(await send('POST', '/v1/revocations', { grant })).toBe(403)
    expect(await send('POST', `/v1/grants/${grant}/retry`, { reason: 'x' })).toBe(403)
    expect(await send('POST', `/v1/grants/${grant}/write-off`, { reason: 'x' })).toBe(403)
    expect(await send('POST', '/v1/tools/tickets/check')).toBe(403)
    expect(await send('POST', '/v1/tools/tickets/orphans', {})).toBe(403)
    // An operator's credential proves no workload.
    expect([await send('POST', '/v1/grants', ledger), await send('DELETE', `/v1/grants/${grant}`)]).toEqual([401, 401])
    expect(await look({ broker, agent: owner }, grant)).toMatchObject({ state: 'active' })
    expect(await send('GET', `/v1/grants/${grant}`)).toBe(200)
  })
})

describePostgres('A clock that is set', () => {
  test.for([
    ['back by ten minutes', -600_000],
    ['ahead by ten minutes', 600_000],
  ] as const)('%s ends nothing too late, and gives nothing for longer', async ([, ms]) => {
    const lending = await startLending('sqlite')
    const { broker, agent } = lending
    const [short, long] = [await lend(broker, agent, { ...ledger, ttl_seconds: 300 }), await lend(broker, agent, { ...ledger, ttl_seconds: 1_200 })]
    await passTime(broker, ms)
    const ended = ms > 0
    expect([await opens(lending, short), await opens(lending, long)]).toEqual([!ended, true])
    // Time that has been in the log is not had again (invariant 12): what is given now is counted from there.
    const assertion = agent.assert({ iat: 1_768_478_400, exp: 1_768_478_460 })
    if (!ended) {
      const next = await lend(broker, agent, { ...ledger, ttl_seconds: 300 }, { 'client-assertion': assertion })
      expect(next.expires_at).toBe(short.expires_at)
    }
    broker.clock.set(Date.parse(short.expires_at))
    await runJobs(broker)
    expect(await opens(lending, short)).toBe(false)
    broker.clock.set(Date.parse(long.expires_at))
    await runJobs(broker)
    expect(await opens(lending, long)).toBe(false)
    expect(await listRoles(lending)).toEqual([])
  })

  test('while a credential is being made, makes it come too late', async () => {
    let during: () => void = () => undefined
    const lending = await startLending('sqlite', { pass: (point) => void (point === 'outside_answered' && during()) })
    const { broker, agent } = lending
    during = () => broker.clock.advance(600_000)
    const answer = await ask(broker, agent, { ...ledger, ttl_seconds: 300 })
    expect(answer).toMatchObject({ status: 409 })
    expect(answer.text).not.toContain('password')
    expect(await listRoles(lending)).toEqual([])
    const [{ grant }] = (await admin(broker, 'GET', '/v1/grants')).body.grants
    expect(await lifeOf(broker, grant)).toEqual(['grant.minting', 'grant.ended'])
    during = () => broker.clock.advance(-600_000)
    const lent = await lend(broker, agent, { ...ledger, ttl_seconds: 300 }, { 'client-assertion': agent.assert() })
    expect(await opens(lending, lent)).toBe(true)
  })
})

describe('An answer', () => {
  test('that holds a credential is not for any cache to keep', async () => {
    const broker = await startBroker('sqlite')
    const agent = await broker.register('bot')
    const { headers } = await ask(broker, agent, { tool: 'tickets', actions: ['read'] })
    expect(headers.get('cache-control')).toBe('no-store')
    expect(headers.get('stint-audit-index')).toMatch(/^\d+$/)
  })
})
