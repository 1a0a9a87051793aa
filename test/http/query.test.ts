import { describe, expect, test } from 'vitest'
import { routes } from '../../src/http/app.ts'
import { startBroker } from '../broker.ts'
import { pathOf } from './admin-requests.ts'

const operatorRoutes = routes.filter(({ access }) => typeof access !== 'string')

describe('A query', () => {
  const withoutQuery = operatorRoutes.filter(({ query }) => query === undefined)

  test('is refused by every route for operators that reads none: it may be what the sender relies on', async () => {
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
    expect(withoutQuery.length).toBeLessThan(operatorRoutes.length)
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
    ['/v1/audit?since=2026-11-22&until=2026-11-21', 'since must not be later than until'],
    ['/v1/audit?after=5&before=3', 'after must not be beyond before'],
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
