import { afterEach, expect, test, vi } from 'vitest'
import { describeEngines } from '../harness.ts'
import { describeAws, useAws } from '../aws/moto.ts'
import { startBroker } from '../broker.ts'
import { lend, lifeOf, passTime, runJobs } from './lending.ts'
import { setReadOnly } from './read-only.ts'
import { lendMany, listDenied, read, readDocuments, revoke, startCloud, stateOf, unusedDocument, writeTool } from './cloud.ts'

// The emulator shares the machine with everything else that is tested.
vi.setConfig({ testTimeout: 120_000 })

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

      // AWS's clock may be behind, and what has died by itself takes up no place.
      cloud.broker.clock.advance(16 * 60_000)
      await runJobs(cloud.broker)
      await runJobs(cloud.broker)
      expect(await listDenied(cloud, [first.grant, second.grant])).toEqual([first.grant])
      cloud.broker.clock.advance(5 * 60_000)
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

    test('ends 500 grants at once by a handful of writes', { timeout: 300_000 }, async () => {
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

    test('denies all the same while nothing can be recorded, and forgets none of it when it can be', { timeout: 60_000 }, async () => {
      const cloud = await startCloud(engine, await start())
      const [first, second] = [await lend(cloud.broker, cloud.agent, read), await lend(cloud.broker, cloud.agent, read)]
      await setReadOnly(cloud.broker, true)
      const { status, body } = await revoke(cloud, { grant: first.grant })
      expect([status, body.ended_outside]).toEqual([503, [first.grant]])
      expect(await listDenied(cloud, [first.grant, second.grant])).toEqual([first.grant])
      // The row of the first still says that it is active.
      await revoke(cloud, { grant: second.grant })
      expect(await listDenied(cloud, [first.grant, second.grant])).toEqual([first.grant, second.grant])
      await setReadOnly(cloud.broker, false)
      await vi.waitFor(async () => {
        await passTime(cloud.broker, 10_000)
        expect([await stateOf(cloud, first.grant), await stateOf(cloud, second.grant)]).toEqual(['revoked', 'revoked'])
      }, { timeout: 20_000, interval: 50 })
      expect(await listDenied(cloud, [first.grant, second.grant])).toEqual([first.grant, second.grant])
    })
  })

  test('is written without an AWS key, by a session that may do nothing else', async () => {
    const writer = 'arn:aws:iam::123456789012:role/stint-writer'
    const cloud = await startCloud('sqlite', await start(), {
      more: (role, policies, url) => ({ 'tools/reports.yaml': writeTool('reports', role, policies, url, `, role: "${writer}"`).replace(/credentials: .*/, 'web_identity: true') }),
    })
    const { grant } = await lend(cloud.broker, cloud.agent, read)
    expect((await revoke(cloud, { grant })).body.grants[0]).toMatchObject({ outcome: 'revoked' })
    const asked = cloud.aws.calls('AssumeRoleWithWebIdentity').filter(({ RoleArn }) => RoleArn === writer)
    expect(asked).toHaveLength(1)
    const { Statement: statements } = JSON.parse(String(asked[0]?.['Policy'])) as { Statement: { Effect: string; Action: string[]; Resource: string | string[] }[] }
    expect(statements.filter(({ Effect }) => Effect === 'Allow').map(({ Resource }) => Resource)).toEqual([cloud.policies, cloud.role])
    expect(JSON.stringify(statements)).not.toMatch(/iam:\*|iam:Attach|iam:Put/)
    const writes = cloud.aws.requests.filter(({ action }) => action === 'CreatePolicyVersion')
    expect(writes.map(({ headers }) => headers['x-amz-security-token'] !== undefined)).toEqual([true])
    expect(await listDenied(cloud, [grant])).toEqual([grant])
  })

  test('goes on at once with a list that a process was writing when it died, where it was alone', async () => {
    const cloud = await startCloud('sqlite', await start())
    const { grant } = await lend(cloud.broker, cloud.agent, read)
    const held = Promise.withResolvers<void>()
    cloud.aws.onAnswer = ({ action }) => (action === 'CreatePolicyVersion' ? held.promise : undefined)
    const revoking = revoke(cloud, { grant })
    await vi.waitFor(() => expect(cloud.aws.calls('CreatePolicyVersion')).toHaveLength(1))
    const rows = await cloud.broker.broker.database.read.selectFrom('deny_list').selectAll().execute()
    expect(rows).toMatchObject([{ owner: expect.any(String) }])
    delete cloud.aws.onAnswer
    held.resolve()
    await revoking
    // As the process would have left it.
    await cloud.broker.broker.ledger.transact({ apply: async (tx) => (await tx.updateTable('deny_list').set({ owner: rows[0]?.owner ?? null, lease_until: rows[0]?.lease_until ?? null }).execute(), { result: undefined, unrecorded: 'housekeeping' }) })
    await cloud.broker.close()
    const next = await startBroker('sqlite', { beside: cloud.broker, env: cloud.env })
    expect(await next.broker.database.read.selectFrom('deny_list').select(['owner', 'lease_until']).execute()).toEqual([{ owner: null, lease_until: null }])
  })
})
