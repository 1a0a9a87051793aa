import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { decodeJwt } from 'jose'
import { expect, test } from 'vitest'
import { verifyReceipt } from '../../src/audit/receipt.ts'
import { verifyDecisions } from '../../src/cli/verify-decisions.ts'
import { verifyFile } from '../../src/cli/verify-file.ts'
import { endTriesMax } from '../../src/grant/lifetime.ts'
import { admin, call, lend, lifeOf, minuteMs, passTime, startBeside, startLending, type Lending } from '../broker/lending.ts'
import type { TestBroker } from '../broker.ts'
import { createTestFolder, describePostgres } from '../harness.ts'

const quiet = { err: () => undefined, errColumns: undefined }

/** Whether an export of everything, its decisions and the receipt of each grant hold; returns what the export came to. */
async function judge(broker: TestBroker) {
  const exported = await broker.sendAsAdmin('GET', '/v1/audit/export')
  const entries = await exported.text()
  const range = `first=${exported.headers.get('stint-export-first')}&last=${exported.headers.get('stint-export-last')}`
  const path = join(createTestFolder(), 'log.jsonl')
  writeFileSync(path, entries + (await (await broker.sendAsAdmin('GET', `/v1/audit/proof?${range}`)).text()))
  const { verifier } = broker.broker.checkpointKey
  const verdict = await verifyFile(path, { verifier }, quiet)
  expect(verdict).toMatchObject({ proof: 'complete', problems: [], unproven: 0 })
  const decisions = await verifyDecisions(path, quiet)
  expect(decisions, decisions.lines.join('\n')).toMatchObject({ ok: true, json: { wrong: 0 } })
  const stories = new Map<string, { proven: readonly string[]; unproven: readonly string[] }>()
  for (const event of await broker.events()) {
    if (event.type !== 'grant.minting' && event.type !== 'grant.issued') continue
    const receipt = verifyReceipt(await (await broker.sendAsAdmin('GET', `/v1/audit/receipts/${event.grant}`)).json(), verifier)
    expect(receipt).toMatchObject({ ok: true, problems: [], grant: event.grant })
    stories.set(event.grant, receipt)
  }
  return { ...verdict, stories, decisions: decisions.json['decisions'] }
}

const give = (lending: Pick<Lending, 'broker' | 'agent'>, grant: string) => call(lending.broker, lending.agent, 'DELETE', `/v1/grants/${grant}`)
const revoke = (broker: TestBroker, target: object) => admin(broker, 'POST', '/v1/revocations', target)

describePostgres('The log of a broker that lends roles of a PostgreSQL', (engine) => {
  test('holds, whatever has ended them, and so does each receipt', async () => {
    const lending = await startLending(engine)
    const { broker, agent } = lending
    const other = await broker.register('other')
    const ledger = { tool: 'ledger', actions: ['read'] }
    const given = await lend(broker, agent)
    expect((await give(lending, given.grant)).status).toBe(200)
    const revoked = await lend(broker, agent, { ...ledger, reason: 'a look' })
    await revoke(broker, { grant: revoked.grant, reason: 'odd' })
    const ofTask = await lend(broker, agent, { ...ledger, task: 't-1' })
    expect((await call(broker, agent, 'POST', '/v1/tasks/t-1/complete')).status).toBe(200)
    // Named by another, renewed, and then over.
    const renewed = await lend(broker, agent)
    expect((await call(broker, other, 'GET', `/v1/grants/${renewed.grant}`)).status).toBe(404)
    broker.clock.advance(minuteMs)
    expect((await call(broker, agent, 'POST', `/v1/grants/${renewed.grant}/renew`, {})).status).toBe(200)
    await passTime(broker, 10 * minuteMs)
    expect(await lifeOf(broker, renewed.grant)).toEqual(['grant.minting', 'grant.activated', 'access.refused', 'grant.renewed', 'grant.ended'])
    // By a token of Stint's own.
    const own = await lend(broker, agent, { tool: 'stint', actions: ['grants'] })
    const bearer = { authorization: `Bearer ${String(own.credential['access_token'])}` }
    const byToken = await lend(broker, agent, ledger, bearer)
    await call(broker, agent, 'POST', '/v1/grants', { ...ledger, actions: ['fly'] }, bearer)
    const token = await lend(broker, agent, { tool: 'tickets', actions: ['read'] }, bearer)
    const next = await call(broker, agent, 'POST', `/v1/grants/${token.grant}/renew`, {})
    expect([next.status, decodeJwt(next.body.credential.access_token).jti]).toEqual([201, next.body.grant])
    await revoke(broker, { tool: 'ledger' })
    const ofOwner = await lend(broker, other)
    await revoke(broker, { owner: 'support', tool: 'ledger' })
    const stopped = await lend(broker, other)
    await revoke(broker, { workload: 'other', suspend: true })
    const { life, stories, decisions } = await judge(broker)
    expect(life).toMatchObject({ issued: 10, outside: { issued: 7, failed: 0, ended: 7, open: 0, stuck: 0, writtenOff: 0 } })
    expect(decisions).toBeGreaterThan(9)
    for (const { grant } of [given, revoked, ofTask, renewed, byToken, ofOwner, stopped]) {
      expect(stories.get(grant)?.proven.join('\n')).toMatch(/ledger calls it stint_\w+.*\n[^]*it opens nothing any more/)
      expect(stories.get(grant)?.unproven).toEqual([expect.stringContaining('nothing else about this grant')])
    }
    expect(stories.get(revoked.grant)?.proven.slice(3)).toEqual([expect.stringMatching(/it was revoked by operator \w+: odd\.$/), expect.stringContaining('the tool has confirmed it')])
    expect(stories.get(renewed.grant)?.proven.at(-1)).toBe('Once another workload asked about it, or wanted to end it, and was refused.')
  }, 60_000)

  test('holds, whatever the tool does not do, and whoever gives it up', async () => {
    const lending = await startLending(engine)
    const { broker, agent, wire } = lending
    const [first, second] = [await lend(broker, agent), await lend(broker, agent)]
    await wire.stop()
    wire.cutAll()
    // Nothing can be made, and nothing ended.
    expect((await call(broker, agent, 'POST', '/v1/grants', { tool: 'ledger', actions: ['read'] })).status).toBeGreaterThanOrEqual(500)
    for (const { grant } of [first, second]) await revoke(broker, { grant })
    for (let i = 0; i < 2 * endTriesMax; i++) await passTime(broker, 11 * minuteMs)
    for (const { grant } of [first, second]) expect((await lifeOf(broker, grant)).at(-1)).toBe('grant.stuck')
    expect((await admin(broker, 'POST', `/v1/grants/${first.grant}/write-off`, { reason: 'the server is gone' })).status).toBe(200)
    const between = await judge(broker)
    expect(between.life.outside).toMatchObject({ issued: 3, stuck: 1, writtenOff: 1, open: 0 })
    expect(between.stories.get(first.grant)?.unproven[0]).toContain('only says that nobody looks after it')
    await wire.listen()
    const beside = await startBeside(lending)
    await admin(beside, 'POST', `/v1/grants/${second.grant}/retry`, { reason: 'it is up' })
    await passTime(beside, minuteMs)
    expect((await admin(beside, 'POST', '/v1/tools/ledger/orphans', {})).status).toBe(200)
    const { life, stories } = await judge(beside)
    expect(life.outside).toMatchObject({ issued: 3, ended: 1, stuck: 0, writtenOff: 1, open: 0 })
    expect(stories.get(first.grant)?.proven.at(-1)).toMatch(/what was left of it in ledger, stint_\w+, was found and ended by operator/)
    expect(await lifeOf(beside, second.grant)).toEqual(['grant.minting', 'grant.activated', 'grant.revoked', 'grant.stuck', 'grant.retried', 'grant.ended'])
  }, 120_000)
})
