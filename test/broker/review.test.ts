import { setTimeout } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { keepReviewDates } from '../../src/broker/review.ts'
import { formatTime } from '../../src/kernel/clock.ts'
import type { Engine } from '../../src/storage/engine.ts'
import { dayMs, getToken, startBroker, type TestBroker } from '../broker.ts'
import { describeEngines } from '../harness.ts'
import { askToken } from '../http/oauth-requests.ts'

const standing = async (broker: TestBroker, name: string) =>
  ((await (await broker.sendAsAdmin('GET', `/v1/workloads/${name}`)).json()) as { status: string }).status
const change = async (broker: TestBroker, name: string, reviewAtMs: number) =>
  expect((await broker.sendAsAdmin('PATCH', `/v1/workloads/${name}`, { review_at: formatTime(reviewAtMs) })).status).toBe(200)

/** What the log says of review dates, by the schedule. */
async function scheduled(broker: TestBroker) {
  const events = (await broker.events()).filter(({ actor }) => actor.kind === 'stint' && actor.id === 'schedule')
  return events.map((event) => ('workload' in event ? `${event.type} ${String(event.workload)}` : event.type))
}

/** The broker, and where the engine allows it another process on its database. */
async function startTwo(engine: Engine) {
  const broker = await startBroker(engine)
  return { broker, beside: engine === 'postgres' ? await startBroker(engine, { beside: broker }) : broker }
}

/** Workloads in number, as a fleet that was registered together: straight into the table, for it is many. */
async function insertFleet(broker: TestBroker, count: number, reviewAtMs: number): Promise<void> {
  const time = formatTime(broker.clock.nowMs())
  const rows = Array.from({ length: count }, (_, i) => ({
    name: `bot-${i}`,
    environment: 'test',
    stage: 'pilot',
    team: 'support',
    contact: 'oncall:support',
    purpose: 'Is many',
    tags: '[]',
    review_at: formatTime(reviewAtMs),
    status: 'active',
    created_at: time,
    updated_at: time,
  }))
  for (let i = 0; i < rows.length; i += 1000) {
    const some = rows.slice(i, i + 1000)
    await broker.broker.database.maintenance.insertInto('workload').values(some).execute()
  }
}

describeEngines('A review date', (engine) => {
  test('is announced once, 14 days before, and suspends when it has passed', async () => {
    const { broker, beside } = await startTwo(engine)
    const reviewAtMs = broker.clock.nowMs() + 20 * dayMs
    const agent = await broker.register('bot', { reviewAt: formatTime(reviewAtMs) })
    const keep = () => Promise.all([broker, beside].map((one) => keepReviewDates(one.broker)))
    broker.clock.advance(6 * dayMs - 1)
    await keep()
    expect(await scheduled(broker)).toEqual([])
    broker.clock.advance(1)
    await keep()
    expect(await broker.lastEvent('workload.review_due')).toMatchObject({ actor: { kind: 'stint', id: 'schedule' }, workload: 'bot', review_at: formatTime(reviewAtMs) })
    broker.clock.set(reviewAtMs - 1)
    await keep()
    await getToken(beside, agent, { scope: 'tickets:read' })
    broker.clock.advance(1)
    expect(await standing(broker, 'bot')).toBe('active')
    await keep()
    expect(await broker.lastEvent('workload.suspended')).toMatchObject({
      actor: { kind: 'stint', id: 'schedule' },
      workload: 'bot',
      reason: `its review date ${formatTime(reviewAtMs)} has passed`,
    })
    expect(await standing(beside, 'bot')).toBe('suspended')
    expect(await askToken(beside, agent, { scope: 'tickets:read' })).toMatchObject({ status: 401 })
    await broker.broker.refusals.flush(true)
    await beside.broker.refusals.flush(true)
    expect(await broker.lastEvent('authentication.refused')).toMatchObject({ reason: 'workload_suspended' })
    await keep()
    expect(await scheduled(broker)).toEqual(['workload.review_due bot', 'workload.suspended bot'])

    // The way back: first the date, then the workload.
    const resume = async () => (await broker.sendAsAdmin('POST', '/v1/workloads/bot/resume', {})).status
    expect(await resume()).toBe(409)
    await change(broker, 'bot', reviewAtMs + 90 * dayMs)
    expect(await resume()).toBe(200)
    await keep()
    await getToken(beside, agent, { scope: 'tickets:read' })
    expect(await scheduled(broker)).toHaveLength(2)
  })

  test('that was moved is announced anew, and one that was not is not', async () => {
    const { broker, beside } = await startTwo(engine)
    const startMs = broker.clock.nowMs()
    await broker.register('bot', { reviewAt: formatTime(startMs + 10 * dayMs) })
    for (const one of [broker, beside, broker]) await keepReviewDates(one.broker)
    await change(broker, 'bot', startMs + 11 * dayMs)
    // Something else about it is no reason.
    await broker.sendAsAdmin('PATCH', '/v1/workloads/bot', { purpose: 'Does more' })
    for (const one of [broker, beside]) await keepReviewDates(one.broker)
    await broker.sendAsAdmin('PATCH', '/v1/workloads/bot', { purpose: 'Does less' })
    await keepReviewDates(broker.broker)
    expect(await scheduled(broker)).toEqual(['workload.review_due bot', 'workload.review_due bot'])
    expect((await broker.events()).filter(({ type }) => type === 'workload.review_due')).toMatchObject([
      { review_at: formatTime(startMs + 10 * dayMs) },
      { review_at: formatTime(startMs + 11 * dayMs) },
    ])
  })

  test('of a workload that works no more is nobody\'s concern', async () => {
    const { broker } = await startTwo(engine)
    for (const verb of ['suspend', 'retire']) {
      await broker.register(`bot-${verb}`, { reviewAt: formatTime(broker.clock.nowMs() + dayMs) })
      expect((await broker.sendAsAdmin('POST', `/v1/workloads/bot-${verb}/${verb}`, {})).status).toBe(200)
    }
    await keepReviewDates(broker.broker)
    broker.clock.advance(2 * dayMs)
    await keepReviewDates(broker.broker)
    expect(await scheduled(broker)).toEqual([])
    expect([await standing(broker, 'bot-suspend'), await standing(broker, 'bot-retire')]).toEqual(['suspended', 'retired'])
  })

  test('is judged by the log\'s time: a clock that is set back suspends nobody later, nor anybody again', async () => {
    const { broker } = await startTwo(engine)
    await broker.register('bot', { reviewAt: formatTime(broker.clock.nowMs() + dayMs) })
    broker.clock.advance(dayMs)
    await broker.register('other')
    broker.clock.advance(-dayMs)
    await keepReviewDates(broker.broker)
    expect(await scheduled(broker)).toEqual(['workload.suspended bot'])
  })

  test('is kept by the scheduler', async () => {
    const { broker } = await startTwo(engine)
    await broker.register('bot', { reviewAt: formatTime(broker.clock.nowMs() + dayMs) })
    broker.clock.advance(5000)
    await broker.scheduler.tick()
    broker.clock.advance(dayMs)
    await broker.scheduler.tick()
    expect(await scheduled(broker)).toEqual(['workload.review_due bot', 'workload.suspended bot'])
    expect(broker.logLines.map((line) => JSON.parse(line) as object)).toContainEqual(
      expect.objectContaining({ level: 'warn', message: 'workloads were suspended, for their review date has passed', count: 1, first: 'bot' }),
    )
  })
})

test('Of thousands that are due at once, each run of the scheduler takes some hundred, and tokens are issued all the while', async () => {
  const broker = await startBroker('sqlite')
  const agent = await broker.register('agent')
  await insertFleet(broker, 4_000, broker.clock.nowMs() + 1000)
  const done = new AbortController()
  const suspended = async () => {
    const { count } = await broker.broker.database.read
      .selectFrom('workload')
      .select((eb) => eb.fn.countAll<number>().as('count'))
      .where('status', '=', 'suspended')
      .executeTakeFirstOrThrow()
    return Number(count)
  }
  const scheduler = (async () => {
    const counts: number[] = []
    for (let before = -1; before !== (await suspended()); ) {
      before = await suspended()
      broker.clock.advance(5000)
      await broker.scheduler.tick()
      counts.push((await suspended()) - before)
      // Far less than the scheduler leaves between two runs.
      await setTimeout(20)
    }
    return counts
  })().finally(() => done.abort())
  let issued = 0
  while (!done.signal.aborted) {
    await getToken(broker, agent, { scope: 'tickets:read' })
    issued++
  }
  expect(await scheduler).toEqual([...Array.from({ length: 8 }, () => 500), 0])
  // Each of them was answered with a token: commits in a row would have had the epoch move on and on.
  expect(issued).toBeGreaterThan(4)
  expect((await broker.events()).filter(({ type }) => type === 'workload.suspended')).toHaveLength(4_000)
})
