import { mkdirSync, renameSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { hashPolicyFiles, type PolicySet } from '../../src/policy/policy-set.ts'
import type { Engine } from '../../src/storage/engine.ts'
import { getToken, startBroker, testPolicies, type BrokerOptions, type TestBroker } from '../broker.ts'
import { createTestFolder, describeEngines, describePostgres } from '../harness.ts'

type Files = ReadonlyMap<string, string>

const typo = '@id("typo") permit (principal, action == Action::"tickets:raed", resource);'

/** The test policies with a further rule; without one, as they are. */
function filesWith(rule?: string): Files {
  return rule === undefined ? testPolicies : new Map([...testPolicies, ['more.cedar', rule]])
}
const noReading = filesWith('@id("nobody-reads") forbid (principal, action == Action::"tickets:read", resource);')
const noPurge = filesWith('@id("nobody-purges") forbid (principal, action == Action::"tickets:purge", resource);')
const [started, reading, purge] = [testPolicies, noReading, noPurge].map(hashPolicyFiles)

function write(folder: string, files: Files): void {
  for (const [path, text] of files) {
    mkdirSync(dirname(join(folder, path)), { recursive: true })
    writeFileSync(join(folder, path), text)
  }
}

/** A broker whose policy folder holds the test policies, which are in force. */
async function start(engine: Engine, { settleMs, ...options }: BrokerOptions & { readonly settleMs?: number } = {}) {
  const folder = createTestFolder()
  write(folder, testPolicies)
  const settings = { policies: 'none', policyFolder: { folder, follow: true, ...(settleMs !== undefined && { settleMs }) }, ...options } as const
  const broker = await startBroker(engine, settings)
  return {
    folder,
    broker,
    look: async () => broker.broker.policyFolder?.look(),
    reload: async () => broker.broker.policyFolder?.reload(),
    /** Another start on the same database and folder. */
    restart: async (more: BrokerOptions = {}) => {
      await broker.close()
      return startBroker(engine, { ...settings, ...more, beside: broker })
    },
  }
}

const inForce = async (broker: TestBroker) => ((await (await broker.sendAsAdmin('GET', '/v1/policy')).json()) as { hash: string }).hash
const put = async (broker: TestBroker, files: Files) => (await broker.sendAsAdmin('PUT', '/v1/policy', { files: Object.fromEntries(files) })).status
const health = async (broker: TestBroker) => {
  const response = await broker.send('GET', '/readyz')
  const { status, policy_folder: folder } = (await response.json()) as Record<string, unknown>
  expect([response.status, status]).toEqual([200, 'ready'])
  return folder
}
const policyEvents = async (broker: TestBroker) => (await broker.events()).filter(({ type }) => type.startsWith('policy.'))
const counted = async (broker: TestBroker) => {
  const text = await (await broker.sendAsAdmin('GET', '/metrics')).text()
  const of = (outcome: string) => Number(new RegExp(`^stint_policy_reloads_total\\{outcome="${outcome}"\\} (\\d+)$`, 'm').exec(text)?.[1] ?? 0)
  return { changed: of('changed'), unchanged: of('unchanged'), failed: of('failed') }
}

interface Line {
  readonly level: string
  readonly message: string
  readonly problems?: readonly string[]
}

/** What the operator's log says of the folder, as an operator would find it. */
const told = (broker: TestBroker) =>
  broker.logLines.map((line) => JSON.parse(line) as Line).filter(({ message }) => /policy|set came/.test(message))

const staysOut = 'not in force: another set stays'
const unusable = 'cannot be used: the set in force stays'

describeEngines('The policy folder', (engine) => {
  test('comes into force where no set is, and not where another one is', async () => {
    const { folder, broker, restart } = await start(engine)
    expect([await inForce(broker), await health(broker)]).toEqual([started, 'in force'])
    expect(await policyEvents(broker)).toMatchObject([{ type: 'policy.applied', actor: { kind: 'stint', id: 'start' }, policy_set: started }])

    // Changed while nothing runs: a restart does not undo what is in force, and says what it left out.
    write(folder, noReading)
    const again = await restart()
    expect([await inForce(again), await health(again)]).toEqual([started, staysOut])
    const how = engine === 'sqlite' ? 'send SIGHUP or use `stint policy apply`' : 'use `stint policy apply`'
    expect(told(again)).toMatchObject([{ level: 'warn', message: `the policy folder is not what is in force, which stays: to put the folder in force, ${how}`, policy_set: started }])
    await again.broker.policyFolder?.look()
    expect(await inForce(again)).toBe(started)

    // Once it is what is in force, however it got there, the answer follows.
    expect(await put(again, noReading)).toBe(200)
    expect(await health(again)).toBe('in force')
  })

  test('that is not there, or not sound, is fatal only where nothing is in force', async () => {
    const folder = createTestFolder()
    const settings = { policies: 'none', policyFolder: { folder: join(folder, 'none'), follow: true } } as const
    await expect(startBroker(engine, settings)).rejects.toMatchObject({ code: 'config_invalid' })
    write(folder, filesWith(typo))
    await expect(startBroker(engine, { ...settings, policyFolder: { folder, follow: true } })).rejects.toMatchObject({ code: 'policy_invalid' })

    const { restart } = await start(engine)
    const gone = await restart({ policyFolder: { folder: join(folder, 'none'), follow: true } })
    expect([await inForce(gone), await health(gone)]).toEqual([started, unusable])
    expect(told(gone)).toMatchObject([{ level: 'error', error: expect.stringContaining('There is no policy folder') as string }])
    expect(await policyEvents(gone)).toHaveLength(1)
  })

  test('that is not followed is read at the first start alone', async () => {
    const { folder, restart } = await start(engine)
    write(folder, noReading)
    const again = await restart({ policyFolder: { folder, follow: false } })
    await again.broker.policyFolder?.look()
    expect(told(again)).toEqual([])
    await again.broker.policyFolder?.reload()
    expect(told(again)).toMatchObject([{ level: 'warn', message: expect.stringContaining('policies.reload says never') as string }])
    expect([await inForce(again), await health(again)]).toEqual([started, undefined])
    expect(await policyEvents(again)).toHaveLength(1)
  })
})

describe('On SQLite, the policy folder', () => {
  test('comes into force when it has changed, by the scheduler, and on request', async () => {
    const { folder, broker, reload } = await start('sqlite')
    const agent = await broker.register('bot')
    await getToken(broker, agent, { scope: 'tickets:read' })
    write(folder, noReading)
    broker.clock.advance(2000)
    await broker.scheduler.tick()
    expect(await broker.lastEvent('policy.applied')).toMatchObject({ actor: { kind: 'stint', id: 'reload' }, policy_set: reading, previous: started })
    expect([await inForce(broker), await health(broker)]).toEqual([reading, 'in force'])
    await expect(getToken(broker, agent, { scope: 'tickets:read' })).rejects.toThrow('access_denied')

    write(folder, noPurge)
    await reload()
    expect(await inForce(broker)).toBe(purge)
    const events = await policyEvents(broker)
    await reload()
    expect(await policyEvents(broker)).toEqual(events)
    expect(await counted(broker)).toEqual({ changed: 2, unchanged: 1, failed: 0 })
    expect(told(broker).map(({ level, message }) => `${level} ${message}`)).toEqual([
      'info a policy set came into force',
      'info the policy folder came into force',
      'info the policy folder came into force',
      'info the policy folder is what is in force',
    ])
  })

  test('with a mistake leaves the set in force, and says so once: with every problem, in the log, in metrics, to whoever asks', async () => {
    const { folder, broker, look, reload } = await start('sqlite')
    const agent = await broker.register('bot')
    write(folder, filesWith(`${typo}\n@id("b") permit (principal, action == Action::"tickets:coment", resource);`))
    const before = told(broker).length
    for (let i = 0; i < 3; i++) await look()
    const lines = told(broker).slice(before)
    expect(lines).toMatchObject([{ level: 'error', message: 'the policy folder cannot be used; the set in force stays', policy_set: started }])
    expect(lines[0]?.problems).toEqual([
      expect.stringMatching(/^more\.cedar:1:\d+ .*\(did you mean tickets:read\?\)$/),
      expect.stringMatching(/^more\.cedar:2:\d+ .*\(did you mean tickets:comment\?\)$/),
    ])
    expect(await broker.lastEvent('policy.rejected')).toMatchObject({ actor: { kind: 'stint', id: 'reload' }, problems: 2, first_problem: lines[0]?.problems?.[0] })
    expect(await policyEvents(broker)).toHaveLength(2)
    expect([await inForce(broker), await health(broker)]).toEqual([started, unusable])
    await getToken(broker, agent, { scope: 'tickets:read' })
    expect(await counted(broker)).toEqual({ changed: 0, unchanged: 0, failed: 1 })

    // The same again, on request: said again. Another mistake: said, too.
    await reload()
    expect(told(broker)).toHaveLength(before + 2)
    symlinkSync('/etc/hostname', join(folder, 'out.cedar'))
    for (let i = 0; i < 2; i++) await look()
    expect(told(broker).slice(before + 2)).toMatchObject([{ level: 'error', problems: ['out.cedar:1:1 is a symbolic link: put the file itself here'] }])
    expect(await broker.lastEvent('policy.rejected')).toMatchObject({ problems: 1, first_problem: 'out.cedar:1:1 is a symbolic link: put the file itself here' })
    rmSync(join(folder, 'out.cedar'))
    renameSync(folder, `${folder}-away`)
    for (let i = 0; i < 2; i++) await look()
    expect(told(broker).slice(before + 3)).toMatchObject([{ level: 'error', error: expect.stringContaining('There is no policy folder') as string }])
    renameSync(`${folder}-away`, folder)

    // Mended: what is in force is what the folder holds again.
    write(folder, filesWith())
    rmSync(join(folder, 'more.cedar'))
    await look()
    expect(await health(broker)).toBe('in force')
    expect(told(broker).at(-1)).toMatchObject({ level: 'warn', message: 'the policy folder is what is in force' })
  })

  test('does not fight back when an admin has applied another set', async () => {
    const { folder, broker, look, restart } = await start('sqlite')
    expect(await put(broker, noReading)).toBe(200)
    expect(await health(broker)).toBe(staysOut)
    await look()
    // Touched, rewritten as it was, beside a changed test: still the same set.
    write(folder, testPolicies)
    utimesSync(join(folder, 'rules.cedar'), 1, 1)
    write(folder, new Map([['tests/more.yaml', 'name: x\n']]))
    await look()
    expect([await inForce(broker), await policyEvents(broker)]).toEqual([reading, expect.objectContaining({ length: 2 })])
    const again = await restart()
    await again.broker.policyFolder?.look()
    expect([await inForce(again), await health(again)]).toEqual([reading, staysOut])
    // A change is a new wish.
    write(folder, noPurge)
    await again.broker.policyFolder?.look()
    expect(await inForce(again)).toBe(purge)
  })

  test('that is read while an admin applies another set yields to it, and says so', async () => {
    const { folder, broker, look } = await start('sqlite', { settleMs: 3_000 })
    write(folder, noPurge)
    const looking = look()
    await setTimeout(50)
    expect(await put(broker, noReading)).toBe(200)
    await looking
    expect([await inForce(broker), await health(broker)]).toEqual([reading, staysOut])
    expect(told(broker).at(-1)).toMatchObject({ level: 'warn', message: 'another set came into force while the policy folder was read, and stays' })
    await look()
    expect(await inForce(broker)).toBe(reading)
  })

  test('is taken once it stays as it is: half of a set never comes into force', async () => {
    const { folder, broker, look } = await start('sqlite')
    const rules = testPolicies.get('rules.cedar') ?? ''
    const enough = new AbortController()
    const writer = (async () => {
      // Always sound, and never twice the same.
      for (let i = 0; !enough.signal.aborted; i++) {
        writeFileSync(join(folder, 'rules.cedar'), `${rules}// ${i}\n`)
        await setTimeout(20)
      }
    })()
    await look()
    expect(await inForce(broker)).toBe(started)
    enough.abort()
    await writer
    write(folder, noPurge)
    await look()
    expect(await inForce(broker)).toBe(purge)
    expect(await policyEvents(broker)).toHaveLength(2)
  })

  test('that could not be recorded, for the log could not be written, is taken later', async () => {
    const { folder, broker, look } = await start('sqlite')
    write(folder, noPurge)
    const write_ = broker.broker.database.write
    broker.broker.database.write = () => Promise.reject(new Error('disk full'))
    await expect(look()).rejects.toMatchObject({ code: 'unavailable' })
    write(folder, filesWith(typo))
    await expect(look()).rejects.toMatchObject({ code: 'unavailable' })
    broker.broker.database.write = write_
    await look()
    expect(await broker.lastEvent('policy.rejected')).toMatchObject({ problems: 1 })
    write(folder, noPurge)
    await look()
    expect(await inForce(broker)).toBe(purge)
  })

  test('comes into force at each start in development', async () => {
    const { folder, restart } = await start('sqlite', { development: true, issuer: 'http://127.0.0.1:7846' })
    write(folder, noReading)
    const again = await restart()
    expect((await again.events()).at(-1)).toMatchObject({ type: 'policy.applied', policy_set: reading, previous: started })
  })
})

describePostgres('Where several processes share the database, the policy folder', (engine) => {
  test('is never applied by itself, nor on request, and the log says how it is', async () => {
    const { folder, broker, look, reload } = await start(engine)
    write(folder, noReading)
    for (let i = 0; i < 2; i++) await look()
    await reload()
    expect([await inForce(broker), await health(broker)]).toEqual([started, staysOut])
    const message = 'the policy folder is not applied by itself where several processes may share the database: use `stint policy apply`'
    expect(told(broker).slice(1)).toMatchObject([{ level: 'warn', message }, { level: 'warn', message }])
    expect(await policyEvents(broker)).toHaveLength(1)
  })

  test('and a set that one process puts in force is loaded by the others before a request needs it', async () => {
    const { broker } = await start(engine)
    const beside = await startBroker(engine, { beside: broker })
    await beside.broker.knowledge.current()
    expect(await put(broker, noReading)).toBe(200)
    expect((await beside.broker.knowledge.current()).policySet?.hash).toBe(started)
    broker.clock.advance(1000)
    await beside.scheduler.tick()
    expect((await beside.broker.knowledge.current()).policySet?.hash).toBe(reading)
  })
})

test('A set that a process has loaded to apply it is not loaded a second time to decide by it', async () => {
  const broker = await startBroker('sqlite')
  const { knowledge } = broker.broker
  const loaded: PolicySet[] = []
  const remember = (set: PolicySet) => {
    loaded.push(set)
    knowledge.remember(set)
  }
  // The app reads `broker.knowledge` anew for each request.
  Object.assign(broker.broker, { knowledge: { ...knowledge, remember } })
  expect(await put(broker, noReading)).toBe(200)
  expect(loaded.map(({ hash }) => hash)).toEqual([reading])
  expect((await knowledge.refresh()).policySet).toBe(loaded[0])
})

describeEngines('Of two policy sets applied at the same moment', (engine) => {
  async function startTwo() {
    const broker = await startBroker(engine)
    return { broker, beside: engine === 'postgres' ? await startBroker(engine, { beside: broker }) : broker }
  }

  test('that name no predecessor, one wins, and the other is told', async () => {
    const { broker, beside } = await startTwo()
    const answers = await Promise.all([put(broker, noReading), put(beside, noPurge)])
    expect(answers.toSorted()).toEqual([200, 409])
    for (const one of [broker, beside]) expect(await inForce(one)).toBe(answers[0] === 200 ? reading : purge)
    expect((await policyEvents(broker)).map(({ type }) => type)).toEqual(['policy.applied', 'policy.applied'])
  })

  test('and that are the same, both have what they want, and it is recorded once', async () => {
    const { broker, beside } = await startTwo()
    expect(await Promise.all([put(broker, noPurge), put(beside, noPurge), put(broker, noPurge)])).toEqual([200, 200, 200])
    expect(await policyEvents(broker)).toHaveLength(2)
    expect(await inForce(beside)).toBe(purge)
  })
})
