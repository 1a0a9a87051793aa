import { expect, test } from 'vitest'
import { createSealedVersions } from '../../src/broker/sealed-versions.ts'
import { putSecret } from '../../src/broker/secrets.ts'
import { ConnectorError, type OpenedVersion } from '../../src/connectors/connector.ts'
import { Secret } from '../../src/kernel/secret.ts'
import { formatTime } from '../../src/kernel/clock.ts'
import { startBroker, type TestBroker } from '../broker.ts'
import { describeEngines } from '../harness.ts'

const admin = { actor: { kind: 'operator', id: 'test' } } as const
const [first, second] = ['0b9f5b0e-7a39-4d8e-9f0f-0d5a1c2f3a01', '0b9f5b0e-7a39-4d8e-9f0f-0d5a1c2f3a02']

const put = (broker: TestBroker, value: string) => putSecret(broker.broker, admin, 'api', new Secret(value))
const versionsOf = ({ broker }: TestBroker) => createSealedVersions(broker)
const show = (one: OpenedVersion | undefined) => one && [one.version, one.value.reveal()]

async function stagesOf(broker: TestBroker) {
  const { current, pending, previous } = await versionsOf(broker).find('api')
  return { current: show(current), pending: show(pending), previous: show(previous) }
}

/** What the database still holds of the secret, erased or not. */
async function keptOf({ broker }: TestBroker) {
  const rows = await broker.database.read.selectFrom('sealed_secret').selectAll().where('name', '=', 'api').orderBy('version').execute()
  return rows.map(({ version, stage, sealed }) => [version, stage, sealed === '' ? 'erased' : 'kept'])
}

const failureOf = (promise: Promise<unknown>): Promise<ConnectorError> =>
  promise.then(
    () => expect.fail('it did not fail'),
    (error: unknown) => (error instanceof ConnectorError ? error : expect.fail(`no ConnectorError: ${String(error)}`)),
  )

const secretEvents = async (broker: TestBroker) => (await broker.events()).filter(({ type }) => type.startsWith('secret.'))

async function countEntries(broker: TestBroker): Promise<number> {
  return (await broker.events()).length
}

describeEngines('The versions of a sealed secret', (engine) => {
  test('pass from pending to current to previous to nothing, each with an entry', async () => {
    const broker = await startBroker(engine)
    const versions = versionsOf(broker)
    await put(broker, 'one')
    broker.clock.advance(60_000)
    const made = await versions.create('api', first, new Secret('two'))
    expect([show(made), made.rotation, formatTime(made.sinceMs)]).toEqual([['2', 'two'], first, '2026-01-15T12:01:00.000Z'])
    expect(await stagesOf(broker)).toEqual({ current: ['1', 'one'], pending: ['2', 'two'] })
    expect(await versions.promote('api', first)).toEqual({ version: '2', replaced: '1' })
    expect(await stagesOf(broker)).toEqual({ current: ['2', 'two'], previous: ['1', 'one'] })
    await versions.retire('api', '1')
    expect(await stagesOf(broker)).toEqual({ current: ['2', 'two'] })
    expect(await keptOf(broker)).toEqual([[1, null, 'erased'], [2, 'current', 'kept']])
    const rotation = { kind: 'stint', id: 'rotation' }
    expect(await secretEvents(broker)).toMatchObject([
      { type: 'secret.stored', secret: 'api', version: 1, stage: 'current', actor: { kind: 'operator' } },
      { type: 'secret.stored', secret: 'api', version: 2, stage: 'pending', rotation: first, actor: rotation },
      { type: 'secret.promoted', secret: 'api', version: 2, replaced: 1, rotation: first, actor: rotation },
      { type: 'secret.erased', secret: 'api', version: 1, actor: rotation },
    ])
    expect(JSON.stringify(await broker.events())).not.toMatch(/"(?:one|two)"/)
  })

  test('are the same however often a step is repeated, and on record once', async () => {
    const broker = await startBroker(engine)
    const versions = versionsOf(broker)
    await put(broker, 'one')
    expect(show(await versions.create('api', first, new Secret('two')))).toEqual(['2', 'two'])
    // The value that was kept first counts.
    expect(show(await versions.create('api', first, new Secret('another')))).toEqual(['2', 'two'])
    for (let i = 0; i < 2; i++) expect(await versions.promote('api', first)).toEqual({ version: '2', replaced: '1' })
    expect((await failureOf(versions.create('api', first, new Secret('late')))).publicMessage).toContain('is finished')
    for (let i = 0; i < 2; i++) await versions.retire('api', '1')
    expect(await versions.promote('api', first)).toEqual({ version: '2' })
    await versions.create('api', second, new Secret('three'))
    for (let i = 0; i < 2; i++) await versions.abandon('api', second)
    expect(await keptOf(broker)).toEqual([[1, null, 'erased'], [2, 'current', 'kept'], [3, null, 'erased']])
    expect((await secretEvents(broker)).map(({ type }) => type)).toEqual(['secret.stored', 'secret.stored', 'secret.promoted', 'secret.erased', 'secret.stored', 'secret.erased'])
  })

  test('are each kept until they are retired, and give no number twice', async () => {
    const broker = await startBroker(engine)
    const versions = versionsOf(broker)
    await put(broker, 'one')
    await versions.create('api', first, new Secret('two'))
    await versions.promote('api', first)
    await versions.create('api', second, new Secret('three'))
    expect(await versions.promote('api', second)).toEqual({ version: '3', replaced: '2' })
    expect(await keptOf(broker)).toEqual([[1, 'previous', 'kept'], [2, 'previous', 'kept'], [3, 'current', 'kept']])
    // Also where its answer was lost, and another one is in force by now.
    expect(await versions.promote('api', first)).toEqual({ version: '2', replaced: '1' })
    await versions.retire('api', '1')
    expect(await keptOf(broker)).toEqual([[1, null, 'erased'], [2, 'previous', 'kept'], [3, 'current', 'kept']])
  })

  test('are those that an admin puts: a rotation in between is given up', async () => {
    const broker = await startBroker(engine)
    const versions = versionsOf(broker)
    await put(broker, 'one')
    await versions.create('api', first, new Secret('two'))
    expect(await put(broker, 'by hand')).toMatchObject({ version: 3 })
    expect(await broker.lastEvent('secret.stored')).toMatchObject({ version: 3, stage: 'current', erases: [1, 2] })
    expect(await stagesOf(broker)).toEqual({ current: ['3', 'by hand'] })
    const entries = await countEntries(broker)
    expect(await failureOf(versions.promote('api', first))).toMatchObject({ outcome: 'nothing_done', publicMessage: expect.stringContaining('put anew meanwhile') })
    await versions.abandon('api', first)
    expect([await stagesOf(broker), await countEntries(broker)]).toEqual([{ current: ['3', 'by hand'] }, entries])
    // It can begin anew, from what is in use now.
    expect(show(await versions.create('api', first, new Secret('four')))).toEqual(['4', 'four'])
    expect(await versions.promote('api', first)).toEqual({ version: '4', replaced: '3' })
  })

  test('keep what was replaced when an admin puts another: it may still open something', async () => {
    const broker = await startBroker(engine)
    const versions = versionsOf(broker)
    await put(broker, 'one')
    await versions.create('api', first, new Secret('two'))
    await versions.promote('api', first)
    await put(broker, 'by hand')
    expect(await stagesOf(broker)).toEqual({ current: ['3', 'by hand'], previous: ['1', 'one'] })
  })

  test('belong to one rotation at a time, and to none without a value to begin with', async () => {
    const broker = await startBroker(engine)
    const versions = versionsOf(broker)
    expect((await failureOf(versions.create('api', first, new Secret('one')))).publicMessage).toBe('There is no sealed secret api that a new value could follow: an admin puts it, with stint secret put api.')
    expect(await versions.find('api')).toEqual({})
    await put(broker, 'one')
    await versions.create('api', first, new Secret('two'))
    expect((await failureOf(versions.create('api', second, new Secret('three')))).publicMessage).toContain(`(${first}): if nothing comes of it, an admin gives it up`)
    expect((await failureOf(versions.promote('api', second))).outcome).toBe('nothing_done')
    await versions.abandon('api', second)
    expect(await stagesOf(broker)).toEqual({ current: ['1', 'one'], pending: ['2', 'two'] })
  })

  test('are never without one that is in use: that one is not retired', async () => {
    const broker = await startBroker(engine)
    await put(broker, 'one')
    const entries = await countEntries(broker)
    expect((await failureOf(versionsOf(broker).retire('api', '1'))).publicMessage).toContain('is the one in use')
    for (const version of ['0', '2', '01', '1 ', 'x']) await versionsOf(broker).retire('api', version)
    expect([await stagesOf(broker), await countEntries(broker)]).toEqual([{ current: ['1', 'one'] }, entries])
  })

  test('are the same for two processes that do it at once', async () => {
    const broker = await startBroker(engine)
    const beside = engine === 'postgres' ? await startBroker(engine, { beside: broker }) : broker
    await put(broker, 'one')
    const both = [versionsOf(broker), versionsOf(beside)]
    const created = await Promise.all([0, 1, 2, 3, 4, 5].map((i) => both[i % 2]?.create('api', first, new Secret(`of ${i}`))))
    expect(new Set(created.map((one) => one?.value.reveal())).size).toBe(1)
    expect(await Promise.all([0, 1, 2, 3].map((i) => both[i % 2]?.promote('api', first)))).toEqual(Array.from({ length: 4 }, () => ({ version: '2', replaced: '1' })))
    await Promise.all([0, 1, 2, 3].map((i) => both[i % 2]?.retire('api', '1')))
    expect((await secretEvents(broker)).map(({ type }) => type)).toEqual(['secret.stored', 'secret.stored', 'secret.promoted', 'secret.erased'])
    // Of a put and the end of a rotation at the same moment the one that comes last counts, and both are on record.
    await both[0]?.create('api', second, new Secret('three'))
    await Promise.allSettled([both[1]?.promote('api', second), put(broker, 'by hand')])
    expect((await stagesOf(broker)).current).toEqual(['4', 'by hand'])
    expect((await keptOf(broker)).filter(([, stage]) => stage === 'current')).toHaveLength(1)
  })

  test('that cannot be read are a failure in words, and nobody knows what became of a change', async () => {
    const broker = await startBroker(engine)
    const versions = versionsOf(broker)
    await put(broker, 'one')
    await broker.close()
    expect(await failureOf(versions.find('api'))).toMatchObject({ outcome: 'nothing_done', publicMessage: expect.stringContaining('cannot be reached') })
    expect(await failureOf(versions.promote('api', first))).toMatchObject({ outcome: 'unknown', retryAfterSeconds: 5 })
  })
})
