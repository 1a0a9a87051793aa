import { randomBytes } from 'node:crypto'
import { afterEach, expect, test, vi } from 'vitest'
import { newId } from '../../src/kernel/ids.ts'
import { describeEngines } from '../harness.ts'
import { describeAws, queryError, useAws } from '../aws/moto.ts'
import { admin, ask, lend, lifeOf, passTime, runJobs } from './lending.ts'
import { lendMany, listDenied, read, readDocuments, revoke, rules, startCloud, stateOf, unusedDocument, writeTool } from './cloud.ts'

const second = { 'rules.cedar': rules, 'tools/tickets.yaml': 'tool: tickets\nconnector: jwt\naudience: https://tickets.test\nsensitivity: low\nttl: { default: 10m, max: 1h }\nactions: { read: {} }\n' }
const withArchive = (role: string, policies: readonly string[], url: string) => ({ ...second, 'tools/archive.yaml': writeTool('archive', role, policies, url) })

// The emulator shares the machine with everything else that is tested.
vi.setConfig({ testTimeout: 120_000 })

describeAws('a cut-off', () => {
  const start = useAws()
  afterEach(async () => {
    const aws = await start()
    aws.mend()
    delete aws.rewrite
  })

  describeEngines('of a role', (engine) => {
    test('ends everything on the role, of every tool that shares it, when there is room for nothing else; and says what it ends', { timeout: 60_000 }, async () => {
      const cloud = await startCloud(engine, await start(), { policies: 1, more: withArchive })
      const { broker, agent } = cloud
      const nowMs = broker.clock.nowMs()
      const others = Array.from({ length: 166 }, () => newId('grant', nowMs, randomBytes))
      expect(await broker.broker.denyLists.deny(cloud.role, others, AbortSignal.timeout(20_000))).toEqual([])
      const [revoked, ...bystanders] = [...(await lendMany(cloud, 2)), await lend(broker, agent, { tool: 'archive', actions: ['read'] })]
      const ticket = await broker.send('POST', '/oauth2/token', { form: agent.form({ grant_type: 'client_credentials', scope: 'tickets:read' }) })
      expect(ticket.status).toBe(200)
      expect((await revoke(cloud, { grant: revoked?.grant })).body.grants[0]).toMatchObject({ outcome: 'retrying' })

      // Longer than a mint takes: what was asked for before then is denied by the time in which it was opened.
      broker.clock.advance(61_000)
      const ahead = await admin(broker, 'POST', '/v1/tools/reports/cut-off', { reason: 'full', dry_run: true })
      expect(ahead.body).toEqual({ tool: 'reports', tools: ['archive', 'reports'], bystanders: 2, meaning: expect.any(String) })
      expect((await broker.events()).filter(({ type }) => type === 'tool.cut_off')).toEqual([])
      expect(await readDocuments(cloud)).not.toContain('TokenIssueTime')

      const { status, body } = await admin(broker, 'POST', '/v1/tools/reports/cut-off', { reason: 'full' })
      const before = new Date(Math.ceil((broker.clock.nowMs() + 301_000) / 1_000) * 1_000).toISOString()
      expect([status, body]).toEqual([200, { tool: 'reports', tools: ['archive', 'reports'], bystanders: 2, meaning: expect.any(String), before, confirmed: true, audit_index: expect.any(Number) }])
      const events = (await broker.events()).slice(body.audit_index - 2, body.audit_index + 1)
      expect(events).toEqual([
        expect.objectContaining({ type: 'grants.revoked', selector: { tool: 'archive' }, tool: 'archive', reason: 'full' }),
        expect.objectContaining({ type: 'grants.revoked', selector: { tool: 'reports' }, tool: 'reports', reason: 'full' }),
        expect.objectContaining({ type: 'tool.cut_off', tool: 'reports', before, bystanders: 2, reason: 'full', actor: { kind: 'operator', id: expect.any(String) } }),
      ])
      // What was denied by its name keeps it, but where somebody needs the place whom the cut-off may not deny.
      const [document = ''] = await readDocuments(cloud)
      const [named, ...cutOff] = JSON.parse(document).Statement
      expect(named.Condition.StringEquals['aws:SourceIdentity']).toEqual(others.toSorted())
      expect(cutOff).toEqual([{ Sid: expect.stringMatching(/^StintCutOff/), Effect: 'Deny', Action: '*', Resource: '*', Condition: { DateLessThan: { 'aws:TokenIssueTime': before.replace('.000Z', 'Z') } } }])
      expect(await listDenied(cloud, ['anybody'], nowMs)).toEqual(['anybody'])
      await runJobs(broker)
      for (const { grant } of bystanders) expect(await stateOf(cloud, grant)).toBe('revoked')
      await passTime(broker, 61_000)
      expect(await stateOf(cloud, revoked?.grant ?? '')).toBe('revoked')
      expect(await lifeOf(broker, revoked?.grant ?? '')).toEqual(['grant.minting', 'grant.activated', 'grant.revoked', 'grant.ended'])

      // A session that is opened from then on lives, and is denied by its name when it is over.
      expect(await listDenied(cloud, ['anybody'], Date.parse(before))).toEqual([])
      expect(await listDenied(cloud, others, Date.parse(before))).toEqual(others)
      await passTime(broker, 12.5 * 3_600_000)
      expect(await readDocuments(cloud)).toEqual([unusedDocument])
    })

    test('lends nothing that it would deny, and says when it lends again', async () => {
      const cloud = await startCloud(engine, await start())
      await admin(cloud.broker, 'POST', '/v1/tools/reports/cut-off', { reason: 'a leak' })
      const { status, headers, body } = await ask(cloud.broker, cloud.agent, read)
      expect([status, headers.get('retry-after'), body.detail]).toEqual([503, expect.stringMatching(/^30[0-2]$/), expect.stringMatching(/cut off all sessions/)])
      expect(cloud.aws.calls('AssumeRole')).toEqual([])
      cloud.broker.clock.advance(302_000)
      // By the clock of AWS, as the emulator has it, it would be denied from its birth.
      expect(await ask(cloud.broker, cloud.agent, read)).toMatchObject({ status: 503, body: { detail: expect.stringMatching(/by the clock of AWS this one came too early/) } })
      cloud.aws.rewrite = ({ action }, body) => (action === 'AssumeRole' ? body.replace(/(?<=<Expiration>)[^<]*/, (time) => new Date(Date.parse(time) + 330_000).toISOString()) : body)
      const { grant } = await lend(cloud.broker, cloud.agent, read)
      await revoke(cloud, { grant })
      const [document = ''] = await readDocuments(cloud)
      expect(JSON.parse(document).Statement).toHaveLength(2)
      expect(await listDenied(cloud, [grant], cloud.broker.clock.nowMs())).toEqual([grant])
    })

    test.each([-290_000, 290_000])('denies what was opened while the clocks were %i ms apart, also what was denied by its name', async (apartMs) => {
      const cloud = await startCloud(engine, await start())
      cloud.aws.rewrite = ({ action }, body) => (action === 'AssumeRole' ? body.replace(/(?<=<Expiration>)[^<]*/, (time) => new Date(Date.parse(time) + apartMs).toISOString()) : body)
      const [first, second] = await lendMany(cloud, 2)
      const openedMs = cloud.broker.clock.nowMs() + apartMs
      await revoke(cloud, { grant: first?.grant })
      cloud.broker.clock.advance(1_000)
      await admin(cloud.broker, 'POST', '/v1/tools/reports/cut-off', { reason: 'a leak' })
      expect(await listDenied(cloud, [first?.grant ?? '', second?.grant ?? ''], openedMs)).toHaveLength(2)
      expect(await listDenied(cloud, [first?.grant ?? ''], openedMs + 86_400_000)).toHaveLength(1)
    })

    test('works for a tool that has left the catalog, while anything of it may live', async () => {
      const cloud = await startCloud(engine, await start())
      const { grant } = await lend(cloud.broker, cloud.agent, read)
      expect((await admin(cloud.broker, 'PUT', '/v1/policy', { files: second })).status).toBe(200)
      const { status, body } = await admin(cloud.broker, 'POST', '/v1/tools/reports/cut-off', { reason: 'a leak' })
      expect([status, body]).toEqual([200, expect.objectContaining({ confirmed: true, bystanders: 1, tools: ['reports'] })])
      expect(await listDenied(cloud, ['anybody'], cloud.broker.clock.nowMs())).toEqual(['anybody'])
      await runJobs(cloud.broker)
      expect(await stateOf(cloud, grant)).toBe('revoked')
    })

    test('is on record, and carried out by itself, where the tool cannot be told at once', async () => {
      const cloud = await startCloud(engine, await start())
      const { grant } = await lend(cloud.broker, cloud.agent, read)
      cloud.aws.fail('CreatePolicyVersion', { status: 403, body: queryError('AccessDenied', 'no') })
      const { status, body } = await admin(cloud.broker, 'POST', '/v1/tools/reports/cut-off', { reason: 'a leak' })
      expect([status, body]).toEqual([200, expect.objectContaining({ confirmed: false, problem: expect.stringMatching(/iam:CreatePolicyVersion is missing/), bystanders: 1 })])
      await runJobs(cloud.broker)
      expect(await stateOf(cloud, grant)).toBe('ending')
      cloud.aws.mend()
      await passTime(cloud.broker, 61_000)
      expect(await listDenied(cloud, ['anybody'], cloud.broker.clock.nowMs() - 61_000)).toEqual(['anybody'])
      await passTime(cloud.broker, 61_000)
      expect(await stateOf(cloud, grant)).toBe('revoked')
    })

    test('again moves the time on, and never back', async () => {
      const cloud = await startCloud(engine, await start())
      const first = (await admin(cloud.broker, 'POST', '/v1/tools/reports/cut-off', { reason: 'a leak' })).body
      cloud.broker.clock.advance(10_000)
      const next = (await admin(cloud.broker, 'POST', '/v1/tools/reports/cut-off', { reason: 'another one' })).body
      expect(Date.parse(next.before) - Date.parse(first.before)).toBe(10_000)
      expect((await readDocuments(cloud))[0]).toContain(next.before.replace('.000Z', 'Z'))
    })

    test('that was ordered while the list was being written is written next', async () => {
      const cloud = await startCloud(engine, await start())
      const { grant } = await lend(cloud.broker, cloud.agent, read)
      let cutOff: Promise<unknown> | undefined
      cloud.aws.onAnswer = ({ action }) => {
        if (action !== 'CreatePolicyVersion' || cutOff !== undefined) return
        cutOff = admin(cloud.broker, 'POST', '/v1/tools/reports/cut-off', { reason: 'a leak' })
        return new Promise((resolve) => setTimeout(resolve, 200))
      }
      await revoke(cloud, { grant })
      await cutOff
      delete cloud.aws.onAnswer
      expect(await listDenied(cloud, ['anybody'], cloud.broker.clock.nowMs())).toEqual(['anybody'])
    })

    test('is for admins, with a reason, and for tools whose sessions are denied', async () => {
      const cloud = await startCloud(engine, await start(), { more: () => second })
      for (const role of ['auditor', 'approver'] as const) {
        expect((await cloud.broker.sendAs(await cloud.broker.createOperator(role), 'POST', '/v1/tools/reports/cut-off', { reason: 'x' })).status).toBe(403)
      }
      expect((await admin(cloud.broker, 'POST', '/v1/tools/reports/cut-off', {})).status).toBe(400)
      expect((await admin(cloud.broker, 'POST', '/v1/tools/reports/cut-off', { reason: 'x', before: '2026-01-01' })).status).toBe(400)
      expect((await admin(cloud.broker, 'POST', '/v1/tools/nothing/cut-off', { reason: 'x' })).status).toBe(404)
      expect((await admin(cloud.broker, 'POST', '/v1/tools/tickets/cut-off', { reason: 'x' })).status).toBe(409)
      expect((await cloud.broker.events()).filter(({ type }) => type === 'tool.cut_off')).toEqual([])
      expect(await readDocuments(cloud)).toEqual([unusedDocument, unusedDocument])
    })
  })
})
