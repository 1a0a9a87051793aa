import { afterEach, expect, test } from 'vitest'
import { describeEngines } from '../harness.ts'
import { describeAws, useAws } from '../aws/moto.ts'
import { lend, lifeOf, runJobs } from './lending.ts'
import { lendMany, listDenied, read, readDocuments, revoke, startCloud, stateOf, unusedDocument } from './cloud.ts'

describeAws('the kill switch', () => {
  const start = useAws()
  afterEach(async () => (await start()).mend())

  describeEngines('lending sessions', (engine) => {
    test('denies a session whose grant was revoked, and no other, until it has died', async () => {
      const cloud = await startCloud(engine, await start())
      const [first, second] = [await lend(cloud.broker, cloud.agent, read), await lend(cloud.broker, cloud.agent, read)]
      expect(first.ends).toMatchObject({ effect: 'propagating', delay_seconds: 300 })
      const before = await readDocuments(cloud)
      expect(before).toEqual([unusedDocument, unusedDocument])

      const { body } = await revoke(cloud, { grant: first.grant })
      expect(body.grants).toEqual([expect.objectContaining({ grant: first.grant, outcome: 'revoked', effect: 'propagating', effective_by: new Date(cloud.broker.clock.nowMs() + 300_000).toISOString() })])
      const during = await readDocuments(cloud)
      expect(JSON.parse(during[0] ?? '')).toMatchObject({ Statement: [{ Effect: 'Deny', Condition: { StringEquals: { 'aws:SourceIdentity': [first.grant] } } }] })
      expect(during[1]).toBe(unusedDocument)
      expect(await listDenied(cloud, [first.grant, second.grant])).toEqual([first.grant])
      expect(await stateOf(cloud, first.grant)).toBe('revoked')
      expect(await stateOf(cloud, second.grant)).toBe('active')
      expect(await lifeOf(cloud.broker, first.grant)).toEqual(['grant.minting', 'grant.activated', 'grant.revoked', 'grant.ended'])

      cloud.broker.clock.advance(16 * 60_000)
      await runJobs(cloud.broker)
      await runJobs(cloud.broker)
      expect(await readDocuments(cloud)).toEqual(before)
    })

    test('denies at its own time what STS would let live for longer', async () => {
      const cloud = await startCloud(engine, await start())
      const { grant } = await lend(cloud.broker, cloud.agent, { ...read, ttl_seconds: 60 })
      cloud.broker.clock.advance(60_000)
      await runJobs(cloud.broker)
      expect(await listDenied(cloud, [grant])).toEqual([grant])
      expect(await stateOf(cloud, grant)).toBe('expired')
    })

    test('ends 500 grants at once by a handful of writes', { timeout: 120_000 }, async () => {
      const cloud = await startCloud(engine, await start(), { policies: 4 })
      const grants = (await lendMany(cloud, 500)).map(({ grant }) => grant)
      cloud.aws.forget()
      const { body } = await revoke(cloud, { tool: 'reports', reason: 'all of them' })
      expect(body.revoked).toBe(500)
      await runJobs(cloud.broker)
      expect(await listDenied(cloud, grants)).toEqual(grants)
      expect(cloud.aws.calls('CreatePolicyVersion').length).toBeLessThanOrEqual(4)
      const rows = await cloud.broker.broker.database.read.selectFrom('credential').select('state').distinct().execute()
      expect(rows).toEqual([{ state: 'revoked' }])
    })

    test('ends many grants, each by a call of its own, by a handful of writes', { timeout: 60_000 }, async () => {
      const cloud = await startCloud(engine, await start())
      const grants = (await lendMany(cloud, 60)).map(({ grant }) => grant)
      cloud.aws.forget()
      await Promise.all(grants.map((grant) => revoke(cloud, { grant })))
      expect(await listDenied(cloud, grants)).toEqual(grants)
      expect(cloud.aws.calls('CreatePolicyVersion').length).toBeLessThanOrEqual(6)
    })
  })
})
