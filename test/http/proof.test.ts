import { expect, test } from 'vitest'
import { advanceCheckpoint } from '../../src/broker/checkpoints.ts'
import { rebuild, type Rebuilt } from '../audit/rebuild.ts'
import { getToken, startBroker, testPolicies, type TestBroker } from '../broker.ts'
import { describeEngines } from '../harness.ts'
import { note } from '../storage/changes.ts'
import { unrecorded } from './admin-requests.ts'

const range = (start: number, end: number) => Array.from({ length: end - start }, (_, i) => start + i)

/** The export of a selection and its proof, as one text. `before` is what happens between the two. */
async function take(broker: TestBroker, query = '', before: () => Promise<unknown> = async () => undefined) {
  const exported = await broker.sendAsAdmin('GET', `/v1/audit/export?${query}`)
  const entries = await exported.text()
  const [first, last] = ['stint-export-first', 'stint-export-last'].map((name) => Number(exported.headers.get(name)))
  await before()
  const filter = query.split('&').filter((pair) => /^(?:type|workload|tool|grant|task)=/.test(pair))
  const proof = await broker.sendAsAdmin('GET', `/v1/audit/proof?${[...filter, `first=${first}`, `last=${last}`].join('&')}`)
  const text = await proof.text()
  expect([proof.status, proof.status === 200 ? '' : text]).toEqual([200, ''])
  return { entries, proof: text, first: Number(first), last: Number(last), headers: proof.headers }
}

async function takeAndRebuild(broker: TestBroker, query = '', before?: () => Promise<unknown>): Promise<Rebuilt & { first: number; last: number }> {
  const { entries, proof, first, last, headers } = await take(broker, query, before)
  const rebuilt = rebuild(entries + proof, broker.broker.checkpointKey.verifierKey)
  expect(headers.get('stint-checkpoint-size')).toBe(String(rebuilt.size))
  return { ...rebuilt, first, last }
}

async function addEntries({ broker }: TestBroker, count: number, workload = 'triage-bot'): Promise<void> {
  await Promise.all(Array.from({ length: count }, (_, i) => broker.ledger.append({ events: [note(`${i}`, workload)] })))
}

const sizeOf = async (broker: TestBroker) => (await broker.events()).length
const applySet = async (broker: TestBroker, comment: string) => {
  const files = Object.fromEntries([...testPolicies].map(([path, text]) => [path, path === 'rules.cedar' ? `${text}// ${comment}\n` : text]))
  const response = await broker.sendAsAdmin('PUT', '/v1/policy', { files })
  expect(response.status).toBe(200)
  return { hash: ((await response.json()) as { hash: string }).hash, files }
}

describeEngines('The proof of an export', (engine) => {
  test('of the whole log has no gap, and ends with the checkpoint that was made for it', async () => {
    const broker = await startBroker(engine)
    await addEntries(broker, 300)
    const size = await sizeOf(broker)
    const { indexes, gaps, size: signed } = await takeAndRebuild(broker, '', () => addEntries(broker, 10))
    expect([indexes, gaps, signed]).toEqual([range(0, size), [], size])
  })

  test('of the smallest log there is holds', async () => {
    const broker = await startBroker(engine, { policies: 'none' })
    const { indexes, gaps, sets, last } = await takeAndRebuild(broker, 'to=2026-01-15T12:00:00.001Z')
    expect([indexes.length, gaps, sets]).toEqual([last + 1, [], []])
    const one = await takeAndRebuild(broker, 'until=0')
    expect([one.indexes, one.gaps[0]?.[0]]).toEqual([[0], 1])
    // Without anything else: a log of one entry.
    const proof = await (await broker.sendAsAdmin('GET', '/v1/audit/proof?first=0&last=0')).text()
    expect(proof.trim().split('\n')).toHaveLength(3)
  })

  test('of a time has the rest of the tree as two gaps, also where one of them borders on a tile', async () => {
    const broker = await startBroker(engine)
    await addEntries(broker, 255 - (await sizeOf(broker)))
    broker.clock.advance(60_000)
    await addEntries(broker, 257)
    broker.clock.advance(60_000)
    await addEntries(broker, 100)
    const middle = await takeAndRebuild(broker, 'from=2026-01-15T12:00:30Z&to=2026-01-15T12:01:30Z')
    expect(middle.indexes).toEqual(range(255, 512))
    expect(middle.gaps).toEqual([[0, 255], [512, middle.size]])
    const until = await takeAndRebuild(broker, 'to=2026-01-15T12:00:30Z', () => advanceCheckpoint(broker.broker))
    expect([until.indexes, until.gaps]).toEqual([range(0, 255), [[255, until.size]]])
    const from = await takeAndRebuild(broker, 'from=2026-01-15T12:01:30Z')
    expect([from.indexes[0], from.gaps]).toEqual([512, [[0, 512]]])
    for (const at of [254, 255, 256, 257, 511, 512]) {
      const rest = await takeAndRebuild(broker, `after=${at}`)
      expect([rest.indexes[0], rest.gaps]).toEqual([at + 1, [[0, at + 1]]])
    }
  })

  test('holds for every first and last', async () => {
    const broker = await startBroker(engine, { policies: 'none' })
    const size = await sizeOf(broker)
    for (let until = 0; until < size; until++) {
      for (let after = -1; after <= until; after++) {
        const query = [...(after < 0 ? [] : [`after=${after}`]), `until=${until}`].join('&')
        const { indexes, gaps, size: signed } = await takeAndRebuild(broker, query)
        expect(indexes).toEqual(range(after + 1, until + 1))
        expect(gaps.reduce((sum, [start, end]) => sum + end - start, indexes.length)).toBe(signed)
      }
    }
  })

  test('of what fits a filter has a gap for each run of entries that do not', async () => {
    const broker = await startBroker(engine)
    const [one, two] = [await broker.register('one'), await broker.register('two')]
    const issued: string[] = []
    for (let i = 0; i < 6; i++) {
      await addEntries(broker, 100 * (i % 3))
      const detail = JSON.stringify([{ type: 'stint', actions: ['tickets:read'], task: `task-${i % 2}` }])
      const { access_token: token } = await getToken(broker, i < 4 ? one : two, { authorization_details: detail })
      issued.push(String((JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()) as { jti: string }).jti))
    }
    await broker.sendAsAdmin('POST', '/v1/revocations', { workload: 'one', reason: 'test' })
    await addEntries(broker, 20)
    const events = await broker.events()
    // What comes meanwhile is of another type.
    const meanwhile = () => broker.register(`bot-${Math.random().toString(36).slice(2)}`)
    const entriesOf = (fits: (event: Record<string, unknown>) => boolean) => events.flatMap((event) => (fits({ ...event }) ? [event.index] : []))
    const ended = entriesOf(({ type }) => type === 'grants.revoked')
    const cases: readonly (readonly [string, readonly number[]])[] = [
      ['workload=one', entriesOf(({ workload }) => workload === 'one')],
      ['workload=two', entriesOf(({ workload }) => workload === 'two')],
      ['tool=tickets', entriesOf(({ tool }) => tool === 'tickets')],
      ['type=grant.issued', entriesOf(({ type }) => type === 'grant.issued')],
      ['type=grant.refused', entriesOf(({ type }) => type === 'grant.refused')],
      [`grant=${issued[3]}`, [...entriesOf(({ grant }) => grant === issued[3]), ...ended]],
      [`grant=${issued[5]}`, entriesOf(({ grant }) => grant === issued[5])],
      ['task=task-1&workload=one', [...entriesOf(({ task, workload }) => task === 'task-1' && workload === 'one'), ...ended]],
      ['task=nothing&tool=none', []],
      ['type=log.opened', [0]],
      ['workload=nobody&type=grant.issued', []],
    ]
    for (const [query, expected] of cases) {
      const { indexes, gaps, size, first, last } = await takeAndRebuild(broker, query, meanwhile)
      expect([query, indexes]).toEqual([query, expected])
      expect([query, size, first]).toEqual([query, last + 1, 0])
      expect(gaps.flatMap(([start, end]) => range(start, end))).toEqual(range(0, size).filter((index) => !expected.includes(index)))
    }
  })

  test('of nothing at all is one gap', async () => {
    const broker = await startBroker(engine)
    for (const query of ['to=1999-12-31', 'from=9999-12-31', 'from=2026-01-15T12:00:00Z&to=2026-01-15T12:00:00Z']) {
      const { indexes, gaps, size, sets } = await takeAndRebuild(broker, query)
      expect([query, indexes, gaps, sets]).toEqual([query, [], [[0, size]], []])
    }
  })

  test('is the same whenever it is asked for, however much the log has grown', async () => {
    const broker = await startBroker(engine)
    await addEntries(broker, 300)
    for (const query of ['', 'type=grant.refused', 'after=100&until=200']) {
      const { proof, first, last } = await take(broker, query)
      await addEntries(broker, 300)
      await advanceCheckpoint(broker.broker)
      const filter = query.startsWith('type') ? `${query}&` : ''
      const again = await broker.sendAsAdmin('GET', `/v1/audit/proof?${filter}first=${first}&last=${last}`)
      expect(await again.text()).toBe(proof)
    }
  })

  test('of two exports at once holds for each, while others write and sign', async () => {
    const broker = await startBroker(engine)
    await addEntries(broker, 200)
    const beside = engine === 'postgres' ? await startBroker(engine, { beside: broker }) : broker
    const done = new AbortController()
    const writing = (async () => {
      while (!done.signal.aborted) {
        await addEntries(beside, 20, 'other')
        await advanceCheckpoint(beside.broker)
      }
    })()
    const writes = () => addEntries(broker, 5)
    const taken = await Promise.all([takeAndRebuild(broker, '', writes), takeAndRebuild(broker, 'workload=other', writes)])
    done.abort()
    await writing
    for (const { size, last } of taken) expect(size).toBe(last + 1)
  })

  test('has each policy set that was in force, as it was applied, and no other', async () => {
    const broker = await startBroker(engine)
    const places: { hash: string; files: Record<string, string>; at: number }[] = []
    for (const comment of ['a', 'b', 'c', 'a']) {
      places.push({ ...(await applySet(broker, comment)), at: (await sizeOf(broker)) - 1 })
      await addEntries(broker, 3)
    }
    const [first = '', ...rest] = (await broker.events()).flatMap((event) => (event.type === 'policy.applied' ? [event.policy_set] : []))
    const [a, b, c, again] = places
    if (a === undefined || b === undefined || c === undefined || again === undefined) throw new Error('four were applied')
    expect(rest).toEqual([a.hash, b.hash, c.hash, a.hash])
    const cases: readonly (readonly [string, readonly string[]])[] = [
      ['', [first, a.hash, b.hash, c.hash]],
      ['type=grant.refused', [first, a.hash, b.hash, c.hash]],
      [`until=${a.at - 1}`, [first]],
      [`until=${a.at}`, [first, a.hash]],
      [`after=${a.at - 1}&until=${a.at}`, [a.hash]],
      [`after=${a.at}&until=${b.at - 1}`, [a.hash]],
      [`after=${a.at}&until=${b.at}`, [a.hash, b.hash]],
      [`after=${c.at}`, [c.hash, a.hash]],
      [`after=${b.at}&workload=nobody`, [b.hash, c.hash, a.hash]],
    ]
    for (const [query, sets] of cases) expect([query, (await takeAndRebuild(broker, query)).sets]).toEqual([query, sets])
    const { proof } = await take(broker)
    const lines = proof.trim().split('\n').map((line) => JSON.parse(line) as { policy_set?: string; files?: unknown })
    for (const { hash, files } of places) expect(lines.find(({ policy_set: set }) => set === hash)?.files).toEqual(files)
  })

  test('is for admins and auditors, and leaves no entry', async () => {
    const broker = await startBroker(engine)
    const [auditor, approver] = [await broker.createOperator('auditor'), await broker.createOperator('approver')]
    const path = '/v1/audit/proof?first=0&last=1'
    await unrecorded(broker, async () => {
      expect((await broker.sendAs(approver, 'GET', path)).status).toBe(403)
      expect((await broker.send('GET', path)).status).toBe(401)
      const response = await broker.sendAs(auditor, 'GET', path)
      expect([response.status, response.headers.get('content-type')]).toEqual([200, 'application/jsonl'])
      await response.text()
    })
  })

  test('of what the log has not is refused', async () => {
    const broker = await startBroker(engine)
    const size = await sizeOf(broker)
    await unrecorded(broker, async () => {
      for (const [query, message] of [
        [`first=0&last=${size}`, `the log has ${size} entries`],
        [`first=${size + 1}&last=${size}`, `the log has ${size} entries`],
        ['first=2&last=0', 'what is empty ends right before it begins'],
        ['first=0&last=9999999999999999', `the log has ${size} entries`],
        ['first=0', 'last '],
        ['last=0', 'first '],
        ['first=0&last=-2', 'last must be a whole number from -1'],
        ['first=-1&last=0', 'first must be a whole number'],
        ['first=0&last=1&from=2026-01-01', 'from is not known here'],
        ['first=0&last=1&format=csv', 'format is not known here'],
        ['first=0&last=1&type=grant.isued', 'did you mean grant.issued?'],
        ['first=0&last=1&last=1', 'was sent twice'],
      ] as const) {
        const response = await broker.sendAsAdmin('GET', `/v1/audit/proof?${query}`)
        expect([query, response.status]).toEqual([query, 400])
        expect(((await response.json()) as { detail: string }).detail).toContain(message)
      }
    })
  })

  test('takes one of the places of exports, gives it back, and takes none for HEAD', async () => {
    const broker = await startBroker(engine)
    await addEntries(broker, 600)
    const last = (await sizeOf(broker)) - 1
    const path = `/v1/audit/proof?type=log.opened&first=0&last=${last}`
    const [running, other] = [await broker.sendAsAdmin('GET', '/v1/audit/export'), await broker.sendAsAdmin('GET', path)]
    const refused = await broker.sendAsAdmin('GET', path)
    expect([refused.status, refused.headers.get('retry-after')]).toEqual([429, '10'])
    const head = await broker.sendAsAdmin('HEAD', path)
    expect([head.status, head.headers.get('stint-checkpoint-size'), await head.text()]).toEqual([200, other.headers.get('stint-checkpoint-size'), ''])
    await other.text()
    for (const query of ['first=0&last=999999', 'first=0&last=1', 'first=0&last=1']) await (await broker.sendAsAdmin('GET', `/v1/audit/proof?${query}`)).text()
    await running.body?.cancel()
    const [one, two] = [await broker.sendAsAdmin('GET', path), await broker.sendAsAdmin('GET', path)]
    expect([one.status, two.status]).toEqual([200, 200])
    await one.body?.cancel()
    expect((await broker.sendAsAdmin('GET', path)).status).toBe(200)
  })

  test('ends when whoever asked for it is no operator any more', async () => {
    const broker = await startBroker(engine)
    // More gaps than one page has.
    for (let i = 0; i < 150; i++) await broker.broker.ledger.append({ events: [note('x', 'a'), note('x', 'b')] })
    const auditor = await broker.createOperator('auditor')
    const last = (await sizeOf(broker)) - 1
    const reader = (await broker.sendAs(auditor, 'GET', `/v1/audit/proof?workload=a&first=0&last=${last}`)).body?.getReader()
    expect((await reader?.read())?.value?.length).toBeGreaterThan(0)
    await broker.broker.database.maintenance.updateTable('operator').set({ revoked_at: '2026-01-15T12:00:00.000Z' }).where('role', '=', 'auditor').execute()
    broker.clock.advance(5_000)
    await expect(reader?.read()).rejects.toMatchObject({ code: 'unauthenticated' })
    expect(broker.logLines.join('')).toContain('a proof was cut off')
  })
})
