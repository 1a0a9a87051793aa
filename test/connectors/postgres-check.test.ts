import { execFileSync } from 'node:child_process'
import { chownSync, chmodSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, inject, onTestFinished, test } from 'vitest'
import { startPostgres } from '../crash/postgres.ts'
import { createTestFolder } from '../harness.ts'
import { connectAs, createSite, createTool, failure, newGrant, request, reveal, within, type Site } from './postgres-tool.ts'

const { missing } = inject('postgres')

describe.skipIf(missing !== undefined)('what is lent', () => {
  const tooMuch: Record<string, [statement: (site: Site) => string, sentence: RegExp]> = {
    'a superuser': [(site) => `alter role ${site.reader} superuser`, /reader_\w+, which the tool's actions name, is not lent: it is a superuser/],
    'one who may create roles': [(site) => `alter role ${site.reader} createrole`, /it may create roles/],
    'one who may replicate': [(site) => `alter role ${site.reader} replication`, /it may copy the whole server/],
    'one who passes row security by': [(site) => `alter role ${site.reader} bypassrls`, /it passes row security by/],
    'a member of who runs programs': [(site) => `grant pg_execute_server_program to ${site.reader}`, /it is a member of pg_execute_server_program, which is a role by which the server itself/],
    'a member of who reads files, at one remove': [(site) => `grant pg_read_server_files to ${site.writer}; grant ${site.writer} to ${site.reader} with inherit false, set true`, /it is a member of pg_read_server_files, which/],
    'a member of who ends sessions': [(site) => `grant pg_signal_backend to ${site.reader}`, /it is a member of pg_signal_backend/],
    'a member of the root role': [(site) => `revoke ${site.reader} from ${site.root}; grant ${site.root} to ${site.reader}`, /it is a member of root_\w+, which is the root role/],
    'a member of the heir': [(site) => `grant ${site.heir} to ${site.reader}`, /it is a member of heir_\w+, which owns what other agents have left/],
    'a member of a superuser': [(site) => `create role boss_${site.id} superuser; grant boss_${site.id} to ${site.reader}`, /it is a member of boss_\w+, which is a superuser/],
    'who owns the database': [(site) => `alter database ${site.database} owner to ${site.reader}`, /it owns the database/],
  }
  test.for(Object.entries(tooMuch))('never %s', async ([, [statement, sentence]]) => {
    const site = await createSite()
    const tool = site.open()
    await site.admin(statement(site))
    expect(await failure(tool.mint(request(tool), within()))).toMatchObject({ outcome: 'nothing_done', publicMessage: expect.stringMatching(sentence) })
    expect(await site.admin('select rolname from pg_roles where rolname ~ $1', [`^stint_${site.id}`])).toEqual([])
    expect(await tool.check(within())).toContainEqual({ ok: false, sentence: expect.stringMatching(sentence) })
  })

  test.for(['pg_read_all_data', 'pg_write_all_data', 'pg_monitor'])('a member of %s is, which reaches nothing but data', async (role) => {
    const site = await createSite()
    await site.admin(`grant ${role} to ${site.reader}`)
    const tool = site.open()
    await tool.mint(request(tool), within())
    expect((await tool.check(within())).filter(({ ok }) => !ok)).toEqual([])
  })

  test('the heir is no group, which the tool does not even open with', async () => {
    const site = await createSite()
    expect(() => site.open({ readRoles: [site.heir] })).toThrow(/lends the role heir_\w+ that is to own what agents leave behind/)
  })
})

describe.skipIf(missing !== undefined)('a check', () => {
  test('finds nothing wrong with what the README tells an admin to do', async () => {
    const site = await createSite()
    const tool = site.open({ config: 'search_path: [work, $user]' })
    const findings = await tool.check(within())
    expect(findings.filter(({ ok }) => !ok)).toEqual([])
    expect(findings.map(({ sentence }) => sentence)).toEqual([
      expect.stringMatching(/^PostgreSQL 1[6-9]\.\d+ answers at 127\.0\.0\.1:\d+, database db_\w+, without TLS\.$/),
      `The root role ${site.root} may create roles, and is no superuser.`,
      `5 connections are kept for ${site.root} and its like, whatever agents take.`,
      `What agents leave behind goes to ${site.heir}, which has no rights of its own.`,
      `The roles that are lent are right: ${site.reader}, ${site.writer}.`,
    ])
    // Nor with what it makes itself.
    const grant = newGrant()
    const { credential } = reveal(await tool.mint(request(tool, { grant, verbs: ['write'] }), within()))
    await (await connectAs(credential)).query(`create table work.made (x int); grant select on work.made to ${site.reader}`)
    expect((await tool.check(within())).filter(({ ok }) => !ok)).toEqual([])
    await tool.revoke({ grant }, within())
    expect((await tool.check(within())).filter(({ ok }) => !ok)).toEqual([])
  })

  const wrong: Record<string, [statement: (site: Site) => string, sentence: RegExp]> = {
    'a superuser as root': [(site) => `alter role ${site.root} superuser`, /is a superuser, which is far more than it needs/],
    'a root that may create databases': [(site) => `alter role ${site.root} createdb`, /has CREATEDB, which it does not need: ALTER ROLE "root_\w+" NOCREATEDB/],
    'a root with other memberships': [(site) => `grant pg_monitor to ${site.root}`, /is a member of pg_monitor, which it does not need: REVOKE "pg_monitor" FROM/],
    'a root that has the rights that it lends': [(site) => `grant ${site.reader} to ${site.root} with inherit true`, /has the rights of reader_\w+ itself/],
    'a root without a place of its own': [(site) => `revoke pg_use_reserved_connections from ${site.root}`, /could keep the root role root_\w+ from ending them: GRANT pg_use_reserved_connections TO "root_\w+"\.$/],
    'a heir that can log in': [(site) => `alter role ${site.heir} login`, /heir_\w+ \(reassign_to\) can log in/],
    'a heir with attributes': [(site) => `alter role ${site.heir} createrole`, /heir_\w+ \(reassign_to\) has attributes/],
    'a heir with rights': [(site) => `grant select on hidden.secrets to ${site.heir}`, /heir_\w+ \(reassign_to\) was granted rights on 1 things/],
    'a heir in a group': [(site) => `grant ${site.writer} to ${site.heir}`, /heir_\w+ \(reassign_to\) is a member of writer_\w+/],
    'a group that owns things': [(site) => `alter table work.notes owner to ${site.reader}`, /reader_\w+ owns 1 things.*outlives its grant/],
    'no right to connect': [(site) => `revoke connect on database ${site.database} from public; grant connect on database ${site.database} to ${site.root}, ${site.reader}`, /With the action ledger:write nobody could connect/],
    'a schema that is not there': [() => `drop schema hidden cascade`, /There is no schema hidden/],
  }
  test.for(Object.entries(wrong))('says so of %s', async ([, [statement, sentence]]) => {
    const site = await createSite()
    const tool = site.open({ config: 'search_path: [hidden]' })
    expect((await tool.check(within())).filter(({ ok }) => !ok)).toEqual([])
    await site.admin(statement(site))
    const findings = await tool.check(within())
    expect(findings.filter(({ ok }) => !ok)).toEqual([{ ok: false, sentence: expect.stringMatching(sentence) }])
  })
})

describe.skipIf(missing !== undefined)('the way to a server', () => {
  test('addresses within a private network need the catalog\'s word', async () => {
    const site = await createSite()
    for (const host of ['127.0.0.1', 'localhost', '[::1]', '[::ffff:127.0.0.1]', '10.0.0.1', '169.254.169.254']) {
      const tool = site.open({ privateNetwork: false, url: `postgres://root:pw@${host}:${site.server.port}/${site.database}` })
      expect((await failure(tool.mint(request(tool), within()))).publicMessage).toMatch(/has a (?:loopback|private|link-local) address, which is not called unless its catalog file says private_network: true/)
    }
  })

  test('with TLS the server proves that it is the host of the URL', { timeout: 120_000 }, async () => {
    const folder = createTestFolder()
    const server = await startPostgres(folder)
    onTestFinished(() => server.end())
    const data = join(folder, 'postgres')
    const [cert, key] = [join(data, 'server.crt'), join(data, 'server.key')]
    execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', key, '-out', cert, '-subj', '/CN=db', '-addext', 'subjectAltName=DNS:localhost', '-days', '2'], { stdio: 'ignore' })
    chownSync(key, statSync(data).uid, statSync(data).gid)
    chmodSync(key, 0o600)
    chmodSync(cert, 0o644)
    const site = await createSite(server)
    await site.admin(`alter system set ssl = on`)
    await site.admin('select pg_reload_conf()')
    const place = site.rootUrl.replace('127.0.0.1', 'localhost').replace('?sslmode=disable', '')
    const certificates = join(createTestFolder(), 'ca.pem')
    execFileSync('cp', [cert, certificates])

    const trusted = site.open({ url: `${place}?sslrootcert=${certificates}` })
    const minted = reveal(await trusted.mint(request(trusted), within()))
    // The server is known to speak TLS: nobody need do without.
    expect(minted).toMatchObject({ credential: { host: 'localhost', sslmode: 'require' }, environment: { PGSSLMODE: 'require' } })
    // This server keeps no connections for it.
    expect(await trusted.check(within())).toContainEqual({ ok: false, sentence: expect.stringMatching(/from ending them: set reserved_connections = 5 in postgresql\.conf and restart the server\.$/) })
    expect((await trusted.check(within()))[0]).toEqual({ ok: true, sentence: expect.stringMatching(/over TLS\.$/) })
    const refused: Record<string, RegExp> = {
      [place]: /could not prove who it is \(DEPTH_ZERO_SELF_SIGNED_CERT\)/,
      [`${place}?sslmode=require`]: /could not prove who it is \(DEPTH_ZERO_SELF_SIGNED_CERT\)/,
      [`${place.replace('localhost', '127.0.0.1')}?sslmode=verify-full&sslrootcert=${certificates}`]: /could not prove who it is \(ERR_TLS_CERT_ALTNAME_INVALID\)/,
      [`${place}?sslrootcert=/nothing/here.pem`]: /\/nothing\/here\.pem, which the tool's URL names as sslrootcert, cannot be read/,
    }
    for (const [url, sentence] of Object.entries(refused)) {
      const tool = site.open({ url })
      expect(await failure(tool.mint(request(tool), within()))).toMatchObject({ outcome: 'nothing_done', publicMessage: expect.stringMatching(sentence) })
    }
  })
})

test('a tool has no target, to which a role is not confined, and its roles and schemas have names that can be shown', () => {
  const file = (more: string, roles = '[reader]', schemas = '[]') => `
tool: ledger
connector: postgres
sensitivity: low
ttl: { default: 10m, max: 1h }
actions: { read: { roles: ${roles} } }
config: { url: { from: "env:LEDGER_URL" }, reassign_to: leftovers, search_path: ${schemas} }
${more}`
  expect(createTool(file('')).config).toEqual({ url: { from: 'env:LEDGER_URL' }, reassign_to: 'leftovers', connections_max: 3, search_path: [], private_network: false })
  expect(() => createTool(file('target: { name: schema, required: false, pattern: "[a-z]+" }'))).toThrow(/must not be there: this connector confines a credential by its actions alone/)
  for (const name of ['"line\\nbreak"', '""', `"${'x'.repeat(64)}"`, `"${'ü'.repeat(32)}"`, '"nul\\0"', '"\\ud800"']) {
    expect(() => createTool(file('', `[${name}]`)), name).toThrow(/roles/)
    expect(() => createTool(file('', '[reader]', `[${name}]`)), name).toThrow(/search_path/)
  }
  expect(() => createTool(file('', '[]'))).toThrow(/roles/)
})
