import { sql } from 'kysely'
import { expect, test, vi } from 'vitest'
import type { TestBroker } from '../broker.ts'
import { describeEngines, describePostgres } from '../harness.ts'
import { admin, ask, call, connect, lend, lifeOf, listRoles, look, minuteMs, opens, passTime, startLending, type Lending } from './lending.ts'
import { setReadOnly } from './read-only.ts'

const wish = { tool: 'ledger', actions: ['read'] }

/** Lets the jobs run until the log has been written again and what is due is done. */
async function recover(broker: TestBroker, done: () => Promise<void>): Promise<void> {
  await vi.waitFor(async () => {
    await passTime(broker, 10_000)
    await done()
  }, { timeout: 15_000, interval: 50 })
}

async function prepare(engine: 'sqlite' | 'postgres'): Promise<Lending & { setWritable(writable: boolean): Promise<void> }> {
  const lending = await startLending(engine)
  return { ...lending, setWritable: (writable) => setReadOnly(lending.broker, !writable) }
}

describeEngines('While the log cannot be written (invariant 1)', (engine) => {
  test('nothing is lent, and nothing is made in the tool', async () => {
    const lending = await prepare(engine)
    const { broker, agent, setWritable } = lending
    await setWritable(false)
    expect(await ask(broker, agent, wish)).toMatchObject({ status: 503 })
    expect(await listRoles(lending)).toEqual([])
    await setWritable(true)
    await vi.waitFor(async () => expect(await opens(lending, await lend(broker, agent, wish))).toBe(true), { timeout: 10_000 })
  })

  test('since the tool was asked, what was made is given to nobody and ended', async () => {
    let during: () => Promise<void> = async () => undefined
    const lending = await startLending(engine, { pass: (point) => (point === 'outside_answered' ? during() : undefined) })
    const { broker, agent } = lending
    during = async () => {
      expect(await listRoles(lending)).toHaveLength(1)
      await setReadOnly(broker, true)
    }
    const answer = await ask(broker, agent, wish)
    expect(answer.status).toBe(503)
    expect(answer.text).not.toMatch(/password|postgres:/)
    expect(await listRoles(lending)).toEqual([])
    await setReadOnly(broker, false)
    await recover(broker, async () => expect((await admin(broker, 'GET', '/v1/grants')).body.grants).toMatchObject([{ state: 'revoked' }]))
  })

  test('a revocation ends all the same, says so, and is recorded once when it can be', async () => {
    const lending = await prepare(engine)
    const { broker, agent, setWritable } = lending
    const [one, two, other] = [await lend(broker, agent, wish), await lend(broker, agent, wish), await lend(broker, await broker.register('other'), wish)]
    const token = await lend(broker, agent, { tool: 'tickets', actions: ['read'] })
    const client = await connect(lending, two)
    broker.clock.advance(1_000)
    await setWritable(false)
    const ofWorkload = await admin(broker, 'POST', '/v1/revocations', { workload: 'bot', reason: 'leaked', suspend: true })
    expect(ofWorkload).toMatchObject({ status: 503, body: { detail: expect.stringContaining('2 credentials were ended') } })
    expect(ofWorkload.body.ended_outside.toSorted()).toEqual([one.grant, two.grant].toSorted())
    expect([await opens(lending, one), await opens(lending, two), await opens(lending, other)]).toEqual([false, false, true])
    await expect(client.query('select 1')).rejects.toThrow()
    expect(await admin(broker, 'POST', '/v1/revocations', { grant: other.grant, reason: 'unused' })).toMatchObject({ status: 503, body: { ended_outside: [other.grant] } })
    expect(await opens(lending, other)).toBe(false)
    // However long it takes, and however often it is tried.
    for (let i = 0; i < 5; i++) await passTime(broker, 2_000)
    const size = (await broker.events()).length
    await setWritable(true)
    await recover(broker, async () => {
      for (const { grant } of [one, two, other]) expect((await admin(broker, 'GET', `/v1/grants/${grant}`)).body.state).toBe('revoked')
    })
    await recover(broker, async () => expect((await admin(broker, 'GET', `/v1/grants/${token.grant}`)).body.state).toBe('revoked'))
    const since = (await broker.events()).slice(size).filter(({ type }) => /^(?:grants?|workload)\./.test(type))
    const actor = { kind: 'operator' }
    expect(since.filter(({ type }) => type !== 'grant.ended')).toMatchObject([
      { type: 'grants.revoked', selector: { workload: 'bot' }, reason: 'leaked', actor },
      { type: 'workload.suspended', workload: 'bot', reason: 'leaked', actor },
      { type: 'grant.revoked', grant: other.grant, reason: 'unused', actor },
    ])
    expect(since.flatMap((event) => (event.type === 'grant.ended' ? [event.grant] : [])).toSorted()).toEqual([one.grant, two.grant, other.grant].toSorted())
    expect(await ask(broker, agent, wish)).toMatchObject({ status: 401 })
    // Nothing is left of it that would be done again.
    const after = (await broker.events()).length
    await passTime(broker, 4_000)
    expect((await broker.events()).slice(after).filter(({ type }) => type.startsWith('grant'))).toEqual([])
  })

  test('a revocation does not claim to have ended what is still being made, and that is given to nobody', async () => {
    const [reached, gate] = [Promise.withResolvers<string>(), Promise.withResolvers<undefined>()]
    const lending = await startLending(engine, {
      pass: async (point, grant) => {
        if (point !== 'intent_stored') return
        reached.resolve(grant)
        await gate.promise
      },
    })
    const { broker, agent } = lending
    const asking = ask(broker, agent, wish)
    const grant = await reached.promise
    await setReadOnly(broker, true)
    expect(await admin(broker, 'POST', '/v1/revocations', { grant })).toMatchObject({ status: 503, body: { ended_outside: [] } })
    gate.resolve(undefined)
    expect((await asking).status).toBe(503)
    expect(await listRoles(lending)).toEqual([])
    await setReadOnly(broker, false)
    await recover(broker, async () => expect((await admin(broker, 'GET', `/v1/grants/${grant}`)).body.state).toBe('revoked'))
  })

  test('a revocation does not claim to have ended tokens', async () => {
    const { broker, agent, setWritable } = await prepare(engine)
    await lend(broker, agent, { tool: 'tickets', actions: ['read'] })
    await setWritable(false)
    const answer = await admin(broker, 'POST', '/v1/revocations', { workload: 'bot' })
    expect(answer).toMatchObject({ status: 503, body: { ended_outside: [], detail: expect.stringMatching(/nothing was revoked/) } })
    await setWritable(true)
  })

  test('what expires ends in the tool, and is recorded when it can be', async () => {
    const lending = await prepare(engine)
    const { broker, agent, setWritable } = lending
    const lent = await lend(broker, agent, { ...wish, ttl_seconds: 60 })
    await setWritable(false)
    broker.clock.advance(minuteMs)
    await broker.scheduler.tick()
    expect(await opens(lending, lent)).toBe(false)
    expect(await lifeOf(broker, lent.grant)).toEqual(['grant.minting', 'grant.activated'])
    await setWritable(true)
    await recover(broker, async () => expect(await lifeOf(broker, lent.grant)).toEqual(['grant.minting', 'grant.activated', 'grant.ended']))
    expect(await look(lending, lent.grant)).toMatchObject({ state: 'expired' })
  })

  test('a tool that is down, too, is told by itself when it is back', async () => {
    const lending = await prepare(engine)
    const { broker, agent, setWritable, wire } = lending
    const lent = await lend(broker, agent, wish)
    broker.clock.advance(1_000)
    await setWritable(false)
    await wire.stop()
    expect(await admin(broker, 'POST', '/v1/revocations', { workload: 'bot' })).toMatchObject({ status: 503, body: { ended_outside: [] } })
    await wire.listen()
    await passTime(broker, 10_000)
    expect(await opens(lending, lent)).toBe(false)
    await setWritable(true)
    await recover(broker, async () => expect((await look(lending, lent.grant)).state).toBe('revoked'))
  })
})

describePostgres('A disk that is full', () => {
  test('costs nothing that was lent, lends nothing, and lets everything be ended', async () => {
    const lending = await startLending('sqlite')
    const { broker, agent } = lending
    const [one, two] = [await lend(broker, agent, wish), await lend(broker, agent, { ...wish, ttl_seconds: 120 })]
    broker.clock.advance(1_000)
    // The file may grow no further: what SQLite answers then is what it answers on a full disk.
    const { maintenance } = broker.database.engine === 'sqlite' ? broker.broker.database : expect.unreachable()
    const { rows: [size] } = await sql<{ page_count: number }>`pragma page_count`.execute(maintenance)
    await sql.raw(`pragma max_page_count = ${size?.page_count ?? 0}`).execute(maintenance)
    let refused = 0
    for (let i = 0; i < 500 && refused < 3; i++) {
      // Ever smaller ones, until not even the smallest change finds room in what the file has of its own.
      const { status } = await admin(broker, 'POST', '/v1/revocations', { task: `none-${i}`, reason: 'x'.repeat(Math.max(1, 200 - i)) })
      expect([200, 503]).toContain(status)
      if (status === 503) refused++
    }
    expect(refused).toBe(3)
    const before = await listRoles(lending)
    expect(await ask(broker, agent, wish)).toMatchObject({ status: 503 })
    expect(await listRoles(lending)).toEqual(before)
    expect([await opens(lending, one), await opens(lending, two)]).toEqual([true, true])
    expect(await admin(broker, 'POST', '/v1/revocations', { grant: one.grant })).toMatchObject({ status: 503, body: { ended_outside: [one.grant] } })
    expect(await opens(lending, one)).toBe(false)
    await passTime(broker, 2 * minuteMs)
    expect(await opens(lending, two)).toBe(false)
    await sql.raw('pragma max_page_count = 1000000').execute(maintenance)
    await recover(broker, async () => {
      expect((await look(lending, one.grant)).state).toBe('revoked')
      expect((await look(lending, two.grant)).state).toBe('expired')
    })
    expect(await opens(lending, await lend(broker, agent, wish))).toBe(true)
    expect((await call(broker, agent, 'POST', '/v1/tasks/none/complete')).status).toBe(200)
  })
})
