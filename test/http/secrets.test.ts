import { randomBytes } from 'node:crypto'
import { expect, test } from 'vitest'
import { createSealedVersions } from '../../src/broker/sealed-versions.ts'
import { Secret } from '../../src/kernel/secret.ts'
import { findSecret, secretPlace } from '../../src/storage/secrets.ts'
import { startBroker, type TestBroker } from '../broker.ts'
import { describeEngines } from '../harness.ts'
import { answerOf, unrecorded } from './admin-requests.ts'

const put = async (broker: TestBroker, name: string, value: unknown) => answerOf(await broker.sendAsAdmin('PUT', `/v1/secrets/${name}`, { value }))
const list = async (broker: TestBroker, query = '') => answerOf(await broker.sendAsAdmin('GET', `/v1/secrets${query}`))

async function openNewest({ broker }: TestBroker, name: string): Promise<string> {
  const found = await findSecret(broker.database.read, name)
  if (found === undefined) throw new Error(`no secret ${name}`)
  return Buffer.from(broker.sealer.open(found.sealed, secretPlace(name, found.version))).toString()
}

describeEngines('PUT /v1/secrets/:name', (engine) => {
  test('seals the value, records it without the value, and shows it to nobody', async () => {
    const broker = await startBroker(engine)
    const value = `kept ${randomBytes(16).toString('hex')}\n`
    const answer = await put(broker, 'crm', value)
    expect(answer).toEqual({ status: 200, body: { name: 'crm', version: 1, created_at: '2026-01-15T12:00:00.000Z' }, index: expect.any(String) })
    const event = await broker.lastEvent('secret.stored')
    expect(event).toMatchObject({ secret: 'crm', version: 1, index: Number(answer.index), actor: { kind: 'operator' } })
    expect(await openNewest(broker, 'crm')).toBe(value)

    const rows = await broker.broker.database.read.selectFrom('sealed_secret').selectAll().execute()
    const shown = [rows, await broker.events(), (await list(broker)).body, broker.logLines, await (await broker.sendAsAdmin('GET', '/metrics')).text()]
    expect(JSON.stringify(shown)).not.toContain(value.trim().slice(5))
  })

  test('puts a new version in place of the old one, which is erased in the same commit', async () => {
    const broker = await startBroker(engine)
    await put(broker, 'crm', 'first')
    await put(broker, 'other', 'apart')
    broker.clock.advance(60_000)
    expect((await put(broker, 'crm', 'second')).body).toMatchObject({ version: 2, created_at: '2026-01-15T12:01:00.000Z' })
    const rows = await broker.broker.database.read.selectFrom('sealed_secret').selectAll().orderBy('name').orderBy('version').execute()
    expect(rows.map(({ name, version, stage, sealed }) => [name, version, stage, sealed === ''])).toEqual([['crm', 1, null, true], ['crm', 2, 'current', false], ['other', 1, 'current', false]])
    expect(await broker.lastEvent('secret.stored')).toMatchObject({ secret: 'crm', version: 2, stage: 'current', erases: [1] })
    expect([await openNewest(broker, 'crm'), await openNewest(broker, 'other')]).toEqual(['second', 'apart'])
    // What is sealed for one version opens as no other.
    const found = await findSecret(broker.broker.database.read, 'crm')
    expect(() => found && broker.broker.sealer.open(found.sealed, secretPlace('crm', 1))).toThrow()
  })

  test('keeps every version apart that arrives at the same moment', async () => {
    const broker = await startBroker(engine)
    const beside = engine === 'postgres' ? await startBroker(engine, { beside: broker }) : broker
    const answers = await Promise.all(Array.from({ length: 10 }, (_, i) => put(i % 2 === 0 ? broker : beside, 'crm', `value ${i}`)))
    expect(answers.map(({ body }) => body['version']).toSorted((a, b) => Number(a) - Number(b))).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    const last = answers.findIndex(({ body }) => body['version'] === 10)
    expect(await openNewest(broker, 'crm')).toBe(`value ${last}`)
  })

  test.each([
    ['no value', {}, 400],
    ['an empty value', { value: '' }, 400],
    ['a value that is no text', { value: { secret: 'marked-7' } }, 400],
    ['a value that is too long', { value: `marked-7${'a'.repeat(65_536)}` }, 400],
    ['a value of too many bytes', { value: `marked-7${'ä'.repeat(32_768)}` }, 400],
    ['half a character', { value: 'marked-7\ud800' }, 400],
    ['something else beside', { value: 'marked-7', note: 'x' }, 400],
  ])('refuses %s, and does not say it back', async (_, json, status) => {
    const broker = await startBroker(engine)
    const answer = await unrecorded(broker, async () => answerOf(await broker.sendAsAdmin('PUT', '/v1/secrets/crm', json)))
    expect(answer).toMatchObject({ status, index: null })
    expect(JSON.stringify([answer.body, broker.logLines])).not.toContain('marked-7')
    expect((await list(broker)).body).toEqual({ secrets: [] })
  })

  test('takes the largest value there is, and the most awkward', async () => {
    const broker = await startBroker(engine)
    for (const value of ['\u0000'.repeat(65_536), 'ä'.repeat(32_768), '  \n "\\ \u2028 stint_op_ \u{1f600}']) {
      expect((await put(broker, 'crm', value)).status).toBe(200)
      expect(await openNewest(broker, 'crm')).toBe(value)
    }
  })

  test.each(['Crm', '1crm', 'c_r', 'a'.repeat(64), '-a', 'crm%2f2', 'crm%00'])('does not know the name %s', async (name) => {
    const broker = await startBroker(engine)
    expect((await unrecorded(broker, () => put(broker, name, 'marked'))).status).toBe(404)
  })

  test.each(['approver', 'auditor'] as const)('is not for the role %s', async (role) => {
    const broker = await startBroker(engine)
    const credential = await broker.createOperator(role)
    const answer = await unrecorded(broker, async () => answerOf(await broker.sendAs(credential, 'PUT', '/v1/secrets/crm', { value: 'marked-7' })))
    expect(answer.status).toBe(403)
    const attempt = await broker.lastEvent('change.refused')
    expect(attempt).toMatchObject({ method: 'PUT', route: '/v1/secrets/:name', code: 'forbidden' })
    expect(JSON.stringify([attempt, broker.logLines])).not.toContain('marked-7')
  })
})

describeEngines('GET /v1/secrets', (engine) => {
  test('lists the newest versions by name, page by page, for admins and auditors', async () => {
    const broker = await startBroker(engine)
    for (const [i, name] of ['c', 'a', 'b', 'a'].entries()) await put(broker, name, `of ${name} ${i}`)
    const first = await list(broker, '?limit=2')
    expect(first.body).toMatchObject({ secrets: [{ name: 'a', version: 2 }, { name: 'b', version: 1 }], next: 'b' })
    expect((await list(broker, '?limit=2&after=b')).body).toEqual({ secrets: [{ name: 'c', version: 1, created_at: '2026-01-15T12:00:00.000Z' }] })
    const asAuditor = await broker.sendAs(await broker.createOperator('auditor'), 'GET', '/v1/secrets')
    expect(asAuditor.status).toBe(200)
    expect(await asAuditor.text()).not.toContain('of ')
    expect((await broker.sendAs(await broker.createOperator('approver'), 'GET', '/v1/secrets')).status).toBe(403)
  })
})

describeEngines('GET /v1/secrets/:name/versions', (engine) => {
  const versions = async (broker: TestBroker, name: string, query = '') => answerOf(await broker.sendAsAdmin('GET', `/v1/secrets/${name}/versions${query}`))
  const rotation = '0b9f5b0e-7a39-4d8e-9f0f-0d5a1c2f3a01'

  test('tells what every version is, the newest first, page by page, and no value', async () => {
    const broker = await startBroker(engine)
    for (const value of ['marked one', 'marked two']) await put(broker, 'crm', value)
    await put(broker, 'crm-2', 'marked apart')
    broker.clock.advance(60_000)
    const sealed = createSealedVersions(broker.broker)
    await sealed.create('crm', rotation, new Secret('marked three'))
    const at = '2026-01-15T12:00:00.000Z'
    const [one, two, three] = [{ version: 1, stage: 'erased', created_at: at }, { version: 2, stage: 'current', created_at: at }, { version: 3, stage: 'pending', created_at: '2026-01-15T12:01:00.000Z', rotation }]
    expect(await versions(broker, 'crm')).toEqual({ status: 200, body: { versions: [three, two, one] }, index: null })
    // What is to be the next is no secret of its own in the list.
    expect((await list(broker)).body).toMatchObject({ secrets: [{ name: 'crm', version: 2 }, { name: 'crm-2', version: 1 }] })
    await sealed.promote('crm', rotation)
    expect((await versions(broker, 'crm')).body).toEqual({ versions: [{ ...three, stage: 'current' }, { ...two, stage: 'previous' }, one] })
    expect((await versions(broker, 'crm', '?limit=2')).body).toMatchObject({ versions: [{ version: 3 }, { version: 2 }], next: 2 })
    expect((await versions(broker, 'crm', '?limit=2&before=2')).body).toEqual({ versions: [one] })
    expect((await versions(broker, 'crm', '?before=1')).body).toEqual({ versions: [] })
    const asAuditor = await broker.sendAs(await broker.createOperator('auditor'), 'GET', '/v1/secrets/crm/versions')
    expect([asAuditor.status, (await asAuditor.text()).includes('marked')]).toEqual([200, false])
    expect((await broker.sendAs(await broker.createOperator('approver'), 'GET', '/v1/secrets/crm/versions')).status).toBe(403)
  })

  test.each([
    ['a secret that is not there', 'other', '', 404],
    ['a name that is none', 'Crm', '', 404],
    ['a version that is none', 'crm', '?before=0', 400],
    ['too many at once', 'crm', '?limit=501', 400],
    ['what is not known', 'crm', '?after=1', 400],
  ])('refuses %s', async (_, name, query, status) => {
    const broker = await startBroker(engine)
    await put(broker, 'crm', 'marked')
    expect((await versions(broker, name, query)).status).toBe(status)
  })
})
