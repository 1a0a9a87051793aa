import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import { describe, expect, inject, onTestFinished, test } from 'vitest'
import type { OpenTool } from '../../../src/connectors/connector.ts'
import { openRotator } from '../../../src/connectors/rotators/open-rotator.ts'
import type { Rotator } from '../../../src/connectors/rotators/rotator.ts'
import { Secret } from '../../../src/kernel/secret.ts'
import { rotatorSchema } from '../../../src/policy/kinds/rotators.ts'
import { connectAs, createSite, failure, newGrant, request, reveal, within, type Site } from '../postgres-tool.ts'
import { createToolContext } from '../tool-context.ts'

const { missing } = inject('postgres')
const run = '0b0e2f6a-6d7c-4c53-9e50-4d6f3a5c9c11'

interface Turns {
  readonly site: Site
  readonly a: string
  readonly b: string
  readonly admin: string
  readonly adminUrl: string
  readonly current: Secret
  open(options?: { readonly users?: readonly string[]; readonly role?: string; readonly adminUrl?: string; readonly privateNetwork?: boolean }): Rotator
}

/** Two users of a fresh database, of which the first one has the password `first-password`, and a role that may change them. */
async function createTurns(): Promise<Turns> {
  const site = await createSite()
  const { id, server, database } = site
  const [a, b, admin] = [`a_${id}`, `b_${id}`, `admin_${id}`] as const
  await site.admin(`create role ${a} login password 'first-password'; create role ${b} nologin; grant ${site.reader} to ${a}, ${b};
    create role ${admin} login createrole password 'admin-password'; grant ${a}, ${b} to ${admin} with admin true, inherit false, set false`)
  const urlOf = (user: string, password: string) => `postgres://${user}:${password}@127.0.0.1:${server.port}/${database}?sslmode=disable`
  const adminUrl = urlOf(admin, 'admin-password')
  return {
    site, a, b, admin, adminUrl,
    current: new Secret(urlOf(a, 'first-password')),
    open({ users = [a, b], role, adminUrl: from = adminUrl, privateNetwork = true } = {}) {
      const settings = rotatorSchema.parse({ postgres: { users, admin: { from: 'env:ADMIN_URL' }, private_network: privateNetwork, ...(role !== undefined && { role }) } })
      const rotator = openRotator(settings, { tool: { name: 'ledger' }, context: createToolContext({ readSecret: async () => new Secret(from) }) })
      onTestFinished(() => rotator.close())
      return rotator
    },
  }
}

/** A way to the server on which everything is kept that passes. */
async function listenIn(port: number): Promise<{ readonly port: number; seen(): string }> {
  const chunks: Buffer[] = []
  const server = createServer((client) => {
    const upstream = connect(port, '127.0.0.1')
    for (const [from, to] of [[client, upstream], [upstream, client]] as const) {
      from.on('data', (chunk: Buffer) => {
        chunks.push(chunk)
        to.write(chunk)
      })
      from.on('error', () => undefined)
      from.on('close', () => to.destroy())
    }
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => void server.close())
  const address = server.address()
  if (typeof address !== 'object' || address === null) throw new Error('no port')
  return { port: address.port, seen: () => Buffer.concat(chunks).toString('latin1') }
}

/** The whole of a rotation, with each call made twice, as after a crash behind it. Returns the new value. */
async function rotate(rotator: Rotator, current: Secret): Promise<Secret> {
  await rotator.create(run, current, within())
  const pending = await rotator.create(run, current, within())
  await rotator.set(run, pending, current, within())
  await rotator.set(run, pending, current, within())
  expect(await rotator.test(pending, within())).toEqual({ ok: true })
  expect(await rotator.test(pending, within())).toEqual({ ok: true })
  return pending
}

async function retireTwice(rotator: Rotator, value: Secret, current: Secret, cutOff: boolean): Promise<void> {
  for (let i = 0; i < 2; i++) await rotator.retire?.(value, current, { cutOff }, within())
}

function opens(value: Secret): Promise<boolean> {
  return connectAs(value.reveal()).then(() => true, () => false)
}

describe.skipIf(missing !== undefined)('the password of a PostgreSQL user', () => {
  test('two users take turns, and nobody who holds the current value is cut off', async () => {
    const { site, a, b, current, open } = await createTurns()
    const rotator = open()
    const holder = await connectAs(current.reveal())
    const second = await rotate(rotator, current)
    expect(second.reveal()).toMatch(new RegExp(`^postgres://${b}:[\\w-]{43}@127\\.0\\.0\\.1:${site.server.port}/${site.database}\\?sslmode=disable$`))
    expect([await opens(current), await opens(second)]).toEqual([true, true])
    expect((await holder.query('select text from work.notes')).rows).toHaveLength(1)

    await retireTwice(rotator, current, second, false)
    expect([await opens(current), await opens(second)]).toEqual([false, true])
    // Whoever was in stays in: it was no leak.
    expect((await holder.query('select 1 as one')).rows).toEqual([{ one: 1 }])

    const third = await rotate(rotator, second)
    expect(new URL(third.reveal()).username).toBe(a)
    expect(third.reveal()).not.toContain('first-password')
    await retireTwice(rotator, second, third, false)
    expect([await opens(current), await opens(second), await opens(third)]).toEqual([false, false, true])
  })

  test('what was leaked holds nothing open any more, and the admin role keeps none of its rights', async () => {
    const { site, admin, a, current, open } = await createTurns()
    const rotator = open()
    const holders = [await connectAs(current.reveal()), await connectAs(current.reveal())]
    const second = await rotate(rotator, current)
    const bystander = await connectAs(second.reveal())
    await retireTwice(rotator, current, second, true)
    for (const holder of holders) await expect(holder.query('select 1')).rejects.toThrow()
    expect((await bystander.query('select 1 as one')).rows).toEqual([{ one: 1 }])
    expect(await opens(current)).toBe(false)
    expect(await site.admin(`select inherit_option, set_option from pg_auth_members where member = '${admin}'::regrole and roleid = '${a}'::regrole`)).toEqual([{ inherit_option: false, set_option: false }])
  })

  test('AWS’s JSON keeps its form and whatever else is in it', async () => {
    const { site, a, b, open } = await createTurns()
    const rotator = open()
    const json = { engine: 'postgres', host: '127.0.0.1', username: a, password: 'first-password', dbname: site.database, port: site.server.port, sslmode: 'disable', masterarn: 'arn:x' }
    const current = new Secret(JSON.stringify(json))
    expect(await rotator.test(current, within())).toEqual({ ok: true })
    const second = JSON.parse((await rotate(rotator, current)).reveal()) as Record<string, unknown>
    expect(second).toEqual({ ...json, username: b, password: expect.stringMatching(/^[\w-]{43}$/) })
  })

  test('the server never sees the password itself', async () => {
    const { site, b, adminUrl, current, open } = await createTurns()
    const wire = await listenIn(site.server.port)
    const through = (text: string) => text.replace(`:${site.server.port}/`, `:${wire.port}/`)
    const rotator = open({ adminUrl: through(adminUrl) })
    const pending = await rotate(rotator, new Secret(through(current.reveal())))
    expect(wire.seen()).toContain(`alter role "${b}" login password 'SCRAM-SHA-256$4096:`)
    for (const value of [pending, current, new Secret(adminUrl)]) expect(wire.seen()).not.toContain(new URL(value.reveal()).password)
    const [row] = await site.admin<{ stored: string }>(`select rolpassword as stored from pg_authid where rolname = '${b}'`)
    expect(row?.stored).toMatch(/^SCRAM-SHA-256\$4096:/)
    expect(pending.reveal()).not.toContain(row?.stored)
  })

  test('a value that is given up is taken away where it was set, and else nothing is', async () => {
    const { current, open } = await createTurns()
    const rotator = open()
    const second = await rotate(rotator, current)
    // The second rotation is given up before its step set: the value before the current one is still lent.
    const third = await rotator.create(run, second, within())
    const giveUp = async () => {
      for (let i = 0; i < 2; i++) await rotator.abandon?.(third, second, { kept: true }, within())
    }
    await giveUp()
    expect([await opens(current), await opens(second)]).toEqual([true, true])
    await rotator.set(run, third, second, within())
    expect(await opens(third)).toBe(true)
    await giveUp()
    expect([await opens(current), await opens(second), await opens(third)]).toEqual([false, true, false])
  })

  test('a value that only this connection cannot be let in with is taken away all the same', async () => {
    const { site, a, current, open } = await createTurns()
    const rotator = open()
    const second = await rotate(rotator, current)
    await site.admin(`alter role ${a} connection limit 0`)
    await retireTwice(rotator, current, second, false)
    await site.admin(`alter role ${a} connection limit -1 login`)
    expect(await opens(current)).toBe(false)
  })

  test('a user who holds a change of its own role open does not hold up its replacement', async () => {
    const { a, current, open } = await createTurns()
    const rotator = open()
    const second = await rotate(rotator, current)
    const hostile = await connectAs(current.reveal())
    await hostile.query(`begin; alter role ${a} password 'mine'`)
    await rotator.retire?.(current, second, { cutOff: false }, within())
    expect(await opens(current)).toBe(false)
    await expect(hostile.query('commit')).rejects.toThrow()
  })

  test('a new value that does not work is told from one of which nothing is known', async () => {
    const { site, a, b, current, open } = await createTurns()
    const rotator = open()
    const pending = await rotator.create(run, current, within())
    expect(await rotator.test(pending, within())).toEqual({ ok: false, why: expect.stringContaining(`does not take the password of ${b}`) })
    await rotator.set(run, pending, current, within())
    await site.admin(`revoke connect on database ${site.database} from public; grant connect on database ${site.database} to ${a}`)
    expect(await rotator.test(pending, within())).toEqual({ ok: false, why: expect.stringContaining(`GRANT CONNECT ON DATABASE "${site.database}" TO "${b}"`) })
    await site.admin(`grant connect on database ${site.database} to ${b}; alter role ${b} valid until '2020-01-01'`)
    expect(await rotator.test(pending, within())).toEqual({ ok: false, why: expect.stringContaining('VALID UNTIL') })
    const gone = new Secret(pending.reveal().replace(`:${site.server.port}/`, ':1/'))
    expect(await failure(rotator.test(gone, within()))).toMatchObject({ outcome: 'nothing_done', publicMessage: expect.stringContaining('cannot be reached') })
    expect(await failure(rotator.test(pending, AbortSignal.abort()))).toMatchObject({ publicMessage: expect.stringContaining('did not answer') })
  })

  const refused: Record<string, [change: (turns: Turns) => Promise<unknown>, sentence: RegExp]> = {
    'no user of that name': [({ site, b }) => site.admin(`drop role ${b}`), /^There is no user b_\w+: an admin runs CREATE ROLE "b_\w+" LOGIN; GRANT "b_\w+" TO "admin_\w+" WITH ADMIN TRUE/],
    'no right over the user': [({ site, b, admin }) => site.admin(`revoke ${b} from ${admin}`), /^The role admin_\w+ may not change b_\w+ \(.*GRANT "b_\w+" TO "admin_\w+" WITH ADMIN TRUE/],
    'no CREATEROLE': [({ site, admin }) => site.admin(`alter role ${admin} nocreaterole`), /ALTER ROLE "admin_\w+" CREATEROLE/],
    'another password of the admin role': [({ site, admin }) => site.admin(`alter role ${admin} password 'other'`), /does not let the role admin_\w+ in, which is to change b_\w+/],
  }
  test.for(Object.entries(refused))('with %s an admin is told what to do, and the current value stays good', async ([, [change, sentence]]) => {
    const turns = await createTurns()
    const { current, open } = turns
    const rotator = open()
    const pending = await rotator.create(run, current, within())
    await change(turns)
    const error = await failure(rotator.set(run, pending, current, within()))
    expect(error).toMatchObject({ outcome: 'nothing_done', publicMessage: expect.stringMatching(sentence) })
    expect(await opens(current)).toBe(true)
    for (const secret of ['first-password', 'admin-password', new URL(pending.reveal()).password]) expect(JSON.stringify(error) + error.stack + error.message).not.toContain(secret)
  })

  test('values of others, and an admin role that would change itself, are refused before anything is changed', async () => {
    const { site, a, b, admin, current, open } = await createTurns()
    const others = open({ users: [b, 'somebody'] })
    expect(await failure(others.create(run, current, within()))).toMatchObject({ publicMessage: expect.stringContaining(`is of the user ${a}, and its catalog file has ${b} and somebody take turns`) })
    expect(await failure(others.test(current, within()))).toMatchObject({ publicMessage: expect.stringContaining('take turns') })
    const itself = open({ users: [a, admin] })
    const pending = await itself.create(run, current, within())
    expect(await failure(itself.set(run, pending, current, within()))).toMatchObject({ publicMessage: expect.stringContaining(`The role ${admin} would change itself`) })
    // Put by hand while a rotation was under way.
    const rotator = open()
    const second = await rotate(rotator, current)
    expect(await failure(rotator.set(run, second, second, within()))).toMatchObject({ publicMessage: expect.stringContaining('the rotation begins anew') })
    expect(await opens(second)).toBe(true)
    expect(rotatorSchema.safeParse({ postgres: { users: [a, a], admin: { from: 'env:X' } } }).success).toBe(false)
    expect(await failure(open({ privateNetwork: false }).set(run, second, current, within()))).toMatchObject({ publicMessage: expect.stringContaining('private_network: true') })
    expect(await site.admin(`select rolcanlogin as login from pg_roles where rolname = '${admin}'`)).toEqual([{ login: true }])
  })

  test('a check says what is missing, in statements that mend it, and changes nothing', async () => {
    const { site, a, b, admin, current, open } = await createTurns()
    const rotator = open()
    const check = async (role?: string) => (await open(role === undefined ? {} : { role }).check?.(current, within()))?.map(({ ok, sentence }) => (ok ? 'good' : sentence))
    expect(await rotator.check?.(current, within())).toEqual([{ ok: true, sentence: `The role ${admin} may change ${a} and ${b}, who take turns, and need not do more.` }])
    expect(await check(site.root)).toEqual([a, b].map((user) => `The user ${user} does not act as ${site.root}: ALTER ROLE "${user}" SET role = '${site.root}'.`))
    // Its own sentences mend it.
    for (const sentence of (await check(site.root)) ?? []) await site.admin(sentence.slice(sentence.indexOf(': ') + 2, -1))
    expect(await check(site.root)).toEqual(['good', expect.stringContaining(`GRANT "${site.root}" TO "${a}"`)])
    await site.admin(`grant ${site.root} to ${a}, ${b} with inherit false, set true`)
    expect(await check(site.root)).toEqual(['good'])
    await site.admin(`alter role ${a} reset role; alter role ${b} reset role; alter role ${admin} nocreaterole; alter role ${b} superuser; revoke ${a} from ${admin}`)
    const sentences = (await check()) ?? []
    expect(sentences).toHaveLength(3)
    for (const sentence of sentences) await site.admin(sentence.slice(sentence.indexOf(': ') + 2, -1))
    expect(await check()).toEqual(['good'])
    await site.admin(`alter role ${admin} superuser`)
    expect(await check()).toEqual([expect.stringContaining('is a superuser, which is far more than it needs')])
    await site.admin(`alter role ${admin} nosuperuser; drop role ${b}`)
    expect(await check()).toEqual([expect.stringContaining(`There is no user ${b}: CREATE ROLE`)])
    expect(await open({ users: [b, 'x'] }).check?.(current, within())).toEqual([{ ok: false, sentence: expect.stringContaining('take turns') }])
    expect(await opens(current)).toBe(true)
  })

  test('a check says that whoever was lent the value in force has changed it, and what its users have set', async () => {
    const { a, current, open } = await createTurns()
    const agent = await connectAs(current.reveal())
    await agent.query(`alter role ${a} password 'mine'`)
    const rotator = open()
    const sentences = async () => (await rotator.check?.(current, within()))?.filter(({ ok }) => !ok).map(({ sentence }) => sentence)
    expect(await sentences()).toEqual([expect.stringContaining(`does not take the password of ${a}`)])
    await agent.query(`alter role ${a} set search_path = mine`)
    expect(await sentences()).toEqual([expect.stringContaining(`The user ${a} has settings of its own (search_path)`)])
  })

  test('a user who has given itself another password is locked out all the same', async () => {
    const { a, current, open } = await createTurns()
    const rotator = open()
    const agent = await connectAs(current.reveal())
    const second = await rotate(rotator, current)
    await agent.query(`alter role ${a} password 'mine'`)
    const own = new Secret(current.reveal().replace('first-password', 'mine'))
    expect([await opens(current), await opens(own)]).toEqual([false, true])
    await retireTwice(rotator, current, second, false)
    expect([await opens(own), await opens(second)]).toEqual([false, true])
    // Still in, it may do so again, but it is not let in by that.
    await agent.query(`alter role ${a} password 'mine'`)
    expect(await opens(own)).toBe(false)
  })

  test('a new password is one that nobody knows or changes who was lent an older one, and takes their settings away', async () => {
    const { site, a, b, current, open } = await createTurns()
    await site.admin(`create role shared_${site.id} nologin; grant shared_${site.id} to ${a}, ${b} with inherit true, set true`)
    const rotator = open({ role: `shared_${site.id}` })
    const agent = await connectAs(current.reveal())
    await agent.query(`alter role ${a} set search_path = mine; alter role ${a} set role = 'none'; alter role ${a} in database ${site.database} set work_mem = '64kB'; alter role ${a} set statement_timeout = 1`)
    const second = await rotate(rotator, current)
    await rotator.retire?.(current, second, { cutOff: false }, within())
    const third = await rotate(rotator, second)
    await expect(agent.query(`alter role ${a} password 'mine'`)).rejects.toThrow()
    expect(await opens(third)).toBe(true)
    const settings = await site.admin(`select setconfig as settings from pg_db_role_setting where setrole = '${a}'::regrole`)
    expect(settings).toEqual([{ settings: [`role=shared_${site.id}`] }])
  })

  test.for([
    ['not a URL', /neither postgres:\/\/ nor|is not postgres:\/\//],
    ['postgres://a@h/db', /lacks the user or the password/],
    ['{"username":"a"', /neither postgres:.* nor JSON/],
    ['{"username":"a","password":"hidden-word"}', /for its member host is missing or wrong/],
    ['{"engine":"mysql","username":"a","password":"hidden-word","host":"h"}', /for its member engine is missing or wrong/],
  ] as const)('a value like %s is refused without being said back', async ([text, sentence]) => {
    const rotator = openRotator(rotatorSchema.parse({ postgres: { users: ['a', 'b'], admin: { from: 'env:X' } } }), { tool: { name: 'ledger' }, context: createToolContext() })
    const error = await failure(rotator.create(run, new Secret(text), within()))
    expect(error.publicMessage).toMatch(sentence)
    expect(error.publicMessage).not.toContain('hidden-word')
  })
})

describe.skipIf(missing !== undefined)('the root credential of a postgres tool', () => {
  /** Two users who both act as the root role that the tool had all along. */
  async function shareRoot(): Promise<Turns & { readonly tool: OpenTool; use(value: Secret): void }> {
    const turns = await createTurns()
    const { site, a, b, current } = turns
    await site.admin(`revoke ${site.reader} from ${a}, ${b}; alter role ${site.root} nologin password null;
      grant ${site.root} to ${a}, ${b} with inherit true, set true; alter role ${a} set role = '${site.root}'; alter role ${b} set role = '${site.root}'`)
    let url = current
    const tool = site.open({ url: () => url.reveal() })
    return {
      ...turns,
      tool,
      use: (value) => {
        url = value
      },
    }
  }

  test('is replaced while grants are minted and ended, and nothing of it is noticed', async () => {
    const { site, current, open, tool, use } = await shareRoot()
    const rotator = open({ role: site.root })
    expect((await tool.check(within())).filter(({ ok }) => !ok)).toEqual([])
    const before = newGrant()
    const lent = reveal(await tool.mint(request(tool, { grant: before }), within())).credential
    const stop = new AbortController()
    const minted: string[] = []
    const work = (async () => {
      while (!stop.signal.aborted) {
        const grant = newGrant()
        await tool.mint(request(tool, { grant }), within())
        expect(await tool.revoke({ grant }, within())).toEqual({ status: 'ended' })
        minted.push(grant)
      }
    })()
    let value = current
    for (let i = 0; i < 3; i++) {
      const next = await rotate(rotator, value)
      use(next)
      await tool.mint(request(tool), within())
      await retireTwice(rotator, value, next, true)
      value = next
    }
    stop.abort()
    await work
    expect(minted.length).toBeGreaterThan(3)
    expect((await tool.check(within())).filter(({ ok }) => !ok)).toEqual([])
    // What one of the two has made the other one ends: it belongs to the role that they share.
    const agent = await connectAs(lent)
    expect((await agent.query('select text from work.notes')).rows).toHaveLength(1)
    await tool.revoke({ grant: before }, within())
    await expect(connectAs(lent)).rejects.toThrow(/password authentication failed/)
    const grants = []
    for await (const { grant } of tool.list?.(within()) ?? []) grants.push(grant)
    for (const grant of grants) await tool.revoke({ grant }, within())
    expect(await site.admin('select rolname from pg_roles where rolname ~ $1', [`^stint_${site.id}`])).toEqual([])
  })

  test('a user that does not act as the shared role fails the test, and the check names the role to mend', async () => {
    const { site, b, current, open, tool, use } = await shareRoot()
    const rotator = open({ role: site.root })
    await site.admin(`alter role ${b} reset role`)
    const pending = await rotator.create(run, current, within())
    await rotator.set(run, pending, current, within())
    // The new password comes with it.
    expect(await rotator.test(pending, within())).toEqual({ ok: true })
    await site.admin(`alter role ${b} reset role`)
    expect(await rotator.test(pending, within())).toEqual({ ok: false, why: expect.stringContaining(`ALTER ROLE "${b}" SET role = '${site.root}'`) })
    await site.admin(`alter role ${site.root} nocreaterole; grant pg_monitor to ${b}; alter role ${b} createdb`)
    use(current)
    expect((await tool.check(within())).map(({ sentence }) => sentence)).toContain(`The root role ${site.root} may not create roles: ALTER ROLE "${site.root}" CREATEROLE.`)
    await site.admin(`alter role ${b} set role = '${site.root}'`)
    use(pending)
    const sentences = (await tool.check(within())).filter(({ ok }) => !ok).map(({ sentence }) => sentence)
    expect(sentences).toContainEqual(expect.stringContaining(`${b} has CREATEDB`))
    expect(sentences).toContainEqual(expect.stringContaining(`${b} is a member of pg_monitor`))
  })
})
