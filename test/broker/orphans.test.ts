import pg from 'pg'
import { expect, test } from 'vitest'
import { describePostgres } from '../harness.ts'
import { admin, ask, call, hurryCalls, lend, listRoles, opens, startLending, type Lending } from './lending.ts'

const wish = { tool: 'ledger', actions: ['read'] }
const sweepOrphans = ({ broker }: Pick<Lending, 'broker'>, json: unknown = {}, tool = 'ledger') => admin(broker, 'POST', `/v1/tools/${tool}/orphans`, json)

/** As after the loss of a database: a role of this broker's making, of which its log knows nothing. */
async function makeOrphan({ site }: Pick<Lending, 'site'>, like: string): Promise<{ readonly grant: string; readonly reference: string }> {
  const id = '0'.repeat(26)
  const reference = `${like.slice(0, -26)}${id}`
  await site.admin(`create role ${pg.escapeIdentifier(reference)} login; grant ${site.reader} to ${pg.escapeIdentifier(reference)}; grant ${pg.escapeIdentifier(reference)} to ${site.root} with admin true`)
  return { grant: `grant_${id}`, reference }
}

describePostgres('What lives in a tool without a grant', () => {
  test('is found and ended, on record; what a grant stands for is left alone', async () => {
    const lending = await startLending('sqlite')
    const { broker, agent } = lending
    const lent = await lend(broker, agent, wish)
    const orphan = await makeOrphan(lending, String(lent.credential['user']))
    const before = (await broker.events()).length
    expect((await sweepOrphans(lending, { dry_run: true })).body).toEqual({ tool: 'ledger', listed: true, found: 2, orphans: [{ ...orphan, ended: false }] })
    expect([(await broker.events()).length, (await listRoles(lending)).length]).toEqual([before, 2])
    expect((await sweepOrphans(lending)).body).toEqual({ tool: 'ledger', listed: true, found: 2, orphans: [{ ...orphan, ended: true }] })
    expect(await broker.lastEvent('orphan.ended')).toMatchObject({ ...orphan, tool: 'ledger', actor: { kind: 'operator' } })
    expect(await listRoles(lending)).toEqual([lent.credential['user']])
    expect(await opens(lending, lent)).toBe(true)
    expect((await sweepOrphans(lending)).body).toMatchObject({ found: 1, orphans: [] })
  })

  test('is not what is being made at this moment', async () => {
    const gate = Promise.withResolvers<undefined>()
    const reached = Promise.withResolvers<undefined>()
    const lending = await startLending('sqlite', { pass: async (point) => void (point === 'outside_answered' && (reached.resolve(undefined), await gate.promise)) })
    const asking = ask(lending.broker, lending.agent, wish)
    await reached.promise
    expect((await sweepOrphans(lending)).body).toMatchObject({ found: 1, orphans: [] })
    gate.resolve(undefined)
    expect(await opens(lending, (await asking).body)).toBe(true)
  })

  test('that cannot be ended is told with the reason, and the others are ended', async () => {
    const lending = await startLending('sqlite')
    const { broker, agent, site } = lending
    const lent = await lend(broker, agent, wish)
    const orphan = await makeOrphan(lending, String(lent.credential['user']))
    const stubborn = `${orphan.reference.slice(0, -1)}1`
    // A role that somebody else has made by such a name is not the root role's to end.
    await site.admin(`create role ${pg.escapeIdentifier(stubborn)} login`)
    const { body } = await sweepOrphans(lending)
    const byReference = Object.fromEntries(body.orphans.map((one: { readonly reference: string; readonly ended: boolean; readonly problem?: string }) => [one.reference, [one.ended, one.problem ?? '']]))
    expect(byReference).toEqual({ [orphan.reference]: [true, ''], [stubborn]: [false, expect.stringMatching(/\.$/)] })
  })

  test('is looked for in no tool that is down, and in none that is not there or lives in Stint', async () => {
    const lending = await startLending('sqlite')
    hurryCalls(lending.broker, 1_000)
    await lending.wire.stop()
    expect((await sweepOrphans(lending)).status).toBe(503)
    expect((await sweepOrphans(lending, {}, 'nowhere')).status).toBe(404)
    expect((await sweepOrphans(lending, {}, 'tickets')).status).toBe(409)
    expect((await sweepOrphans(lending, { dry_run: 'yes' })).status).toBe(400)
    expect((await call(lending.broker, lending.agent, 'POST', '/v1/tools/ledger/orphans', {})).status).toBe(401)
  })
})
