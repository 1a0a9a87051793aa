import { expect, test } from 'vitest'
import { startBroker } from '../broker.ts'
import { describeEngines, describePostgres } from '../harness.ts'
import { call, lend, lifeOf, look, minuteMs, opens, passTime, startLending, type Lending, type Answer } from './lending.ts'

const tickets = { tool: 'tickets', actions: ['read'] }
const complete = ({ broker, agent }: Pick<Lending, 'broker' | 'agent'>, task: string): Promise<Answer> => call(broker, agent, 'POST', `/v1/tasks/${task}/complete`)

describeEngines('A task that is complete', (engine) => {
  test('ends all that its workload was granted under it, once, on record', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('bot')
    const other = await broker.register('other')
    const mine = [await lend(broker, agent, { ...tickets, task: 'a/b:1' }), await lend(broker, agent, { ...tickets, task: 'a/b:1' })]
    const kept = [await lend(broker, agent, tickets), await lend(broker, agent, { ...tickets, task: 'a' }), await lend(broker, other, { ...tickets, task: 'a/b:1' })]
    const { status, body, headers } = await complete({ broker, agent }, 'a/b:1')
    expect(status).toBe(200)
    expect(body.grants.map(({ grant, outcome, effect }: { grant: string; outcome: string; effect: string }) => [grant, outcome, effect]).toSorted()).toEqual(mine.map(({ grant }) => [grant, 'revoked', 'introspection']).toSorted())
    expect(await broker.lastEvent('grants.revoked')).toMatchObject({ index: body.audit_index, selector: { workload: 'bot', task: 'a/b:1' }, reason: 'the task is complete', actor: { kind: 'workload', id: 'bot' } })
    expect(headers.get('stint-audit-index')).toBe(String(body.audit_index))
    for (const { grant } of mine) expect((await look({ broker, agent }, grant)).state).toBe('revoked')
    for (const [i, { grant }] of kept.entries()) expect((await look({ broker, agent: i === 2 ? other : agent }, grant)).state).toBe('active')
    const size = (await broker.events()).length
    expect((await complete({ broker, agent }, 'a/b:1')).body).toEqual({ grants: [] })
    expect(await broker.events()).toHaveLength(size)
    // The name may be used again: what is granted afterwards is not meant.
    const again = await lend(broker, agent, { ...tickets, task: 'a/b:1' })
    expect((await look({ broker, agent }, again.grant)).state).toBe('active')
  })

  test('has a name that a path can say, whatever else is in it', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('bot')
    const names = ['1', 'a@b+c:d-e_f', 'T#7', 'a/.b/..c/d..', 'a/...', 'a/....', 'a/...b', `a${'/b'.repeat(63)}`]
    for (const task of names) {
      const { grant } = await lend(broker, agent, { ...tickets, task })
      const { body } = await complete({ broker, agent }, task.split('/').map(encodeURIComponent).join('/'))
      expect([task, body.grants?.map((one: { grant: string }) => one.grant)]).toEqual([task, [grant]])
    }
    for (const task of ['', '/a', 'a/', 'a//b', 'https://a', 'a/.', 'a/..', 'a/./b', 'a/../b', '.a', `a${'b'.repeat(128)}`]) {
      expect([task, (await call(broker, agent, 'POST', '/v1/grants', { ...tickets, task })).status]).toEqual([task, 400])
    }
  })

  test('that never was, or whose grants are over, leaves no record', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('bot')
    await lend(broker, agent, { ...tickets, task: 'done', ttl_seconds: 60 })
    const given = await lend(broker, agent, { ...tickets, task: 'given' })
    await call(broker, agent, 'DELETE', `/v1/grants/${given.grant}`)
    broker.clock.advance(minuteMs)
    const size = (await broker.events()).length
    for (const task of ['never', 'done', 'given']) expect((await complete({ broker, agent }, task)).body).toEqual({ grants: [] })
    expect(await broker.events()).toHaveLength(size)
  })

  test('has a name that a task can have', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('bot')
    for (const task of ['%20', '..%2f', 'x'.repeat(129), '-x', 'a%0ab', 'a%00', '%ff']) {
      const { status } = await complete({ broker, agent }, task)
      expect([task, [400, 404].includes(status)]).toEqual([task, true])
    }
  })
})

describePostgres('A task that is complete', () => {
  test('also for what its workload gave back in vain: it is told what becomes of it', async () => {
    const lending = await startLending('sqlite')
    const { broker, agent, wire } = lending
    const lent = await lend(broker, agent, { tool: 'ledger', actions: ['read'], task: 'ticket-7' })
    await wire.stop()
    expect((await complete(lending, 'ticket-7')).body).toMatchObject({ grants: [{ grant: lent.grant, outcome: 'retrying', problem: expect.any(String) }] })
    await wire.listen()
    await passTime(broker, minuteMs)
    expect(await opens(lending, lent)).toBe(false)
    expect(await lifeOf(broker, lent.grant)).toEqual(['grant.minting', 'grant.activated', 'grant.ended'])
    expect((await complete(lending, 'ticket-7')).body).toEqual({ grants: [] })
  })
})
