import { expect, test } from 'vitest'
import { describePostgres } from '../harness.ts'
import { admin, call, exhaustTries, lend, listRoles, look, minuteMs, opens, passTime, startLending } from './lending.ts'

const wish = { tool: 'ledger', actions: ['read'] }

interface Outcome {
  readonly grant: string
  readonly outcome: string
  readonly effect: string
  readonly problem?: string
}

describePostgres('A revocation', () => {
  test('of many grants tells of each what became of it, whatever that is', async () => {
    const lending = await startLending('sqlite')
    const { broker, agent, wire } = lending
    const [held, easy, token, given, expired] = [
      await lend(broker, agent, wish),
      await lend(broker, agent, { ...wish, tool: 'archive' }),
      await lend(broker, agent, { tool: 'tickets', actions: ['read'] }),
      await lend(broker, agent, wish),
      await lend(broker, agent, { ...wish, ttl_seconds: 60 }),
    ]
    await call(broker, agent, 'DELETE', `/v1/grants/${given.grant}`)
    await passTime(broker, minuteMs)
    await wire.stop()
    const { status, body } = await admin(broker, 'POST', '/v1/revocations', { workload: 'bot', reason: 'leaked' })
    expect(status).toBe(200)
    const outcomes = Object.fromEntries(body.grants.map(({ grant, outcome, effect }: Outcome) => [grant, `${outcome} ${effect}`]))
    expect(outcomes).toEqual({
      [held.grant]: 'retrying immediate',
      [easy.grant]: 'revoked immediate',
      [token.grant]: 'revoked introspection',
      [given.grant]: 'already_ended immediate',
    })
    // What had expired was over, and is not spoken of.
    expect(outcomes).not.toHaveProperty(expired.grant)
    expect(body).toMatchObject({ revoked: 3, already_ended: 1, more: false })
    expect(body.grants.find(({ grant }: Outcome) => grant === held.grant)).toMatchObject({ problem: expect.stringMatching(/^PostgreSQL at .*\.$/) })
    await wire.listen()
    await passTime(broker, minuteMs)
    expect([await opens(lending, held), await listRoles(lending)]).toEqual([false, []])
  })

  test('by its name takes a grant up again that was stuck', async () => {
    const lending = await startLending('sqlite')
    const { broker, agent, wire } = lending
    const lent = await lend(broker, agent, { ...wish, ttl_seconds: 60 })
    await wire.stop()
    await passTime(broker, minuteMs)
    await exhaustTries(broker, 1)
    expect((await look(lending, lent.grant)).state).toBe('stuck')
    await wire.listen()
    expect((await admin(broker, 'POST', '/v1/revocations', { grant: lent.grant })).body.grants).toMatchObject([{ grant: lent.grant, outcome: 'revoked' }])
    expect(await opens(lending, lent)).toBe(false)
  })

  test('of many says what is stuck, and leaves it to whoever retries it', async () => {
    const lending = await startLending('sqlite')
    const { broker, agent, wire } = lending
    const lent = await lend(broker, agent, { ...wish, ttl_seconds: 60 })
    await wire.stop()
    await passTime(broker, minuteMs)
    await exhaustTries(broker, 1)
    await wire.listen()
    for (const selector of [{ workload: 'bot' }, { grant: lent.grant }]) {
      expect((await admin(broker, 'POST', '/v1/revocations', selector)).body.grants).toMatchObject([{ grant: lent.grant, outcome: 'stuck', problem: expect.any(String) }])
    }
    expect((await admin(broker, 'POST', `/v1/grants/${lent.grant}/retry`, { reason: 'it is back' })).body).toMatchObject({ outcome: 'revoked' })
    expect(await opens(lending, lent)).toBe(false)
  })

  test('that comes again while the next try is put off uses up none', async () => {
    const lending = await startLending('sqlite')
    const { broker, agent, wire } = lending
    const lent = await lend(broker, agent, wish)
    await wire.stop()
    for (let times = 0; times < 12; times++) {
      expect((await call(broker, agent, 'DELETE', `/v1/grants/${lent.grant}`)).body).toMatchObject({ outcome: 'retrying', problem: expect.any(String) })
    }
    expect(await look(lending, lent.grant)).toMatchObject({ state: 'ending', tries: 1 })
    await wire.listen()
    await passTime(broker, minuteMs)
    expect(await opens(lending, lent)).toBe(false)
  })

  test('of many ends them within one answer, and not one after the other', { timeout: 60_000 }, async () => {
    const lending = await startLending('sqlite')
    const { broker, agent } = lending
    const lent = []
    for (let i = 0; i < 20; i++) lent.push(await lend(broker, agent, wish))
    const { body } = await admin(broker, 'POST', '/v1/revocations', { tool: 'ledger' })
    expect(body).toMatchObject({ revoked: 20, more: false })
    expect(body.grants.map(({ outcome }: Outcome) => outcome)).toEqual(Array.from({ length: 20 }, () => 'revoked'))
    // The newest first.
    expect(body.grants.map(({ grant }: Outcome) => grant)).toEqual(lent.map(({ grant }) => grant).toReversed())
    expect(await listRoles(lending)).toEqual([])
  })

  test.each([
    ['nothing', {}],
    ['a grant and more', { grant: `grant_${'0'.repeat(26)}`, workload: 'bot' }],
    ['a suspension of no workload', { tool: 'ledger', suspend: true }],
    ['a suspension of a workload at one tool', { workload: 'bot', tool: 'ledger', suspend: true }],
    ['a time to come', { before: '2030-01-01T00:00:00Z' }],
    ['a tool that has no such name', { tool: 'Ledger' }],
    ['something that it does not know', { workload: 'bot', all: true }],
  ])('that names %s is refused, and ends nothing', async (_, selector) => {
    const lending = await startLending('sqlite')
    const { broker, agent } = lending
    const lent = await lend(broker, agent, wish)
    expect((await admin(broker, 'POST', '/v1/revocations', selector)).status).toBe(400)
    expect(await opens(lending, lent)).toBe(true)
    expect((await broker.events()).filter(({ type }) => type === 'grants.revoked')).toEqual([])
  })

  test('by an admin who is gone by then ends nothing', async () => {
    const lending = await startLending('sqlite')
    const { broker, agent } = lending
    const lent = await lend(broker, agent, wish)
    const credential = await broker.createOperator('admin', { name: 'ada' })
    await admin(broker, 'POST', '/v1/operators/ada/revoke', {})
    expect((await broker.sendAs(credential, 'POST', '/v1/revocations', { grant: lent.grant })).status).toBe(401)
    expect(await opens(lending, lent)).toBe(true)
  })
})
