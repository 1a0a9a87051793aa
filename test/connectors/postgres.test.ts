import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import pg from 'pg'
import { describe, expect, inject, test } from 'vitest'
import { connectAs, createSite, failure, listGrants, newGrant, request, reveal, within } from './postgres-tool.ts'

const { missing } = inject('postgres')

describe.skipIf(missing !== undefined)('a PostgreSQL role per grant', () => {
  test('a client takes the credential as it is, and can do what the actions allow and nothing else', async () => {
    const site = await createSite()
    const tool = site.open()
    const grant = newGrant()
    const minted = await tool.mint(request(tool, { grant }), within())
    const { credential } = reveal(minted)
    expect(minted.reference).toBe(`stint_${site.id}_${grant.slice('grant_'.length)}`)
    expect(credential).toMatchObject({ host: '127.0.0.1', port: site.server.port, database: site.database, user: minted.reference, sslmode: 'disable' })
    expect(credential.password).toMatch(/^[\w-]{43}$/)
    expect(JSON.stringify(minted)).not.toContain(credential.password)

    const agent = await connectAs(credential)
    expect((await agent.query('select text from work.notes')).rows).toEqual([{ text: 'a note' }])
    const refused = [
      `insert into work.notes values ('mine')`,
      'select * from hidden.secrets',
      'create role intruder',
      `alter role ${minted.reference} createrole`,
      `alter role ${minted.reference} connection limit 100`,
      `alter role ${minted.reference} valid until 'infinity'`,
      `set role ${site.reader}`,
      `set session authorization ${site.reader}`,
      `grant ${site.reader} to ${site.root}`,
      `grant ${site.writer} to ${minted.reference}`,
      `create database mine`,
      `select pg_terminate_backend(pid) from pg_stat_activity where usename = 'postgres'`,
      `select pg_read_file('/etc/passwd')`,
      `copy work.notes to program 'true'`,
    ]
    for (const statement of refused) await expect(agent.query(statement), statement).rejects.toMatchObject({ code: expect.stringMatching(/^(?:42501|0A000)$/) })

    await tool.revoke({ grant }, within())
    await expect(connectAs(credential)).rejects.toThrow(/password authentication failed/)
  })

  test('the URL and the environment are enough for node-postgres and psql', async () => {
    const site = await createSite()
    const tool = site.open()
    const { credential, environment } = reveal(await tool.mint(request(tool), within()))
    const byUrl = await connectAs(credential.connectionString)
    expect((await byUrl.query('select current_user as me')).rows).toEqual([{ me: credential.user }])
    expect(environment).toEqual({
      PGHOST: '127.0.0.1', PGPORT: String(site.server.port), PGDATABASE: site.database, PGUSER: credential.user, PGPASSWORD: credential.password, PGSSLMODE: 'disable',
    })
    const psql = promisify(execFile)
    const there = await psql('psql', ['--version']).then(() => true, () => false)
    if (!there) return
    const statement = ['-XAtc', 'select current_user, text from work.notes']
    const answer = `${credential.user}|a note\n`
    expect((await psql('psql', [credential.connectionString, ...statement], { env: { PATH: process.env['PATH'] } })).stdout).toBe(answer)
    expect((await psql('psql', statement, { env: { PATH: process.env['PATH'], ...environment } })).stdout).toBe(answer)
  })

  test('several actions give the rights of all their roles', async () => {
    const site = await createSite()
    const tool = site.open()
    const agent = await connectAs(reveal(await tool.mint(request(tool, { verbs: ['write', 'read'] }), within())).credential)
    await agent.query(`insert into work.notes values ('another')`)
    expect((await agent.query('select text from work.notes')).rows).toHaveLength(2)
  })

  test('as many connections at once as the catalog says', async () => {
    const site = await createSite()
    const tool = site.open({ config: 'connections_max: 2' })
    const { credential } = reveal(await tool.mint(request(tool), within()))
    await connectAs(credential)
    await connectAs(credential)
    await expect(connectAs(credential)).rejects.toMatchObject({ code: '53300' })
  })

  test.for(['"; drop role x; --', `it's`, 'with spaces', 'ünïcode ☃', '$user', 'back\\slash', 'a,b', '"', 'current_user'])('the search path takes the schema %s', async (schema) => {
    const site = await createSite()
    await site.admin(`create schema ${pg.escapeIdentifier(schema)}; create table ${pg.escapeIdentifier(schema)}.here (x int);
      grant usage on schema ${pg.escapeIdentifier(schema)} to ${site.reader}`)
    const tool = site.open({ config: `search_path: [${JSON.stringify(schema)}, work]` })
    const agent = await connectAs(reveal(await tool.mint(request(tool), within())).credential)
    // "$user" stands for a schema of the role's own name, which there is not.
    expect((await agent.query(`select current_schemas(false) as path`)).rows).toEqual([{ path: expect.anything() }])
    expect((await agent.query<{ path: string[] }>(`select array_to_json(current_schemas(false)) as path`)).rows[0]?.path).toEqual(schema === '$user' ? ['work'] : [schema, 'work'])
  })

  test('the role stops to log in at its time by the server itself, and is prolonged', async () => {
    const site = await createSite()
    const tool = site.open()
    const grant = newGrant()
    const { credential } = reveal(await tool.mint(request(tool, { grant, lifeMs: 1 }), within()))
    await expect(connectAs(credential)).rejects.toMatchObject({ code: '28P01' })
    await tool.renew?.({ grant }, Date.now() + 60_000, within())
    await connectAs(credential)
    await tool.revoke({ grant }, within())
    expect(await failure(tool.renew?.({ grant }, Date.now() + 60_000, within()) ?? Promise.resolve())).toMatchObject({ outcome: 'nothing_done' })
  })

  test('what was made and is still there is listed, with its grant, and nothing of another broker', async () => {
    const site = await createSite()
    const tool = site.open()
    const other = site.open({ instance: `${site.id.slice(0, 7)}${site.id.endsWith('z') ? 'y' : 'z'}` })
    const grants = [newGrant(), newGrant(), newGrant()] as const
    for (const grant of grants) await tool.mint(request(tool, { grant }), within())
    const others = newGrant()
    await other.mint(request(other, { grant: others }), within())
    await tool.revoke({ grant: grants[1] }, within())
    expect(await listGrants(tool)).toEqual([grants[0], grants[2]].sort())
    await other.revoke({ grant: others }, within())
  })
})
