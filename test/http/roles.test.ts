import { expect, test } from 'vitest'
import { routes } from '../../src/http/app.ts'
import { rolesOf, takesAgents, type Access, type Route } from '../../src/http/route.ts'
import { roles, type Role } from '../../src/identity/operator.ts'
import { dayMs, getToken, startBroker, type TestBroker } from '../broker.ts'
import { describeEngines } from '../harness.ts'
import { pathOf } from './admin-requests.ts'

/** Who may call what. A right that is given or taken away shows here, whatever else the change is about. */
const rights: Readonly<Record<string, string>> = {
  'POST /oauth2/token': 'workload',
  'POST /oauth2/introspect': 'workload',
  'POST /oauth2/revoke': 'workload',
  'GET /.well-known/oauth-authorization-server': 'anyone',
  'GET /.well-known/openid-configuration': 'anyone',
  'GET /oauth2/jwks': 'anyone',
  'GET /log/checkpoint': 'anyone',
  'GET /log/key': 'anyone',
  'GET /log/tile/entries/:index{.+}': 'admin, auditor',
  'GET /log/tile/:level/:index{.+}': 'anyone',
  'POST /v1/keys/rotate': 'workload',
  'POST /v1/enrolments/redeem': 'anyone',
  'POST /v1/workloads': 'admin',
  'GET /v1/workloads': 'admin, approver, auditor',
  'GET /v1/workloads/:name': 'admin, approver, auditor',
  'PATCH /v1/workloads/:name': 'admin',
  'POST /v1/workloads/:name/suspend': 'admin',
  'POST /v1/workloads/:name/resume': 'admin',
  'POST /v1/workloads/:name/retire': 'admin',
  'POST /v1/workloads/:name/keys': 'admin',
  'DELETE /v1/workloads/:name/keys/:kid': 'admin',
  'POST /v1/workloads/:name/enrolments': 'admin',
  'GET /v1/workloads/:name/enrolments': 'admin, approver, auditor',
  'DELETE /v1/workloads/:name/enrolments/:id': 'admin',
  'POST /v1/revocations': 'admin',
  'POST /v1/grants': 'agent',
  'GET /v1/grants': 'admin, auditor',
  'GET /v1/grants/:grant': 'agent or admin, approver, auditor',
  'POST /v1/grants/:grant/renew': 'agent',
  'DELETE /v1/grants/:grant': 'agent',
  'POST /v1/tasks/:task{.+}/complete': 'agent',
  'POST /v1/grants/:grant/retry': 'admin',
  'POST /v1/grants/:grant/write-off': 'admin',
  'GET /v1/tools': 'admin, approver, auditor',
  'POST /v1/tools/:tool/check': 'admin',
  'POST /v1/tools/:tool/orphans': 'admin',
  'POST /v1/tools/:tool/cut-off': 'admin',
  'GET /v1/operator': 'admin, approver, auditor',
  'POST /v1/operator/rotate': 'admin, approver, auditor',
  'POST /v1/operators': 'admin',
  'GET /v1/operators': 'admin, auditor',
  'GET /v1/operators/:name': 'admin, auditor',
  'POST /v1/operators/:name/rotate': 'admin',
  'POST /v1/operators/:name/revoke': 'admin',
  'GET /v1/sign-in': 'anyone',
  'POST /v1/sessions': 'anyone',
  'GET /v1/sessions': 'admin, auditor',
  'POST /v1/sessions/:id/end': 'admin',
  'POST /v1/sessions/end': 'admin',
  'DELETE /v1/session': 'admin, approver, auditor',
  'GET /v1/policy': 'admin, approver, auditor',
  'PUT /v1/policy': 'admin',
  'GET /v1/signing-keys': 'admin, approver, auditor',
  'POST /v1/signing-keys/rotate': 'admin',
  'GET /v1/sealing-keys': 'admin, auditor',
  'POST /v1/sealing-keys/rewrap': 'admin',
  'PUT /v1/secrets/:name': 'admin',
  'GET /v1/secrets': 'admin, auditor',
  'GET /v1/secrets/:name/versions': 'admin, auditor',
  'GET /v1/rotations': 'admin, auditor',
  'GET /v1/rotations/:name': 'admin, auditor',
  'POST /v1/rotations/:name': 'admin',
  'GET /v1/audit': 'admin, auditor',
  'GET /v1/audit/export': 'admin, auditor',
  'GET /v1/audit/proof': 'admin, auditor',
  'GET /v1/audit/receipts/:grant': 'admin, auditor',
  'GET /v1/log/anchors': 'admin, auditor',
  'POST /v1/log/accept': 'admin',
  'GET /healthz': 'anyone',
  'GET /readyz': 'anyone',
  'GET /metrics': 'admin, approver, auditor',
  'GET /openapi.json': 'anyone',
}

const nameOf = ({ method, path }: Route): string => `${method} ${path}`
const show = (access: Access): string => {
  const named = rolesOf(access)?.join(', ')
  return typeof access === 'string' ? access : takesAgents(access) ? `agent or ${named}` : String(named)
}

test('every route says who may call it', () => {
  expect(Object.fromEntries(routes.map((route) => [nameOf(route), show(route.access)]))).toEqual(rights)
})

// Where an agent may call as well, what shows no operator's credential is refused as an agent: see grants.test.ts.
const guarded = routes.flatMap((route) => {
  const may = rolesOf(route.access)
  return may === undefined || takesAgents(route.access) ? [] : [{ route, may }]
})
const hasBody = ({ method }: Route): boolean => method !== 'GET'

/** A workload and an operator named `bot`, so that there is something at the addresses that name one; and its token. */
async function prepare(broker: TestBroker) {
  const agent = await broker.register('bot')
  await broker.createOperator('auditor', { name: 'bot' })
  const { access_token: token } = await getToken(broker, agent, { scope: 'tickets:read' })
  return { agent, token }
}

/** All that is stored, but for the log. */
async function readState(broker: TestBroker): Promise<unknown> {
  const { read } = broker.broker.database
  const tables = (await read.introspection.getTables()).map(({ name }) => name).filter((name) => !['audit_event', 'log_head'].includes(name))
  expect(tables).toEqual(expect.arrayContaining(['workload', 'operator', 'policy_in_force', 'revocation']))
  // Their names come from the database itself, for which the builder has no type.
  return Promise.all(tables.sort().map(async (name) => [name, await read.selectFrom(name as 'workload').selectAll().execute()]))
}

describeEngines('Every route for operators', (engine) => {
  test.each(roles)('refuses the role %s where it does not name it, changes nothing, and records an attempt at a change', async (role) => {
    const broker = await startBroker(engine)
    await prepare(broker)
    const credential = await broker.createOperator(role)
    const [, id] = credential.split(/_op_|_/)
    const [before, state] = [await broker.events(), await readState(broker)]
    const mayNot = guarded.filter(({ may }) => !may.includes(role))
    for (const { route, may } of mayNot) {
      const response = await broker.sendAs(credential, route.method, pathOf(route), hasBody(route) ? {} : undefined)
      expect([nameOf(route), response.status, await response.json()]).toEqual([
        nameOf(route),
        403,
        {
          type: 'urn:stint:problem:forbidden',
          title: 'Your role may not do this',
          status: 403,
          detail: `This needs the role ${may.join(' or ')}, and this credential has the role ${role}.`,
          request_id: response.headers.get('stint-request-id'),
        },
      ])
    }
    expect(await readState(broker)).toEqual(state)
    const attempts = (await broker.events()).slice(before.length)
    const recorded = mayNot.filter(({ route }) => route.method !== 'GET')
    expect(attempts).toMatchObject(
      recorded.map(({ route: { method, path } }) => ({ type: 'change.refused', actor: { kind: 'operator', id }, method, route: path, code: 'forbidden' })),
    )
    expect(attempts.length).toBe(recorded.length)
    expect(mayNot.length > 0).toBe(role !== 'admin')
  })

  test('lets each role pass that it names', async () => {
    const broker = await startBroker(engine)
    await prepare(broker)
    let made = 0
    const one = async (role: Role) => broker.createOperator(role, { name: `${role}-${made++}` })
    for (const { route, may } of guarded) {
      for (const role of may) {
        // A credential of its own for each call, for some of them end it.
        const response = await broker.sendAs(await one(role), route.method, pathOf(route), hasBody(route) ? {} : undefined)
        expect([nameOf(route), role, [401, 403].includes(response.status), response.status < 500]).toEqual([nameOf(route), role, false, true])
        await response.body?.cancel()
      }
    }
  })

  test('refuses all who show no operator credential, in the same words, and does nothing', async () => {
    const broker = await startBroker(engine)
    const expired = await broker.createOperator('admin', { name: 'expired', valid_days: 1 })
    const revoked = await broker.createOperator('admin', { name: 'revoked' })
    const replaced = await broker.createOperator('admin', { name: 'replaced' })
    await broker.sendAsAdmin('POST', '/v1/operators/revoked/revoke', {})
    await broker.sendAsAdmin('POST', '/v1/operators/replaced/rotate', {})
    broker.clock.advance(dayMs)
    const { agent, token } = await prepare(broker)
    const good = broker.adminCredential
    const [, id = '', secret = ''] = /^stint_op_([0-9a-f]{16})_(.{43})$/.exec(good) ?? []
    const strangers: readonly (readonly [string, string | undefined])[] = [
      ['operator_malformed', undefined],
      ['operator_malformed', ''],
      ['operator_malformed', 'Bearer'],
      ['operator_malformed', 'Bearer x'],
      ['operator_malformed', `Basic ${Buffer.from(`${id}:${secret}`).toString('base64')}`],
      ['operator_malformed', good],
      ['operator_malformed', `Bearer ${good}x`],
      ['operator_malformed', `Bearer ${good.slice(0, -1)}`],
      ['operator_malformed', `Bearer ${good.toUpperCase()}`],
      ['operator_malformed', `Bearer ${good}, Bearer ${good}`],
      ['operator_malformed', `Bearer ${secret}`],
      ['operator_malformed', `Bearer ${token}`],
      ['operator_malformed', `Bearer ${agent.assert()}`],
      ['operator_unknown', `Bearer stint_op_${'0'.repeat(16)}_${secret}`],
      ['operator_unknown', `Bearer stint_os_${id}_${secret}`],
      ['operator_wrong', `Bearer stint_op_${id}_${'A'.repeat(43)}`],
      ['operator_wrong', `Bearer ${replaced}`],
      // Of one that has ended no more is told than of any other.
      ['operator_wrong', `Bearer ${expired.slice(0, -43)}${'A'.repeat(43)}`],
      ['operator_wrong', `Bearer ${revoked.slice(0, -43)}${'A'.repeat(43)}`],
      ['operator_expired', `Bearer ${expired}`],
      ['operator_revoked', `Bearer ${revoked}`],
    ]
    await broker.broker.refusals.flush(true)
    const [before, state] = [(await broker.events()).length, await readState(broker)]
    const ask = async (route: Route, authorization: string | undefined) => {
      const response = await broker.send(route.method, pathOf(route), {
        ...(hasBody(route) && { json: {} }),
        headers: authorization === undefined ? {} : { authorization },
      })
      const { request_id: _, ...body } = (await response.json()) as Record<string, unknown>
      const headers = Object.fromEntries(response.headers)
      delete headers['stint-request-id']
      return { call: `${nameOf(route)} ${authorization ?? ''}`, status: response.status, headers, body }
    }
    const answers: Awaited<ReturnType<typeof ask>>[] = []
    // Not all at once, which is more than a slow machine's database answers in time.
    for (const { route } of guarded) answers.push(...(await Promise.all(strangers.map(([, authorization]) => ask(route, authorization)))))
    const headers = answers[0]?.headers ?? {}
    expect(headers).toMatchObject({
      'cache-control': 'no-store',
      'content-type': 'application/problem+json',
      'www-authenticate': 'Bearer realm="stint"',
      'x-content-type-options': 'nosniff',
    })
    const refusal = {
      status: 401,
      headers,
      body: {
        type: 'urn:stint:problem:unauthenticated',
        title: 'Who are you?',
        status: 401,
        detail: 'This needs an operator credential: send it as `Authorization: Bearer stint_op_…`, or sign in with `stint login`.',
      },
    }
    for (const { call, ...answer } of answers) expect(answer, call).toEqual(refusal)
    expect(await readState(broker)).toEqual(state)

    // One event per reason, however many asked.
    await broker.broker.refusals.flush(true)
    const events = (await broker.events()).slice(before)
    const counts = events.map((event) => (event.type === 'authentication.refused' ? [event.realm, event.reason, event.count] : [event.type]))
    const times = Map.groupBy(strangers, ([reason]) => reason)
    expect(counts.sort()).toEqual([...times].map(([reason, { length }]) => ['operator', reason, length * guarded.length]).sort())
  })

  test('takes a good credential, however its scheme is written', async () => {
    const broker = await startBroker(engine)
    for (const scheme of ['Bearer', 'bearer', 'BEARER', 'bEaReR ']) {
      const { status } = await broker.send('GET', '/v1/workloads', { headers: { authorization: `${scheme} ${broker.adminCredential}` } })
      expect([scheme, status]).toEqual([scheme, 200])
    }
  })

  test('believes no operator whose row has a role that this version does not know', async () => {
    const broker = await startBroker(engine)
    // As a later version might have left it.
    await broker.broker.database.maintenance.insertInto('operator').values({
      id: '0'.repeat(16),
      name: 'jan',
      role: 'janitor',
      secret_hash: '0'.repeat(64),
      created_at: '2026-01-15T12:00:00.000Z',
    }).execute()
    const authorization = `Bearer stint_op_${'0'.repeat(16)}_${'A'.repeat(43)}`
    expect((await broker.send('GET', '/v1/workloads', { headers: { authorization } })).status).toBe(500)
  })
})
