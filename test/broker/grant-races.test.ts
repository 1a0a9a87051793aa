import { describe, expect, test } from 'vitest'
import type { Waypoint } from '../../src/broker/waypoints.ts'
import { describePostgres } from '../harness.ts'
import { admin, ask, call, connect, lend, lifeOf, listRoles, look, minuteMs, opens, passTime, startBeside, startLending, type Answer, type Lending } from './lending.ts'

const wish = { tool: 'ledger', actions: ['read'], task: 'ticket-7' }

/** A broker that stops at a point of its next mint until it is let go. */
async function startHalting(engine: 'sqlite' | 'postgres', at: Waypoint) {
  const reached = Promise.withResolvers<string>()
  const gate = Promise.withResolvers<undefined>()
  const lending = await startLending(engine, {
    pass: async (point, grant) => {
      if (point !== at) return
      reached.resolve(grant)
      await gate.promise
    },
  })
  return { ...lending, reached: reached.promise, letGo: () => gate.resolve(undefined) }
}

const points = ['intent_stored', 'outside_called', 'outside_answered'] as const

const ends: readonly (readonly [string, (lending: Lending, grant: string) => Promise<Answer>])[] = [
  ['its revocation', ({ broker }, grant) => admin(broker, 'POST', '/v1/revocations', { grant })],
  ['the revocation of its workload', ({ broker }) => admin(broker, 'POST', '/v1/revocations', { workload: 'bot' })],
  ['the revocation of its tool', ({ broker }) => admin(broker, 'POST', '/v1/revocations', { tool: 'ledger' })],
  ['the suspension of its workload', ({ broker }) => admin(broker, 'POST', '/v1/revocations', { workload: 'bot', suspend: true })],
  ['the completion of its task', ({ broker, agent }) => call(broker, agent, 'POST', '/v1/tasks/ticket-7/complete')],
  ['its being given back', ({ broker, agent }, grant) => call(broker, agent, 'DELETE', `/v1/grants/${grant}`)],
]

describePostgres('While a credential is being made', (postgres) => {
  describe.each(points)('(%s)', (point) => {
    test.each(ends)('%s keeps it from being given, and from living', async (_, end) => {
      const lending = await startHalting('sqlite', point)
      const { broker, agent, reached, letGo } = lending
      const asking = ask(broker, agent, wish)
      const grant = await reached
      const ended = await end(lending, grant)
      expect(ended.status).toBe(200)
      // Nothing is known to have ended yet, and nothing else is claimed.
      const grants: { readonly outcome: string }[] = ended.body.grants ?? [ended.body]
      expect(grants.map(({ outcome }) => outcome)).toEqual(['retrying'])
      letGo()
      const answer = await asking
      expect(answer).toMatchObject({ status: 409, body: { detail: expect.stringContaining(grant) } })
      expect(answer.text).not.toMatch(/password|postgres:/)
      expect(await listRoles(lending)).toEqual([])
      const state = (await admin(broker, 'GET', `/v1/grants/${grant}`)).body.state
      expect(state).toBe('revoked')
      expect((await lifeOf(broker, grant)).filter((type) => type !== 'grant.revoked')).toEqual(['grant.minting', 'grant.ended'])
    })
  })

  test('on another process, its end there is found when it is made', async () => {
    const lending = await startHalting(postgres, 'outside_answered')
    const { broker, agent, reached, letGo } = lending
    const beside = await startBeside(lending)
    const asking = ask(broker, agent, wish)
    const grant = await reached
    expect((await call(beside, agent, 'POST', '/v1/tasks/ticket-7/complete')).body).toMatchObject({ grants: [{ grant, outcome: 'retrying' }] })
    letGo()
    expect((await asking).status).toBe(409)
    expect(await listRoles(lending)).toEqual([])
    expect((await look(lending, grant)).state).toBe('revoked')
  })

  test('a revocation of many that is on record, but not carried to it yet, keeps it from being given', async () => {
    const [reached, recorded, gate, never] = [Promise.withResolvers<string>(), Promise.withResolvers<undefined>(), Promise.withResolvers<undefined>(), Promise.withResolvers<undefined>()]
    const lending = await startLending('sqlite', {
      pass: async (point, grant) => {
        if (point === 'outside_answered') return reached.resolve(grant), gate.promise.then(() => undefined)
        if (point === 'end_ordered') return recorded.resolve(undefined), never.promise.then(() => undefined)
        return undefined
      },
    })
    const { broker, agent } = lending
    const asking = ask(broker, agent, wish)
    const grant = await reached.promise
    const revoking = admin(broker, 'POST', '/v1/revocations', { workload: 'bot' })
    await recorded.promise
    gate.resolve(undefined)
    expect((await asking).status).toBe(409)
    expect(await listRoles(lending)).toEqual([])
    expect(await lifeOf(broker, grant)).toEqual(['grant.minting', 'grant.ended'])
    never.resolve(undefined)
    expect((await revoking).body.grants).toMatchObject([{ grant, outcome: 'revoked' }])
  })

  test('by a process that has slept through its lease, what it made is ended when it wakes', async () => {
    const lending = await startHalting(postgres, 'outside_answered')
    const { broker, agent, reached, letGo } = lending
    const beside = await startBeside(lending)
    const asking = ask(broker, agent, wish)
    const grant = await reached
    await passTime(beside, 61_000)
    expect((await look({ broker: beside, agent }, grant)).state).toBe('revoked')
    expect(await listRoles(lending)).toEqual([])
    letGo()
    expect((await asking).status).toBe(409)
    expect(await listRoles(lending)).toEqual([])
    expect(await lifeOf(broker, grant)).toEqual(['grant.minting', 'grant.ended'])
  })

  test('by a process that has slept through its lease before it asked the tool, nothing is given', async () => {
    const lending = await startHalting(postgres, 'intent_stored')
    const { broker, agent, reached, letGo } = lending
    const beside = await startBeside(lending)
    const asking = ask(broker, agent, wish)
    const grant = await reached
    await passTime(beside, 61_000)
    expect((await look({ broker: beside, agent }, grant)).state).toBe('revoked')
    letGo()
    // The role is made after all, and must not outlive this.
    expect((await asking).status).toBe(409)
    expect(await listRoles(lending)).toEqual([])
  })

  test('its end by nobody is looked for before its lease is over', async () => {
    const lending = await startHalting('sqlite', 'outside_answered')
    const { broker, agent, reached, letGo } = lending
    const asking = ask(broker, agent, wish)
    const grant = await reached
    await passTime(broker, 59_000)
    expect((await admin(broker, 'GET', `/v1/grants/${grant}`)).body.state).toBe('minting')
    letGo()
    const { status, body } = await asking
    expect(status).toBe(201)
    expect(await opens(lending, body)).toBe(true)
  })
})

/** Does them at the same moment, in an order that chance decides. */
async function atOnce<T>(tasks: readonly (() => Promise<T>)[]): Promise<T[]> {
  return Promise.all(tasks.map(async (task) => {
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 20))
    return task()
  }))
}

describePostgres('At the same moment', (postgres) => {
  test.each(['sqlite', postgres] as const)('two renewals and a revocation leave nothing alive, and no record that contradicts another (%s)', { timeout: 120_000 }, async (engine) => {
    const lending = await startLending(engine)
    const { broker, agent } = lending
    // Two processes where there can be two.
    const beside = engine === 'postgres' ? await startBeside(lending) : broker
    const seen = new Set<string>()
    for (let round = 0; round < 12; round++) {
      const lent = await lend(broker, agent, wish)
      const client = await connect(lending, lent)
      const renew = (on: typeof broker) => () => call(on, agent, 'POST', `/v1/grants/${lent.grant}/renew`, { ttl_seconds: 1_200 })
      const revoke = () => admin(beside, 'POST', '/v1/revocations', { grant: lent.grant })
      const [one, two, revoked] = await atOnce([renew(broker), renew(beside), revoke])
      expect(revoked).toMatchObject({ status: 200, body: { revoked: 1 } })
      for (const { status } of [one, two] as Answer[]) expect([200, 409, 502]).toContain(status)
      seen.add([one?.status, two?.status].sort().join(' '))
      if (revoked?.body.grants[0].outcome !== 'revoked') await passTime(broker, minuteMs)
      expect(await opens(lending, lent)).toBe(false)
      await expect(client.query('select 1')).rejects.toThrow()
      const life = await lifeOf(broker, lent.grant)
      // No renewal after the end was ordered.
      expect(life.indexOf('grant.revoked')).toBeGreaterThan(life.lastIndexOf('grant.renewed'))
      expect(life.filter((type) => type === 'grant.renewed')).toHaveLength([one, two].filter((answer) => answer?.status !== 409).length)
      expect(life.slice(-2)).toEqual(['grant.revoked', 'grant.ended'])
      broker.clock.advance(1_000)
    }
    expect(await listRoles(lending)).toEqual([])
    expect(seen.size).toBeGreaterThan(0)
  })

  test.each(['sqlite', postgres] as const)('requests under a task and its completion: what was answered before lives no more, what is answered after may (%s)', { timeout: 120_000 }, async (engine) => {
    const lending = await startLending(engine)
    const { broker, agent } = lending
    const beside = engine === 'postgres' ? await startBeside(lending) : broker
    for (let round = 0; round < 6; round++) {
      const asks = [broker, beside, broker].map((on) => () => ask(on, agent, wish))
      const answers = await atOnce([...asks, () => call(beside, agent, 'POST', '/v1/tasks/ticket-7/complete')])
      const completed = answers.at(-1)
      expect(completed?.status).toBe(200)
      const at: number = completed?.body.audit_index ?? -1
      const issued = new Map((await broker.events()).flatMap((event) => (event.type === 'grant.minting' ? [[event.grant, event.index] as const] : [])))
      for (const answer of answers.slice(0, -1)) {
        expect([201, 409]).toContain(answer.status)
        if (answer.status !== 201) continue
        const covered = (issued.get(answer.body.grant) ?? 0) < at
        expect(await opens(lending, answer.body), `round ${round}`).toBe(!covered)
      }
      await call(broker, agent, 'POST', '/v1/tasks/ticket-7/complete')
      await passTime(broker, minuteMs)
      expect(await listRoles(lending)).toEqual([])
    }
  })

  test.each(['sqlite', postgres] as const)('two processes end what has expired, each thing once (%s)', { timeout: 60_000 }, async (engine) => {
    const lending = await startLending(engine)
    const { broker, agent } = lending
    const beside = engine === 'postgres' ? await startBeside(lending) : broker
    for (let i = 0; i < 12; i++) await lend(broker, agent, { ...wish, ttl_seconds: 60 })
    broker.clock.advance(minuteMs)
    await Promise.all([broker.scheduler.tick(), beside.scheduler.tick(), call(broker, agent, 'POST', '/v1/tasks/ticket-7/complete')])
    await passTime(broker, minuteMs)
    expect(await listRoles(lending)).toEqual([])
    const ended = (await broker.events()).flatMap((event) => (event.type === 'grant.ended' ? [event.grant] : []))
    expect([ended.length, new Set(ended).size]).toEqual([12, 12])
    // Nobody was refused by a tool that was asked twice.
    expect((await admin(broker, 'GET', '/v1/grants?state=ending')).body.grants).toEqual([])
  })
})
