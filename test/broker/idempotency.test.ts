import { describe, expect, test } from 'vitest'
import { startBroker } from '../broker.ts'
import { describeEngines, describePostgres } from '../harness.ts'
import { getToken } from '../broker.ts'
import { admin, ask, call, exhaustTries, lend, lifeOf, listRoles, look, minuteMs, opens, passTime, startBeside, startLending, type Lending } from './lending.ts'

const wish = { tool: 'ledger', actions: ['read'] }
const key = (name = 'key-1') => ({ 'idempotency-key': name })
const hourMs = 60 * minuteMs

/** Every grant with the outside state of its credential. */
async function listGrants({ broker }: Pick<Lending, 'broker'>): Promise<{ readonly grant: string; readonly state: string }[]> {
  const rows = await broker.broker.database.read.selectFrom('credential').select(['grant_id', 'state']).orderBy('grant_id').execute()
  return rows.map(({ grant_id: grant, state }) => ({ grant, state }))
}

describePostgres('A request that comes again with its Idempotency-Key', (postgres) => {
  describe.each(['sqlite', postgres] as const)('to a broker on %s', (engine) => {
    test('gets a new credential once the first one is ended: of one key no two are alive', async () => {
      const lending = await startLending(engine)
      const { broker, agent } = lending
      const first = await lend(broker, agent, wish, key())
      const second = await lend(broker, agent, wish, key())
      expect(second.grant).not.toBe(first.grant)
      expect([await opens(lending, first), await opens(lending, second)]).toEqual([false, true])
      const events = await broker.events()
      const ofFirst = events.filter((event) => 'grant' in event && event.grant === first.grant)
      expect(ofFirst).toMatchObject([
        { type: 'grant.minting' },
        { type: 'grant.activated' },
        { type: 'grant.revoked', actor: { kind: 'workload', id: 'bot' }, reason: 'asked for again' },
        { type: 'grant.ended', cause: 'revoked' },
      ])
      // The first one was over before the second was begun.
      const begun = events.find((event) => event.type === 'grant.minting' && event.grant === second.grant)
      expect(ofFirst.at(-1)?.index).toBeLessThan(begun?.index ?? 0)
      const third = await lend(broker, agent, wish, key())
      expect([await opens(lending, second), await opens(lending, third)]).toEqual([false, true])
    })

    test('is told to wait while the first one is in flight, and nothing is made twice', async () => {
      const gate = Promise.withResolvers<undefined>()
      const reached = Promise.withResolvers<undefined>()
      const lending = await startLending(engine, {
        pass: async (point) => {
          if (point !== 'intent_stored') return
          reached.resolve(undefined)
          await gate.promise
        },
      })
      const { broker, agent } = lending
      const first = ask(broker, agent, wish, key())
      await reached.promise
      const second = await ask(broker, agent, wish, key())
      expect(second).toMatchObject({ status: 409, body: { detail: 'A request with this Idempotency-Key is in flight: wait for its answer, or send it again in a minute.' } })
      gate.resolve(undefined)
      expect((await first).status).toBe(201)
      expect(await listRoles(lending)).toHaveLength(1)
      expect(await listGrants(lending)).toHaveLength(1)
    })

    test('sent many times at once is answered so that one credential is alive at the end', async () => {
      const lending = await startLending(engine)
      const { broker, agent } = lending
      const answers = await Promise.all(Array.from({ length: 8 }, () => ask(broker, agent, wish, key())))
      expect(answers.map(({ status }) => status).filter((status) => status !== 201 && status !== 409)).toEqual([])
      const lent = answers.filter(({ status }) => status === 201).map(({ body }) => body)
      expect(lent.length).toBeGreaterThan(0)
      const alive = []
      for (const one of lent) if (await opens(lending, one)) alive.push(one.grant)
      expect(alive.length).toBeLessThanOrEqual(1)
      expect((await listGrants(lending)).filter(({ state }) => state === 'active').map(({ grant }) => grant)).toEqual(alive)
      expect(await listRoles(lending)).toHaveLength(alive.length)
    })

    test('after a crash in the middle is answered once the lease of whoever died is over', async () => {
      const died = Promise.withResolvers<undefined>()
      const lending = await startLending(engine, { pass: async (point) => (point === 'outside_answered' ? (died.resolve(undefined), new Promise(() => undefined)) : undefined) })
      const { broker, agent } = lending
      const lost = ask(broker, agent, wish, key())
      lost.catch(() => undefined)
      await died.promise
      expect(await listRoles(lending)).toHaveLength(1)
      // The process is gone for good, as far as anybody can tell.
      const next = engine === 'postgres' ? await startBeside(lending) : broker
      if (engine === 'postgres') expect(await ask(next, agent, wish, key())).toMatchObject({ status: 409, body: { detail: expect.stringContaining('in flight') } })
      broker.clock.advance(61_000)
      const again = engine === 'postgres' ? await ask(next, agent, wish, key()) : undefined
      if (again === undefined) {
        // The same process holds SQLite: its sweeper undoes what the lost request left.
        await broker.scheduler.tick()
      } else {
        expect(again).toMatchObject({ status: 201 })
        expect(await opens(lending, again.body)).toBe(true)
      }
      const [first] = await listGrants(lending)
      expect(first?.state).toBe('revoked')
      expect(await lifeOf(broker, first?.grant ?? '')).toEqual(again === undefined ? ['grant.minting', 'grant.ended'] : ['grant.minting', 'grant.revoked', 'grant.ended'])
      expect(await listRoles(lending)).toHaveLength(again === undefined ? 0 : 1)
    })
  })

  test('but for something else is refused, and the first one lives', async () => {
    const lending = await startLending('sqlite')
    const { broker, agent } = lending
    const first = await lend(broker, agent, wish, key())
    for (const other of [{ ...wish, actions: ['write'] }, { ...wish, ttl_seconds: 60 }, { ...wish, task: 'ticket-7' }, { ...wish, reason: 'once more' }, { tool: 'tickets', actions: ['read'] }]) {
      const answer = await ask(broker, agent, other, key())
      expect(answer).toMatchObject({ status: 422, body: { type: 'urn:stint:problem:idempotency-mismatch' } })
    }
    expect(await opens(lending, first)).toBe(true)
    expect(await listGrants(lending)).toHaveLength(1)
  })

  test('of another workload is another request', async () => {
    const lending = await startLending('sqlite')
    const { broker, agent } = lending
    const other = await broker.register('other')
    const [one, two] = [await lend(broker, agent, wish, key()), await lend(broker, other, { ...wish, ttl_seconds: 60 }, key())]
    expect([await opens(lending, one), await opens(lending, two)]).toEqual([true, true])
  })

  test('after 24 hours is a new request, and the key may stand for another one', async () => {
    const lending = await startLending('sqlite')
    const { broker, agent } = lending
    await lend(broker, agent, wish, key())
    broker.clock.advance(24 * hourMs - 1_000)
    expect(await ask(broker, agent, { ...wish, actions: ['write'] }, key())).toMatchObject({ status: 422 })
    broker.clock.advance(1_000)
    expect(await ask(broker, agent, { ...wish, actions: ['write'] }, key())).toMatchObject({ status: 201 })
    const count = async () => (await broker.broker.database.read.selectFrom('idempotency_key').selectAll().execute()).length
    expect(await count()).toBe(1)
    await passTime(broker, 25 * hourMs)
    expect(await count()).toBe(0)
  })

  test('after the first one has ended by itself gets a new one', async () => {
    const lending = await startLending('sqlite')
    const { broker, agent } = lending
    const first = await lend(broker, agent, { ...wish, ttl_seconds: 60 }, key())
    await passTime(broker, minuteMs)
    const second = await lend(broker, agent, { ...wish, ttl_seconds: 60 }, key())
    expect(await opens(lending, second)).toBe(true)
    expect(await lifeOf(broker, first.grant)).toEqual(['grant.minting', 'grant.activated', 'grant.ended'])
  })

  test('after a denial, or a tool that was down, is decided and made afresh', async () => {
    const lending = await startLending('sqlite')
    const { broker, agent, policies, wire } = lending
    const closed = [...policies].map(([path, text]) => [path, path === 'rules.cedar' ? '@id("closed")\nforbid (principal, action, resource);\n' : text])
    expect((await admin(broker, 'PUT', '/v1/policy', { files: Object.fromEntries(closed) })).status).toBe(200)
    expect(await ask(broker, agent, wish, key())).toMatchObject({ status: 403 })
    expect((await admin(broker, 'PUT', '/v1/policy', { files: Object.fromEntries(policies) })).status).toBe(200)
    await wire.stop()
    expect(await ask(broker, agent, wish, key())).toMatchObject({ status: 503 })
    expect(await ask(broker, agent, { ...wish, ttl_seconds: 60 }, key())).toMatchObject({ status: 422 })
    await wire.listen()
    expect(await opens(lending, await lend(broker, agent, wish, key()))).toBe(true)
  })

  test('where the first one cannot be ended now, says so, and gives nothing', async () => {
    const lending = await startLending('sqlite')
    const { broker, agent, wire } = lending
    const first = await lend(broker, agent, wish, key())
    await wire.stop()
    const answer = await ask(broker, agent, wish, key())
    expect(answer).toMatchObject({ status: 409, body: { detail: expect.stringMatching(new RegExp(`^What this Idempotency-Key gave before, ${first.grant}, is not ended yet: it lives until its tool has ended it, which is asked for again and again, next at 2026-01-15T\\d\\d:`)) } })
    expect(await listGrants(lending)).toEqual([{ grant: first.grant, state: 'ending' }])
    // Stuck is what nobody tries any more.
    await exhaustTries(broker, 1)
    expect(await look(lending, first.grant)).toMatchObject({ state: 'stuck' })
    const stuck = await ask(broker, agent, wish, key())
    expect(stuck).toMatchObject({ status: 409 })
    expect(stuck.body.detail).not.toContain('tried again and again')
    expect(stuck.body.detail).toContain('admin')
    await wire.listen()
    expect((await admin(broker, 'POST', `/v1/grants/${first.grant}/retry`, { reason: 'it is back' })).body).toMatchObject({ outcome: 'revoked' })
    expect(await opens(lending, await lend(broker, agent, wish, key()))).toBe(true)
    expect(await opens(lending, first)).toBe(false)
  })

  test('of somebody who has overheard it ends nothing', async () => {
    const lending = await startLending('sqlite')
    const { broker, agent } = lending
    const assertion = { 'client-assertion': agent.assert() }
    const first = await lend(broker, agent, wish, { ...key(), ...assertion })
    expect(await ask(broker, agent, wish, { ...key(), ...assertion })).toMatchObject({ status: 401 })
    expect(await opens(lending, first)).toBe(true)
    // Nor is the assertion of the second time good for a third.
    const second = { 'client-assertion': agent.assert() }
    const lent = await lend(broker, agent, wish, { ...key(), ...second })
    expect(await ask(broker, agent, wish, { ...key(), ...second })).toMatchObject({ status: 401 })
    expect(await ask(broker, agent, wish, second)).toMatchObject({ status: 401 })
    expect(await opens(lending, lent)).toBe(true)
  })

  test('by a token of its own, too', async () => {
    const lending = await startLending('sqlite')
    const { broker, agent } = lending
    const { access_token: token } = await getToken(broker, agent, { scope: 'stint:grants' })
    const headers = { ...key(), authorization: `Bearer ${token}` }
    const first = await lend(broker, agent, wish, headers)
    const second = await lend(broker, agent, wish, headers)
    expect([await opens(lending, first), await opens(lending, second)]).toEqual([false, true])
  })
})

describeEngines('An Idempotency-Key for a token that Stint signs', (engine) => {
  test('revokes the first one, for whoever asks', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('bot')
    const tickets = { tool: 'tickets', actions: ['read'] }
    const first = await lend(broker, agent, tickets, key())
    const second = await lend(broker, agent, tickets, key())
    expect([(await look({ broker, agent }, first.grant)).state, (await look({ broker, agent }, second.grant)).state]).toEqual(['revoked', 'active'])
    expect(await lifeOf(broker, first.grant)).toEqual(['grant.issued', 'grant.revoked'])
  })

  test('that is none is refused', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('bot')
    for (const name of ['', 'two words', 'ü', 'x'.repeat(256)]) {
      const answer = await call(broker, agent, 'POST', '/v1/grants', { tool: 'tickets', actions: ['read'] }, { 'idempotency-key': encodeHeader(name) })
      expect(answer, name).toMatchObject({ status: 400 })
    }
    expect(await lend(broker, agent, { tool: 'tickets', actions: ['read'] }, key('x'.repeat(255)))).toBeDefined()
    expect((await broker.events()).filter(({ type }) => type === 'grant.issued')).toHaveLength(1)
  })
})

/** As it is on the wire: bytes of UTF-8. */
function encodeHeader(text: string): string {
  return Buffer.from(text).toString('latin1')
}
