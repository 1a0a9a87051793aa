import { expect, test } from 'vitest'
import { describeEngines } from '../harness.ts'
import { admin, ask, call, type Lent } from './lending.ts'
import { passTime, startRotating, stepsOf, tickMs, wholeRun, type Rotating } from './rotating.ts'

const hourMs = 3_600_000

async function startGivenBack(...[engine, options]: Parameters<typeof startRotating>): Promise<Rotating & { readonly lent: Lent }> {
  const rotating = await startRotating(engine, options)
  const { broker, agent } = rotating
  await passTime(broker, tickMs)
  // Asked for and given back; a copy may have been kept.
  const lent = (await ask(broker, agent, { tool: 'billing', actions: ['use'], ttl_seconds: 1_800, task: 't-1' })).body as Lent
  expect((await call(broker, agent, 'DELETE', `/v1/grants/${lent.grant}`)).status).toBe(200)
  await passTime(broker, tickMs)
  return { ...rotating, lent }
}

describeEngines('A version that was lent by a grant which is over', (engine) => {
  test.each([
    ['this grant', ({ grant }: Lent) => ({ grant })],
    ['its workload', () => ({ workload: 'bot' })],
    ['its task', () => ({ workload: 'bot', task: 't-1' })],
    ['its tool', () => ({ tool: 'billing' })],
  ])('is replaced when an admin revokes %s: a copy of it opens nothing any more', async (_, target) => {
    const { broker, vault, lent } = await startGivenBack(engine)
    expect(stepsOf(vault)).toEqual([])
    expect((await admin(broker, 'POST', '/v1/revocations', target(lent))).status).toBe(200)
    for (let i = 0; i < 3; i++) await passTime(broker, tickMs)
    expect(stepsOf(vault)).toEqual([...wholeRun, 'retire v1'])
    expect((await broker.events()).find(({ type }) => type === 'rotation.begun')).toMatchObject({ rotation: 'billing', reason: 'revocation' })
    expect((await admin(broker, 'GET', `/v1/grants/${lent.grant}`)).body).toMatchObject({ state: 'revoked' })
  })

  test.each([
    ['the holder gives it back once more', async ({ broker, agent, lent }: Awaited<ReturnType<typeof startGivenBack>>) => call(broker, agent, 'DELETE', `/v1/grants/${lent.grant}`)],
    ['the holder completes its task', async ({ broker, agent }: Rotating) => call(broker, agent, 'POST', '/v1/tasks/t-1/complete')],
    ['an admin revokes what is another\'s', async ({ broker }: Rotating) => admin(broker, 'POST', '/v1/revocations', { workload: 'bot', task: 't-2' })],
  ])('stays where %s', async (_, act) => {
    const rotating = await startGivenBack(engine)
    expect((await act(rotating)).status).toBe(200)
    await passTime(rotating.broker, hourMs)
    expect(stepsOf(rotating.vault)).toEqual([])
  })

  test('is lent again to who asks by the same idempotency key, for it opens nothing more', async () => {
    const { broker, agent, lent } = await startGivenBack(engine)
    const wish = { tool: 'billing', actions: ['use'] }
    const [first, second] = [await ask(broker, agent, wish, { 'idempotency-key': 'k-1' }), await ask(broker, agent, wish, { 'idempotency-key': 'k-1' })]
    expect([first.status, second.status]).toEqual([201, 201])
    expect(second.body.credential).toEqual(lent.credential)
    expect((await admin(broker, 'GET', `/v1/grants/${first.body.grant}`)).body).toMatchObject({ state: 'ending' })
    expect((await ask(broker, agent, wish, { 'idempotency-key': 'k-1' })).body.grant).not.toBe(second.body.grant)
  })
})
