import { describe, expect, inject, test } from 'vitest'
import { startBroker, type TestBroker } from '../../broker.ts'
import { admin, lend, lifeOf, opens, passTime, type Lent } from '../../broker/lending.ts'
import { createSite, type Site } from '../postgres-tool.ts'

const { missing } = inject('postgres')

/** A broker whose tool `ledger` has a root credential that Stint replaces: nobody is permitted the tool that describes it. */
async function setUp(): Promise<{ readonly site: Site; readonly broker: TestBroker; lendOne(): Promise<Lent>; userInForce(): Promise<string> }> {
  const site = await createSite()
  const { id, root, heir, reader, server, database } = site
  await site.admin(`alter role ${root} nologin password null;
    create role a_${id} login password 'first-password'; create role b_${id} login; grant ${root} to a_${id}, b_${id} with inherit true, set true;
    alter role a_${id} set role = '${root}'; alter role b_${id} set role = '${root}';
    create role admin_${id} login createrole password 'admin-password'; grant a_${id}, b_${id} to admin_${id} with admin true, inherit false, set false`)
  const urlOf = (user: string, password: string) => `postgres://${user}:${password}@127.0.0.1:${server.port}/${database}?sslmode=disable`
  const policies = new Map([
    [
      'tools/ledger.yaml',
      `tool: ledger
connector: postgres
sensitivity: low
ttl: { default: 10m, max: 1h }
actions: { read: { roles: [${reader}] } }
config: { url: { from: "sealed:ledger-root" }, reassign_to: ${heir}, private_network: true }
`,
    ],
    [
      'tools/ledger-root.yaml',
      `tool: ledger-root
connector: sealed-secret
sensitivity: high
ttl: { default: 1m, max: 1m }
actions: { use: {} }
config:
  secret: ledger-root
  rotation:
    every: 30d
    rotator: { postgres: { users: [a_${id}, b_${id}], admin: { from: "env:LEDGER_ADMIN_URL" }, role: ${root}, private_network: true } }
`,
    ],
    ['rules.cedar', '@id("support-reads")\npermit (principal in Team::"support", action == Action::"ledger:read", resource);\n'],
  ])
  const broker = await startBroker('sqlite', { policies, env: { LEDGER_ADMIN_URL: urlOf(`admin_${id}`, 'admin-password') } })
  await admin(broker, 'PUT', '/v1/secrets/ledger-root', { value: urlOf(`a_${id}`, 'first-password') })
  const agent = await broker.register('bot')
  return {
    site,
    broker,
    lendOne: () => lend(broker, agent),
    /** Who has made the connections of the broker's that are open. */
    userInForce: async () => (await site.admin<{ name: string }>(`select usename as name from pg_stat_activity where application_name like 'stint%' and datname = $1 order by backend_start desc limit 1`, [database]))[0]?.name ?? '',
  }
}

async function settle(broker: TestBroker): Promise<void> {
  for (let i = 0; i < 6; i++) await passTime(broker, 1_000)
}

describe.skipIf(missing !== undefined)('the root credential of a tool', () => {
  test('is replaced by its own rotation after a leak, and what was lent under the old one ends under the new one', async () => {
    const { site, broker, lendOne, userInForce } = await setUp()
    await settle(broker)
    const tool = await admin(broker, 'POST', '/v1/tools/ledger-root/check')
    expect(tool.body).toMatchObject({ ok: true })
    const lent = await lendOne()
    expect([await opens({ site }, lent), await userInForce()]).toEqual([true, `a_${site.id}`])

    expect((await admin(broker, 'POST', '/v1/rotations/ledger-root', { leaked: true, reason: 'seen in a ticket' })).status).toBeLessThan(300)
    await settle(broker)
    expect((await admin(broker, 'GET', '/v1/rotations/ledger-root')).body).toMatchObject({ state: 'idle', version: '2' })
    expect(await site.admin(`select rolname as name, rolcanlogin as login from pg_roles where rolname in ('a_${site.id}', 'b_${site.id}') order by 1`)).toEqual([
      { name: `a_${site.id}`, login: false },
      { name: `b_${site.id}`, login: true },
    ])
    expect(await site.admin(`select from pg_stat_activity where usename = 'a_${site.id}'`)).toEqual([])
    const next = await lendOne()
    expect([await opens({ site }, lent), await opens({ site }, next), await userInForce()]).toEqual([true, true, `b_${site.id}`])
    expect((await admin(broker, 'POST', '/v1/revocations', { grant: lent.grant })).body.grants).toMatchObject([{ outcome: 'revoked' }])
    expect([await opens({ site }, lent), await lifeOf(broker, lent.grant)]).toEqual([false, ['grant.minting', 'grant.activated', 'grant.revoked', 'grant.ended']])

    const events = (await broker.events()).filter(({ type }) => type.startsWith('rotation.')).map(({ type }) => type)
    expect(events).toEqual(['rotation.ordered', 'rotation.begun', 'rotation.finished', 'rotation.retired'])
    const everything = JSON.stringify(await broker.events()) + broker.logLines.join('')
    for (const secret of ['first-password', 'admin-password']) expect(everything).not.toContain(secret)
  })

  test('stays in force where the admin role may not change the other user, and the rotation says what an admin does', async () => {
    const { site, broker, lendOne } = await setUp()
    await settle(broker)
    await site.admin(`revoke b_${site.id} from admin_${site.id}`)
    await admin(broker, 'POST', '/v1/rotations/ledger-root', {})
    await settle(broker)
    const { body } = await admin(broker, 'GET', '/v1/rotations/ledger-root')
    expect(body).toMatchObject({ step: 'set', problem: expect.stringContaining(`GRANT "b_${site.id}" TO "admin_${site.id}" WITH ADMIN TRUE`) })
    expect(await opens({ site }, await lendOne())).toBe(true)
    await site.admin(`grant b_${site.id} to admin_${site.id} with admin true`)
    for (let i = 0; i < 6; i++) await passTime(broker, 600_000)
    expect((await admin(broker, 'GET', '/v1/rotations/ledger-root')).body).toMatchObject({ version: '2' })
    expect(await opens({ site }, await lendOne())).toBe(true)
  })
})
