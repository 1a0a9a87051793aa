import { expect, test } from 'vitest'
import { roles } from '../../src/identity/operator.ts'
import { dayMs, startBroker, type TestBroker } from '../broker.ts'
import { startCompanyIssuer } from '../company-issuer.ts'
import { createTestClock, describeEngines } from '../harness.ts'
import { answerOf, unrecorded, type Body } from './admin-requests.ts'

const whoami = async (broker: TestBroker, credential: string) => (await broker.sendAs(credential, 'GET', '/v1/operator')).status
const asAdmin = async (broker: TestBroker, method: string, path: string, json?: Body) => answerOf(await broker.sendAsAdmin(method, path, json))
const idOf = (credential: string): string => credential.split('_')[2] ?? ''

/** Why the strangers of the minute so far were refused. */
async function countRefusals(broker: TestBroker): Promise<unknown[]> {
  const before = (await broker.events()).length
  await broker.broker.refusals.flush(true)
  return (await broker.events()).slice(before).map((event) => event.type === 'authentication.refused' && [event.reason, event.count])
}

describeEngines('An operator', (engine) => {
  test.each(roles)('of the role %s is made with a credential that is shown once, and kept as a hash', async (role) => {
    const broker = await startBroker(engine)
    const response = await broker.sendAsAdmin('POST', '/v1/operators', { name: 'ada', role, valid_days: 90 })
    const { status, body, index } = await answerOf(response)
    const credential = String(body['credential'])
    const shown = { name: 'ada', id: idOf(credential), role, status: 'active', created_at: '2026-01-15T12:00:00.000Z', expires_at: '2026-04-15T12:00:00.000Z' }
    expect([status, body, response.headers.get('location'), response.headers.get('cache-control')]).toEqual([
      201,
      { ...shown, credential: expect.stringMatching(/^stint_op_[0-9a-f]{16}_[\w-]{43}$/) },
      '/v1/operators/ada',
      'no-store',
    ])
    expect(await broker.lastEvent('operator.created')).toMatchObject({
      index: Number(index),
      actor: { kind: 'operator', id: idOf(broker.adminCredential) },
      operator: shown.id,
      name: 'ada',
      role,
      expires_at: shown.expires_at,
    })
    expect(await answerOf(await broker.sendAs(credential, 'GET', '/v1/operator'))).toMatchObject({
      status: 200,
      body: { id: shown.id, name: 'ada', role, expires_at: shown.expires_at },
    })
    expect((await asAdmin(broker, 'GET', '/v1/operators/ada')).body).toEqual(shown)
    expect((await asAdmin(broker, 'GET', '/v1/operators')).body).toEqual({ operators: [shown, { ...root(broker) }] })

    const row = await broker.broker.database.read.selectFrom('operator').selectAll().where('name', '=', 'ada').executeTakeFirstOrThrow()
    const events = JSON.stringify(await broker.events())
    for (const hidden of [credential.slice(-43), row.secret_hash]) expect(events + broker.logLines.join('')).not.toContain(hidden)
    expect(JSON.stringify(row)).not.toContain(credential.slice(-43))
  })

  test('has a name that nobody has or ever had, and a role that there is', async () => {
    const broker = await startBroker(engine)
    await broker.createOperator('auditor', { name: 'ada' })
    await broker.createOperator('auditor', { name: 'bob' })
    await asAdmin(broker, 'POST', '/v1/operators/bob/revoke', {})
    const taken = 'is taken; names are never used twice, also not after a revocation: choose another, or rotate its credential.'
    const rule = 'must be 1 to 63 of a-z, 0-9, dots, dashes and underscores, and begins with a letter or a digit'
    const refused: readonly (readonly [Body, number, string])[] = [
      [{ name: 'ada', role: 'auditor' }, 409, `The name ada ${taken}`],
      [{ name: 'bob', role: 'auditor' }, 409, `The name bob ${taken}`],
      [{ name: 'Ada', role: 'auditor' }, 400, `name ${rule}`],
      [{ name: 'jo@example.com', role: 'auditor' }, 400, `name ${rule}`],
      [{ name: 5, role: 'auditor' }, 400, 'name must be a name'],
      [{ role: 'auditor' }, 400, 'name must be a name'],
      [{ name: 'cy', role: 'auditer' }, 400, 'role is not known; did you mean auditor?'],
      [{ name: 'cy' }, 400, 'role must be one of admin, approver, auditor'],
      [{ name: 'cy', role: 'auditor', secret: 'x' }, 400, 'secret is not known here'],
      [{ name: 'cy', role: 'auditor', valid_days: 0 }, 400, 'valid_days must be a whole number from 1 to 3650'],
      [{ name: 'cy', role: 'auditor', valid_days: 1.5 }, 400, 'valid_days must be a whole number from 1 to 3650'],
      [{ name: 'cy', role: 'auditor', valid_days: '90' }, 400, 'valid_days must be a whole number from 1 to 3650'],
      [{ name: 'cy', role: 'auditor', valid_days: 3651 }, 400, 'valid_days must be a whole number from 1 to 3650'],
      [{ name: 'cy', role: 'auditor', expires_at: 'soon' }, 400, 'expires_at must be a time'],
      [{ name: 'cy', role: 'auditor', expires_at: null }, 400, 'expires_at'],
      [{ name: 'cy', role: 'auditor', expires_at: '2026-01-15T12:00:00Z' }, 400, 'A credential expires in the future, at most 3650 days ahead.'],
      [{ name: 'cy', role: 'auditor', expires_at: '2036-01-14' }, 400, 'A credential expires in the future, at most 3650 days ahead.'],
      [{ name: 'cy', role: 'auditor', expires_at: '2026-02-01', valid_days: 3 }, 400, 'takes expires_at or valid_days, not both'],
    ]
    await unrecorded(broker, async () => {
      for (const [json, status, detail] of refused) {
        expect([json, await asAdmin(broker, 'POST', '/v1/operators', json)]).toMatchObject([json, { status, body: { detail: expect.stringContaining(detail) } }])
      }
      expect((await asAdmin(broker, 'GET', '/v1/operators/cy')).status).toBe(404)
    })
    expect((await asAdmin(broker, 'POST', '/v1/operators', { name: 'cy', role: 'auditor', expires_at: '2036-01-13' })).body).toMatchObject({
      expires_at: '2036-01-13T00:00:00.000Z',
    })
  })

  test('of which two are made with one name at the same moment is one', async () => {
    const broker = await startBroker(engine)
    const beside = engine === 'postgres' ? await startBroker(engine, { beside: broker }) : broker
    const made = await Promise.all([broker, beside].map(async (from) => asAdmin(from, 'POST', '/v1/operators', { name: 'ada', role: 'auditor' })))
    expect(made.map(({ status }) => status).sort()).toEqual([201, 409])
    const created = (await broker.events()).filter((event) => event.type === 'operator.created' && event.name === 'ada')
    expect(created.length).toBe(1)
  })

  test('is one until the moment at which its credential expires, and then a stranger', async () => {
    const broker = await startBroker(engine)
    const credential = await broker.createOperator('auditor', { valid_days: 1 })
    broker.clock.advance(dayMs - 1)
    expect(await whoami(broker, credential)).toBe(200)
    broker.clock.advance(1)
    expect(await whoami(broker, credential)).toBe(401)
    expect((await asAdmin(broker, 'GET', '/v1/operators/auditor')).body).toMatchObject({ status: 'expired', expires_at: '2026-01-16T12:00:00.000Z' })
    expect(await countRefusals(broker)).toEqual([['operator_expired', 1]])
  })

  test('that is revoked is a stranger at once, on every process, and for good', async () => {
    const broker = await startBroker(engine)
    const beside = engine === 'postgres' ? await startBroker(engine, { beside: broker }) : broker
    const credential = await broker.createOperator('approver')
    expect(await whoami(beside, credential)).toBe(200)
    const { status, body, index } = await asAdmin(broker, 'POST', '/v1/operators/approver/revoke', { reason: 'left the team' })
    expect([status, body]).toMatchObject([200, { name: 'approver', status: 'revoked', revoked_at: '2026-01-15T12:00:00.000Z' }])
    expect(await broker.lastEvent('operator.revoked')).toMatchObject({
      index: Number(index),
      actor: { kind: 'operator', id: idOf(broker.adminCredential) },
      operator: idOf(credential),
      name: 'approver',
      reason: 'left the team',
    })
    expect([await whoami(broker, credential), await whoami(beside, credential)]).toEqual([401, 401])
    broker.clock.advance(1000)
    const again = await unrecorded(broker, async () => asAdmin(broker, 'POST', '/v1/operators/approver/revoke', { reason: 'again' }))
    expect(again).toEqual({ status: 200, index: null, body })
    expect(await asAdmin(broker, 'POST', '/v1/operators/approver/rotate', { valid_days: 9 })).toMatchObject({
      status: 409,
      body: { detail: 'approver was revoked, which is final: make another operator.' },
    })
    expect(await broker.lastEvent('change.refused')).toMatchObject({ route: '/v1/operators/:name/rotate', code: 'conflict' })
    expect((await asAdmin(broker, 'GET', '/v1/operators/approver')).body).toEqual(body)
    for (const verb of ['revoke', 'rotate']) expect((await asAdmin(broker, 'POST', `/v1/operators/nobody/${verb}`, {})).status).toBe(404)
  })

  test('gets a new credential, and the old one ends at once', async () => {
    const broker = await startBroker(engine)
    const old = await broker.createOperator('auditor', { valid_days: 9 })
    const { status, body, index } = await asAdmin(broker, 'POST', '/v1/operators/auditor/rotate', {})
    const fresh = String(body['credential'])
    expect([status, body]).toMatchObject([200, { id: idOf(old), name: 'auditor', role: 'auditor', expires_at: '2026-01-24T12:00:00.000Z' }])
    expect(await broker.lastEvent('operator.rotated')).toMatchObject({
      index: Number(index),
      actor: { kind: 'operator', id: idOf(broker.adminCredential) },
      operator: idOf(old),
      name: 'auditor',
      expires_at: '2026-01-24T12:00:00.000Z',
    })
    expect([await whoami(broker, old), await whoami(broker, fresh)]).toEqual([401, 200])
    expect(await countRefusals(broker)).toEqual([['operator_wrong', 1]])

    // One that has expired needs a new lifetime, by which the same operator is one again.
    broker.clock.advance(9 * dayMs)
    expect(await asAdmin(broker, 'POST', '/v1/operators/auditor/rotate', {})).toMatchObject({
      status: 409,
      body: { detail: 'The credential of auditor has expired: say how long the new one shall last.' },
    })
    const renewed = await asAdmin(broker, 'POST', '/v1/operators/auditor/rotate', { valid_days: 1 })
    expect(renewed.body).toMatchObject({ status: 'active', expires_at: '2026-01-25T12:00:00.000Z' })
    expect([await whoami(broker, fresh), await whoami(broker, String(renewed.body['credential']))]).toEqual([401, 200])
  })

  test.each(roles)('of the role %s replaces its own credential, which lasts no longer for it', async (role) => {
    const broker = await startBroker(engine)
    const old = await broker.createOperator(role, { name: 'ada', valid_days: 2 })
    broker.clock.advance(dayMs)
    const { status, body } = await answerOf(await broker.sendAs(old, 'POST', '/v1/operator/rotate'))
    expect([status, body]).toMatchObject([200, { name: 'ada', role, expires_at: '2026-01-17T12:00:00.000Z' }])
    expect(await broker.lastEvent('operator.rotated')).toMatchObject({ actor: { kind: 'operator', id: idOf(old) }, operator: idOf(old) })
    expect([await whoami(broker, old), await whoami(broker, String(body['credential']))]).toEqual([401, 200])
    const longer = { json: { valid_days: 9 }, headers: { authorization: `Bearer ${String(body['credential'])}`, 'content-length': '16' } }
    expect((await broker.send('POST', '/v1/operator/rotate', longer)).status).toBe(400)
  })

  test('by a sign-in has no credential of its own to replace', async () => {
    const clock = createTestClock()
    const company = await startCompanyIssuer(clock)
    const broker = await startBroker(engine, { clock, signIn: company.settings })
    const { body } = await answerOf(await broker.send('POST', '/v1/sessions', { json: { id_token: await company.sign() } }))
    const credential = String(body['credential'])
    expect(await answerOf(await broker.sendAs(credential, 'POST', '/v1/operator/rotate'))).toMatchObject({
      status: 409,
      body: { detail: 'You signed in, and a sign-in has no credential to rotate: end it, and sign in again.' },
    })
    expect(await whoami(broker, credential)).toBe(200)
  })

  test('does not have every decision made again by what it does with its own credential', async () => {
    const broker = await startBroker(engine)
    const credential = await broker.createOperator('auditor')
    const epoch = async () => (await broker.broker.database.read.selectFrom('log_head').select('epoch').executeTakeFirstOrThrow()).epoch
    const before = await epoch()
    expect((await broker.sendAs(credential, 'POST', '/v1/operator/rotate')).status).toBe(200)
    expect(await epoch()).toBe(before)
  })

  test('is found in a list by role and status, page by page', async () => {
    const broker = await startBroker(engine)
    await broker.createOperator('auditor', { name: 'b', valid_days: 1 })
    await broker.createOperator('auditor', { name: 'a.2', valid_days: 2 })
    await broker.createOperator('approver', { name: 'c' })
    await asAdmin(broker, 'POST', '/v1/operators/c/revoke', {})
    broker.clock.advance(dayMs)
    const list = async (query: string) => {
      const { body } = await asAdmin(broker, 'GET', `/v1/operators${query}`)
      return [(body['operators'] as Body[]).map(({ name, status }) => `${String(name)} ${String(status)}`), body['next']]
    }
    expect(await list('')).toEqual([['a.2 active', 'b expired', 'c revoked', 'root active'], undefined])
    expect(await list('?limit=2')).toEqual([['a.2 active', 'b expired'], 'b'])
    expect(await list('?limit=2&after=b')).toEqual([['c revoked', 'root active'], undefined])
    expect(await list('?role=auditor')).toEqual([['a.2 active', 'b expired'], undefined])
    expect(await list('?status=active')).toEqual([['a.2 active', 'root active'], undefined])
    expect(await list('?status=expired')).toEqual([['b expired'], undefined])
    expect(await list('?status=revoked')).toEqual([['c revoked'], undefined])
    for (const query of ['?status=gone', '?role=root', '?limit=0', '?after=B', '?name=b']) {
      expect([query, (await asAdmin(broker, 'GET', `/v1/operators${query}`)).status]).toEqual([query, 400])
    }
  })
})

describeEngines('The last admin whose credential does not expire', (engine) => {
  test('is neither revoked nor given one that expires, whoever else there is', async () => {
    const broker = await startBroker(engine)
    const passing = await broker.createOperator('admin', { name: 'passing', valid_days: 90 })
    await broker.createOperator('auditor')
    await broker.createOperator('admin', { name: 'gone' })
    await asAdmin(broker, 'POST', '/v1/operators/gone/revoke', {})
    const detail =
      'root is the last admin whose credential does not expire, and without one everybody would be locked out: ' +
      'make another first, with `stint operator create NAME --role admin`.'
    const attempts = [['revoke', {}], ['rotate', { valid_days: 3650 }], ['rotate', { expires_at: '2030-01-01' }]] as const
    for (const credential of [broker.adminCredential, passing]) {
      for (const [verb, json] of attempts) {
        const answer = await answerOf(await broker.sendAs(credential, 'POST', `/v1/operators/root/${verb}`, json))
        expect([verb, answer]).toMatchObject([verb, { status: 409, index: null, body: { detail } }])
        expect(await broker.lastEvent('change.refused')).toMatchObject({ code: 'conflict', route: `/v1/operators/:name/${verb}` })
      }
    }
    expect((await asAdmin(broker, 'GET', '/v1/operators/root')).body).toEqual(root(broker))

    // A new credential that lasts as well is no loss; and once there is another admin for good, the first may go.
    const { body } = await answerOf(await broker.sendAsAdmin('POST', '/v1/operators/root/rotate', {}))
    const fresh = String(body['credential'])
    await broker.sendAs(fresh, 'POST', '/v1/operators', { name: 'ada', role: 'admin' })
    expect((await broker.sendAs(fresh, 'POST', '/v1/operators/root/revoke', {})).status).toBe(200)
    expect(await whoami(broker, fresh)).toBe(401)
  })
})

/** The admin of the test as it is shown. */
function root(broker: TestBroker): Body {
  return { name: 'root', id: idOf(broker.adminCredential), role: 'admin', status: 'active', created_at: '2026-01-15T12:00:00.000Z' }
}
