import { expect, test } from 'vitest'
import { startBroker } from '../broker.ts'
import { describeEngines, describePostgres } from '../harness.ts'
import { admin, call, exhaustTries, lend, lifeOf, listRoles, look, minuteMs, opens, passTime, startLending, writePolicies, type Answer, type Lending } from './lending.ts'

const wish = { tool: 'ledger', actions: ['read'], task: 'ticket-7' }
const renew = ({ broker, agent }: Pick<Lending, 'broker' | 'agent'>, grant: string, json: unknown = {}): Promise<Answer> => call(broker, agent, 'POST', `/v1/grants/${grant}/renew`, json)

async function setRules({ broker, policies }: Pick<Lending, 'broker' | 'policies'>, rules: string): Promise<void> {
  const files = Object.fromEntries([...policies, ['rules.cedar', rules]])
  expect((await admin(broker, 'PUT', '/v1/policy', { files })).status).toBe(200)
}

describePostgres('A renewal of a role', () => {
  test('moves its end, in the tool, too, and is on record with its decision', async () => {
    const lending = await startLending('sqlite')
    const { broker, agent, site } = lending
    const lent = await lend(broker, agent, { ...wish, ttl_seconds: 60 })
    const readEnd = async () => (await site.admin<{ seconds: number }>('select extract(epoch from rolvaliduntil - now())::float as seconds from pg_roles where rolname = $1', [lent.credential['user']]))[0]?.seconds ?? 0
    expect(await readEnd()).toBeLessThan(70)
    broker.clock.advance(30_000)
    const { status, body, headers } = await renew(lending, lent.grant, { ttl_seconds: 600 })
    expect([status, body]).toEqual([200, { grant: lent.grant, expires_at: '2026-01-15T12:10:30.000Z', renewable_until: '2026-01-15T13:00:00.000Z', audit_index: expect.any(Number) }])
    expect(headers.get('stint-audit-index')).toBe(String(body.audit_index))
    expect(await broker.lastEvent('grant.renewed')).toMatchObject({ index: body.audit_index, grant: lent.grant, task: 'ticket-7', ttl_seconds: 600, expires_at: body.expires_at, decision: { verdict: 'allow' }, proof_kid: agent.kid })
    // A client that logs in after the first end must get in: the server's own fence has moved.
    expect(await readEnd()).toBeGreaterThan(500)
    await passTime(broker, 9 * minuteMs)
    expect(await opens(lending, lent)).toBe(true)
    await passTime(broker, minuteMs)
    expect([await opens(lending, lent), await listRoles(lending)]).toEqual([false, []])
    expect(await lifeOf(broker, lent.grant)).toEqual(['grant.minting', 'grant.activated', 'grant.renewed', 'grant.ended'])
  })

  test('never makes it shorter', async () => {
    const lending = await startLending('sqlite')
    const { broker, agent } = lending
    const lent = await lend(broker, agent, { ...wish, ttl_seconds: 1_200 })
    expect(await renew(lending, lent.grant, { ttl_seconds: 60 })).toMatchObject({ status: 409, body: { detail: expect.stringContaining(`lasts until ${lent.expires_at} already`) } })
    expect(await look(lending, lent.grant)).toMatchObject({ state: 'active', expires_at: lent.expires_at })
  })

  test('is decided afresh: by a set that allows it no more, or not for so long', async () => {
    const lending = await startLending('sqlite')
    const { broker, agent } = lending
    const lent = await lend(broker, agent, { ...wish, ttl_seconds: 300 })
    await setRules(lending, '@id("short")\npermit (principal in Team::"support", action, resource) when { context.ttl <= duration("5m") };\n')
    expect(await renew(lending, lent.grant, { ttl_seconds: 600 })).toMatchObject({ status: 403, body: { detail: expect.stringContaining('ttl_seconds up to 300 would be allowed') } })
    expect(await broker.lastEvent('grant.denied')).toMatchObject({ ttl_seconds: 600, decision: { verdict: 'deny' } })
    broker.clock.advance(minuteMs)
    expect((await renew(lending, lent.grant, { ttl_seconds: 300 })).status).toBe(200)
    await setRules(lending, '@id("closed")\nforbid (principal, action, resource);\n')
    expect((await renew(lending, lent.grant)).status).toBe(403)
    // What it had, it has for its time.
    expect(await opens(lending, lent)).toBe(true)
    await passTime(broker, 5 * minuteMs)
    expect(await opens(lending, lent)).toBe(false)
  })

  test('is a new credential, where the tool gives something else for the same actions by now', async () => {
    const lending = await startLending('sqlite')
    const { broker, agent, policies, site } = lending
    const lent = await lend(broker, agent, { ...wish, ttl_seconds: 300 })
    const file = policies.get('tools/ledger.yaml')?.replace(`read: { roles: [${site.reader}] }`, `read: { roles: [${site.writer}] }`) ?? ''
    expect((await admin(broker, 'PUT', '/v1/policy', { files: Object.fromEntries([...policies, ['tools/ledger.yaml', file]]) })).status).toBe(200)
    const renewed = await renew(lending, lent.grant, { ttl_seconds: 600 })
    expect(renewed).toMatchObject({ status: 201, body: { renews: lent.grant } })
    // The first one has its time, and no more.
    await passTime(broker, 5 * minuteMs)
    expect([await opens(lending, lent), (await listRoles(lending)).length]).toEqual([false, 1])
  })

  test('ends with the longest life of the tool, counted from the first', async () => {
    const lending = await startLending('sqlite')
    const { broker, agent } = lending
    const lent = await lend(broker, agent, { ...wish, ttl_seconds: 3_000 + 60 })
    broker.clock.advance(50 * minuteMs)
    expect((await renew(lending, lent.grant, { ttl_seconds: 3_600 })).body.expires_at).toBe('2026-01-15T13:00:00.000Z')
    for (const ttl of [3_601, 0, 1.5, '60', -1]) expect((await renew(lending, lent.grant, { ttl_seconds: ttl })).status).toBe(400)
    expect((await renew(lending, lent.grant, { ttl_seconds: 60, unknown: 1 })).status).toBe(400)
    await passTime(broker, 10 * minuteMs)
    expect(await renew(lending, lent.grant)).toMatchObject({ status: 409, body: { detail: `The grant ${lent.grant} is not active any more: ask for a new one.` } })
  })

  test('that the tool does not hear of is on record, said to be not told, and told when asked again', async () => {
    const lending = await startLending('sqlite')
    const { broker, agent, wire, site } = lending
    const lent = await lend(broker, agent, { ...wish, ttl_seconds: 60 })
    await wire.stop()
    const failed = await renew(lending, lent.grant, { ttl_seconds: 600 })
    expect([502, 503]).toContain(failed.status)
    expect(failed.body.detail).toContain('The renewal is on record')
    expect(await look(lending, lent.grant)).toMatchObject({ state: 'active', expires_at: '2026-01-15T12:10:00.000Z' })
    await wire.listen()
    // There is nothing to add to the record, but the tool is told now.
    expect(await renew(lending, lent.grant, { ttl_seconds: 600 })).toMatchObject({ status: 409, body: { detail: expect.stringContaining('already') } })
    const [row] = await site.admin<{ seconds: number }>('select extract(epoch from rolvaliduntil - now())::float as seconds from pg_roles where rolname = $1', [lent.credential['user']])
    expect(row?.seconds).toBeGreaterThan(500)
  })

  test.each(['given back', 'expired', 'stuck'])('of what is %s is a conflict, and brings nothing back', async (how) => {
    const lending = await startLending('sqlite')
    const { broker, agent, wire } = lending
    const lent = await lend(broker, agent, { ...wish, ttl_seconds: 60 })
    if (how === 'stuck') {
      await wire.stop()
      await passTime(broker, minuteMs)
      await exhaustTries(broker, 1)
      await wire.listen()
      expect((await look(lending, lent.grant)).state).toBe('stuck')
    } else if (how === 'expired') broker.clock.advance(minuteMs)
    else await call(broker, agent, 'DELETE', `/v1/grants/${lent.grant}`)
    expect((await renew(lending, lent.grant)).status).toBe(409)
    expect(await broker.lastEvent('grant.refused')).toMatchObject({ workload: 'bot', code: 'conflict' })
    await passTime(broker, 1_000)
    if (how !== 'stuck') expect(await opens(lending, lent)).toBe(false)
  })
})

describeEngines('A renewal of a token', (engine) => {
  test('is a new grant that goes on from the first, and lives no longer than it may', async () => {
    const broker = await startBroker(engine, { policies: writePolicies({ reader: 'r', writer: 'w', heir: 'h' }), env: {} })
    const agent = await broker.register('bot')
    const first = await lend(broker, agent, { tool: 'tickets', actions: ['read'], task: 'ticket-7' })
    broker.clock.advance(9 * minuteMs)
    const second = await renew({ broker, agent }, first.grant)
    expect(second).toMatchObject({ status: 201, body: { renews: first.grant, task: 'ticket-7', expires_at: '2026-01-15T12:19:00.000Z' } })
    expect(await broker.lastEvent('grant.issued')).toMatchObject({ renews: first.grant, grant: second.body.grant })
    broker.clock.advance(9 * minuteMs)
    const third = await renew({ broker, agent }, second.body.grant, { ttl_seconds: 3_600 })
    // Linked to the first, not to the one before it.
    expect(third).toMatchObject({ status: 201, body: { renews: first.grant, expires_at: '2026-01-15T13:00:00.000Z' } })
    broker.clock.advance(41 * minuteMs)
    const last = await renew({ broker, agent }, third.body.grant, { ttl_seconds: 3_600 })
    expect(last.body.expires_at).toBe('2026-01-15T13:00:00.000Z')
    broker.clock.advance(minuteMs)
    expect((await renew({ broker, agent }, last.body.grant)).status).toBe(409)
    // The task that it was for ends all of them.
    expect((await call(broker, agent, 'POST', '/v1/tasks/ticket-7/complete')).body.grants).toEqual([])
  })
})
