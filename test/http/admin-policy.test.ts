import { expect, test } from 'vitest'
import { hashPolicyFiles } from '../../src/policy/policy-set.ts'
import { getToken, startBroker, testPolicies, type TestBroker } from '../broker.ts'
import { describeEngines } from '../harness.ts'

type Body = Record<string, unknown>

/** The test policies, with a further rule of this text. */
function filesWith(rule: string): Map<string, string> {
  return new Map([...testPolicies, ['more.cedar', rule]])
}

const noPurge = filesWith('@id("nobody-purges") forbid (principal, action == Action::"tickets:purge", resource);')
const noReading = filesWith('@id("nobody-reads") forbid (principal, action == Action::"tickets:read", resource);')
const [started, purgeHash, readingHash] = [testPolicies, noPurge, noReading].map(hashPolicyFiles)

async function put(broker: TestBroker, files: ReadonlyMap<string, string> | Body, expected?: unknown) {
  const json = { files: files instanceof Map ? Object.fromEntries(files) : files, ...(expected !== undefined && { expected }) }
  const response = await broker.sendAsAdmin('PUT', '/v1/policy', json)
  return { status: response.status, body: (await response.json()) as Body, index: response.headers.get('stint-audit-index') }
}

const inForce = async (broker: TestBroker) => (await (await broker.sendAsAdmin('GET', '/v1/policy')).json()) as Body
const keptSets = (broker: TestBroker) => broker.broker.database.read.selectFrom('policy_set').select(['hash', 'files']).execute()

describeEngines('A policy set', (engine) => {
  test('comes into force as a whole, decides from then on, and is recorded with its predecessor', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('bot')
    await getToken(broker, agent, { scope: 'tickets:read' })
    broker.clock.advance(5000)
    const applied = await put(broker, noReading, started)
    const event = await broker.lastEvent('policy.applied')
    expect(applied).toEqual({
      status: 200,
      index: String(event['index']),
      body: { hash: readingHash, previous: started, changed: true, audit_index: event['index'] },
    })
    expect(event).toMatchObject({
      actor: { kind: 'operator' },
      policy_set: readingHash,
      previous: started,
      policies: 5,
      tools: 2,
      cedar_version: expect.stringMatching(/^\d+\.\d+\.\d+$/),
    })
    expect(await inForce(broker)).toEqual({
      hash: readingHash,
      in_force_since: '2026-01-15T12:00:05.000Z',
      cedar_version: event['cedar_version'],
      policies: 5,
      tools: 2,
      audit_index: event['index'],
    })
    await expect(getToken(broker, agent, { scope: 'tickets:read' })).rejects.toThrow('access_denied')
    expect(await broker.lastEvent('grant.denied')).toMatchObject({ decision: { reasons: ['nobody-reads'], policy_set: readingHash } })
  })

  test('is applied by compare-and-swap: of two at once one wins, and the other is told what is in force', async () => {
    const broker = await startBroker(engine)
    const beside = engine === 'postgres' ? await startBroker(engine, { beside: broker }) : broker
    const answers = await Promise.all([put(broker, noPurge, started), put(beside, noReading, started)])
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 409])
    const [won, lost] = [answers.find(({ status }) => status === 200), answers.find(({ status }) => status === 409)]
    expect(lost?.body).toMatchObject({
      type: 'urn:stint:problem:conflict',
      detail: `The set in force is ${String(won?.body['hash'])}, not ${started}: look at it with \`stint policy show\`, then apply again.`,
    })
    for (const process of [broker, beside]) expect((await inForce(process))['hash']).toBe(won?.body['hash'])
    const events = (await broker.events()).filter((event) => event.type === 'policy.applied')
    expect(events.map((event) => event.policy_set)).toEqual([started, won?.body['hash']])
  })

  test('needs the right predecessor where one is named, also where none is said to be', async () => {
    const broker = await startBroker(engine)
    expect((await put(broker, noPurge, null)).status).toBe(409)
    expect((await put(broker, noPurge, purgeHash)).status).toBe(409)
    for (const expected of ['', 'latest', `${started} `, started?.toUpperCase(), 7]) {
      const { status, body } = await put(broker, noPurge, expected)
      expect([expected, status, body]).toMatchObject([expected, 400, { detail: expect.stringContaining('expected') }])
    }
    expect((await inForce(broker))['hash']).toBe(started)
    expect(await put(broker, noPurge)).toMatchObject({ status: 200, body: { previous: started } })
  })

  test('that is in force already changes nothing and is not recorded', async () => {
    const broker = await startBroker(engine)
    const before = await broker.events()
    const since = await inForce(broker)
    broker.clock.advance(5000)
    // Whatever is expected: what the caller wants is the case.
    for (const expected of [undefined, started, purgeHash]) {
      const again = await put(broker, testPolicies, expected)
      expect(again).toEqual({ status: 200, index: null, body: { hash: started, previous: started, changed: false, audit_index: since['audit_index'] } })
    }
    expect(await broker.events()).toEqual(before)
    expect(await inForce(broker)).toEqual(since)
  })

  test('is kept by its hash for ever, and once, also when it comes back', async () => {
    const broker = await startBroker(engine)
    for (const files of [noPurge, testPolicies, noPurge]) expect((await put(broker, files)).body['changed']).toBe(true)
    const kept = await keptSets(broker)
    expect(kept.map((row) => row.hash).sort()).toEqual([started, purgeHash].sort())
    expect(new Map(Object.entries(JSON.parse(kept.find((row) => row.hash === purgeHash)?.files ?? '{}') as Record<string, string>))).toEqual(noPurge)
    const events = (await broker.events()).filter((event) => event.type === 'policy.applied')
    expect(events.map((event) => [event.previous, event.policy_set])).toEqual([
      [undefined, started],
      [started, purgeHash],
      [purgeHash, started],
      [started, purgeHash],
    ])
  })

  test('may be sent with its tests, which are neither stored nor part of its name', async () => {
    const broker = await startBroker(engine)
    const tests = 'name: reading\nworkloads: {}\ntests: []\n'
    const applied = await put(broker, new Map([...noPurge, ['tests/reading.yaml', tests]]))
    expect(applied).toMatchObject({ status: 200, body: { hash: purgeHash } })
    const row = (await keptSets(broker)).find(({ hash }) => hash === purgeHash)
    expect(Object.keys(JSON.parse(row?.files ?? '{}') as object).sort()).toEqual([...noPurge.keys()].sort())
    // Another test beside the same rules is the same set.
    expect((await put(broker, new Map([...noPurge, ['tests/other.yaml', tests]]))).body['changed']).toBe(false)
  })

  test('with a problem is refused with every problem, and the one in force stays and decides', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('bot')
    const broken = new Map([
      ...filesWith('@id("a") permit (principal, action == Action::"tickets:raed", resource);\npermit (principal, action, resource);'),
      ['tools/tickets.yaml', `${testPolicies.get('tools/tickets.yaml') ?? ''}colour: red\n`],
      ['notes.txt', 'x'],
    ])
    const { status, body, index } = await put(broker, broken, started)
    const files = (body['problems'] as { file: string }[]).map(({ file }) => file)
    expect([status, index, body]).toMatchObject([422, null, { type: 'urn:stint:problem:policy-invalid', detail: expect.stringContaining('the set in force stays') }])
    expect(files).toContain('notes.txt')
    const event = await broker.lastEvent('policy.rejected')
    expect(event).toMatchObject({ actor: { kind: 'operator' }, problems: files.length, first_problem: expect.stringContaining('notes.txt') })

    // Without the misplaced file the parser comes to the others, and without the broken tool to the rule's own meaning.
    broken.delete('notes.txt')
    const tool = await put(broker, broken)
    expect(tool.body['problems']).toEqual(
      expect.arrayContaining([
        expect.objectContaining({ file: 'tools/tickets.yaml', message: expect.stringContaining('colour') }),
        expect.objectContaining({ file: 'more.cedar', line: 2 }),
      ]),
    )
    const typo = await put(broker, filesWith('@id("a") permit (principal, action == Action::"tickets:raed", resource);'))
    expect(typo.body['problems']).toEqual([expect.objectContaining({ file: 'more.cedar', line: 1, suggestion: expect.stringContaining('tickets:read') })])

    expect((await inForce(broker))['hash']).toBe(started)
    expect(await keptSets(broker)).toHaveLength(1)
    await getToken(broker, agent, { scope: 'tickets:read' })
    expect(await broker.lastEvent('grant.issued')).toMatchObject({ decision: { policy_set: started } })
  })

  test('with a problem that is long and holds characters of two units is recorded all the same', async () => {
    const broker = await startBroker(engine)
    for (const padding of ['', 'x']) {
      const rule = `@id("a") permit (principal, action, resource) when { context["${padding}${'😀'.repeat(900)}"] };`
      expect((await put(broker, filesWith(rule))).status).toBe(422)
      const { first_problem: first } = await broker.lastEvent('policy.rejected')
      expect(String(first).length).toBe(1000)
    }
  })

  test('is one object of texts by file name, and no name is lost on the way', async () => {
    const broker = await startBroker(engine)
    const proto = JSON.parse('{"__proto__": "x"}') as Body
    const unknown = await put(broker, { ...Object.fromEntries(testPolicies), ...Object.fromEntries(Object.entries(proto)) })
    expect([unknown.status, unknown.body['problems']]).toEqual([422, [expect.objectContaining({ file: '__proto__' })]])
    const before = await broker.events()
    for (const files of [[], 'x', null, { 'a.cedar': 7 }, { 'a.cedar': { text: '' } }]) {
      expect((await broker.sendAsAdmin('PUT', '/v1/policy', { files })).status).toBe(400)
    }
    expect((await broker.sendAsAdmin('PUT', '/v1/policy', {})).status).toBe(400)
    expect((await broker.sendAsAdmin('PUT', '/v1/policy', { files: {}, force: true })).status).toBe(400)
    expect(await broker.events()).toEqual(before)
    for (const path of ['../x.cedar', '/x.cedar', 'a/../x.cedar', 'a\\x.cedar', '.x.cedar', 'tools/a/b.yaml', 'x\n.cedar', '']) {
      const { status, body } = await put(broker, { ...Object.fromEntries(testPolicies), [path]: 'x' })
      expect([path, status, body['problems']]).toMatchObject([path, 422, [{ message: expect.stringContaining('has no place here') }]])
    }
  })
})

test('Where no policy set is in force, there is none to show, nothing is allowed, and the first one has none before it', async () => {
  const broker = await startBroker('sqlite')
  // The set of the start is taken away, as no request could.
  await broker.broker.database.maintenance.deleteFrom('policy_in_force').execute()
  const agent = await broker.register('bot')
  expect((await broker.sendAsAdmin('GET', '/v1/policy')).status).toBe(404)
  await expect(getToken(broker, agent, { scope: 'tickets:read' })).rejects.toThrow('no token')
  expect(await broker.events()).not.toContainEqual(expect.objectContaining({ type: 'grant.issued' }))
  expect((await put(broker, noPurge, started)).status).toBe(409)
  expect(await put(broker, noPurge, null)).toMatchObject({ status: 200, body: { previous: null, changed: true } })
  expect(await broker.lastEvent('policy.applied')).not.toHaveProperty('previous')
  await getToken(broker, agent, { scope: 'tickets:read' })
})
