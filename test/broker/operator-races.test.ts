import { expect, test } from 'vitest'
import type { Ledger } from '../../src/storage/ledger.ts'
import { countLastingAdmins } from '../../src/storage/operators.ts'
import { dayMs, getToken, startBroker, type TestBroker } from '../broker.ts'
import { startCompanyIssuer } from '../company-issuer.ts'
import { createTestClock, describeEngines } from '../harness.ts'

/** A broker, another process on its database where the engine takes two, and two admins beside the first. */
async function prepare(engine: 'sqlite' | 'postgres') {
  const broker = await startBroker(engine)
  const elsewhere = engine === 'postgres' ? await startBroker(engine, { beside: broker }) : broker
  const ada = await broker.createOperator('admin', { name: 'ada' })
  const bob = await broker.createOperator('admin', { name: 'bob', valid_days: 1 })
  return { broker, elsewhere, ada, bob }
}

/** Runs `between` once, after the next change was let pass by the guards and before the ledger gets it. */
function interfere(broker: TestBroker, between: () => unknown): void {
  const { ledger } = broker.broker
  let done = false
  const transact: Ledger['transact'] = async (change) => {
    if (!done) {
      done = true
      await between()
    }
    return ledger.transact(change)
  }
  Object.assign(broker.broker, { ledger: { ...ledger, transact } })
}

const typesSince = async (broker: TestBroker, before: number) => (await broker.events()).slice(before).map(({ type }) => type)

describeEngines('At the same moment (invariant 13),', (engine) => {
  test('two admins who revoke each other: one wins, and is there to be asked', async () => {
    const { broker, elsewhere, ada } = await prepare(engine)
    const before = (await broker.events()).length
    // `root` and `ada` are all the admins who last. The loser is no admin any more when its change comes to be made.
    const answers = await Promise.all([
      broker.sendAsAdmin('POST', '/v1/operators/ada/revoke', {}),
      elsewhere.sendAs(ada, 'POST', '/v1/operators/root/revoke', {}),
    ])
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 401])
    expect(await typesSince(broker, before)).toEqual(['operator.revoked'])
    expect(await countLastingAdmins(broker.broker.database.read)).toBe(1)
  })

  test('neither do both go where a third one would remain', async () => {
    const { broker, elsewhere, ada } = await prepare(engine)
    await broker.createOperator('admin', { name: 'third' })
    const before = (await broker.events()).length
    const answers = await Promise.all([
      broker.sendAsAdmin('POST', '/v1/operators/ada/revoke', {}),
      elsewhere.sendAs(ada, 'POST', '/v1/operators/root/revoke', {}),
    ])
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 401])
    expect(await typesSince(broker, before)).toEqual(['operator.revoked'])
    expect(await countLastingAdmins(broker.broker.database.read)).toBe(2)
  })

  test('two admins who revoke the last two others: there is one left', async () => {
    const { broker, elsewhere, bob } = await prepare(engine)
    // `bob` expires, so that one of `root` and `ada` has to stay; `root` revokes `ada`, `bob` revokes `root`.
    const answers = await Promise.all([
      broker.sendAsAdmin('POST', '/v1/operators/ada/revoke', {}),
      elsewhere.sendAs(bob, 'POST', '/v1/operators/root/revoke', {}),
    ])
    const statuses = answers.map(({ status }) => status)
    // Whoever came second: `bob` is told that `root` is the last one, or `root` is an operator no more.
    expect([[200, 409], [401, 200]]).toContainEqual(statuses)
    expect(await countLastingAdmins(broker.broker.database.read)).toBe(1)
  })

  test('a credential that is rotated twice with itself gives one new one', async () => {
    const { broker, elsewhere, ada } = await prepare(engine)
    const answers = await Promise.all([broker, elsewhere].map((from) => from.sendAs(ada, 'POST', '/v1/operator/rotate')))
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 401])
    const won = (await answers.find(({ status }) => status === 200)?.json()) as { credential: string }
    expect((await broker.sendAs(won.credential, 'GET', '/v1/operator')).status).toBe(200)
  })

  test('what is under way by a sign-in that is ended does not come after', async () => {
    const clock = createTestClock()
    const company = await startCompanyIssuer(clock)
    const broker = await startBroker(engine, { clock, signIn: company.settings })
    await broker.register('bot')
    const begun = await broker.send('POST', '/v1/sessions', { json: { id_token: await company.sign() } })
    const { credential, session } = (await begun.json()) as { credential: string; session: string }
    let before = 0
    interfere(broker, async () => {
      expect((await broker.sendAsAdmin('POST', `/v1/sessions/${session}/end`, {})).status).toBe(200)
      before = (await broker.events()).length
    })
    expect((await broker.sendAs(credential, 'POST', '/v1/workloads/bot/suspend', {})).status).toBe(401)
    expect(await typesSince(broker, before)).toEqual([])
  })

  test('neither does the end of a token by the OAuth endpoint', async () => {
    const { broker, elsewhere, bob } = await prepare(engine)
    const { access_token: token } = await getToken(broker, await broker.register('bot'), { scope: 'tickets:read' })
    let before = 0
    interfere(broker, async () => {
      await elsewhere.sendAsAdmin('POST', '/v1/operators/bob/revoke', {})
      before = (await broker.events()).length
    })
    const response = await broker.send('POST', '/oauth2/revoke', { form: { token }, headers: { authorization: `Bearer ${bob}` } })
    expect(response.status).toBe(401)
    expect(await typesSince(broker, before)).toEqual([])
  })

  const endings: readonly (readonly [string, string, (broker: TestBroker, elsewhere: TestBroker) => unknown])[] = [
    ['is revoked', 'operator_revoked', (_, elsewhere) => elsewhere.sendAsAdmin('POST', '/v1/operators/bob/revoke', {})],
    ['is rotated', 'operator_wrong', (_, elsewhere) => elsewhere.sendAsAdmin('POST', '/v1/operators/bob/rotate', {})],
    ['expires', 'operator_expired', (broker) => broker.clock.advance(dayMs)],
  ]
  const changes: readonly (readonly [string, string, unknown])[] = [
    ['POST', '/v1/workloads/bot/suspend', {}],
    ['PATCH', '/v1/workloads/bot', { stage: 'production' }],
    ['POST', '/v1/revocations', { workload: 'bot' }],
    ['POST', '/v1/operators', { name: 'accomplice', role: 'admin' }],
    ['POST', '/v1/operator/rotate', undefined],
  ]
  test.each(endings)('what is under way by a credential that %s does not come after', async (_how, reason, end) => {
    for (const [method, path, json] of changes) {
      const { broker, elsewhere, bob } = await prepare(engine)
      await broker.register('bot')
      let before = 0
      interfere(broker, async () => {
        await end(broker, elsewhere)
        before = (await broker.events()).length
      })
      expect([path, (await broker.sendAs(bob, method, path, json)).status]).toEqual([path, 401])
      expect([path, await typesSince(broker, before)]).toEqual([path, []])
      await broker.broker.refusals.flush(true)
      expect(await broker.lastEvent('authentication.refused')).toMatchObject({ realm: 'operator', reason, count: 1 })
    }
  })
})
