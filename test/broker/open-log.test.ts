import { expect, test } from 'vitest'
import { openLog } from '../../src/broker/open-log.ts'
import { startBroker } from '../broker.ts'
import { describeEngines } from '../harness.ts'

const caller = { actor: { kind: 'stint', id: 'test' } } as const

describeEngines('The log', (engine) => {
  test('begins with whose log it is, once', async () => {
    const { broker, events } = await startBroker(engine)
    await openLog(broker, caller)
    const opened = (await events()).filter((event) => event.type === 'log.opened')
    expect(opened).toMatchObject([{ index: 0, trust_domain: 'stint.test', issuer: 'https://stint.test' }])
  })

  test('is not opened under another trust domain, which would make other identities of its workloads', async () => {
    const { broker, events } = await startBroker(engine)
    const size = (await events()).length
    await expect(openLog({ ...broker, trustDomain: 'other.test' }, caller)).rejects.toMatchObject({
      code: 'config_invalid',
      publicMessage: expect.stringContaining('is of the trust domain stint.test, not other.test'),
    })
    expect(await events()).toHaveLength(size)
  })
})
