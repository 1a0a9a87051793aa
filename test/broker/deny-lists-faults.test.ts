import { setTimeout } from 'node:timers/promises'
import { afterEach, expect, test, vi } from 'vitest'
import { AttachRolePolicyCommand, DetachRolePolicyCommand, ListPolicyVersionsCommand } from '@aws-sdk/client-iam'
import { renderDenyDocument } from '../../src/connectors/aws-deny-policy.ts'
import { leaseMs } from '../../src/grant/lifetime.ts'
import { newId } from '../../src/kernel/ids.ts'
import { formatTime } from '../../src/kernel/clock.ts'
import { randomBytes } from 'node:crypto'
import { describePostgres, describeEngines } from '../harness.ts'
import { describeAws, queryError, useAws, type AwsFault } from '../aws/moto.ts'
import { startBroker } from '../broker.ts'
import { admin, lend, passTime, runJobs } from './lending.ts'
import { lendMany, listDenied, read, readDocuments, revoke, rules, startCloud, stateOf, unusedDocument, writeByHand, writeTool, type Cloud } from './cloud.ts'

const refused = (code: string, status = 400): AwsFault => ({ status, body: queryError(code, 'as the test says') })
const signal = () => AbortSignal.timeout(20_000)
const denyLists = ({ broker: { broker } }: Cloud) => broker.denyLists
const find = async (cloud: Cloud) => (await cloud.broker.broker.database.read.selectFrom('deny_list').selectAll().execute())[0]

// The emulator shares the machine with everything else that is tested.
vi.setConfig({ testTimeout: 120_000 })

describeAws('the kill switch', () => {
  const start = useAws()
  afterEach(async () => {
    const aws = await start()
    aws.mend()
    delete aws.onAnswer
    delete aws.rewrite
  })

  describeEngines('at its edges', (engine) => {
    test('rotates through the five versions that a policy can have', async () => {
      const cloud = await startCloud(engine, await start(), { policies: 1 })
      const lent = await lendMany(cloud, 7)
      for (const { grant } of lent) expect((await revoke(cloud, { grant })).body.grants[0].outcome).toBe('revoked')
      expect(await listDenied(cloud, lent.map(({ grant }) => grant))).toHaveLength(7)
      const { Versions = [] } = await cloud.admin.send(new ListPolicyVersionsCommand({ PolicyArn: cloud.policies[0] }))
      expect(Versions.length).toBeLessThanOrEqual(5)
    })

    test('denies for good what it denied, whatever its rows say: also where there is none', async () => {
      const cloud = await startCloud(engine, await start())
      const nowMs = cloud.broker.clock.nowMs()
      const orphan = newId('grant', nowMs, randomBytes)
      expect(await denyLists(cloud).deny(cloud.role, [orphan], signal())).toEqual([])
      const { grant } = await lend(cloud.broker, cloud.agent, read)
      await revoke(cloud, { grant })
      // An active grant that somebody had ended while nothing could be recorded.
      const active = await lend(cloud.broker, cloud.agent, read)
      await denyLists(cloud).deny(cloud.role, [active.grant], signal())
      await passTime(cloud.broker, 61_000)
      expect(await listDenied(cloud, [orphan, grant, active.grant])).toEqual([orphan, grant, active.grant])
      // The longest session, and a while.
      await passTime(cloud.broker, 12.5 * 3_600_000)
      await passTime(cloud.broker, 61_000)
      expect(await readDocuments(cloud)).toEqual([unusedDocument, unusedDocument])
    })

    test('is full at its size: what was denied stays so, the rest waits for a place, and says what an admin can do', { timeout: 60_000 }, async () => {
      const cloud = await startCloud(engine, await start(), { policies: 1 })
      const nowMs = cloud.broker.clock.nowMs()
      const max = cloud.broker.broker.tools.findDenying((await cloud.broker.broker.knowledge.refresh()).policySet?.catalog.get('reports') ?? expect.unreachable())?.grantsMax ?? 0
      // Of sessions that are not this broker's own; a minute before the last of them that could live has died.
      const others = Array.from({ length: max - 1 }, () => newId('grant', nowMs - 12.25 * 3_600_000 + 90_000, randomBytes)).toSorted()
      expect(await denyLists(cloud).deny(cloud.role, others, signal())).toEqual([])
      const [first, second] = await lendMany(cloud, 2)
      expect((await revoke(cloud, { grant: first?.grant })).body.grants[0]).toMatchObject({ outcome: 'revoked' })
      for (let asked = 0; asked < 12; asked++) {
        const { body } = await revoke(cloud, { grant: second?.grant })
        expect(body.grants[0]).toMatchObject({ outcome: 'retrying', problem: expect.stringMatching(new RegExp(`All ${max} places .* stint tool cut-off reports$`)) })
        await passTime(cloud.broker, 5_000)
      }
      expect(await listDenied(cloud, [...others, first?.grant ?? '', second?.grant ?? ''])).toEqual([...others, first?.grant])
      expect(await stateOf(cloud, second?.grant ?? '')).toBe('ending')
      // A place is free once a session has died.
      await passTime(cloud.broker, 61_000)
      await passTime(cloud.broker, 61_000)
      expect(await stateOf(cloud, second?.grant ?? '')).toBe('revoked')
      expect(await listDenied(cloud, [...others, first?.grant ?? '', second?.grant ?? ''])).toEqual([first?.grant, second?.grant])
    })

    test.each<[string, string | RegExp, AwsFault, RegExp]>([
      ['refuses the writing', 'CreatePolicyVersion', refused('AccessDenied', 403), /does not allow Stint the writing of a deny policy/],
      ['refuses the reading', 'GetPolicyVersion', refused('AccessDenied', 403), /does not allow Stint the reading/],
      ['throttles', /Policy/, refused('Throttling'), /limits how often it is called/],
      ['fails', 'CreatePolicyVersion', { status: 503, body: queryError('ServiceUnavailable', 'no') }, /does not answer as it should/],
      ['is at an earlier change', 'CreatePolicyVersion', refused('EntityTemporarilyUnmodifiable', 409), /still at an earlier change/],
      ['has no room for versions', 'CreatePolicyVersion', refused('LimitExceeded', 409), /refuses the writing of a deny policy \(LimitExceeded\)/],
      ['does not know the policy', 'GetPolicy', refused('NoSuchEntity', 404), /There is no policy .* at AWS/],
      ['answers what cannot be read', 'GetPolicy', { status: 200, body: '<html>' }, /cannot be read|is not touched/],
      ['is not there', /./, { cut: 'before' }, /connection/],
    ])('tries again by itself where AWS %s', { timeout: 30_000 }, async (_, action, fault, problem) => {
      const cloud = await startCloud(engine, await start())
      const { grant } = await lend(cloud.broker, cloud.agent, read)
      cloud.aws.fail(action, fault)
      const { body } = await revoke(cloud, { grant })
      expect(body.grants[0]).toMatchObject({ outcome: 'retrying', problem: expect.stringMatching(problem) })
      expect(await find(cloud)).toMatchObject({ owner: null, problem: expect.stringMatching(problem) })
      expect(await stateOf(cloud, grant)).toBe('ending')
      cloud.aws.mend()
      await passTime(cloud.broker, 30_000)
      expect(await stateOf(cloud, grant)).toBe('revoked')
      expect(await listDenied(cloud, [grant])).toEqual([grant])
      expect(await find(cloud)).toMatchObject({ owner: null, problem: null })
    })

    test.each<[string, string, AwsFault, number]>([
      ['the answer to a write is lost', 'CreatePolicyVersion', { cut: 'after' }, 1],
      ['the answer to a write breaks off', 'CreatePolicyVersion', { cut: 'half' }, 1],
      ['an old version is gone already', 'DeletePolicyVersion', refused('NoSuchEntity', 404), 1],
      ['an old version was put in force meanwhile', 'DeletePolicyVersion', refused('DeleteConflict', 409), 1],
      ['somebody else has made the last version', 'CreatePolicyVersion', refused('LimitExceeded', 409), 1],
      ['it throttles for a moment', 'CreatePolicyVersion', refused('Throttling'), 1],
      ['it is slow', 'CreatePolicyVersion', { delayMs: 1_500 }, 1],
    ])('denies at once although %s', async (_, action, fault, times) => {
      const cloud = await startCloud(engine, await start(), { policies: 1 })
      // So that there is an old version to delete.
      for (const { grant } of await lendMany(cloud, 4)) await revoke(cloud, { grant })
      const { grant } = await lend(cloud.broker, cloud.agent, read)
      cloud.aws.fail(action, fault, times)
      expect((await revoke(cloud, { grant })).body.grants[0]).toMatchObject({ outcome: 'revoked' })
      expect(await listDenied(cloud, [grant])).toEqual([grant])
    })

    test('writes again what does not read as it was written, and does not call it denied before it does', { timeout: 30_000 }, async () => {
      const cloud = await startCloud(engine, await start(), { policies: 1 })
      const { grant } = await lend(cloud.broker, cloud.agent, read)
      let spoiled = 0
      // Whatever is written, somebody puts back what was there.
      cloud.aws.onAnswer = async ({ action, parameters }) => {
        if (action !== 'CreatePolicyVersion' || parameters['PolicyDocument'] === unusedDocument || spoiled >= 2) return
        spoiled++
        await writeByHand(cloud, cloud.policies[0] ?? '', unusedDocument)
      }
      expect((await revoke(cloud, { grant })).body.grants[0]).toMatchObject({ outcome: 'revoked' })
      expect(spoiled).toBe(2)
      expect(await listDenied(cloud, [grant])).toEqual([grant])

      const next = await lend(cloud.broker, cloud.agent, read)
      const [before = ''] = await readDocuments(cloud)
      cloud.aws.onAnswer = async ({ action, parameters }) => {
        if (action === 'CreatePolicyVersion' && parameters['PolicyDocument'] !== before) await writeByHand(cloud, cloud.policies[0] ?? '', before)
      }
      expect((await revoke(cloud, { grant: next.grant })).body.grants[0]).toMatchObject({ outcome: 'retrying', problem: expect.stringMatching(/does not say what Stint has written/) })
    })

    test("never touches somebody else's policy", async () => {
      const cloud = await startCloud(engine, await start(), { policies: 2 })
      const theirs = JSON.stringify({ Version: '2012-10-17', Statement: [{ Sid: 'Mine', Effect: 'Allow', Action: 's3:*', Resource: '*' }] })
      for (const document of [theirs, renderDenyDocument('0123456789abcdef', { grants: [newId('grant', 0, randomBytes)] })]) {
        await writeByHand(cloud, cloud.policies[1] ?? '', document)
        cloud.aws.forget()
        const { grant } = await lend(cloud.broker, cloud.agent, read)
        const { body } = await revoke(cloud, { grant })
        // The others deny all the same.
        expect(body.grants[0]).toMatchObject({ outcome: 'revoked' })
        expect((await readDocuments(cloud))[1]).toBe(document)
        expect((await readDocuments(cloud))[0]).toContain(grant)
        expect(await find(cloud)).toMatchObject({ problem: expect.stringMatching(/deny-2 holds .* and is not touched/) })
      }
    })

    test('denies by the others what a policy denied that was taken away, and nothing by one that is attached to nothing', async () => {
      const cloud = await startCloud(engine, await start())
      const [first, second] = await lendMany(cloud, 2)
      await revoke(cloud, { grant: first?.grant })
      expect((await readDocuments(cloud))[0]).toContain(first?.grant)
      await cloud.admin.send(new DetachRolePolicyCommand({ RoleName: cloud.role.slice(cloud.role.lastIndexOf('/') + 1), PolicyArn: cloud.policies[0] }))
      await passTime(cloud.broker, 61_000)
      expect((await readDocuments(cloud))[1]).toContain(first?.grant)
      expect((await find(cloud))?.problem).toMatch(/deny-1 is attached to no role/)
      await cloud.admin.send(new DetachRolePolicyCommand({ RoleName: cloud.role.slice(cloud.role.lastIndexOf('/') + 1), PolicyArn: cloud.policies[1] }))
      expect((await revoke(cloud, { grant: second?.grant })).body.grants[0]).toMatchObject({ outcome: 'retrying', problem: expect.stringMatching(/attached to no role, so that it denies nothing/) })
    })

    test('is written by another tool of the role where the credential of the first is broken', async () => {
      const cloud = await startCloud(engine, await start(), { more: (role, policies, url) => ({ 'tools/archive.yaml': writeTool('archive', role, policies, url).replace('env:AWS_ROOT', 'env:BROKEN') }) })
      const { grant } = await lend(cloud.broker, cloud.agent, read)
      expect((await revoke(cloud, { grant })).body.grants[0]).toMatchObject({ outcome: 'revoked' })
      expect(await listDenied(cloud, [grant])).toEqual([grant])
    })

    test('lends nothing where few places are left, which are for revocations', { timeout: 60_000 }, async () => {
      const cloud = await startCloud(engine, await start(), { policies: 1 })
      const [some] = await lendMany(cloud, 140)
      await revoke(cloud, { tool: 'reports', reason: 'x' })
      cloud.broker.clock.advance(1_000)
      await expect(lend(cloud.broker, cloud.agent, read)).rejects.toThrow(/kill switch of the role is nearly full/)
      expect(some).toBeDefined()
    })

    test('takes up what was stuck once its session has died', async () => {
      const cloud = await startCloud(engine, await start())
      const { grant } = await lend(cloud.broker, cloud.agent, { ...read, ttl_seconds: 3_600 })
      cloud.aws.fail('CreatePolicyVersion', refused('AccessDenied', 403))
      await revoke(cloud, { grant })
      await cloud.broker.broker.ledger.transact({ apply: async (tx) => (await tx.updateTable('credential').set({ tries: 20 }).execute(), { result: undefined, unrecorded: 'housekeeping' }) })
      await passTime(cloud.broker, 30_000)
      expect(await stateOf(cloud, grant)).toBe('stuck')
      // By AWS's clock it may live for a while yet when it is dead by ours.
      await passTime(cloud.broker, 3_600_000 + 200_000)
      expect(await stateOf(cloud, grant)).toBe('stuck')
      await passTime(cloud.broker, 300_000)
      await runJobs(cloud.broker)
      expect(await stateOf(cloud, grant)).toBe('revoked')
    })

    test.each<[string, (cloud: Cloud, grant: string) => string]>([
      ['emptied', () => unusedDocument],
      ['weakened', (_, grant) => JSON.stringify({ Version: '2012-10-17', Statement: [{ Sid: 'StintUnused', Effect: 'Deny', Action: 's3:*', Resource: '*', Condition: { StringEquals: { 'aws:SourceIdentity': [grant] } } }] })],
    ])('mends within a minute a policy that somebody has %s', async (_, change) => {
      const cloud = await startCloud(engine, await start())
      const { grant } = await lend(cloud.broker, cloud.agent, read)
      await revoke(cloud, { grant })
      const right = await readDocuments(cloud)
      await writeByHand(cloud, cloud.policies[0] ?? '', change(cloud, grant))
      await passTime(cloud.broker, 61_000)
      expect(await readDocuments(cloud)).toEqual(right)
    })

    test('looks each minute while anybody is denied, writes nothing then, and looks no more when nobody is', async () => {
      const cloud = await startCloud(engine, await start())
      const { grant } = await lend(cloud.broker, cloud.agent, read)
      await revoke(cloud, { grant })
      cloud.aws.forget()
      await passTime(cloud.broker, 61_000)
      expect(cloud.aws.calls('GetPolicy').length).toBe(2)
      expect(cloud.aws.calls('CreatePolicyVersion')).toEqual([])
      await passTime(cloud.broker, 20 * 60_000)
      expect(cloud.aws.calls('CreatePolicyVersion')).toHaveLength(1)
      cloud.aws.forget()
      await passTime(cloud.broker, 61_000)
      expect(cloud.aws.requests).toEqual([])
      expect(await find(cloud)).toMatchObject({ look_at: null, owner: null })
    })

    test('waits for a process that died over the list until its lease is over', async () => {
      const cloud = await startCloud(engine, await start())
      const { grant } = await lend(cloud.broker, cloud.agent, read)
      await revoke(cloud, { grant })
      const next = await lend(cloud.broker, cloud.agent, read)
      const { ledger } = cloud.broker.broker
      const leaseUntil = formatTime(cloud.broker.clock.nowMs() + leaseMs)
      await ledger.transact({ apply: async (tx) => (await tx.updateTable('deny_list').set({ owner: 'somebody', lease_until: leaseUntil }).execute(), { result: undefined, unrecorded: 'housekeeping' }) })
      await expect(denyLists(cloud).deny(cloud.role, [next.grant], AbortSignal.timeout(500))).rejects.toThrow(/written by others/)
      expect(await listDenied(cloud, [next.grant])).toEqual([])
      const denying = revoke(cloud, { grant: next.grant })
      await setTimeout(300)
      cloud.broker.clock.advance(leaseMs)
      expect((await denying).body.grants[0]).toMatchObject({ outcome: 'revoked' })
      expect(await listDenied(cloud, [grant, next.grant])).toEqual([grant, next.grant])
    })

    test('does not believe a write whose lease was taken by another meanwhile', async () => {
      const cloud = await startCloud(engine, await start())
      const { grant } = await lend(cloud.broker, cloud.agent, read)
      cloud.aws.onAnswer = async ({ action }) => {
        if (action !== 'CreatePolicyVersion') return
        delete cloud.aws.onAnswer
        await cloud.broker.broker.ledger.transact({ apply: async (tx) => (await tx.updateTable('deny_list').set({ owner: 'somebody', lease_until: formatTime(0) }).execute(), { result: undefined, unrecorded: 'housekeeping' }) })
      }
      expect((await revoke(cloud, { grant })).body.grants[0]).toMatchObject({ outcome: 'retrying', problem: expect.stringMatching(/Another process has written the list/) })
      await passTime(cloud.broker, 5_000)
      expect(await stateOf(cloud, grant)).toBe('revoked')
    })

    test('undoes a mint whose answer was lost', async () => {
      const cloud = await startCloud(engine, await start())
      cloud.aws.fail('AssumeRole', { cut: 'after' })
      await expect(lend(cloud.broker, cloud.agent, read)).rejects.toThrow(/Whether anything was made is not known; if so, it is undone/)
      const [asked] = cloud.aws.calls('AssumeRole')
      cloud.aws.mend()
      await passTime(cloud.broker, leaseMs + 1_000)
      expect(await listDenied(cloud, [String(asked?.['SourceIdentity'])])).toHaveLength(1)
    })

    test('denies on behalf of a tool that is not in the catalog any more, and by today\'s policies where it is', async () => {
      const cloud = await startCloud(engine, await start(), { policies: 2, more: (role, policies, url) => ({ 'tools/reports.yaml': writeTool('reports', role, policies.slice(0, 1), url) }) })
      const [first, second] = await lendMany(cloud, 2)
      await revoke(cloud, { grant: first?.grant })
      const apply = async (files: Readonly<Record<string, string>>) => {
        const response = await admin(cloud.broker, 'PUT', '/v1/policy', { files: { 'rules.cedar': rules, ...files } })
        expect([response.status, response.text]).toEqual([200, expect.anything()])
      }
      const token = 'tool: tickets\nconnector: jwt\naudience: https://tickets.test\nsensitivity: low\nttl: { default: 10m, max: 1h }\nactions: { read: {} }\n'
      await apply({ 'tools/tickets.yaml': token })
      await writeByHand(cloud, cloud.policies[0] ?? '', unusedDocument)
      await passTime(cloud.broker, 61_000)
      expect(await listDenied(cloud, [first?.grant ?? ''])).toHaveLength(1)
      expect((await revoke(cloud, { grant: second?.grant })).body.grants[0]).toMatchObject({ outcome: 'revoked' })
      expect((await readDocuments(cloud))[1]).toBe(unusedDocument)
      // One more policy: what is named stays where it is.
      await apply({ 'tools/reports.yaml': writeTool('reports', cloud.role, cloud.policies, cloud.aws.url) })
      const third = await lend(cloud.broker, cloud.agent, read)
      await revoke(cloud, { grant: third.grant })
      expect(await listDenied(cloud, [first?.grant ?? '', second?.grant ?? '', third.grant])).toHaveLength(3)
    })

    test('shows in the metrics', async () => {
      const cloud = await startCloud(engine, await start())
      const { grant } = await lend(cloud.broker, cloud.agent, read)
      cloud.aws.fail('CreatePolicyVersion', refused('AccessDenied', 403), 1)
      await revoke(cloud, { grant })
      await passTime(cloud.broker, 30_000)
      const text = await cloud.broker.broker.metrics.read()
      expect(text).toContain('stint_denials{tool="reports"} 1\n')
      expect(text).toMatch(/stint_denials_max\{tool="reports"\} 3\d\d\n/)
      expect(text).toContain('stint_deny_failures_total{tool="reports"} 1\n')
    })
  })

  describePostgres('of two brokers', (engine) => {
    test('names the grants of both, though they write at the same time', { timeout: 60_000 }, async () => {
      const cloud = await startCloud(engine, await start())
      const second = await startBroker(engine, { beside: cloud.broker, env: cloud.env })
      const grants = (await lendMany(cloud, 40)).map(({ grant }) => grant)
      const results = await Promise.all(grants.map((grant, i) => revoke({ broker: i % 2 === 0 ? cloud.broker : second }, { grant })))
      expect(results.map(({ body }) => body.grants[0].outcome)).toEqual(grants.map(() => 'revoked'))
      expect(await listDenied(cloud, grants)).toEqual(grants)
    })

    test('cannot put an old list over a new one for longer than a minute', { timeout: 60_000 }, async () => {
      const cloud = await startCloud(engine, await start(), { policies: 1 })
      const second = await startBroker(engine, { beside: cloud.broker, env: cloud.env })
      const [first, next] = await lendMany(cloud, 2)
      await revoke(cloud, { grant: first?.grant })
      const [old = ''] = await readDocuments(cloud)
      await revoke({ broker: second }, { grant: next?.grant })
      // What a process that had slept since then would write.
      await writeByHand(cloud, cloud.policies[0] ?? '', old)
      await second.close()
      await passTime(cloud.broker, 61_000)
      await vi.waitFor(async () => expect(await listDenied(cloud, [first?.grant ?? '', next?.grant ?? ''])).toHaveLength(2))
      await runJobs(cloud.broker)
    })
  })

  test('is checked: what is missing is named', { timeout: 30_000 }, async () => {
    const cloud = await startCloud('sqlite', await start())
    const check = async () => (await admin(cloud.broker, 'POST', '/v1/tools/reports/check')).body as { ok: boolean; findings: { ok: boolean; sentence: string }[] }
    const wrong = async () => (await check()).findings.filter(({ ok }) => !ok).map(({ sentence }) => sentence)
    const { grant } = await lend(cloud.broker, cloud.agent, read)
    await revoke(cloud, { grant })
    const before = await readDocuments(cloud)
    const sentences = (await check()).findings.map(({ sentence }) => sentence).join('\n')
    expect(sentences).toMatch(/kill switch works/)
    expect(sentences).toMatch(/1 of 3\d\d places are taken/)
    expect(sentences).toMatch(/attached to the role/)
    expect(sentences).toMatch(/a right to give the role any other.*no permissions boundary/)
    expect((await check()).ok).toBe(true)
    expect(await readDocuments(cloud)).toEqual(before)

    cloud.aws.fail('ListAttachedRolePolicies', refused('AccessDenied', 403))
    expect(await wrong()).toEqual([expect.stringMatching(/cannot be seen: .*iam:ListAttachedRolePolicies/)])
    cloud.aws.mend()
    cloud.aws.fail('DeletePolicyVersion', { status: 403, body: queryError('AccessDenied', 'User: arn:aws:iam::123456789012:user/stint is not authorized to perform: iam:DeletePolicyVersion on resource: x') })
    await check()
    await check()
    expect(await wrong()).toEqual([expect.stringMatching(/does not work: .*iam:DeletePolicyVersion is missing/)])
    cloud.aws.mend()
    await cloud.admin.send(new DetachRolePolicyCommand({ RoleName: cloud.role.slice(cloud.role.lastIndexOf('/') + 1), PolicyArn: cloud.policies[1] }))
    expect(await wrong()).toEqual([expect.stringMatching(/works without a part of its policies: .*-deny-2 is attached to no role/), expect.stringMatching(new RegExp(`${cloud.policies[1]} is not attached to the role`))])
    const { Versions = [] } = await cloud.admin.send(new ListPolicyVersionsCommand({ PolicyArn: cloud.policies[1] }))
    expect(Versions.length).toBeGreaterThan(1)
    await writeByHand(cloud, cloud.policies[1] ?? '', JSON.stringify({ Version: '2012-10-17', Statement: [{ Effect: 'Allow', Action: '*', Resource: '*' }] }))
    await cloud.admin.send(new AttachRolePolicyCommand({ RoleName: cloud.role.slice(cloud.role.lastIndexOf('/') + 1), PolicyArn: cloud.policies[1] }))
    expect(await wrong()).toEqual([expect.stringMatching(/works without a part of its policies: The policy arn:.*-deny-2 holds statements that are not of Stint, and is not touched/)])
  })

  test('names a policy that is not there', async () => {
    const cloud = await startCloud('sqlite', await start(), { policies: 1, more: (role, policies, url) => ({ 'tools/reports.yaml': writeTool('reports', role, [`${policies[0]}-gone`], url) }) })
    const { findings } = (await admin(cloud.broker, 'POST', '/v1/tools/reports/check')).body as { findings: { ok: boolean; sentence: string }[] }
    expect(findings.filter(({ ok }) => !ok).map(({ sentence }) => sentence)).toEqual([expect.stringMatching(/There is no policy arn:.*-gone at AWS/), expect.stringMatching(/-gone is not attached/)])
  })
})
