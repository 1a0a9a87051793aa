import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect as connectTo, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { describe, expect, inject, onTestFinished, test, vi } from 'vitest'
import type { OpenTool } from '../../src/connectors/connector.ts'
import { startPostgres } from '../crash/postgres.ts'
import { findFreePort } from '../free-port.ts'
import { createTestFolder } from '../harness.ts'
import { ownerUrl } from '../template.ts'
import { connectAs, createSite, failure, newGrant, request, reveal, within, type Site } from './postgres-tool.ts'

const { missing } = inject('postgres')

/** What a proxy does with what it sees: `pass` it on, keep it (`stall`), or `cut` both connections. */
type Decision = 'pass' | 'stall' | 'cut'

interface Proxy {
  readonly port: number
  /** Sees everything that is sent, either way, as text. */
  decide: (direction: 'up' | 'down', text: string) => Decision
  /** How many connections it has now. */
  count(): number
}

/** Stands between a client and a server and does as it is told. */
async function startProxy(serverPort: number): Promise<Proxy> {
  const sockets = new Set<Socket>()
  const proxy = { port: 0, decide: (): Decision => 'pass', count: () => sockets.size / 2 } as { -readonly [K in keyof Proxy]: Proxy[K] }
  const server = createServer((client) => {
    const upstream = connectTo(serverPort, '127.0.0.1')
    const close = (): void => {
      client.destroy()
      upstream.destroy()
    }
    let stalled = false
    const join = (from: Socket, to: Socket, direction: 'up' | 'down'): void => {
      sockets.add(from)
      from.on('data', (chunk: Buffer) => {
        const decision = stalled ? 'stall' : proxy.decide(direction, chunk.toString('latin1'))
        if (decision === 'cut') close()
        else if (decision === 'stall') stalled = true
        else to.write(chunk)
      })
      from.on('error', () => undefined)
      from.on('close', () => {
        sockets.delete(from)
        close()
      })
    }
    join(client, upstream, 'up')
    join(upstream, client, 'down')
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  const address = server.address()
  if (typeof address !== 'object' || address === null) throw new Error('no port')
  proxy.port = address.port
  return proxy
}

async function openThroughProxy(site: Site): Promise<{ proxy: Proxy; tool: OpenTool }> {
  const proxy = await startProxy(site.server.port)
  return { proxy, tool: site.open({ url: site.rootUrl.replace(`:${site.server.port}/`, `:${proxy.port}/`) }) }
}

function rolesOf(site: Site) {
  return site.admin('select rolname from pg_roles where rolname ~ $1', [`^stint_${site.id}_`])
}

describe.skipIf(missing !== undefined)('PostgreSQL that fails', () => {
  const credentials: Record<string, [change: (url: string, site: Site) => string, sentence: RegExp]> = {
    'nobody listens': [(url) => url.replace(/:\d+\//, ':1/'), /cannot be reached \(ECONNREFUSED\): an admin sees whether it runs/],
    'the password is wrong': [(url) => url.replace('root-password', 'wrong'), /does not let the root role root_\w+ in: an admin puts its right password/],
    'there is no such role': [(url) => url.replace(/root_\w+:/, 'nobody:'), /does not let the root role nobody in/],
    'there is no such database': [(url) => url.replace(/\/db_\w+/, '/nothing'), /has no database nothing/],
    'it does not speak TLS': [(url) => url.replace('?sslmode=disable', ''), /does not speak TLS: an admin turns it on/],
    'the host is not known': [(url) => url.replace('127.0.0.1', 'nothing.invalid'), /not known to the DNS|cannot be resolved/],
    'the URL is none': [() => 'localhost', /is not postgres:/],
  }
  test.for(Object.entries(credentials))('%s: nothing is done, and a sentence says who mends it how', async ([, [change, sentence]]) => {
    const site = await createSite()
    const tool = site.open({ url: change(site.rootUrl, site) })
    const grant = newGrant()
    for (const call of [() => tool.mint(request(tool, { grant }), within()), () => tool.revoke({ grant }, within())]) {
      const error = await failure(call())
      expect(error).toMatchObject({ outcome: 'nothing_done', publicMessage: expect.stringMatching(sentence) })
      expect(JSON.stringify({ ...error, message: error.message })).not.toMatch(/root-password|wrong@/)
    }
    expect(await tool.check(within())).toContainEqual({ ok: false, sentence: expect.stringMatching(sentence) })
  })

  const shortcomings: Record<string, [statement: (site: Site) => string, mint: RegExp | undefined, check: RegExp]> = {
    'CREATEROLE': [(site) => `alter role ${site.root} nocreaterole`, /lacks a right/, /may not create roles: ALTER ROLE "root_\w+" CREATEROLE/],
    'the right to lend a group': [(site) => `revoke ${site.reader} from ${site.root}`, /lacks a right/, /may not lend reader_\w+: GRANT "reader_\w+" TO "root_\w+" WITH ADMIN TRUE, INHERIT FALSE, SET FALSE/],
    'the right to give to the heir': [(site) => `revoke ${site.heir} from ${site.root}`, undefined, /may not give things to heir_\w+ \(reassign_to\): GRANT "heir_\w+" TO "root_\w+" WITH INHERIT TRUE, SET TRUE/],
    'the heir itself': [(site) => `drop role ${site.heir}`, undefined, /There is no role heir_\w+ \(reassign_to\)/],
    'a group': [(site) => `drop owned by ${site.reader}; drop role ${site.reader}`, /There is no role reader_\w+, which the tool's actions name/, /There is no role reader_\w+/],
    'LOGIN': [(site) => `alter role ${site.root} nologin`, /does not let the root role/, /does not let the root role/],
    'connections': [(site) => `alter role ${site.root} connection limit 0`, /no connection left/, /no connection left/],
    'the right to connect': [(site) => `revoke connect on database ${site.database} from public`, /lacks a right on PostgreSQL at \S+ \(permission denied for database/, /lacks a right/],
  }
  test.for(Object.entries(shortcomings))('short of %s: it is said, and nothing is left of a mint', async ([, [statement, mint, check]]) => {
    const site = await createSite()
    await site.admin(statement(site))
    const tool = site.open()
    const grant = newGrant()
    if (mint !== undefined) {
      expect(await failure(tool.mint(request(tool, { grant }), within()))).toMatchObject({ outcome: 'nothing_done', publicMessage: expect.stringMatching(mint) })
    } else {
      const { credential } = reveal(await tool.mint(request(tool, { grant, verbs: ['write'] }), within()))
      await (await connectAs(credential)).query('create table work.made (x int)')
      expect((await failure(tool.revoke({ grant }, within()))).publicMessage).toMatch(/cannot log in any more, but it is not dropped: (?:a right is missing|there is no role heir_)/)
      await expect(connectAs(credential)).rejects.toThrow()
      await site.admin(`reassign owned by ${credential.user} to postgres; drop owned by ${credential.user}; drop role ${credential.user}`)
    }
    expect(await rolesOf(site)).toEqual([])
    expect(await tool.check(within())).toContainEqual({ ok: false, sentence: expect.stringMatching(check) })
  })

  test('a role that another root role made is not ended in silence', async () => {
    const site = await createSite()
    const tool = site.open()
    const grant = newGrant()
    await site.admin(`create role stint_${site.id}_${grant.slice(6)} login`)
    expect((await failure(tool.revoke({ grant }, within()))).publicMessage).toMatch(/may not change the role stint_\w+, which another root role made.*GRANT "stint_\w+" TO "root_\w+" WITH ADMIN OPTION/)
  })

  test('a mint for a grant that has a role already leaves that to be ended', async () => {
    const site = await createSite()
    const tool = site.open()
    const grant = newGrant()
    await tool.mint(request(tool, { grant }), within())
    expect(await failure(tool.mint(request(tool, { grant }), within()))).toMatchObject({ outcome: 'unknown' })
    await tool.revoke({ grant }, within())
    expect(await rolesOf(site)).toEqual([])
  })

  test('a changed password takes effect by itself, for mints and ends', async () => {
    const site = await createSite()
    let url = site.rootUrl
    const tool = site.open({ url: () => url })
    const grant = newGrant()
    await tool.mint(request(tool, { grant }), within())
    await site.admin(`alter role ${site.root} password 'another'`)
    url = url.replace('root-password', 'another')
    await tool.revoke({ grant }, within())
    await tool.mint(request(tool), within())
  })

  const moments: Record<string, [RegExp, 'up' | 'down', 'nothing_done' | 'unknown', alive: number]> = {
    'while it connects': [/./s, 'up', 'nothing_done', 0],
    'before it makes the role': [/create role/, 'up', 'nothing_done', 0],
    'before it lends the groups': [/grant "/, 'up', 'nothing_done', 0],
    'after it has lent them': [/GRANT ROLE/, 'down', 'nothing_done', 0],
    'before it commits': [/\0.commit\0/s, 'up', 'unknown', 0],
    'after it has committed': [/COMMIT/, 'down', 'unknown', 1],
  }
  describe.for(['cut', 'stall'] as const)('a connection that is lost by a %s', (how) => {
    test.for(Object.entries(moments))('%s', async ([, [pattern, direction, outcome, alive]]) => {
      const site = await createSite()
      const { proxy, tool } = await openThroughProxy(site)
      const grant = newGrant()
      proxy.decide = (way, text) => (way === direction && pattern.test(text) ? how : 'pass')
      const began = performance.now()
      const error = await failure(tool.mint(request(tool, { grant }), within(1_000)))
      expect(performance.now() - began).toBeLessThan(2_500)
      expect(error).toMatchObject({ outcome, publicMessage: expect.stringMatching(/did not answer|cannot be reached/) })
      // What was not committed is undone by the server as soon as it sees that its client is gone.
      await vi.waitFor(async () => expect(await site.admin(`select pid from pg_stat_activity where usename = $1 and application_name = 'stint'`, [site.root])).toEqual([]), { timeout: 5_000 })
      expect(await rolesOf(site)).toHaveLength(alive)
      proxy.decide = () => 'pass'
      await tool.revoke({ grant }, within())
      expect(await rolesOf(site)).toEqual([])
    })
  })

  test('an end that loses its connection at any of its statements is finished by the next', async () => {
    const site = await createSite()
    const { proxy, tool } = await openThroughProxy(site)
    let statements = 0
    for (let cutAt = 1; ; cutAt++) {
      const grant = newGrant()
      const { credential } = reveal(await tool.mint(request(tool, { grant, verbs: ['write'] }), within()))
      const agent = await connectAs({ ...credential, connectionString: undefined, port: site.server.port })
      await agent.query(`create table work.made_${cutAt} (x int)`)
      statements = 0
      // Each message of a client begins with a letter: Q and P are statements.
      proxy.decide = (way, text) => (way === 'up' && /^[QP]/.test(text) && ++statements === cutAt ? 'cut' : 'pass')
      const ended = await tool.revoke({ grant }, within()).catch(() => undefined)
      proxy.decide = () => 'pass'
      await tool.revoke({ grant }, within())
      expect(await rolesOf(site)).toEqual([])
      if (ended !== undefined) break
    }
    expect(statements).toBeGreaterThan(10)
    expect((await site.admin('select distinct relowner::regrole::text as owner from pg_class where relname ~ $1', ['^made_']))).toEqual([{ owner: site.heir }])
  })

  test('a call that is given up gives its connection back to the server, also while it waits for a lock', async () => {
    const site = await createSite()
    const tool = site.open()
    const blocker = await connectAs(ownerUrl(site.server, site.database))
    await blocker.query(`begin; comment on role ${site.reader} is 'locked'`)
    const began = performance.now()
    const mint = failure(tool.mint(request(tool), within(500)))
    expect(await mint).toMatchObject({ outcome: 'nothing_done' })
    expect(performance.now() - began).toBeLessThan(1_500)
    await vi.waitFor(async () => expect(await site.admin(`select pid from pg_stat_activity where usename = $1 and application_name = 'stint'`, [site.root])).toEqual([]), { timeout: 4_000 })
    await blocker.query('rollback')
    await tool.mint(request(tool), within())
  })

  test('a call that was given up beforehand asks nothing', async () => {
    const site = await createSite()
    const tool = site.open()
    expect(await failure(tool.mint(request(tool), AbortSignal.abort()))).toMatchObject({ outcome: 'nothing_done' })
    expect(await failure(tool.revoke({ grant: newGrant() }, AbortSignal.abort()))).toMatchObject({ outcome: 'nothing_done' })
    await setTimeout(100)
    expect(await rolesOf(site)).toEqual([])
  })

  test('a mint whose session is ended by an admin leaves nothing', async () => {
    const site = await createSite()
    const tool = site.open()
    const blocker = await connectAs(ownerUrl(site.server, site.database))
    await blocker.query(`begin; comment on role ${site.reader} is 'locked'`)
    const mint = failure(tool.mint(request(tool), within()))
    await vi.waitFor(async () =>
      expect(await site.admin(`select pg_terminate_backend(pid) as ended from pg_stat_activity where usename = $1 and wait_event_type = 'Lock'`, [site.root])).toEqual([{ ended: true }]),
    )
    expect(await mint).toMatchObject({ outcome: 'nothing_done' })
    await blocker.query('rollback')
    expect(await rolesOf(site)).toEqual([])
  })

  const garbage = { 'as HTTP does': 'HTTP/1.1 400 Bad Request\r\n\r\n', 'with one letter': 'N', 'that all is well and no more': 'R\0\0\0\x08\0\0\0\0', 'with zeros': '\0'.repeat(10_000), 'with a long error that it never ends': 'E\x7f\xff\xff\xff', 'with nothing': '' }
  test.for(Object.entries(garbage))('something else answers %s', async ([, answer]) => {
    const port = await findFreePort()
    const server = createServer((socket) => {
      socket.on('error', () => undefined)
      socket.once('data', () => (answer === '' ? socket.end() : socket.write(answer)))
    })
    server.listen(port, '127.0.0.1')
    onTestFinished(() => void server.close())
    const site = await createSite()
    const tool = site.open({ url: site.rootUrl.replace(`:${site.server.port}/`, `:${port}/`) })
    expect(await failure(tool.mint(request(tool), within(1_000)))).toMatchObject({ outcome: 'nothing_done' })
  })
})

describe.skipIf(missing !== undefined)('a PostgreSQL of one\'s own', () => {
  vi.setConfig({ testTimeout: 120_000 })

  test('keeps no password in its log, ends what was prepared, and may be restarted in between', async () => {
    const folder = createTestFolder()
    const server = await startPostgres(folder)
    onTestFinished(() => server.end())
    const owner = await connectAs(ownerUrl(server, 'postgres'))
    for (const [name, value] of Object.entries({ log_statement: 'all', log_min_duration_statement: '0', log_min_messages: 'debug1', log_parameter_max_length: '-1', max_prepared_transactions: '10' })) {
      await owner.query(`alter system set ${name} = '${value}'`)
    }
    await owner.end()
    await server.stop('fast')
    await server.start()
    const site = await createSite(server)
    const tool = site.open()
    const grant = newGrant()
    const { credential } = reveal(await tool.mint(request(tool, { grant, verbs: ['read', 'write'] }), within()))
    const agent = await connectAs(credential)
    await agent.query(`begin; create table work.prepared (x int); prepare transaction 'it''s "mine"'`)
    await agent.query(`begin; insert into work.notes values ('never'); prepare transaction 'another'`)

    // Its connections are gone, and the next calls have others.
    await server.stop('immediate')
    expect(await failure(tool.revoke({ grant }, within()))).toMatchObject({ publicMessage: expect.stringMatching(/cannot be reached|did not answer/) })
    await server.start()
    await tool.revoke({ grant }, within())
    const admin = await connectAs(ownerUrl(server, site.database))
    expect((await admin.query('select gid from pg_prepared_xacts')).rows).toEqual([])
    expect((await admin.query('select rolname from pg_roles where rolname ~ $1', [`^stint_${site.id}`])).rows).toEqual([])

    await server.stop('fast')
    const stopped = await failure(tool.mint(request(tool), within()))
    expect(stopped).toMatchObject({ outcome: 'nothing_done' })
    await server.start()
    const log = readFileSync(join(folder, 'server.log'), 'utf8')
    expect(log).toContain(`create role "${credential.user}"`)
    expect(log).toContain('SCRAM-SHA-256$4096:')
    expect(log).not.toContain(credential.password)
    expect(log).not.toContain('root-password@')
  })
})
