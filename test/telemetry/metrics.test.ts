import { setTimeout } from 'node:timers/promises'
import { sql } from 'kysely'
import { describe, expect, onTestFinished, test } from 'vitest'
import type { Reading } from '../../src/kernel/meter.ts'
import { openPostgres } from '../../src/storage/postgres.ts'
import { createMetrics } from '../../src/telemetry/metrics.ts'
import { dayMs, getToken, startBroker, testPolicies, type TestBroker } from '../broker.ts'
import { describeEngines, describePostgres } from '../harness.ts'
import { readExposition, type Scrape } from './exposition.ts'

async function scrape(broker: TestBroker): Promise<Scrape> {
  const response = await broker.sendAsAdmin('GET', '/metrics')
  expect([response.status, response.headers.get('content-type')]).toEqual([200, 'text/plain; version=0.0.4; charset=utf-8'])
  return readExposition(await response.text())
}

/** How much a figure has risen since. */
function rise(before: Scrape, after: Scrape, ...[name, labels]: Parameters<Scrape['value']>): number {
  return (after.value(name, labels) ?? 0) - (before.value(name, labels) ?? 0)
}

const scope = { grant_type: 'client_credentials', scope: 'tickets:read' }

describeEngines('What is counted', (engine) => {
  test('tokens, denials, refusals: each by its own kind, and nothing else', async () => {
    const broker = await startBroker(engine)
    const [bot, teller] = [await broker.register('bot'), await broker.register('teller', { team: 'finance' })]
    const ask = async (form: Record<string, string> | string) => (await broker.send('POST', '/oauth2/token', { form })).status
    const before = await scrape(broker)
    // Without a first value the first replay would be none that `increase()` sees.
    expect(before.series.filter((one) => one.startsWith('stint_refusals_total'))).toHaveLength(3)
    for (const [realm, reason] of [['workload', 'replayed'], ['enrolment', 'replayed'], ['sign_in', 'id_token_replayed']] as const) {
      expect([realm, before.value('stint_refusals_total', { realm, reason })]).toEqual([realm, 0])
    }
    expect(before.value('stint_ledger_failures_total')).toBe(0)
    await getToken(broker, bot, { scope: 'tickets:read' })
    await getToken(broker, bot, { scope: 'tickets:read tickets:comment' })
    const details = (actions: string[], target: string) => JSON.stringify([{ type: 'stint', actions, target, ttl_seconds: 60 }])
    await getToken(broker, teller, { authorization_details: details(['payments:read'], 'acct-1') })
    const spent = bot.form(scope)
    const refused: [Record<string, string>, number][] = [
      [bot.form({ ...scope, scope: 'tickets:purge' }), 400],
      [teller.form({ grant_type: 'client_credentials', authorization_details: details(['payments:refund'], 'acct-1') }), 400],
      [bot.form({ ...scope, scope: 'nothing:here' }), 400],
      [spent, 200],
      [spent, 401],
      [{ ...scope, client_assertion_type: spent['client_assertion_type'] ?? '', client_assertion: bot.assert({ aud: 'https://elsewhere.test' }) }, 401],
      [scope, 401],
    ]
    for (const [form, status] of refused) expect([form['scope'], await ask(form)]).toEqual([form['scope'], status])
    await broker.send('GET', '/v1/audit', { headers: { authorization: 'Bearer stint_op_0000000000000000_x' } })
    const after = await scrape(broker)

    expect(rise(before, after, 'stint_tokens_issued_total', { tool: 'tickets' })).toBe(3)
    expect(rise(before, after, 'stint_tokens_issued_total', { tool: 'payments' })).toBe(1)
    for (const reason of ['denied', 'needs_approval', 'invalid_scope']) {
      expect([reason, rise(before, after, 'stint_requests_denied_total', { reason })]).toEqual([reason, 1])
    }
    expect(after.sum('stint_requests_denied_total')).toBe(3)
    for (const reason of ['replayed', 'audience_mismatch', 'assertion_missing']) {
      expect([reason, rise(before, after, 'stint_refusals_total', { realm: 'workload', reason })]).toEqual([reason, 1])
    }
    expect(rise(before, after, 'stint_refusals_total', { realm: 'operator', reason: 'operator_malformed' })).toBe(1)
    expect(after.sum('stint_refusals_total')).toBe(4)
    const token = (status: string) => ({ method: 'POST', route: '/oauth2/token', status })
    for (const [status, count] of [['200', 4], ['400', 3], ['401', 3]] as const) {
      expect([status, rise(before, after, 'stint_http_request_seconds_count', token(status))]).toEqual([status, count])
    }
    // Each of them waited for a commit, but for those that were refused before it.
    expect(rise(before, after, 'stint_ledger_wait_seconds_count')).toBe(8)
    expect(rise(before, after, 'stint_ledger_batch_changes_sum')).toBe(8)
    expect(rise(before, after, 'stint_ledger_commit_seconds_count')).toBe(rise(before, after, 'stint_ledger_batch_changes_count'))
    expect(rise(before, after, 'stint_log_entries')).toBe(7)
  })

  test('changes that come together share a batch', async () => {
    const broker = await startBroker(engine)
    const bot = await broker.register('bot')
    const before = await scrape(broker)
    await Promise.all(Array.from({ length: 20 }, () => getToken(broker, bot, { scope: 'tickets:read' })))
    const after = await scrape(broker)
    expect(rise(before, after, 'stint_ledger_batch_changes_sum')).toBe(20)
    expect(rise(before, after, 'stint_ledger_batch_changes_count')).toBeLessThan(20)
  })

  test('a request over a limit', async () => {
    const broker = await startBroker(engine, { limits: { refusalsPerMinutePerAddress: 1_000, requestsPerSecondPerWorkload: 1 } })
    const bot = await broker.register('bot')
    const before = await scrape(broker)
    for (const status of [200, 200, 429, 429]) expect((await broker.send('POST', '/oauth2/token', { form: bot.form(scope) })).status).toBe(status)
    const after = await scrape(broker)
    expect(rise(before, after, 'stint_requests_limited_total', { scope: 'workload' })).toBe(2)
    expect(after.value('stint_requests_limited_total', { scope: 'address' })).toBe(0)
  })

  test('a job that failed, and a batch that came to nothing', async () => {
    const broker = await startBroker(engine)
    const before = await scrape(broker)
    expect(before.value('stint_job_failures_total', { job: 'forget expired replay marks' })).toBe(0)
    // What the database does when it is out of order.
    broker.broker.database.write = async () => {
      throw new Error('disk full')
    }
    broker.clock.advance(60_000)
    await broker.scheduler.tick()
    const after = await scrape(broker)
    expect(rise(before, after, 'stint_job_failures_total', { job: 'forget expired replay marks' })).toBe(1)
    expect(rise(before, after, 'stint_job_failures_total', { job: 'record refusals' })).toBe(0)
    expect(rise(before, after, 'stint_ledger_failures_total')).toBeGreaterThan(0)
  })
})

describeEngines('What is read', (engine) => {
  test('the head, the policy set, workloads, review dates and operators', async () => {
    const broker = await startBroker(engine)
    const reviewIn = (days: number) => ({ reviewAt: new Date(broker.clock.nowMs() + days * dayMs).toISOString() })
    await broker.register('calm')
    await broker.register('nearly', reviewIn(10))
    await broker.register('soon', reviewIn(2))
    await broker.register('gone', reviewIn(3))
    await broker.register('resting', reviewIn(2))
    expect((await broker.sendAsAdmin('POST', '/v1/workloads/gone/retire', {})).status).toBe(200)
    expect((await broker.sendAsAdmin('POST', '/v1/workloads/resting/suspend', {})).status).toBe(200)
    await broker.createOperator('auditor', { valid_days: 10 })
    await broker.createOperator('auditor', { name: 'lasting', valid_days: 100 })
    await broker.createOperator('approver')
    const first = await scrape(broker)
    const { size, epoch } = await broker.broker.database.read.selectFrom('log_head').select(['size', 'epoch']).executeTakeFirstOrThrow()
    const read = (from: Scrape, ...names: readonly string[]) => names.map((name) => from.value(`stint_${name}`))
    const by = (from: Scrape, name: string, label: string, ...values: readonly string[]) => values.map((value) => from.value(`stint_${name}`, { [label]: value }))

    expect(read(first, 'epoch', 'log_entries', 'policies', 'tools', 'log_halted', 'log_writable', 'database_answers')).toEqual([epoch, size, 4, 2, 0, 1, 1])
    expect(by(first, 'workloads', 'status', 'active', 'suspended', 'retired')).toEqual([3, 1, 1])
    expect(read(first, 'reviews_due', 'reviews_overdue', 'policy_set_age_seconds', 'clock_behind_seconds')).toEqual([2, 0, 0, 0])
    expect(by(first, 'operators', 'role', 'admin', 'approver', 'auditor')).toEqual([1, 1, 2])
    expect(by(first, 'operators_expiring', 'role', 'admin', 'approver', 'auditor')).toEqual([0, 0, 1])

    broker.clock.advance(5 * dayMs)
    const later = await scrape(broker)
    expect(read(later, 'reviews_due', 'reviews_overdue', 'policy_set_age_seconds')).toEqual([1, 2, (5 * dayMs) / 1000])
    broker.clock.advance(6 * dayMs)
    expect(by(await scrape(broker), 'operators', 'role', 'auditor')).toEqual([1])

    await broker.register('one-more')
    broker.clock.advance(-60_000)
    const behind = await scrape(broker)
    expect([behind.value('stint_clock_behind_seconds'), rise(later, behind, 'stint_epoch'), rise(later, behind, 'stint_log_entries')]).toEqual([60, 1, 1])

    const files = Object.fromEntries([...testPolicies].filter(([file]) => file !== 'tools/payments.yaml' && file !== 'rules.cedar'))
    expect((await broker.sendAsAdmin('PUT', '/v1/policy', { files: { ...files, 'one.cedar': '@id("x") permit (principal, action, resource);' } })).status).toBe(200)
    expect(read(await scrape(broker), 'policies', 'tools', 'policy_set_age_seconds')).toEqual([1, 1, 0])
  })

  test('another process shows the same, and its own requests', async () => {
    const one = await startBroker(engine)
    if (engine === 'sqlite') return
    const other = await startBroker(engine, { beside: one })
    const bot = await one.register('bot')
    await getToken(one, bot, { scope: 'tickets:read' })
    const [ofOne, ofOther] = [await scrape(one), await scrape(other)]
    for (const name of ['stint_epoch', 'stint_log_entries']) expect(ofOther.value(name)).toBe(ofOne.value(name))
    expect([ofOne.sum('stint_tokens_issued_total'), ofOther.sum('stint_tokens_issued_total')]).toEqual([1, 0])
  })

  test('what concerns the process itself', async () => {
    const broker = await startBroker(engine)
    const { value, series } = await scrape(broker)
    expect(value('process_resident_memory_bytes')).toBeGreaterThan(10_000_000)
    expect(value('nodejs_heap_size_used_bytes')).toBeGreaterThan(1_000_000)
    expect(value('process_cpu_seconds_total')).toBeGreaterThan(0.01)
    expect(value('process_start_time_seconds')).toBeGreaterThan(1_700_000_000)
    expect(value('stint_event_loop_delay_seconds', { quantile: '1' })).toBeLessThan(60)
    expect(series.filter((one) => one.startsWith('stint_build_info'))).toEqual([expect.stringMatching(/"version":"\d+\.\d+\.\d+"/)])
  })
})

describePostgres('When the database does not answer', () => {
  test('what it would tell is missing, and the scrape comes all the same', async () => {
    const broker = await startBroker('postgres')
    const owner = openPostgres({ url: broker.database.ownerLocation })
    onTestFinished(() => owner.close())
    await owner.maintenance.transaction().execute(async (tx) => {
      await sql`lock table workload in access exclusive mode`.execute(tx)
      const beganMs = performance.now()
      const scrapes = await Promise.all([scrape(broker), scrape(broker), scrape(broker)])
      expect(performance.now() - beganMs).toBeLessThan(6_000)
      for (const { value } of scrapes) expect([value('stint_database_answers'), value('stint_epoch'), value('stint_workloads', { status: 'active' })]).toEqual([0, undefined, undefined])
      // Another one while the first still waits does not wait beside it.
      const waiting = sql<{ n: number }>`select count(*) as n from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`
      expect((await waiting.execute(owner.read)).rows).toEqual([{ n: 1 }])
    })
    await expect.poll(async () => (await scrape(broker)).value('stint_database_answers'), { timeout: 10_000 }).toBe(1)
  })

  test('and one part of it fails, the others are told', async () => {
    const broker = await startBroker('postgres')
    const owner = openPostgres({ url: broker.database.ownerLocation })
    onTestFinished(() => owner.close())
    await sql`alter table workload rename to elsewhere`.execute(owner.maintenance)
    const { value } = await scrape(broker)
    expect([value('stint_database_answers'), value('stint_workloads', { status: 'active' }), value('stint_operators', { role: 'admin' })]).toEqual([0, undefined, 1])
    expect(value('stint_log_entries')).toBeGreaterThan(0)
  })
})

describe('The series', () => {
  test('are not made by what strangers send', async () => {
    const broker = await startBroker('sqlite')
    const hostile = (n: number) => [
      ['GET', `/made-up-${n}`],
      ['GET', `/v1/workloads/made-up-${n}`],
      ['GET', `/v1/tasks/${n}/%00"\n`],
      [`METHOD${n}`, '/oauth2/token'],
      [`METHOD${n}`, `/other-${n}`],
      ['DELETE', '/oauth2/token'],
      ['OPTIONS', `/healthz?${n}`],
      ['POST', '/oauth2/token'],
    ]
    const send = async (n: number): Promise<void> => {
      for (const [method = '', path = ''] of hostile(n)) {
        const bot = `made-up-${n}`
        const form = { scope: bot, client_assertion: bot, resource: bot }
        await broker.send(method, path, { ...(method === 'POST' && { form }), headers: { authorization: `Bearer ${bot}`, traceparent: bot } })
      }
    }
    await send(0)
    const before = await scrape(broker)
    await scrape(broker)
    for (let n = 1; n <= 30; n++) await send(n)
    const after = await scrape(broker)
    expect(after.series.filter((series) => !before.series.includes(series) && !series.includes('/metrics'))).toEqual([])
    expect(after.series.join('\n')).not.toMatch(/made-up|METHOD/)
    expect(rise(before, after, 'stint_http_request_seconds_count', { method: '_OTHER', route: 'unknown', status: '404' })).toBe(90)
  })

  test('of a tool come from the catalog alone', async () => {
    const broker = await startBroker('sqlite')
    const bot = await broker.register('bot')
    for (const tool of ['made-up', 'tickets', 'payments', '__proto__']) {
      await broker.send('POST', '/oauth2/token', { form: bot.form({ ...scope, scope: `${tool}:read` }) })
    }
    const { series } = await scrape(broker)
    expect(series.filter((one) => one.startsWith('stint_tokens_issued_total'))).toEqual(['stint_tokens_issued_total{"tool":"tickets"}'])
  })

  test('of two brokers in one process do not mix', async () => {
    const [one, other] = [await startBroker('sqlite'), await startBroker('sqlite')]
    await getToken(one, await one.register('bot'), { scope: 'tickets:read' })
    expect((await scrape(one)).sum('stint_tokens_issued_total')).toBe(1)
    expect((await scrape(other)).sum('stint_tokens_issued_total')).toBe(0)
  })

  test('are for operators, of whatever role, and for nobody else', async () => {
    const broker = await startBroker('sqlite')
    for (const role of ['auditor', 'approver'] as const) {
      expect((await broker.sendAs(await broker.createOperator(role), 'GET', '/metrics')).status).toBe(200)
    }
    const refused = await broker.send('GET', '/metrics')
    expect([refused.status, await refused.text()]).toEqual([401, expect.not.stringContaining('stint_epoch')])
  })
})

describe('A reading', () => {
  const figure: Reading = { name: 'epoch', labels: {}, value: 7 }

  test('that hangs is given up, not asked for again meanwhile, and told when it comes', async () => {
    let asked = 0
    let finish: (readings: Reading[]) => void = () => undefined
    const metrics = createMetrics({
      version: '1.2.3',
      readMsMax: 20,
      readFigures() {
        asked++
        return new Promise<Reading[]>((resolve) => (finish = resolve))
      },
    })
    onTestFinished(metrics.close)
    for (const _ of [1, 2]) expect(readExposition(await metrics.read()).value('stint_epoch')).toBeUndefined()
    expect(asked).toBe(1)
    finish([figure])
    await setTimeout(0)
    const read = metrics.read()
    finish([figure])
    expect([readExposition(await read).value('stint_epoch'), asked]).toEqual([7, 2])
  })

  test('that fails leaves the counted figures, and nothing of the reading before', async () => {
    let fails = false
    const metrics = createMetrics({
      version: '1.2.3',
      async readFigures() {
        if (fails) throw new Error('no')
        return [figure]
      },
    })
    onTestFinished(metrics.close)
    metrics.meter.count('tokens_issued', { tool: 'tickets' })
    expect(readExposition(await metrics.read()).value('stint_epoch')).toBe(7)
    fails = true
    const { value } = readExposition(await metrics.read())
    expect([value('stint_epoch'), value('stint_database_answers'), value('stint_tokens_issued_total', { tool: 'tickets' })]).toEqual([undefined, 0, 1])
  })
})
