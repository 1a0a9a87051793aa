import { randomBytes } from 'node:crypto'
import { expect, test } from 'vitest'
import { advanceSealingKeys, rotateSealingKeys } from '../../src/broker/rotate-sealing-keys.ts'
import { createSecretReader } from '../../src/broker/secrets.ts'
import { sweep } from '../../src/broker/sweep.ts'
import { createRawRootKey, type RootKey } from '../../src/crypto/root-key.ts'
import { BrokerError } from '../../src/kernel/errors.ts'
import { describePostgres } from '../harness.ts'
import type { TestBroker } from '../broker.ts'
import { admin, ask, lend, listRoles, look, opens, startBeside, startLending } from './lending.ts'
import { put } from './sealed.ts'

const caller = { actor: { kind: 'stint', id: 'test' } } as const
const wish = { tool: 'ledger', actions: ['read'] }
const aheadMs = 10_000
const hourMs = 3_600_000

/** A broker, and a process beside it that its root key opens no sealing key to any more. */
async function startWithStale(pass?: (point: string) => Promise<void> | undefined) {
  const root = createRawRootKey(randomBytes(32))
  const lending = await startLending('postgres', { rootKey: root })
  let isDenied = false
  const denied: RootKey = { ...root, unwrap: (wrapped, version) => (isDenied ? Promise.reject(new BrokerError({ code: 'unavailable', publicMessage: 'KMS denies it.' })) : root.unwrap(wrapped, version)) }
  const stale = await startBeside(lending, { rootKey: denied, ...(pass && { pass }) })
  // It goes on with the token keys that it has.
  await stale.broker.knowledge.refresh()
  isDenied = true
  return { ...lending, stale }
}

const load = ({ broker: { sealingKeys } }: TestBroker) => sealingKeys.load().catch(() => undefined)

/** The key is replaced; what was sealed before is sealed anew, and where asked for the old key goes. */
async function replaceKey(broker: TestBroker, stale: TestBroker, erases: boolean): Promise<void> {
  await rotateSealingKeys(broker.broker, caller)
  await load(broker)
  for (const ms of [aheadMs, hourMs, ...(erases ? [hourMs] : [])]) {
    broker.clock.advance(ms)
    await advanceSealingKeys(broker.broker)
  }
  await load(broker)
  await load(stale)
}

describePostgres('A process that cannot open the sealing key of now', () => {
  test.each([false, true])('lends nothing, makes nothing outside and is not ready, the old key erased: %s', async (erases) => {
    const { broker, stale, agent, site } = await startWithStale()
    await replaceKey(broker, stale, erases)
    expect(await ask(stale, agent, wish)).toMatchObject({ status: 503, body: { detail: 'This process cannot open the sealing key of version 2 at the moment: its log says why. Try again shortly.' } })
    expect(await listRoles({ broker, site })).toEqual([])
    expect((await broker.events()).map(({ type }) => type)).not.toContain('grant.minting')
    expect(await admin(stale, 'GET', '/readyz')).toMatchObject({ status: 503, body: { parts: { sealing_keys: expect.stringContaining('version 2') } } })
    await lend(broker, agent, wish)
  })

  test('ends what it has made while the last key that it had was erased', async () => {
    let during: () => Promise<void> = async () => undefined
    const { broker, stale, agent, site } = await startWithStale((point) => (point === 'outside_answered' ? during() : undefined))
    during = async () => {
      expect(await listRoles({ broker, site })).toHaveLength(1)
      await replaceKey(broker, stale, true)
    }
    expect((await ask(stale, agent, wish)).status).toBeGreaterThanOrEqual(500)
    expect(await listRoles({ broker, site })).toEqual([])
  })

  test('uses up no try of an end, which another one brings about', async () => {
    const lending = await startWithStale()
    const { broker, stale, agent } = lending
    const lent = await lend(broker, agent, { ...wish, ttl_seconds: 3600 })
    await rotateSealingKeys(broker.broker, caller)
    await load(broker)
    broker.clock.advance(aheadMs)
    await load(stale)
    const other = await lend(broker, agent, wish)
    expect(await admin(stale, 'POST', '/v1/revocations', { grant: other.grant, reason: 'unused' })).toMatchObject({ body: { grants: [{ outcome: 'retrying', problem: expect.stringContaining('the sealing key of version 2, which a process of the broker cannot open') }] } })
    for (let i = 0; i < 3; i++) await sweep(stale.broker)
    const { tries } = await broker.broker.database.read.selectFrom('credential').select('tries').where('grant_id', '=', other.grant).executeTakeFirstOrThrow()
    expect([tries, await opens(lending, other)]).toEqual([0, true])
    await sweep(broker.broker)
    expect([await opens(lending, other), (await look(lending, other.grant)).state]).toEqual([false, 'revoked'])
    // What is under a key that it has it ends itself.
    await admin(stale, 'POST', '/v1/revocations', { grant: lent.grant, reason: 'unused' })
    expect((await look(lending, lent.grant)).state).toBe('revoked')
  })

  test('tells what it cannot open now from what nobody can open, which is to be put anew', async () => {
    const { broker, stale } = await startWithStale()
    await put(broker, 'crm', 'kept')
    await replaceKey(broker, stale, false)
    const read = (one: TestBroker) => createSecretReader({ ...one.broker, env: {} })('sealed:crm', 'the key')
    expect((await read(broker)).reveal()).toBe('kept')
    await expect(read(stale)).rejects.toMatchObject({
      outcome: 'nothing_done',
      retryAfterSeconds: 5,
      adminMessage: "The tool's root credential cannot be used: the sealed secret crm is under the sealing key of version 2, which this process cannot open at the moment (KMS denies it.).",
    })
    await broker.broker.database.write(({ db }) => db.updateTable('sealed_secret').set({ sealed: 'AAAA' }).execute())
    await expect(read(broker)).rejects.toMatchObject({ adminMessage: expect.stringContaining('an admin puts it anew') })
  })
})
