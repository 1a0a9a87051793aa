import { describe, expect, test } from 'vitest'
import { routes } from '../../src/http/app.ts'
import type { Route } from '../../src/http/route.ts'
import { getToken, startBroker } from '../broker.ts'
import { describeEngines } from '../harness.ts'

const adminRoutes = routes.filter(({ access }) => typeof access !== 'string')

/** Calls the route as it stands in the table, with something in each place of its path. */
function pathOf({ path }: Route): string {
  return path.replaceAll(':kid', 'A'.repeat(43)).replaceAll(/:\w+/g, 'bot')
}

test('every route says who may call it, and the only ones open to anyone tell nothing of anybody', () => {
  expect(routes.filter((route) => route.access === 'anyone').map(({ method, path }) => `${method} ${path}`)).toEqual([
    'GET /.well-known/oauth-authorization-server',
    'GET /oauth2/jwks',
    'GET /healthz',
    'GET /readyz',
  ])
  const open = routes.filter(({ path, access }) => path.startsWith('/v1/') && typeof access === 'string')
  expect(open.map(({ method, path }) => `${method} ${path}`)).toEqual([])
  expect(adminRoutes.length).toBeGreaterThanOrEqual(13)
})

describeEngines('Every admin route', (engine) => {
  test('refuses all who show no operator credential, in the same words, and does nothing', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('bot')
    const { access_token: token } = await getToken(broker, agent, { scope: 'tickets:read' })
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
      ['operator_wrong', `Bearer stint_op_${id}_${'A'.repeat(43)}`],
    ]
    const before = (await broker.events()).length
    const calls = adminRoutes.flatMap((route) => strangers.map(([reason, authorization]) => ({ route, reason, authorization })))
    const answers = await Promise.all(
      calls.map(async ({ route, authorization }) => {
        const response = await broker.send(route.method, pathOf(route), {
          ...(route.method !== 'GET' && { json: {} }),
          headers: authorization === undefined ? {} : { authorization },
        })
        const { request_id: _, ...body } = (await response.json()) as Record<string, unknown>
        const headers = Object.fromEntries(response.headers)
        delete headers['stint-request-id']
        return { call: `${route.method} ${route.path} ${authorization ?? ''}`, status: response.status, headers, body }
      }),
    )
    const refusal = {
      status: 401,
      headers: {
        'cache-control': 'no-store',
        'content-type': 'application/problem+json',
        'www-authenticate': 'Bearer realm="stint"',
        'x-content-type-options': 'nosniff',
      },
      body: {
        type: 'urn:stint:problem:unauthenticated',
        title: 'Who are you?',
        status: 401,
        detail: 'This needs an operator credential: send it as `Authorization: Bearer stint_op_…`.',
      },
    }
    for (const { call, ...answer } of answers) expect(answer, call).toEqual(refusal)

    // One event per reason, however many asked.
    await broker.broker.refusals.flush(true)
    const events = (await broker.events()).slice(before)
    const counts = events.map((event) => (event.type === 'authentication.refused' ? [event.realm, event.reason, event.count] : [event.type]))
    const n = adminRoutes.length
    expect(counts.sort()).toEqual([
      ['operator', 'operator_malformed', 13 * n],
      ['operator', 'operator_unknown', n],
      ['operator', 'operator_wrong', n],
    ])
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

describe('A query', () => {
  const withoutQuery = adminRoutes.filter(({ query }) => query === undefined)

  test('is refused by every admin route that reads none: it may be what the sender relies on', async () => {
    const broker = await startBroker('sqlite')
    await broker.register('bot')
    const events = await broker.events()
    for (const route of withoutQuery) {
      const response = await broker.sendAsAdmin(route.method, `${pathOf(route)}?dry_run=true`, route.method === 'GET' ? undefined : {})
      expect([route.path, response.status, await response.json()]).toMatchObject([
        route.path,
        400,
        { detail: 'This address takes no parameters in the URL, and dry_run was sent.' },
      ])
    }
    expect(await broker.events()).toEqual(events)
    expect(withoutQuery.length).toBeLessThan(adminRoutes.length)
  })

  const refused: readonly (readonly [string, string])[] = [
    ['/v1/workloads?statsu=active', 'statsu is not known here; did you mean status?'],
    ['/v1/workloads?status=active&status=active', 'The parameter status was sent twice.'],
    ['/v1/workloads?status=gone', 'status must be one of active, suspended, retired'],
    ['/v1/workloads?limit=0', 'limit must be a whole number from 1 to 500'],
    ['/v1/workloads?limit=501', 'limit must be a whole number from 1 to 500'],
    ['/v1/workloads?limit=1e2', 'limit must be a whole number from 1 to 500'],
    ['/v1/workloads?limit=', 'limit must be a whole number from 1 to 500'],
    ['/v1/workloads?after=..', 'after must be the name of a workload'],
    ['/v1/workloads?team=', 'team'],
    ['/v1/workloads?team=a%00', 'team must not hold control characters'],
    ['/v1/workloads?__proto__=1', '__proto__ is not known here'],
    ['/v1/audit?type=grant.isued', 'type is not known; did you mean grant.issued?'],
    ['/v1/audit?typ=grant.issued', 'typ is not known here; did you mean type?'],
    ['/v1/audit?since=yesterday', 'since must be a time such as'],
    ['/v1/audit?until=2026-02-30', 'until must be a time such as'],
    ['/v1/audit?since=0', 'since must be a time such as'],
    ['/v1/audit?before=-1', 'before must be a whole number'],
    ['/v1/audit?after=1.5', 'after must be a whole number'],
    ['/v1/audit?limit=1001', 'limit must be a whole number from 1 to 1000'],
    ['/v1/audit?workload=Bot', 'workload must be the name of a workload'],
    ['/v1/audit?tool=%00', 'tool must not hold control characters'],
    ['/v1/audit?task=a%0ab', 'task must not hold control characters'],
    ['/v1/audit?grant=%1b[2J', 'grant must not hold control characters'],
    ['/v1/audit?task=a&task=b', 'The parameter task was sent twice.'],
  ]

  test('that holds anything unknown, repeated or malformed is refused with what is wrong', async () => {
    const broker = await startBroker('sqlite')
    for (const [path, detail] of refused) {
      const response = await broker.sendAsAdmin('GET', path)
      expect([path, response.status, await response.json()]).toMatchObject([path, 400, { detail: expect.stringContaining(detail) }])
    }
  })
})
