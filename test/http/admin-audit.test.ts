import { expect, test } from 'vitest'
import { leafHash } from '../../src/audit/encode.ts'
import { getToken, startBroker, type TestBroker } from '../broker.ts'
import { describeEngines } from '../harness.ts'

interface Page {
  readonly entries: readonly { index: number; time: string; type: string; event: Record<string, unknown>; leaf_hash: string }[]
  readonly next?: number
  readonly tree_size: number
}

async function list(broker: TestBroker, query = ''): Promise<Page> {
  const response = await broker.sendAsAdmin('GET', `/v1/audit${query}`)
  expect(response.status).toBe(200)
  return (await response.json()) as Page
}

const indexesOf = ({ entries }: Page): number[] => entries.map((entry) => entry.index)

describeEngines('The list of the log', (engine) => {
  test('gives the newest entries first, each with the hash of its stored bytes', async () => {
    const broker = await startBroker(engine)
    await broker.register('bot')
    const page = await list(broker)
    const events = await broker.events()
    expect(page.tree_size).toBe(events.length)
    expect(page.entries.map((entry) => entry.event)).toEqual(events.toReversed())
    expect(page.next).toBeUndefined()
    const rows = await broker.broker.database.read.selectFrom('audit_event').select(['idx', 'body']).execute()
    for (const { index, type, event, leaf_hash: hash } of page.entries) {
      const body = rows.find((row) => row.idx === index)?.body ?? ''
      expect([event['index'], event['type'], hash]).toEqual([index, type, leafHash(Buffer.from(body)).toString('hex')])
    }
  })

  test('filters by each member, and by all of them together', async () => {
    const broker = await startBroker(engine)
    const [one, two] = [await broker.register('one'), await broker.register('two')]
    broker.clock.advance(60_000)
    const detail = JSON.stringify([{ type: 'stint', actions: ['tickets:read'], task: 'ticket-7' }])
    await getToken(broker, one, { authorization_details: detail })
    broker.clock.advance(60_000)
    await getToken(broker, two, { scope: 'tickets:read' })
    const events = await broker.events()
    const issued = events.filter((event) => event.type === 'grant.issued')
    const [first, second] = issued.map((event) => event.index)
    const grant = issued[0]?.type === 'grant.issued' ? issued[0].grant : ''
    const cases: readonly (readonly [string, readonly (number | undefined)[]])[] = [
      ['?type=grant.issued', [second, first]],
      ['?tool=tickets', [second, first]],
      ['?tool=nothing', []],
      ['?task=ticket-7', [first]],
      [`?grant=${grant}`, [first]],
      ['?workload=one', [first, events.find((event) => event.type === 'workload.registered')?.index]],
      ['?workload=nobody', []],
      // From a time on, and before a time: two pages that meet share no entry and lack none.
      ['?since=2026-01-15T12:02:00Z', [second]],
      ['?since=2026-01-15T13:01:00%2B01:00&until=2026-01-15T12:02:00Z', [first]],
      ['?type=grant.issued&until=2026-01-15T12:01:00Z', []],
      [`?type=grant.issued&before=${second}`, [first]],
      [`?after=${first}`, [second]],
      ['?type=grant.issued&workload=two&tool=tickets&since=2026-01-15', [second]],
      ['?type=grant.issued&workload=two&task=ticket-7', []],
    ]
    for (const [query, expected] of cases) expect([query, indexesOf(await list(broker, query))]).toEqual([query, expected])
  })

  test('pages without a gap or a repetition while entries are added', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('bot')
    for (let i = 0; i < 5; i++) await getToken(broker, agent, { scope: 'tickets:read' })
    const size = (await broker.events()).length
    const seen: number[] = []
    let page = await list(broker, '?limit=3')
    while (page.next !== undefined) {
      seen.push(...indexesOf(page))
      await getToken(broker, agent, { scope: 'tickets:read' })
      page = await list(broker, `?limit=3&before=${page.next}`)
    }
    seen.push(...indexesOf(page))
    expect(seen).toEqual(Array.from({ length: size }, (_, i) => size - 1 - i))
    expect(page.tree_size).toBeGreaterThan(size)
  })

  test('names no next page where the last one is exactly full', async () => {
    const broker = await startBroker(engine)
    const size = (await broker.events()).length
    expect((await list(broker, `?limit=${size}`)).next).toBeUndefined()
    expect((await list(broker, `?limit=${size - 1}`)).next).toBe(1)
    expect(await list(broker, '?before=0')).toEqual({ entries: [], tree_size: size })
  })
})
