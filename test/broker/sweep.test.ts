import { expect, onTestFinished, test, vi } from 'vitest'
import { describePostgres } from '../harness.ts'
import { admin, ask, call, exhaustTries, lend, lifeOf, listRoles, look, minuteMs, opens, passTime, startBeside, startLending, type Lending } from './lending.ts'

const wish = { tool: 'ledger', actions: ['read'] }
type Columns = Record<string, unknown>

async function readRow({ broker }: Pick<Lending, 'broker'>, grant: string): Promise<Columns> {
  return (await broker.broker.database.read.selectFrom('credential').selectAll().where('grant_id', '=', grant).executeTakeFirstOrThrow()) as unknown as Columns
}

describePostgres('The sweeper', (postgres) => {
  test.each([
    ['before the tool was asked', 'intent_stored', 0],
    ['after the tool has done it', 'outside_answered', 1],
  ] as const)('undoes a mint that died %s, but not before its lease is over', async (_, point, roles) => {
    const died = Promise.withResolvers<string>()
    const lending = await startLending('sqlite', { pass: (at, grant) => (at === point ? (died.resolve(grant), new Promise(() => undefined)) : undefined) })
    const { broker, agent } = lending
    void ask(broker, agent, wish)
    const grant = await died.promise
    expect(await listRoles(lending)).toHaveLength(roles)
    const next = await startBeside(lending)
    await passTime(next, 59_000)
    expect((await look({ broker: next, agent }, grant)).state).toBe('minting')
    expect(await listRoles(lending)).toHaveLength(roles)
    await passTime(next, 1_000)
    expect((await look({ broker: next, agent }, grant)).state).toBe('revoked')
    expect(await listRoles(lending)).toEqual([])
    expect((await next.events()).findLast((event) => event.type === 'grant.ended')).toMatchObject({ grant, cause: 'undone', effect: 'immediate', actor: { kind: 'stint', id: 'sweep' } })
    // Whoever asks for it gets none back: nobody holds the credential.
    expect(await lifeOf(next, grant)).toEqual(['grant.minting', 'grant.ended'])
  })

  test('leaves a mint alone that was revoked while its process died over it, until its lease is over', async () => {
    const died = Promise.withResolvers<string>()
    const lending = await startLending('sqlite', { pass: (at, grant) => (at === 'outside_answered' ? (died.resolve(grant), new Promise(() => undefined)) : undefined) })
    const { broker, agent } = lending
    void ask(broker, agent, wish)
    const grant = await died.promise
    expect((await admin(broker, 'POST', '/v1/revocations', { grant })).body.grants).toEqual([expect.objectContaining({ grant, outcome: 'retrying' })])
    expect(await listRoles(lending)).toHaveLength(1)
    const next = await startBeside(lending)
    await passTime(next, 0)
    // Recorded as ended now, whatever the tool makes a moment later would be nobody's.
    expect((await look({ broker: next, agent }, grant)).state).toBe('ending')
    expect(await lifeOf(next, grant)).toEqual(['grant.minting', 'grant.revoked'])
    await passTime(next, 60_000)
    expect((await look({ broker: next, agent }, grant)).state).toBe('revoked')
    expect(await listRoles(lending)).toEqual([])
  })

  test.each(['end_claimed', 'end_called', 'end_answered'] as const)('ends again what died at %s', async (point) => {
    let dying = true
    const died = Promise.withResolvers<string>()
    const lending = await startLending('sqlite', { pass: (at, grant) => (at === point && dying ? (died.resolve(grant), new Promise(() => undefined)) : undefined) })
    const { broker, agent } = lending
    const lent = await lend(broker, agent, wish)
    void call(broker, agent, 'DELETE', `/v1/grants/${lent.grant}`)
    await died.promise
    dying = false
    // One process has the database: whoever had claimed it is gone, and nobody waits for the lease.
    const next = await startBeside(lending)
    await passTime(next, 0)
    expect((await look({ broker: next, agent }, lent.grant)).state).toBe('revoked')
    expect(await opens(lending, lent)).toBe(false)
    expect(await lifeOf(next, lent.grant)).toEqual(['grant.minting', 'grant.activated', 'grant.revoked', 'grant.ended'])
  })

  test('of another process that has died over an end is waited for, and who revokes meanwhile cuts the credential off at once', async () => {
    let dying = true
    const died = Promise.withResolvers<string>()
    const lending = await startLending(postgres, { pass: (at, grant) => (at === 'end_claimed' && dying ? (died.resolve(grant), new Promise(() => undefined)) : undefined) })
    const { broker, agent } = lending
    const lent = await lend(broker, agent, wish)
    void call(broker, agent, 'DELETE', `/v1/grants/${lent.grant}`)
    await died.promise
    dying = false
    const next = await startBeside(lending)
    next.clock.advance(1_000)
    await next.scheduler.tick()
    expect(await opens(lending, lent)).toBe(true)
    expect((await admin(next, 'POST', '/v1/revocations', { grant: lent.grant })).body.grants).toEqual([expect.objectContaining({ grant: lent.grant, outcome: 'retrying' })])
    expect(await opens(lending, lent)).toBe(false)
    await passTime(next, 61_000)
    expect((await look({ broker: next, agent }, lent.grant)).state).toBe('revoked')
    expect(await listRoles(lending)).toEqual([])
  })

  test('carries a revocation of many on whose process died right after it was recorded', async () => {
    let dying = true
    const died = Promise.withResolvers<undefined>()
    const lending = await startLending('sqlite', { pass: (at) => (at === 'end_ordered' && dying ? (died.resolve(undefined), new Promise(() => undefined)) : undefined) })
    const { broker, agent } = lending
    const [one, two] = [await lend(broker, agent, wish), await lend(broker, agent, wish)]
    void admin(broker, 'POST', '/v1/revocations', { workload: 'bot' })
    await died.promise
    dying = false
    expect([await opens(lending, one), await opens(lending, two)]).toEqual([true, true])
    const next = await startBeside(lending)
    const later = await lend(next, agent, wish)
    await passTime(next, 1_000)
    expect([await opens(lending, one), await opens(lending, two), await opens(lending, later)]).toEqual([false, false, true])
  })

  test('erases what ended a credential, and keeps no owner, when that is over', async () => {
    const lending = await startLending('sqlite')
    const { broker, agent } = lending
    const lent = await lend(broker, agent, { ...wish, ttl_seconds: 60 })
    expect(await readRow(lending, lent.grant)).toMatchObject({ state: 'active', owner: null, lease_until: null, due_at: lent.expires_at })
    await passTime(broker, minuteMs)
    expect(await readRow(lending, lent.grant)).toMatchObject({ state: 'expired', cause: 'expired', owner: null, lease_until: null, due_at: null, handle: null, handle_version: null, token_hash: null, problem: null, ended_at: '2026-01-15T12:01:00.000Z' })
  })

  test('is not held up by one grant that nobody can make sense of', async () => {
    const lending = await startLending('sqlite')
    const { broker, agent } = lending
    const [odd, plain] = [await lend(broker, agent, { ...wish, ttl_seconds: 60 }), await lend(broker, agent, { ...wish, ttl_seconds: 61 })]
    // Sealed for another row: it cannot be opened.
    await broker.broker.database.write((transaction) => transaction.db.updateTable('credential').set({ handle: 'AAAA', handle_version: 1 }).where('grant_id', '=', odd.grant).execute())
    await passTime(broker, 61_000)
    expect(await opens(lending, plain)).toBe(false)
    expect((await look(lending, plain.grant)).state).toBe('expired')
    expect((await look(lending, odd.grant)).state).toBe('ending')
    await exhaustTries(broker, 1)
    expect((await look(lending, odd.grant)).state).toBe('stuck')
  })

  test('that waits for the end of one grant goes on with the others of its tool, and with what comes due meanwhile', async () => {
    const hanging = Promise.withResolvers<undefined>()
    let slow = ''
    const lending = await startLending('sqlite', { pass: (at, grant) => (at === 'end_claimed' && grant === slow ? hanging.promise : undefined) })
    const { broker, agent } = lending
    onTestFinished(() => hanging.resolve(undefined))
    slow = (await lend(broker, agent, { ...wish, ttl_seconds: 60 })).grant
    const others = []
    for (let i = 0; i < 9; i++) others.push(await lend(broker, agent, { ...wish, ttl_seconds: 60 }))
    const late = await lend(broker, agent, { ...wish, ttl_seconds: 61 })
    broker.clock.advance(minuteMs)
    await broker.scheduler.tick()
    broker.clock.advance(1_000)
    await vi.waitFor(async () => expect((await look(lending, late.grant)).state).toBe('expired'), { timeout: 15_000, interval: 50 })
    for (const { grant } of others) expect((await look(lending, grant)).state).toBe('expired')
    expect((await look(lending, slow)).state).toBe('ending')
    hanging.resolve(undefined)
    await vi.waitFor(async () => expect((await look(lending, slow)).state).toBe('expired'), { timeout: 15_000, interval: 50 })
  })

  test.each(['sqlite', postgres] as const)('clears many more than it looks at together (%s)', { timeout: 120_000 }, async (engine) => {
    const lending = await startLending(engine)
    const { broker, agent } = lending
    const lent = await lend(broker, agent, { ...wish, ttl_seconds: 60 })
    const { grants, credential } = await copyRows(lending, lent.grant, 300)
    expect([grants, credential]).toEqual([301, 301])
    broker.clock.advance(minuteMs)
    const beganMs = performance.now()
    await broker.scheduler.tick()
    const next = await lend(broker, agent, { ...wish, tool: 'archive' })
    expect(performance.now() - beganMs).toBeLessThan(5_000)
    const left = broker.broker.database.read.selectFrom('credential').select('grant_id').where('state', '<>', 'expired')
    await vi.waitFor(async () => expect(await left.execute()).toEqual([{ grant_id: next.grant }]), { timeout: 100_000, interval: 200 })
    expect((await broker.events()).filter(({ type }) => type === 'grant.ended')).toHaveLength(301)
  })

  test('disables what comes due while it clears a backlog, long before its turn', { timeout: 120_000 }, async () => {
    const lending = await startLending('sqlite')
    const { broker, agent } = lending
    await copyRows(lending, (await lend(broker, agent, { ...wish, ttl_seconds: 60 })).grant, 900)
    const late = await lend(broker, agent, { ...wish, ttl_seconds: 61 })
    broker.clock.advance(minuteMs)
    await broker.scheduler.tick()
    expect(await opens(lending, late)).toBe(true)
    broker.clock.advance(1_000)
    await vi.waitFor(async () => expect(await opens(lending, late)).toBe(false), { timeout: 100_000, interval: 50 })
    const left = await broker.broker.database.read.selectFrom('credential').select('grant_id').where('state', '<>', 'expired').execute()
    // Its turn is the last but for those that are under way.
    expect(left.length).toBeGreaterThan(50)
    expect(left).toContainEqual({ grant_id: late.grant })
  })
})

/** As many more grants like that one, of which the tool has nothing. */
async function copyRows({ broker }: Lending, id: string, count: number): Promise<{ readonly grants: number; readonly credential: number }> {
  const { read, write } = broker.broker.database
  const grant = await read.selectFrom('grants').selectAll().where('id', '=', id).executeTakeFirstOrThrow()
  const credential = await read.selectFrom('credential').selectAll().where('grant_id', '=', id).executeTakeFirstOrThrow()
  const ids = Array.from({ length: count }, (_, i) => `grant_${String(i).padStart(26, '0')}`)
  await write(async ({ db }) => {
    for (let i = 0; i < count; i += 50) {
      const some = ids.slice(i, i + 50)
      await db.insertInto('grants').values(some.map((one) => ({ ...grant, id: one }))).execute()
      await db.insertInto('credential').values(some.map((one) => ({ ...credential, grant_id: one, handle: null, handle_version: null }))).execute()
    }
  })
  const size = async (table: 'grants' | 'credential') => (await read.selectFrom(table).select(table === 'grants' ? 'id' : 'grant_id').execute()).length
  return { grants: await size('grants'), credential: await size('credential') }
}
