import { setTimeout as pause } from 'node:timers/promises'
import { expect, onTestFinished, test } from 'vitest'
import { createCustody, type CustodyOptions } from '../../src/broker/custody.ts'
import { putSecret } from '../../src/broker/secrets.ts'
import { ConnectorError, type Used } from '../../src/connectors/connector.ts'
import { leaseMs } from '../../src/grant/lifetime.ts'
import { BrokerError } from '../../src/kernel/errors.ts'
import { Secret } from '../../src/kernel/secret.ts'
import type { Ledger } from '../../src/storage/ledger.ts'
import { findCustody, findSecret, secretPlace } from '../../src/storage/secrets.ts'
import { startBroker, type TestBroker } from '../broker.ts'
import { describeEngines } from '../harness.ts'

const admin = { actor: { kind: 'operator', id: 'test' } } as const
const never = new AbortController().signal
const reconnect = /^The tool crm needs reconnection: .*stint secret put crm-refresh$/

/** A custody as one process has it, closed after the test. */
function custodyOf({ broker }: TestBroker, options: Partial<CustodyOptions> = {}) {
  const custody = createCustody({ ...broker, ...options })
  onTestFinished(() => custody.close())
  return custody
}

/** Two processes on one database where the engine takes two; else two who know nothing of each other in one process. */
async function prepare(engine: 'sqlite' | 'postgres', options: Partial<CustodyOptions> = {}) {
  const broker = await startBroker(engine)
  const beside = engine === 'postgres' ? await startBroker(engine, { beside: broker }) : broker
  await put(broker, 'token 0')
  return { broker, one: custodyOf(broker, options), other: custodyOf(beside, options), read: () => readState(broker) }
}

const put = ({ broker }: TestBroker, value: string) => putSecret(broker, admin, 'crm-refresh', new Secret(value))
const lend = <T>(custody: ReturnType<typeof custodyOf>, use: (secret: Secret) => Promise<Used<T>>, signal = never) => custody.lend('sealed:crm-refresh', 'crm', use, signal)
const problemOf = (promise: Promise<unknown>): Promise<ConnectorError> =>
  promise.then(
    () => expect.fail('it did not fail'),
    (error: unknown) => (error instanceof ConnectorError ? error : expect.fail(`no ConnectorError: ${String(error)}`)),
  )

/** The upstream's side: one token is good, each use replaces it, and one that is sent twice ends them all. */
function createFamily() {
  let version = 0
  const sent: string[] = []
  return {
    sent,
    async use(secret: Secret): Promise<Used<number>> {
      sent.push(secret.reveal())
      await pause(5)
      if (secret.reveal() !== `token ${version}`) throw new Error('the family is ended')
      version++
      return { result: version, replacement: new Secret(`token ${version}`) }
    },
  }
}

async function readState({ broker }: TestBroker) {
  const { read } = broker.database
  const [custody, secret] = [await findCustody(read, 'crm-refresh'), await findSecret(read, 'crm-refresh')]
  const value = secret && Buffer.from(broker.sealer.open(secret.sealed, secretPlace('crm-refresh', secret.version))).toString()
  return { state: custody?.state, version: secret?.version, value }
}

const eventsOf = async (broker: TestBroker) => (await broker.events()).filter(({ type }) => type === 'secret.stored' || type === 'tool.needs_reconnection')
const typesOf = async (broker: TestBroker) => (await eventsOf(broker)).map(({ type }) => type)

/** From now on the ledger of this broker refuses changes, until it is told to take them again. */
function breakLedger({ broker }: TestBroker) {
  const { ledger } = broker
  const { transact } = ledger
  const broken = { refuse: true, refused: 0, carryOut: false }
  const replaced: Ledger['transact'] = async (change) => {
    if (!broken.refuse) return transact(change)
    broken.refused++
    // As where the answer to a COMMIT is lost.
    if (broken.carryOut) await transact(change)
    throw new BrokerError({ code: 'unavailable', publicMessage: 'the disk is full' })
  }
  return { broken, ledger: { ...ledger, nowMs: () => ledger.nowMs(), transact: replaced } }
}

describeEngines('Custody', (engine) => {
  test('lends the newest secret and stores its replacement before it returns, with an entry', async () => {
    const { broker, one, read } = await prepare(engine)
    const answer = await lend(one, async (secret) => {
      expect([secret.reveal(), (await read()).state]).toEqual(['token 0', 'in_use'])
      return { result: 'token', replacement: new Secret('token 1') }
    })
    expect(answer).toBe('token')
    expect(await read()).toEqual({ state: 'ready', version: 2, value: 'token 1' })
    expect(await broker.lastEvent('secret.stored')).toMatchObject({ actor: { kind: 'stint', id: 'custody' }, secret: 'crm-refresh', version: 2 })
    const { sealed } = await broker.broker.database.read.selectFrom('sealed_secret').select('sealed').where('version', '=', 1).executeTakeFirstOrThrow()
    expect(sealed).toBe('')
    expect(JSON.stringify([await broker.events(), broker.logLines])).not.toContain('token 1')
  })

  test('leaves a secret as it is that was not replaced', async () => {
    const { broker, one, read } = await prepare(engine)
    expect(await lend(one, async () => ({ result: 7 }))).toBe(7)
    expect(await read()).toEqual({ state: 'ready', version: 1, value: 'token 0' })
    expect(await typesOf(broker)).toEqual(['secret.stored'])
  })

  test('lends to one at a time, over all processes', async () => {
    const { one, other, read } = await prepare(engine)
    const family = createFamily()
    const results = await Promise.all(Array.from({ length: 24 }, (_, i) => lend(i % 2 === 0 ? one : other, family.use)))
    expect(results.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 24 }, (_, i) => i + 1))
    expect(family.sent).toEqual(Array.from({ length: 24 }, (_, i) => `token ${i}`))
    expect(await read()).toEqual({ state: 'ready', version: 25, value: 'token 24' })
  })

  test('does not wait for ever: neither in its own line nor for another process', async () => {
    const { one, other, read } = await prepare(engine, { waitMsMax: 200 })
    let finish = (): void => undefined
    const first = lend(one, async () => {
      await new Promise<void>((resolve) => (finish = resolve))
      return { result: 1 }
    })
    while ((await read()).state !== 'in_use') await pause(5)
    for (const custody of [one, other]) {
      expect(await problemOf(lend(custody, async () => expect.fail('it was lent twice')))).toMatchObject({
        outcome: 'nothing_done',
        retryAfterSeconds: 5,
        publicMessage: expect.stringMatching(/^The tool crm is busy: /),
      })
    }
    // The caller's own time ends the waiting, too, and those behind get their turn all the same.
    expect((await problemOf(lend(one, async () => expect.fail('too late'), AbortSignal.timeout(20)))).publicMessage).toContain('busy')
    const [behind, beside] = [lend(one, async () => ({ result: 2 })), lend(other, async () => ({ result: 3 }))]
    finish()
    expect(await Promise.all([first, behind, beside])).toEqual([1, 2, 3])
  })

  test('gives a secret back that was not sent', async () => {
    const { broker, one, other, read } = await prepare(engine)
    const refused = new ConnectorError({ outcome: 'nothing_done', publicMessage: 'No route.' })
    expect(await problemOf(lend(one, () => Promise.reject(refused)))).toBe(refused)
    expect(await read()).toEqual({ state: 'ready', version: 1, value: 'token 0' })
    expect(await lend(other, async (secret) => ({ result: secret.reveal() }))).toBe('token 0')
    expect(await typesOf(broker)).toEqual(['secret.stored'])
  })

  test.each([
    ['whose answer was lost', new ConnectorError({ outcome: 'unknown', publicMessage: 'The answer was cut off.' }), /is not known: The answer was cut off\.$/],
    ['in which something broke', new Error('a secret of its own'), /is not known: it failed in a way that was not foreseen$/],
  ])('never lends a secret again after a use %s, until an admin puts another', async (_, error, detail) => {
    const { broker, one, other, read } = await prepare(engine)
    expect(await problemOf(lend(one, () => Promise.reject(error)))).toMatchObject({ outcome: 'unknown', publicMessage: expect.stringMatching(reconnect), cause: error })
    expect((await read()).state).toBe('used_up')
    expect(await broker.lastEvent('tool.needs_reconnection')).toMatchObject({ tool: 'crm', detail: expect.stringMatching(detail) })
    for (const custody of [one, other]) {
      expect(await problemOf(lend(custody, async () => expect.fail('it was lent')))).toMatchObject({ outcome: 'nothing_done', publicMessage: expect.stringMatching(reconnect) })
    }
    expect((await typesOf(broker)).filter((type) => type === 'tool.needs_reconnection')).toHaveLength(1)
    const listed = (await (await broker.sendAsAdmin('GET', '/v1/secrets')).json()) as { secrets: unknown[] }
    expect(listed.secrets).toMatchObject([{ name: 'crm-refresh', needs_reconnection: { tool: 'crm', problem: expect.stringMatching(detail) } }])

    await put(broker, 'fresh')
    expect(await lend(other, async (secret) => ({ result: secret.reveal() }))).toBe('fresh')
    expect(JSON.stringify(await (await broker.sendAsAdmin('GET', '/v1/secrets')).json())).not.toContain('needs_reconnection')
  })

  test('never lends a secret again of which the tool has said that it is used up', async () => {
    const { broker, one, other } = await prepare(engine)
    expect(await problemOf(lend(one, async () => ({ usedUp: 'the upstream answered invalid_grant' })))).toMatchObject({ outcome: 'nothing_done', publicMessage: expect.stringMatching(reconnect) })
    expect(await broker.lastEvent('tool.needs_reconnection')).toMatchObject({ detail: 'the upstream answered invalid_grant' })
    expect((await problemOf(lend(other, async () => expect.fail('it was lent')))).publicMessage).toMatch(reconnect)
  })

  test('counts a secret as used up whose process did not come back: found by the next, or by the clock', async () => {
    for (const find of ['the next', 'the clock'] as const) {
      const { broker, one, other, read } = await prepare(engine, { waitMsMax: 300 })
      // It does not end, as in a process that was killed.
      let finish = (): void => undefined
      void lend(one, async () => {
        await new Promise<void>((resolve) => (finish = resolve))
        return { result: 1 }
      })
      while ((await read()).state !== 'in_use') await pause(5)
      broker.clock.advance(leaseMs - 1)
      await other.sweep()
      expect((await problemOf(lend(other, async () => expect.fail('it was lent')))).publicMessage).toContain('busy')
      broker.clock.advance(1)
      if (find === 'the next') expect((await problemOf(lend(other, async () => expect.fail('it was lent')))).publicMessage).toMatch(reconnect)
      else await other.sweep()
      expect((await read()).state).toBe('used_up')
      expect(await broker.lastEvent('tool.needs_reconnection')).toMatchObject({ tool: 'crm', detail: expect.stringContaining('did not come back') })
      await other.sweep()
      expect(await typesOf(broker)).toEqual(['secret.stored', 'tool.needs_reconnection'])
      finish()
    }
  })

  test.each([
    ['a replacement', new Secret('token 1'), 'token 1'],
    ['none', undefined, 'token 0'],
  ])('takes it back from a process that was only slow, with %s', async (_, replacement, value) => {
    const { broker, one, other, read } = await prepare(engine)
    const answer = await lend(one, async () => {
      // As a clock that is set ahead by ten minutes.
      broker.clock.advance(600_000)
      await other.sweep()
      expect((await read()).state).toBe('used_up')
      return { result: 1, ...(replacement && { replacement }) }
    })
    expect([answer, await read()]).toEqual([1, { state: 'ready', version: 2, value }])
    expect(await typesOf(broker)).toEqual(['secret.stored', 'tool.needs_reconnection', 'secret.stored'])
  })

  test('says once that a tool needs reconnection, also where a slow process finds it again', async () => {
    const { broker, one, other, read } = await prepare(engine)
    await problemOf(lend(one, async () => {
      broker.clock.advance(600_000)
      await other.sweep()
      throw new ConnectorError({ outcome: 'unknown', publicMessage: 'The answer was cut off.' })
    }))
    expect((await read()).state).toBe('used_up')
    expect(await typesOf(broker)).toEqual(['secret.stored', 'tool.needs_reconnection'])
  })

  test('keeps what an admin puts while the old one is in use, whatever becomes of that', async () => {
    for (const end of ['replaced', 'lost', 'refused', 'used up'] as const) {
      const { broker, one, other, read } = await prepare(engine)
      const using = lend(one, async () => {
        await put(broker, 'fresh')
        // It is there for others at once.
        expect(await lend(other, async (secret) => ({ result: secret.reveal() }))).toBe('fresh')
        if (end === 'replaced') return { result: 1, replacement: new Secret('of the old family') }
        if (end === 'used up') return { usedUp: 'invalid_grant' }
        throw new ConnectorError({ outcome: end === 'lost' ? 'unknown' : 'nothing_done', publicMessage: 'No.' })
      })
      await using.catch(() => undefined)
      expect(await read()).toEqual({ state: 'ready', version: 2, value: 'fresh' })
      expect(await typesOf(broker)).toEqual(['secret.stored', 'secret.stored'])
    }
  })

  test('does not lose a replacement while the log cannot be written', async () => {
    const { broker, other, read } = await prepare(engine, { waitMsMax: 200 })
    const { broken, ledger } = breakLedger(broker)
    broken.refuse = false
    const custody = custodyOf(broker, { ledger, storeMsMax: 50 })
    const lending = lend(custody, async () => {
      broken.refuse = true
      return { result: 1, replacement: new Secret('token 1') }
    })
    expect(await problemOf(lending)).toMatchObject({ outcome: 'unknown', publicMessage: expect.stringContaining('could not be stored yet') })
    expect((await problemOf(lend(other, async () => expect.fail('the old one was lent')))).publicMessage).toContain('busy')
    broken.refuse = false
    while ((await read()).state !== 'ready') await pause(10)
    expect(await read()).toEqual({ state: 'ready', version: 2, value: 'token 1' })
    expect(broken.refused).toBeGreaterThan(0)
  })

  test('tries a last time when the process is told to stop', async () => {
    const { broker, read } = await prepare(engine)
    const { broken, ledger } = breakLedger(broker)
    broken.refuse = false
    const custody = custodyOf(broker, { ledger, storeMsMax: 1 })
    await problemOf(lend(custody, async () => {
      broken.refuse = true
      return { result: 1, replacement: new Secret('token 1') }
    }))
    await pause(500)
    broken.refuse = false
    await custody.close()
    expect(await read()).toEqual({ state: 'ready', version: 2, value: 'token 1' })
    expect((await problemOf(lend(custody, async () => expect.fail('it was lent')))).publicMessage).toContain('busy')
  })

  test('stores a replacement once, also where the answer to the commit was lost', async () => {
    const { broker, read } = await prepare(engine)
    const { broken, ledger } = breakLedger(broker)
    Object.assign(broken, { refuse: false, carryOut: true })
    const custody = custodyOf(broker, { ledger })
    const answer = await lend(custody, async () => {
      broken.refuse = true
      setTimeout(() => (broken.refuse = false), 50)
      return { result: 1, replacement: new Secret('token 1') }
    })
    expect([answer, await read(), broken.refused > 0]).toEqual([1, { state: 'ready', version: 2, value: 'token 1' }, true])
  })

  test('gives back what was taken by a commit whose answer was lost: nobody has used it', async () => {
    const { broker, other, read } = await prepare(engine)
    const { broken, ledger } = breakLedger(broker)
    broken.carryOut = true
    const custody = custodyOf(broker, { ledger })
    const lending = problemOf(lend(custody, async () => expect.fail('it was lent')))
    expect(await lending).toMatchObject({ outcome: 'nothing_done', publicMessage: expect.stringContaining('try again shortly') })
    expect((await read()).state).toBe('in_use')
    broken.refuse = false
    expect(await lend(other, async (secret) => ({ result: secret.reveal() }))).toBe('token 0')
    expect(await typesOf(broker)).toEqual(['secret.stored'])
  })

  test('lends nothing that is older than a restoration of the log: since the backup it may have been used up', async () => {
    const { broker, one } = await prepare(engine)
    broker.clock.advance(1_000)
    await broker.broker.ledger.append({ events: [{ type: 'log.restored', ...admin, abandoned: [], proofs_from: '2026-01-15T12:00:00.000Z', reason: 'a test' }] })
    expect((await problemOf(lend(one, async () => expect.fail('it was lent')))).publicMessage).toMatch(reconnect)
    expect(await broker.lastEvent('tool.needs_reconnection')).toMatchObject({ tool: 'crm', detail: expect.stringContaining('restored from a backup') })
    await put(broker, 'fresh')
    expect(await lend(one, async (secret) => ({ result: secret.reveal() }))).toBe('fresh')
  })

  test('says what is missing', async () => {
    const { broker, one } = await prepare(engine)
    const use = async () => expect.fail('it was lent')
    expect(await problemOf(one.lend('sealed:nothing', 'crm', use, never))).toMatchObject({ outcome: 'nothing_done', adminMessage: expect.stringContaining('stint secret put nothing') })
    expect((await problemOf(one.lend('env:TOKEN', 'crm', use, never))).adminMessage).toContain('sealed:name')
    // Nothing is left behind by a secret that does not open.
    const sealer = { ...broker.broker.sealer, open: () => expect.fail('another key') }
    expect((await problemOf(lend(custodyOf(broker, { sealer }), use))).adminMessage).toContain('cannot be opened')
    expect(await lend(one, async (secret) => ({ result: secret.reveal() }))).toBe('token 0')
  })
})
