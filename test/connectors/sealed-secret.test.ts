import { expect, test } from 'vitest'
import { putSecret } from '../../src/broker/secrets.ts'
import { createSealedVersions } from '../../src/broker/sealed-versions.ts'
import { ConnectorError } from '../../src/connectors/connector.ts'
import { sealedSecretConnector } from '../../src/connectors/sealed-secret.ts'
import { Secret } from '../../src/kernel/secret.ts'
import { parseTool } from '../../src/policy/catalog.ts'
import { startBroker } from '../broker.ts'
import { describeEngines } from '../harness.ts'
import { createToolContext } from './tool-context.ts'

const [first, second] = ['0b9f5b0e-7a39-4d8e-9f0f-0d5a1c2f3a01', '0b9f5b0e-7a39-4d8e-9f0f-0d5a1c2f3a02']
const rotation = 'rotation: { every: 30d, rotator: { http: { generate: {}, set: { method: POST, url: "https://api.test/key", form: { key: "{pending}" } }, test: { method: GET, url: "https://api.test/", headers: { authorization: "Bearer {pending}" } } } } }'
const signal = () => AbortSignal.timeout(15_000)

describeEngines('The connector sealed-secret', (engine) => {
  async function setUp(config = '') {
    const broker = await startBroker(engine)
    const parsed = parseTool('tools/billing-api.yaml', `tool: billing-api\nconnector: sealed-secret\nsensitivity: high\nttl: { default: 10m, max: 1h }\nactions: { use: {} }\nconfig: { secret: billing, ${config} }\n`)
    if (!('tool' in parsed)) throw new Error(JSON.stringify(parsed.problems))
    const sealedVersions = createSealedVersions(broker.broker)
    const open = sealedSecretConnector.open(parsed.tool, createToolContext({ nowMs: broker.clock.nowMs, sealedVersions }))
    const nowMs = broker.clock.nowMs()
    return {
      broker,
      open,
      versions: sealedVersions,
      put: (value: string) => putSecret(broker.broker, { actor: { kind: 'operator', id: 'test' } }, 'billing', new Secret(value)),
      mint: () => open.mint({ grant: 'grant_01kb2m4c0de0000000000000a1', workload: 'bot', owner: 'support', actions: [], nowMs, expiresAtMs: nowMs + 600_000 }, signal()),
      end: (reference?: string) => open.revoke({ grant: 'grant_01kb2m4c0de0000000000000a1', ...(reference !== undefined && { reference }) }, signal()),
      findings: () => open.check(signal()),
    }
  }

  test('lends what is in use, under the variables of the catalog or one named as the tool', async () => {
    const plain = await setUp()
    await plain.put('one')
    const lent = await plain.mint()
    expect(Object.entries(lent.environment).map(([name, value]) => [name, value instanceof Secret && value.reveal()])).toEqual([['BILLING_API', 'one']])
    expect([lent.credential['version'], lent.reference, JSON.stringify(lent).includes('one'), plain.open.effect]).toEqual(['1', 'billing/1', false, 'expiry'])
    await plain.versions.create('billing', first, new Secret('two'))
    // What is not tried out yet is lent to nobody.
    expect((await plain.mint()).reference).toBe('billing/1')
    await plain.versions.promote('billing', first)
    expect((await plain.mint()).reference).toBe('billing/2')
    const members = await setUp('env: { API_USER: user }')
    await members.put('{"user":"a"}')
    expect(Object.keys((await members.mint()).environment)).toEqual(['API_USER'])
  })

  test('makes no value that the variables of the catalog cannot hold', async () => {
    const { put, open, versions } = await setUp(`env: { API_KEY: key }, ${rotation}`)
    await put('{"key":"one"}')
    await expect(open.rotation?.create(first, signal())).rejects.toMatchObject({ outcome: 'nothing_done', publicMessage: expect.stringMatching(/^The secret billing is no JSON object/) })
    expect((await versions.find('billing')).pending).toBeUndefined()
  })

  test('what was lent is not taken for replaced by the same value', async () => {
    const { put, mint, end } = await setUp()
    await put('one')
    const { reference } = await mint()
    await expect(put('one')).rejects.toMatchObject({ code: 'conflict', publicMessage: expect.stringContaining('has this very value: nothing was replaced') })
    expect((await end(reference)).status).toBe('waits')
    await put('two')
    expect((await end(reference)).status).toBe('ended')
  })

  test('says of each version whether what was lent is over', async () => {
    const { put, end, versions, broker } = await setUp(rotation)
    await put('one')
    const waits = (why: string) => ({ status: 'waits', why: `What was lent, version 1 of the sealed secret billing, is good until it is replaced${why}.`, nextAtMs: broker.clock.nowMs() + 86_400_000 })
    expect(await end('billing/1')).toEqual(waits(': its rotation does that'))
    await versions.create('billing', first, new Secret('two'))
    expect((await end('billing/2')).status).toBe('waits')
    await versions.promote('billing', first)
    expect(await end('billing/1')).toEqual(waits(': it is, and opens nothing any more once it is retired'))
    await versions.retire('billing', '1')
    expect(await end('billing/1')).toEqual({ status: 'ended' })
    expect([await end('billing/7'), await end('elsewhere/1'), await end()]).toEqual(Array.from({ length: 3 }, () => ({ status: 'ended' })))
    await put('by hand')
    expect([(await end('billing/2')).status, (await end('billing/3')).status]).toEqual(['ended', 'waits'])
  })

  test('lends nothing where there is nothing, and a check says what an admin does', async () => {
    const { mint, findings } = await setUp()
    const refused = await mint().then(() => expect.unreachable(), (error: unknown) => error)
    expect(refused).toBeInstanceOf(ConnectorError)
    expect(refused).toMatchObject({ outcome: 'nothing_done', publicMessage: expect.not.stringContaining('billing'), adminMessage: 'There is no sealed secret billing: an admin puts it, with stint secret put billing.' })
    expect(await findings()).toEqual([{ ok: false, sentence: 'There is no sealed secret billing: an admin puts it, with stint secret put billing.' }])
  })

  test('tells in a check what there is, and what does not fit', async () => {
    const { put, findings, versions } = await setUp()
    await put('one')
    const since = 'The sealed secret billing is kept: version 1 is in use since 2026-01-15T12:00:00.000Z'
    expect(await findings()).toEqual([{ ok: true, sentence: `${since}.` }, { ok: true, sentence: 'Stint does not replace it: an admin does, with stint secret put.' }])
    await versions.create('billing', first, new Secret('two'))
    await versions.promote('billing', first)
    await versions.create('billing', second, new Secret('three'))
    expect((await findings())[0]?.sentence).toMatch(/version 2 is in use since \S+; version 1 may still open something, and version 3 is to be the next\.$/)
    const members = await setUp('env: { API_USER: user }')
    await members.put('marked')
    const found = await members.findings()
    expect([found, JSON.stringify(found).includes('marked')]).toEqual([[{ ok: false, sentence: expect.stringContaining('is no JSON object') }], false])
  })
})
