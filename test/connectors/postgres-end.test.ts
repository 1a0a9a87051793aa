import { setTimeout } from 'node:timers/promises'
import pg from 'pg'
import { describe, expect, inject, onTestFinished, test, vi } from 'vitest'
import { ownerUrl } from '../template.ts'
import { connectAs, createSite, failure, listGrants, newGrant, newName, request, reveal, within, type Site } from './postgres-tool.ts'

const { missing } = inject('postgres')

/** A grant that may write, and whoever holds it. */
async function lend(site: Site, tool = site.open()) {
  const grant = newGrant()
  const minted = await tool.mint(request(tool, { grant, verbs: ['read', 'write'] }), within())
  const { credential } = reveal(minted)
  return { tool, grant, role: credential.user, credential, end: (ms?: number) => tool.revoke({ grant }, within(ms)) }
}

/** What of this site's grants the server still knows. */
async function countTraces(site: Site) {
  const [row] = await site.admin(
    `with mine as (select oid from pg_roles where rolname ~ $1)
    select (select count(*)::int from mine) as roles,
      (select count(*)::int from pg_stat_activity where usename ~ $1) as sessions,
      (select count(*)::int from pg_auth_members where roleid in (select oid from mine) or member in (select oid from mine) or member = $2::regrole or roleid = $2::regrole
        or member not in (select oid from pg_authid)) as members,
      (select count(*)::int from pg_db_role_setting where setrole <> 0 and setrole not in (select oid from pg_roles) or setrole in (select oid from mine)) as settings,
      (select count(*)::int from pg_shdepend where refclassid = 'pg_authid'::regclass and (refobjid in (select oid from mine) or refobjid = $3::regrole)) as dependencies,
      (select nspacl::text from pg_namespace where nspname = 'work') as acl,
      (select datacl::text from pg_database where datname = current_database()) as database_acl`,
    [`^stint_${site.id}_`, site.heir, site.root],
  )
  return row
}

function sessionsOf(site: Site, role: string) {
  return site.admin('select pid from pg_stat_activity where usename = $1', [role])
}

describe.skipIf(missing !== undefined)('the end of a PostgreSQL role', () => {
  const doings: Record<string, (agent: pg.Client) => Promise<unknown>> = {
    'is idle': async () => undefined,
    'is in a transaction': (agent) => agent.query('begin; insert into work.notes values (1)'),
    'sleeps': (agent) => agent.query('select pg_sleep(600)'),
    'holds locks': (agent) => agent.query('begin; create table work.locked (x int); lock table work.locked'),
    'waits for a lock': (agent) => agent.query('select pg_advisory_lock(1), pg_advisory_lock(1)'),
    'changes its own role': (agent) => agent.query(`begin; alter role current_user password 'mine'`),
    'has its own settings': (agent) => agent.query(`alter role current_user set search_path = hidden; set statement_timeout = 0; set role none`),
    'ignores its end as well as it can': (agent) => agent.query(`do $$ begin loop begin perform pg_sleep(600); exception when others then null; end; end loop; end $$`),
    'computes': (agent) => agent.query(`do $$ begin loop end loop; end $$`),
    'copies': (agent) => agent.query('copy (select * from generate_series(1, 1000000000)) to stdout'),
    'fetches from a cursor': (agent) => agent.query('begin; declare c cursor with hold for select * from generate_series(1, 1000); fetch 1 from c'),
  }
  test.for(Object.entries(doings))('a connection is cut while its agent %s', async ([, act]) => {
    const site = await createSite()
    const { credential, role, end } = await lend(site)
    const agent = await connectAs(credential)
    const ended = new Promise((resolve) => agent.once('end', resolve))
    void act(agent).catch(() => undefined)
    await setTimeout(50)
    await end()
    await ended
    expect(await sessionsOf(site, role)).toEqual([])
    expect(await countTraces(site)).toMatchObject({ roles: 0, sessions: 0 })
    await expect(connectAs(credential)).rejects.toThrow()
    expect((await site.admin('select count(*)::int as notes from work.notes'))[0]).toEqual({ notes: 1 })
  })

  test('agents that connect again and again, and keep their own role changing, are all out once it has ended', async () => {
    const site = await createSite()
    for (let round = 0; round < 5; round++) {
      const { credential, role, end } = await lend(site)
      const [oid] = await site.admin<{ oid: number }>('select oid from pg_roles where rolname = $1', [role])
      const loop = { over: false }
      let entered = 0
      const loops = Array.from({ length: 3 }, async () => {
        while (!loop.over) {
          const agent = new pg.Client(credential)
          agent.on('error', () => undefined)
          try {
            await agent.connect()
            entered++
            await agent.query(`begin; alter role current_user password 'mine'`)
            await setTimeout(5)
          } catch {
            // Cut, or not let in.
          }
          void agent.end().catch(() => undefined)
        }
      })
      await vi.waitFor(() => expect(entered).toBeGreaterThan(0))
      await end()
      const before = entered
      expect(await site.admin('select pid, usename, usesysid from pg_stat_activity where usesysid = $1', [oid?.oid])).toEqual([])
      await setTimeout(100)
      loop.over = true
      await Promise.all(loops)
      expect(entered).toBe(before)
    }
  })

  test('what an agent has made goes to the heir, in every schema however it is named, and nothing of it is lost', async () => {
    const site = await createSite()
    const { role, credential, end } = await lend(site)
    const agent = await connectAs(credential)
    const hostile = ['"; drop role x; --', `it's`, 'line\nbreak', 'ünïcode ☃', ' ', '$1', '%I', role, site.heir]
    for (const name of hostile) {
      const quoted = pg.escapeIdentifier(name)
      await agent.query(`create schema ${quoted}; create table ${quoted}.${quoted} (${quoted} text); insert into ${quoted}.${quoted} values ('work')`)
    }
    await agent.query(`
      create table work.made (id int generated always as identity, x int);
      create view work.seen as select * from work.made;
      create materialized view work.kept as select 1 as x;
      create function work.f() returns int language sql security definer as 'select 1';
      create aggregate work.total (int) (sfunc = int4pl, stype = int);
      create type work.pair as (a int, b int); create domain work.small as int; create sequence work.counter;
      create statistics work.figures on x, (x + 1) from work.made;
      create collation work.plain from "C"; create text search dictionary work.words (template = simple);
      create trigger t before update on work.made for each row execute function suppress_redundant_updates_trigger();
      create publication pub_${site.id} for table work.made;
      create temp table passing (x int);
      grant select on work.made to ${site.reader}, public;
      alter default privileges grant select on tables to ${site.reader};
      alter default privileges in schema work grant select on tables to public;
      alter table work.made enable row level security; create policy own on work.made to ${role} using (true);
      select lo_from_bytea(0, 'large work')`)
    await end()
    expect(await countTraces(site)).toMatchObject({ roles: 0, sessions: 0 })
    for (const name of hostile) {
      const quoted = pg.escapeIdentifier(name)
      expect(await site.admin(`select * from ${quoted}.${quoted}`)).toEqual([{ [name]: 'work' }])
    }
    const [owned] = await site.admin(
      `select (select array_agg(nspname::text order by nspname collate "C") from pg_namespace where nspowner = $1::regrole) as schemas,
        (select array_agg(relname::text order by relname collate "C") from pg_class where relowner = $1::regrole and relnamespace = 'work'::regnamespace and relkind in ('r', 'v', 'm')) as relations,
        (select count(*)::int from pg_proc where proowner = $1::regrole) as functions,
        (select count(*)::int from pg_largeobject_metadata where lomowner = $1::regrole) as large,
        (select count(*)::int from pg_publication where pubowner = $1::regrole) as publications,
        (select count(*)::int from pg_default_acl) as defaults,
        (select count(*)::int from pg_auth_members where member = $1::regrole) as memberships,
        has_table_privilege($2, 'work.made', 'select') as readable`,
      [site.heir, site.reader],
    )
    expect(owned).toEqual({ schemas: hostile.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))), relations: ['kept', 'made', 'seen'], functions: 2, large: 1, publications: 1, defaults: 0, memberships: 0, readable: true })
  })

  test('what it has in other databases goes to the heir, too', async () => {
    const site = await createSite()
    const { role, credential, end } = await lend(site)
    const other = `other "${site.id}"_${site.id}`
    await site.admin(`create database ${pg.escapeIdentifier(other)}`)
    await site.admin(`grant create on database ${pg.escapeIdentifier(other)} to ${site.writer}`)
    const agent = await connectAs({ ...credential, connectionString: undefined, database: other })
    await agent.query(`create schema mine; create table mine.work (x int); create function mine.f() returns int language sql as 'select 1'`)
    const owner = await connectAs({ ...pgConfig(ownerUrl(site.server, 'postgres')), database: other })
    await owner.query(`create table public.given (x int); grant select on public.given to ${role}`)
    // What an admin gave to the role itself only an admin takes back.
    expect((await failure(end())).publicMessage).toMatch(/cannot log in any more, but it is not dropped: somebody gave it rights that only they can take back \(.*1 object in database other/)
    await owner.query(`drop owned by ${role}`)
    await end()
    expect(await countTraces(site)).toMatchObject({ roles: 0 })
    expect((await owner.query(`select relowner::regrole::text as owner from pg_class where oid = 'mine.work'::regclass`)).rows).toEqual([{ owner: site.heir }])
  })

  test('rights that another agent gave it do not keep it', async () => {
    const site = await createSite()
    const [giver, taker] = [await lend(site), await lend(site)]
    await (await connectAs(giver.credential)).query(`create table work.shared (x int); grant all on work.shared to ${taker.role}; alter default privileges grant all on tables to ${taker.role}`)
    await taker.end()
    expect(await countTraces(site)).toMatchObject({ roles: 1, members: expect.any(Number) })
    expect(await site.admin(`select pg_has_role($1, $2, 'usage') as usage`, [site.root, giver.role])).toEqual([{ usage: false }])
    await giver.end()
    expect(await countTraces(site)).toMatchObject({ roles: 0 })
  })

  test('what cannot be given away keeps the role, without login and sessions, and a sentence says why; mended, it ends', async () => {
    const site = await createSite()
    const { role, credential, grant, tool, end } = await lend(site)
    const agent = await connectAs(credential)
    const ended = new Promise((resolve) => agent.once('end', resolve))
    await agent.query(`create function work.f() returns int language sql as 'select 1'`)
    await site.admin(`revoke create on schema work from ${site.writer}`)
    const error = await failure(end())
    expect(error).toMatchObject({ outcome: 'nothing_done', publicMessage: expect.stringMatching(/cannot log in any more, but it is not dropped: .*permission denied for schema work/) })
    await ended
    expect(await site.admin('select rolcanlogin as login, rolconnlimit as limit, rolpassword is null as emptied from pg_authid where rolname = $1', [role])).toEqual([{ login: false, limit: 0, emptied: true }])
    await expect(connectAs(credential)).rejects.toThrow()
    expect(await listGrants(tool)).toEqual([grant])
    await site.admin(`grant create on schema work to ${site.writer}`)
    await end()
    expect(await countTraces(site)).toMatchObject({ roles: 0 })
  })

  test('a lock that somebody holds on what it made delays only the drop', async () => {
    const site = await createSite()
    const { credential, end } = await lend(site)
    await (await connectAs(credential)).query('create table work.busy (x int)')
    const other = await connectAs(ownerUrl(site.server, site.database))
    await other.query('begin; lock table work.busy')
    expect((await failure(end())).publicMessage).toMatch(/cannot log in any more, but it is not dropped: "postgres" holds locks on it or on what it owns/)
    await expect(connectAs(credential)).rejects.toThrow()
    await other.query('rollback')
    await end()
  })

  test.for(['nologin', `nologin password null connection limit 0; grant %s to %r with inherit true, set true`, `nologin; reassign owned by %s to %h`, `nologin; reassign owned by %s to %h; drop owned by %s; drop role %s`])(
    'an end that was left after %s is finished by the next',
    async (left) => {
      const site = await createSite()
      const { role, credential, end } = await lend(site)
      await (await connectAs(credential)).query('create table work.made (x int)')
      await site.admin(`alter role ${role} ${left.replaceAll('%s', role).replaceAll('%r', site.root).replaceAll('%h', site.heir)}`)
      await end()
      await end()
      expect(await countTraces(site)).toMatchObject({ roles: 0, sessions: 0 })
      expect(await site.admin(`select relowner::regrole::text as owner from pg_class where oid = 'work.made'::regclass`)).toEqual([{ owner: site.heir }])
    },
  )

  test('a role that never was is ended, too, again and again', async () => {
    const site = await createSite()
    const tool = site.open()
    const grant = newGrant()
    for (let i = 0; i < 3; i++) expect(await tool.revoke({ grant }, within())).toEqual({ status: 'ended' })
  })

  test('a role that was made on another server is not said to have ended', async () => {
    const site = await createSite()
    const grant = newGrant()
    const tool = site.open()
    const { handle } = await tool.mint(request(tool, { grant }), within())
    const moved = site.open({ url: site.rootUrl.replace('127.0.0.1', 'localhost') })
    // By another name the same server: there it is, and ends.
    expect(await moved.revoke({ grant, ...(handle && { handle }) }, within())).toEqual({ status: 'ended' })
    expect((await failure(moved.revoke({ grant, ...(handle && { handle }) }, within()))).publicMessage).toMatch(
      /was made at 127\.0\.0\.1:\d+, and is not at localhost:\d+, which the tool's URL names now: an admin/,
    )
    expect(await tool.revoke({ grant, ...(handle && { handle }) }, within())).toEqual({ status: 'ended' })
  })

  test('ten ends of one grant at once all succeed', async () => {
    const site = await createSite()
    for (let round = 0; round < 3; round++) {
      const { tool, grant, credential } = await lend(site)
      const agent = await connectAs(credential)
      await agent.query(`create table work.made_${round} (x int)`)
      const beside = site.open()
      const results = await Promise.all(Array.from({ length: 10 }, (_, i) => (i % 2 === 0 ? tool : beside).revoke({ grant }, within())))
      expect(results).toEqual(Array.from({ length: 10 }, () => ({ status: 'ended' })))
    }
    expect(await countTraces(site)).toMatchObject({ roles: 0 })
  })

  test('an end that comes while the role is being made waits for that, and ends it', async () => {
    const site = await createSite()
    const tool = site.open()
    for (let round = 0; round < 20; round++) {
      const grant = newGrant()
      const minting = tool.mint(request(tool, { grant }), within())
      await setTimeout(round / 2)
      const [minted] = await Promise.allSettled([minting, tool.revoke({ grant }, within())])
      // The end may have come before the mint had begun, of which the server knew nothing: whoever mints finds that out.
      if (minted.status === 'fulfilled') await tool.revoke({ grant }, within())
    }
    const held = await connectAs(ownerUrl(site.server, site.database))
    const grant = newGrant()
    const name = `stint_${site.id}_${grant.slice(6)}`
    await held.query(`begin; create role ${name} login; grant ${name} to ${site.root} with admin true`)
    const ending = tool.revoke({ grant }, within())
    await setTimeout(200)
    await held.query('commit')
    await ending
    expect(await countTraces(site)).toMatchObject({ roles: 0 })
  })

  test('hundreds of grants leave the catalogs as they were', async () => {
    const site = await createSite()
    const tool = site.open({ config: 'search_path: [work]' })
    const before = await countTraces(site)
    const began = performance.now()
    for (let batch = 0; batch < 20; batch++) {
      await Promise.all(
        Array.from({ length: 16 }, async (_, i) => {
          const grant = newGrant()
          const { credential } = reveal(await tool.mint(request(tool, { grant, verbs: i % 2 === 0 ? ['read', 'write'] : ['write', 'read'] }), within()))
          if (i === 0) await (await connectAs(credential)).query(`create table work.t_${newName()} (x int); alter default privileges grant select on tables to ${site.reader}`)
          await tool.revoke({ grant }, within())
        }),
      )
    }
    const seconds = (performance.now() - began) / 1000
    console.log(`320 roles were made and ended, 16 at a time, in ${seconds.toFixed(1)} s`)
    await site.admin(`drop owned by ${site.heir}`)
    expect(await countTraces(site)).toEqual(before)
  })

  test('mints and ends have room beside each other', async () => {
    const site = await createSite()
    const tool = site.open()
    const held = await Promise.all(Array.from({ length: 8 }, () => lend(site, tool)))
    const blocker = await connectAs(ownerUrl(site.server, site.database))
    onTestFinished(() => void blocker.query('rollback').catch(() => undefined))
    // Every end waits for a row that somebody else keeps.
    await blocker.query('begin')
    for (const { role } of held) await blocker.query(`alter role ${role} password 'changed'`)
    const ends = held.map(({ end }) => end(15_000).catch(() => undefined))
    const began = performance.now()
    await tool.mint(request(tool), within())
    expect(performance.now() - began).toBeLessThan(2_000)
    await blocker.query('rollback')
    await Promise.all(ends)
  })
})

function pgConfig(url: string): pg.ClientConfig {
  const { hostname, port, username, password, pathname } = new URL(url)
  return { host: hostname, port: Number(port), user: username, password, database: pathname.slice(1) }
}
