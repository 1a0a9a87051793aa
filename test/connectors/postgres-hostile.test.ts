import { setTimeout } from 'node:timers/promises'
import pg from 'pg'
import { describe, expect, inject, onTestFinished, test, vi } from 'vitest'
import { startPostgres } from '../crash/postgres.ts'
import { createTestFolder } from '../harness.ts'
import { ownerUrl } from '../template.ts'
import { connectAs, createSite, failure, newGrant, request, reveal, within, type Site } from './postgres-tool.ts'

const { missing } = inject('postgres')

async function lend(site: Site, tool = site.open()) {
  const grant = newGrant()
  const { credential } = reveal(await tool.mint(request(tool, { grant, verbs: ['read', 'write'] }), within()))
  return { tool, grant, role: credential.user, credential, end: (ms?: number) => tool.revoke({ grant }, within(ms)) }
}

/** Takes every connection that there is, and whichever comes free, until it is stopped. */
function hoard(credential: pg.ClientConfig) {
  const state = { open: 0, refused: 0, over: false }
  const loops = Array.from({ length: 100 }, async () => {
    while (!state.over) {
      const client = new pg.Client(credential)
      const gone = new Promise<void>((resolve) => client.once('end', resolve).on('error', () => resolve()))
      try {
        await client.connect()
        state.open++
        await Promise.race([gone, untilOver(state)])
        state.open--
      } catch {
        state.refused++
        await setTimeout(20)
      }
      void client.end().catch(() => undefined)
    }
  })
  return { state, stop: () => ((state.over = true), Promise.all(loops)) }
}

async function untilOver(state: { readonly over: boolean }): Promise<void> {
  while (!state.over) await setTimeout(20)
}

describe.skipIf(missing !== undefined)('agents who want to stay', () => {
  test('taking every connection of the server does not help', { timeout: 120_000 }, async () => {
    const server = await startPostgres(createTestFolder())
    onTestFinished(() => server.end())
    const site = await createSite(server)
    // One who begins anew finds no place; who has lent the credential has one, which idling does not close.
    await site.admin(`alter role ${site.root} set idle_session_timeout = '1s'`)
    for (const how of ['one by one', 'all at once'] as const) {
      const tool = site.open({ config: 'connections_max: 100' })
      const { grant, credential, role } = await lend(site, tool)
      await setTimeout(2_000)
      const { state, stop } = hoard(credential)
      onTestFinished(async () => void (await stop()))
      await vi.waitFor(() => expect(state.refused).toBeGreaterThan(100), { timeout: 30_000 })
      await vi.waitFor(() => expect(state.open).toBeGreaterThan(85), { timeout: 30_000 })
      const anew = site.open()
      expect(await failure(anew.mint(request(anew), within()))).toMatchObject({ outcome: 'nothing_done', publicMessage: expect.stringMatching(/no connection left/) })
      expect(await failure(anew.revoke({ grant }, within()))).toMatchObject({ publicMessage: expect.stringMatching(/no connection left/) })
      if (how === 'all at once') {
        await tool.disable?.([{ grant }], within())
        await vi.waitFor(async () => expect(await site.admin('select pid from pg_stat_activity where usename = $1', [role])).toEqual([]))
      }
      expect(await tool.revoke({ grant }, within())).toEqual({ status: 'ended' })
      await vi.waitFor(() => expect(state.open).toBe(0))
      await stop()
      await Promise.all([tool.close(), anew.close()])
    }

    await site.admin(`alter system set reserved_connections = 5`)
    await server.stop('fast')
    await server.start()
    const tool = site.open({ config: 'connections_max: 100' })
    const { grant, credential } = await lend(site, tool)
    await tool.close()
    const { state, stop } = hoard(credential)
    onTestFinished(async () => void (await stop()))
    await vi.waitFor(() => expect(state.refused).toBeGreaterThan(100), { timeout: 30_000 })
    const anew = site.open()
    expect((await anew.check(within())).filter(({ ok }) => !ok)).toEqual([])
    expect(await anew.revoke({ grant }, within())).toEqual({ status: 'ended' })
    await stop()
  })

  test('the connection that stays is opened again where it is lost, and outlives a call that is given up', async () => {
    const site = await createSite()
    const { tool, grant } = await lend(site)
    const find = () => site.admin<{ pid: number }>(`select pid from pg_stat_activity where usename = $1 and application_name = 'stint kept'`, [site.root])
    const [first] = await find()
    await site.admin('select pg_terminate_backend($1, 5000)', [first?.pid])
    await vi.waitFor(async () => expect(await find()).toHaveLength(1))
    const [second] = await find()
    expect(second?.pid).not.toBe(first?.pid)
    const owner = await connectAs(ownerUrl(site.server, site.database))
    await owner.query(`begin; lock table pg_authid in exclusive mode`)
    const began = performance.now()
    await failure(tool.disable?.([{ grant }], within(50)) ?? Promise.resolve())
    expect(performance.now() - began).toBeLessThan(90)
    await owner.query('rollback')
    await tool.disable?.([{ grant }], within())
    expect(await find()).toEqual([second])
  })

  test('many are disabled at once, whatever locks some of them hold on their own', async () => {
    const site = await createSite()
    const tool = site.open()
    const held = []
    for (let i = 0; i < 25; i++) held.push(...(await Promise.all(Array.from({ length: 10 }, () => lend(site, tool)))))
    const agents = await Promise.all(held.slice(0, 10).map(({ credential }) => connectAs(credential)))
    for (const agent of agents) await agent.query(`begin; alter role current_user password 'mine'`)
    // Whom nobody may cut keeps the row of one more.
    const stranger = await connectAs(ownerUrl(site.server, site.database))
    await stranger.query(`begin; alter role ${held[20]?.role} connection limit 5`)
    const began = performance.now()
    await tool.disable?.([...held.map(({ grant }) => ({ grant })), { grant: newGrant() }], within())
    const ms = performance.now() - began
    expect(ms).toBeLessThan(2_000)
    expect(await site.admin(`select rolname as role from pg_roles where rolname ~ $1 and rolcanlogin`, [`^stint_${site.id}`])).toEqual([{ role: held[20]?.role }])
    await vi.waitFor(async () => expect(await site.admin(`select pid from pg_stat_activity where usename ~ $1`, [`^stint_${site.id}`])).toEqual([]))
    await stranger.query('rollback')
    await held[20]?.end()
    await held[0]?.end()
  })

  test('a lock on another\'s role delays its drop, and that for no longer than a moment', async () => {
    const site = await createSite()
    const tool = site.open()
    const [evil, victim] = [await lend(site, tool), await lend(site, tool)]
    const [agent, other] = [await connectAs(evil.credential), await connectAs(victim.credential)]
    const cut = new Promise((resolve) => other.once('end', resolve))
    await agent.query(`begin; select lo_create(4711); grant select on large object 4711 to ${victim.role}`)
    const began = performance.now()
    await tool.disable?.([victim], within())
    expect(performance.now() - began).toBeLessThan(500)
    await cut
    expect((await failure(victim.end())).publicMessage).toContain(`cannot log in any more, but it is not dropped: "${evil.role}" holds locks`)
    expect(performance.now() - began).toBeLessThan(3_500)
    await evil.end()
    await victim.end()
  })

  const things: Record<string, string> = {
    'a function': `create function %s.f() returns int language sql as 'select 1'`,
    'a procedure': `create procedure %s.p() language sql as 'select 1'`,
    'an aggregate': `create aggregate %s.total (int) (sfunc = int4pl, stype = int)`,
    'an operator': `create operator %s.### (leftarg = int, rightarg = int, function = int4pl)`,
    'a type': `create type %s.pair as (a int, b int); create domain %s.small as int; create type %s.mood as enum ('sad')`,
    'tables and sequences': `create table %s.made (id serial, x int); create sequence %s.counter; create view %s.seen as select * from %s.made; create materialized view %s.kept as select 1 as x`,
    'statistics': `create table %s.counted (a int, b int); create statistics %s.figures on a, b from %s.counted`,
    'words': `create text search dictionary %s.words (template = simple); create text search configuration %s.english (copy = pg_catalog.english); create collation %s.plain from "C"; create conversion %s.cv for 'UTF8' to 'LATIN1' from utf8_to_iso8859_1`,
    'default rights': `alter default privileges in schema %s grant all on tables to public; alter default privileges in schema %s revoke all on functions from public`,
  }
  test.for(Object.entries(things))('%s in a schema from which the rights were taken goes to the heir', async ([, statements]) => {
    const site = await createSite()
    const tool = site.open()
    const [mine, owner, taker] = [await lend(site, tool), await lend(site, tool), await lend(site, tool)]
    const [agent, other, third] = [await connectAs(mine.credential), await connectAs(owner.credential), await connectAs(taker.credential)]
    await agent.query(`create schema own; ${statements.replaceAll('%s', 'own')}; revoke all on schema own from current_user`)
    // Another agent's, who takes the rights back: whichever of them ends first.
    for (const schema of ['"The ""trap"', 'pit']) {
      await other.query(`create schema ${schema}; grant all on schema ${schema} to ${taker.role}`)
      await third.query(statements.replaceAll('%s', schema))
      await other.query(`revoke all on schema ${schema} from ${taker.role}, current_user`)
    }
    await mine.end()
    await taker.end()
    await owner.end()
    const [row] = await site.admin(
      `select (select count(*)::int from pg_roles where rolname ~ $1) as roles,
        (select count(*)::int from pg_namespace where nspowner = $2::regrole) as schemas,
        (select array_agg(distinct nspacl::text) from pg_namespace where nspowner = $2::regrole) as acls`,
      [`^stint_${site.id}`, site.heir],
    )
    expect(row).toMatchObject({ roles: 0, schemas: 3 })
  })

  test('a schema that has gone to the heir already, closed, keeps nothing either', async () => {
    const site = await createSite()
    const tool = site.open()
    const [owner, taker] = [await lend(site, tool), await lend(site, tool)]
    const [other, third] = [await connectAs(owner.credential), await connectAs(taker.credential)]
    await other.query(`create schema trap; grant all on schema trap to ${taker.role}`)
    await third.query(`create function trap.f() returns int language sql as 'select 1'`)
    await other.query(`revoke all on schema trap from ${taker.role}, current_user`)
    await owner.end()
    await taker.end()
    const [row] = await site.admin(`select proowner::regrole::text as owner, (select nspacl::text from pg_namespace where nspname = 'trap') as acl from pg_proc where oid = 'trap.f'::regproc`)
    expect(row).toMatchObject({ owner: site.heir })
    expect(JSON.stringify(row)).not.toContain('stint_')
  })

  test('so many large objects that one try is not enough: each comes further', { timeout: 60_000 }, async () => {
    const site = await createSite()
    const tool = site.open()
    const [mine, other] = [await lend(site, tool), await lend(site, tool)]
    const agent = await connectAs(mine.credential)
    await agent.query(`do $$ begin for i in 1..8 loop perform lo_create(0) from generate_series(1, 5000); commit; end loop; end $$`)
    // And rights on them, which keep the role of another.
    await agent.query(`do $$ declare thing oid; begin for thing in select oid from pg_largeobject_metadata where lomowner = current_user::regrole limit 6000 loop
      execute format('grant select on large object %s to ${other.role}', thing); end loop; end $$`)
    const count = async () => Number((await site.admin<{ n: number }>(`select count(*)::int as n from pg_largeobject_metadata where lomowner = $1::regrole`, [mine.role]))[0]?.n)
    await other.end()
    const given = new AbortController()
    const ending = failure(mine.tool.revoke({ grant: mine.grant }, given.signal))
    await vi.waitFor(async () => expect(await count()).toBeLessThan(40_000), { timeout: 15_000, interval: 10 })
    given.abort()
    await ending
    const left = await count()
    expect(left).toBeGreaterThan(0)
    expect(left).toBeLessThan(40_000)
    await mine.end()
    expect(await site.admin('select rolname from pg_roles where rolname ~ $1', [`^stint_${site.id}`])).toEqual([])
    for (let i = 0; i < 20; i++) await site.admin(`select lo_unlink(oid) from (select oid from pg_largeobject_metadata where lomowner = '${site.heir}'::regrole limit 2000) as part`)
  })

  test('so many tables that one try is not enough: each comes further', { timeout: 60_000 }, async () => {
    const site = await createSite()
    const { tool, grant, role, end, credential } = await lend(site)
    const agent = await connectAs(credential)
    await agent.query(`do $$ begin for i in 1..1200 loop execute format('create table work.t_%s (id serial primary key)', i); if i % 200 = 0 then commit; end if; end loop; end $$`)
    const count = async () => Number((await site.admin<{ n: number }>(`select count(*)::int as n from pg_class where relowner = $1::regrole and relkind = 'r'`, [role]))[0]?.n)
    const given = new AbortController()
    const ending = failure(tool.revoke({ grant }, given.signal))
    await vi.waitFor(async () => expect(await count()).toBeLessThan(1_200), { timeout: 15_000, interval: 10 })
    given.abort()
    await ending
    expect(await count()).toBeGreaterThan(0)
    await end()
    expect(await site.admin('select count(*)::int as n from pg_class where relowner = $1::regrole and relkind in (\'r\', \'S\')', [site.heir])).toEqual([{ n: 2400 }])
    for (let i = 0; i < 6; i++) await site.admin(`do $$ declare t regclass; begin for t in select oid from pg_class where relowner = '${site.heir}'::regrole and relkind = 'r' limit 200 loop execute 'drop table ' || t; end loop; end $$`)
  })

  test('two who gave each other rights end at the same time', async () => {
    const site = await createSite()
    const tool = site.open()
    for (let round = 0; round < 12; round++) {
      const [a, b] = [await lend(site, tool), await lend(site, tool)]
      for (const [mine, other, name] of [[a, b, `a_${round}`], [b, a, `b_${round}`]] as const) {
        const agent = await connectAs(mine.credential)
        await agent.query(`create schema s_${name}; create table s_${name}.t (x int); grant all on schema s_${name} to ${other.role};
          grant all on s_${name}.t to ${other.role} with grant option; alter default privileges in schema s_${name} grant all on tables to ${other.role} with grant option`)
      }
      expect(await Promise.all([a.end(), b.end()])).toEqual([{ status: 'ended' }, { status: 'ended' }])
    }
  })
})
