import { execFileSync } from 'node:child_process'
import { randomBytes, X509Certificate } from 'node:crypto'
import { chmodSync, cpSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { request as httpRequest } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { connect } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, inject, onTestFinished, test, vi } from 'vitest'
import { findFreePort } from '../free-port.ts'
import { createTestFolder } from '../harness.ts'
import { runProgram, startProgram } from '../program.ts'
import { ownerUrl, runAsOwner, servingRole, servingUrl } from '../template.ts'
import { runRecorded } from './recorder.ts'

// Starting a process takes as long as the machine lets it.
vi.setConfig({ testTimeout: 60_000 })

const policies = fileURLToPath(new URL('../../policies', import.meta.url))

function createCertificate(folder: string, name: string): { readonly cert: string; readonly key: string } {
  const [cert, key] = [join(folder, `${name}.pem`), join(folder, `${name}-key.pem`)]
  const subject = ['-subj', '/CN=stint', '-addext', 'subjectAltName=IP:127.0.0.1', '-days', '2']
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', key, '-out', cert, ...subject], {
    stdio: 'ignore',
  })
  chmodSync(key, 0o600)
  return { cert, key }
}

/** A production site in a folder: everything in order, for a test to put one thing out of order. */
async function createSite(database: string, serving?: string) {
  const folder = createTestFolder()
  const port = await findFreePort()
  const file = join(folder, 'stint.yaml')
  const rootKey = join(folder, 'root.key')
  writeFileSync(rootKey, `${randomBytes(32).toString('base64')}\n`, { mode: 0o600 })
  cpSync(policies, join(folder, 'policies'), { recursive: true })
  const certificate = createCertificate(folder, 'tls')
  const tls = serving === undefined
  const issuer = `https://127.0.0.1:${port}`
  writeFileSync(
    file,
    `issuer: ${issuer}
trust_domain: example.com
listen: { port: ${port} }
${serving ?? `tls: { cert_file: ${certificate.cert}, key_file: ${certificate.key} }`}
database: ${database.replaceAll('FOLDER', folder)}
root_key: { from: "file:${rootKey}" }
anchors: [{ file: ${folder}/stint.checkpoints }]
policies: { folder: ${folder}/policies }
`,
  )
  const env = { NODE_EXTRA_CA_CERTS: certificate.cert, STINT_URL: issuer }
  const run = (args: readonly string[], more: Readonly<Record<string, string>> = {}) => runProgram(args, { cwd: folder, env: { ...env, ...more } })
  return {
    folder,
    port,
    file,
    rootKey,
    certificate,
    run,
    migrate: (...more: readonly string[]) => runRecorded(['migrate', '--config', file, ...more]),
    /** Starts it and waits until it serves. */
    async serve(more: Readonly<Record<string, string>> = {}) {
      const program = startProgram(['serve', '--config', file], { cwd: folder, env: { ...env, ...more } })
      await program.until('Stint is ready')
      return program
    },
    /** Serves in this process, where it gives up before it has begun. */
    refuse: () => runRecorded(['serve', '--config', file]),
    /** The status of an answer, or the code of the error, from this address of this machine. */
    ask(path: string, localAddress = '127.0.0.1'): Promise<number | string> {
      return new Promise((resolve) => {
        const options = { host: '127.0.0.1', port, path, localAddress, ca: readFileSync(certificate.cert), agent: false as const }
        const request = (tls ? httpsRequest : httpRequest)(options, (response) => {
          response.resume()
          resolve(response.statusCode ?? 0)
        })
        request.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message))
        request.end()
      })
    },
  }
}

const sqlite = '{ sqlite: { file: FOLDER/data/stint.db } }'
const proxy = 'proxy: { addresses: [127.0.0.1] }'

/** Registers an agent and gets it a token, all by commands. */
async function useByCommands(site: Awaited<ReturnType<typeof createSite>>, credential: string): Promise<void> {
  const admin = { STINT_OPERATOR_TOKEN: credential }
  const agent = { STINT_WORKLOAD: 'bot', STINT_KEY_FILE: join(site.folder, 'bot.key') }
  const key = await site.run(['key', 'create', 'bot.key'])
  writeFileSync(join(site.folder, 'jwks.json'), key.out)
  const reviewAt = new Date(Date.now() + 86_400_000 * 30).toISOString().slice(0, 10)
  const about = ['--environment', 'prod', '--stage', 'pilot', '--team', 'support', '--contact', 'oncall:support', '--purpose', 'Tries']
  const registered = await site.run(['workload', 'register', 'bot', ...about, '--review-at', reviewAt, '--jwks', 'jwks.json'], admin)
  expect(registered).toMatchObject({ code: 0, err: '' })
  const token = await site.run(['token', 'docs:read'], agent)
  expect(token).toMatchObject({ code: 0, err: '', out: expect.stringMatching(/^eyJ/) })
}

describe('A production broker on SQLite', () => {
  test('is migrated, made an operator for, served over TLS, stopped, and served again with the same keys', async () => {
    const site = await createSite(sqlite)
    const migrated = await site.run(['migrate', '--config', site.file, '--admin', 'ada'])
    expect(migrated).toMatchObject({ code: 0, out: expect.stringMatching(/^stint_op_\S+\n$/), err: expect.stringContaining('Ran 0001-foundation, 0002-operation, 0003-proof, 0004-credentials, 0005-rotation.') })
    // A name is one operator's; a further admin is the way back where a credential was lost, and is recorded.
    expect(await site.migrate('--admin', 'ada')).toMatchObject({ code: 1, out: '', err: expect.stringMatching(/stint: The name ada is taken; names are never used twice.*\nNothing was made\. Another admin: --admin OTHER-NAME\. .*: stint operator rotate ada\n$/) })
    const further = await site.migrate('--admin', 'eve')
    expect(further).toMatchObject({ code: 0, out: expect.stringMatching(/^stint_op_\S+\n$/) })
    expect(await site.migrate()).toMatchObject({ code: 0, out: '', err: 'The schema is that of this version already.\n' })

    const program = await site.serve()
    await useByCommands(site, migrated.out.trim())
    const created = await site.run(['audit', 'list', '--type', 'operator.created'], { STINT_OPERATOR_TOKEN: further.out.trim() })
    expect(created.out).toMatch(/named ada role admin by stint migrate\n.*named eve role admin by stint migrate\n$/)
    expect(await site.ask('/readyz')).toBe(200)
    // In production, a plain request gets no answer, and the file belongs to one process.
    const plain = connect(site.port, '127.0.0.1')
    plain.write('GET /readyz HTTP/1.1\r\nhost: a\r\n\r\n')
    expect(Buffer.concat((await plain.toArray().catch(() => [])) as Buffer[]).toString()).not.toContain('200')
    expect(await site.migrate()).toMatchObject({ code: 1, err: expect.stringMatching(/another process has .* open/) })
    const ended = await program.stop()
    expect(ended).toMatchObject({ code: 0, out: '' })
    for (const line of ended.err.trimEnd().split('\n')) expect(JSON.parse(line)).toMatchObject({ time: expect.any(String), level: 'info' })
    expect(ended.err).not.toMatch(/stint_op_|eyJ/)

    // Another root key fits none of what is sealed.
    const good = readFileSync(site.rootKey)
    writeFileSync(site.rootKey, randomBytes(32).toString('base64'))
    expect(await site.refuse()).toMatchObject({ code: 1, out: '', err: expect.stringMatching(/^stint: .*root key.*\n$/i) })
    writeFileSync(site.rootKey, good)
    const again = await site.serve()
    expect((await site.run(['workload', 'list'], { STINT_OPERATOR_TOKEN: migrated.out.trim() })).out).toMatch(/^bot /m)
    expect(again.said().err).not.toContain('there is no operator yet')
    expect((await again.stop()).code).toBe(0)
  })

  test('moves to another root key while it runs, as the configuration says, and starts without the previous one', async () => {
    const site = await createSite(sqlite)
    const { out } = await site.migrate('--admin', 'ada')
    const admin = { STINT_OPERATOR_TOKEN: out.trim() }
    await (await site.serve()).stop()
    const config = readFileSync(site.file, 'utf8')
    const next = join(site.folder, 'next.key')
    writeFileSync(next, randomBytes(32).toString('hex'), { mode: 0o600 })
    const moving = config.replace(`from: "file:${site.rootKey}"`, `from: "file:${next}", previous: { from: "file:${site.rootKey}" }`)
    writeFileSync(site.file, moving)
    const program = await site.serve()
    const moved = await site.run(['keys', 'rewrap'], admin)
    expect(moved).toMatchObject({ code: 0, err: '', out: expect.stringMatching(/\nraw:[0-9a-f]{16} wraps nothing any more: take root_key\.previous out of the configuration\.\n$|^The sealing key of version 1 is wrapped by raw:/) })
    expect((await site.run(['audit', 'list', '--type', 'key.rewrapped'], admin)).out).toMatch(/wrapped by raw:[0-9a-f]{16}/)
    await program.stop()
    writeFileSync(site.file, config)
    expect(await site.refuse()).toMatchObject({ code: 1, err: expect.stringMatching(/^stint: The database's sealing keys are wrapped by the root key raw:[0-9a-f]{16}, and the configuration gives raw:[0-9a-f]{16}\. Give that one, as root_key or as root_key\.previous\.\n$/) })
    writeFileSync(site.file, config.replace(site.rootKey, next))
    const alone = await site.serve()
    expect((await site.run(['keys', 'list'], admin)).out).toMatch(/1 +sealing +\S+ +raw:/)
    await alone.stop()
  })

  test('does not start while anything that it needs is missing, unreadable or readable to others', async () => {
    const site = await createSite(sqlite)
    const { folder, file, rootKey, certificate } = site
    const database = join(folder, 'data/stint.db')
    expect(await site.refuse()).toEqual({ code: 1, out: '', err: `stint: there is no database ${database}: make it with \`stint migrate --config …\`, or put it back\n` })
    expect(existsSync(join(folder, 'data'))).toBe(false)
    expect((await site.migrate()).code).toBe(0)
    const config = readFileSync(file, 'utf8')
    createCertificate(folder, 'other')
    const cases: readonly (readonly [string, () => void, RegExp])[] = [
      ['no configuration', () => writeFileSync(file, ''), /stint\.yaml: must hold options/],
      ['a root key that others can read', () => chmodSync(rootKey, 0o644), /root\.key .*has mode 0644.*chmod 600/],
      ['a root key that is none', () => writeFileSync(rootKey, 'secret\n'), /does not hold 32 random bytes.*openssl rand -base64 32/],
      ['no root key', () => writeFileSync(file, config.replace('root.key', 'none.key')), /there is no file .*none\.key, which should hold the root key/],
      ['a variable that is not set', () => writeFileSync(file, config.replace(`file:${rootKey}`, 'env:ROOT_KEY')), /environment variable ROOT_KEY is not set/],
      ['a TLS key that others can read', () => chmodSync(certificate.key, 0o644), /tls-key\.pem holds the TLS private key and has mode 0644/],
      ['no TLS key', () => writeFileSync(file, config.replace('tls-key', 'none-key')), /there is no file .*none-key\.pem.*TLS private key/],
      ['no certificate', () => writeFileSync(file, config.replace('tls.pem', 'none.pem')), /the TLS certificate .*none\.pem cannot be read/],
      ['the certificate of another key', () => writeFileSync(file, config.replace('tls.pem', 'other.pem')), /must be PEM and belong together/],
      ['a certificate that is none', () => writeFileSync(certificate.cert, 'x'), /must be PEM and belong together/],
      ['a database that others can read', () => chmodSync(database, 0o644), /stint\.db can be read or changed by others: run chmod 600 .*stint\.db/],
      ['no policies', () => writeFileSync(file, config.replace('/policies }', '/nothing }')), /There is no policy folder/],
    ]
    const [good, cert] = [readFileSync(rootKey), readFileSync(certificate.cert)]
    for (const [what, breakIt, message] of cases) {
      breakIt()
      const ended = await site.refuse()
      expect([what, ended.code, ended.out, ended.err]).toEqual([what, 1, '', expect.stringMatching(new RegExp(`^stint: .*${message.source}`))])
      expect(ended.err.trimEnd().split('\n')).toHaveLength(1)
      writeFileSync(file, config)
      writeFileSync(rootKey, good)
      chmodSync(rootKey, 0o600)
      chmodSync(certificate.key, 0o600)
      chmodSync(database, 0o600)
      writeFileSync(certificate.cert, cert)
    }
    expect(await runRecorded(['serve', '--config', 'none.yaml'])).toMatchObject({ code: 1, err: expect.stringContaining('cannot read the configuration none.yaml (ENOENT)') })
    // Put back in order, it starts, and says that nobody can administer it yet.
    const program = await site.serve()
    await program.until('there is no operator yet: make the first one with `stint migrate --config FILE --admin NAME`')
    expect((await program.stop()).code).toBe(0)
  })

  test('takes no connection but those of its proxy', async () => {
    const site = await createSite(sqlite, proxy)
    await site.migrate()
    const program = await site.serve()
    expect(await site.ask('/healthz', '127.0.0.1')).toBe(200)
    expect(await site.ask('/healthz', '127.0.0.2')).toBe('ECONNRESET')
    expect((await program.stop()).code).toBe(0)
  })

  test('follows its policy folder, and reads it again when it gets SIGHUP', async () => {
    const site = await createSite(sqlite)
    await site.migrate()
    const program = await site.serve()
    const lines = () => program.said().err.trimEnd().split('\n').map((line) => JSON.parse(line) as Record<string, unknown>)
    const rule = join(site.folder, 'policies/more.cedar')
    const until = (text: string, count: number) => vi.waitFor(() => expect(program.said().err.split(text)).toHaveLength(count + 1), { timeout: 20_000, interval: 50 })
    // By itself.
    writeFileSync(rule, '@id("a") forbid (principal, action, resource) when { context.ttl > duration("1d") };')
    await until('the policy folder came into force', 1)
    writeFileSync(rule, '@id("a") forbid (principal, action == Action::"docs:raed", resource);')
    await until('the policy folder cannot be used; the set in force stays', 1)
    expect(lines().at(-1)).toMatchObject({ level: 'error', problems: [expect.stringMatching(/^more\.cedar:1:\d+ .*\(did you mean docs:read\?\)$/)] })
    // When it is told to.
    program.child.kill('SIGHUP')
    await until('the policy folder cannot be used; the set in force stays', 2)
    expect(await site.ask('/readyz')).toBe(200)
    writeFileSync(rule, '')
    program.child.kill('SIGHUP')
    await until('the policy folder came into force', 2)
    expect(await program.stop()).toMatchObject({ code: 0, signal: null })

    // The folder was changed while nothing served; what is in force stays, until somebody asks.
    writeFileSync(rule, '@id("b") forbid (principal, action, resource) when { context.ttl > duration("1d") };')
    const again = await site.serve()
    expect(again.said().err).toContain('the policy folder is not what is in force, which stays: to put the folder in force, send SIGHUP')
    again.child.kill('SIGHUP')
    await again.until('the policy folder came into force')
    expect(await again.stop('SIGINT')).toMatchObject({ code: 0, signal: null })
  })

  test('ends by SIGHUP where its output is a terminal: that one was closed', async () => {
    const site = await createSite(sqlite)
    await site.migrate()
    const serving = runRecorded(['serve', '--config', site.file], { columns: 80 })
    await vi.waitFor(async () => expect(await site.ask('/readyz')).toBe(200), { timeout: 20_000, interval: 50 })
    // As the kernel would send it to this process, in which the broker runs.
    await vi.waitFor(() => expect(process.listenerCount('SIGHUP')).toBe(1))
    process.emit('SIGHUP')
    expect(await serving).toMatchObject({ code: 0, err: expect.stringContaining('stopping: finishing what was begun') as string })
    process.removeAllListeners('SIGHUP')
  })

  test('is stopped, whatever connections are open on which nothing has come', async () => {
    const site = await createSite(sqlite)
    await site.migrate()
    const program = await site.serve()
    // No TLS handshake follows.
    const silent = connect(site.port, '127.0.0.1')
    onTestFinished(() => void silent.destroy())
    const end = silent.toArray().catch((error: NodeJS.ErrnoException) => error.code)
    expect(await site.ask('/healthz')).toBe(200)
    const beganMs = performance.now()
    expect(await program.stop()).toMatchObject({ code: 0, signal: null })
    expect(performance.now() - beganMs).toBeLessThan(8000)
    expect([[], 'ECONNRESET']).toContainEqual(await end)
  })

  test('shows the certificate that it was given, and speaks nothing older than TLS 1.2', async () => {
    const site = await createSite(sqlite)
    await site.migrate()
    await site.serve()
    const client = (...args: readonly string[]) => {
      try {
        return execFileSync('openssl', ['s_client', '-connect', `127.0.0.1:${site.port}`, ...args], { input: '', stdio: ['pipe', 'pipe', 'ignore'] }).toString()
      } catch {
        return 'refused'
      }
    }
    const [pem = ''] = /-----BEGIN CERTIFICATE-----[^]*-----END CERTIFICATE-----/.exec(client()) ?? []
    expect(new X509Certificate(pem).fingerprint256).toBe(new X509Certificate(readFileSync(site.certificate.cert)).fingerprint256)
    expect(client('-tls1_2')).toContain('BEGIN CERTIFICATE')
    expect(client('-tls1_1', '-cipher', 'ALL:@SECLEVEL=0')).not.toContain('BEGIN CERTIFICATE')
  })
})

const server = inject('postgres')

describe.skipIf(server.missing !== undefined)('A production broker on PostgreSQL (skipped where there is none)', () => {
  /** A site whose database is new and empty. */
  async function createPostgresSite() {
    if (server.missing !== undefined) throw new Error(server.missing)
    const name = `test_${randomBytes(8).toString('hex')}`
    await runAsOwner(server, `create database ${name}`)
    onTestFinished(() => runAsOwner(server, `drop database ${name} with (force)`))
    const site = await createSite('{ postgres: { url: { from: "file:FOLDER/url" }, migrate_url: { from: "file:FOLDER/owner-url" } } }')
    const [serving, owner] = [servingUrl(server, name), ownerUrl(server, name)]
    const write = (file: string, text: string) => writeFileSync(join(site.folder, file), text, { mode: 0o600 })
    write('url', serving)
    write('owner-url', owner)
    return { site, write, serving, owner }
  }

  test('is migrated by its owner, served by another role, and refuses to be served by one that could rewrite the log', async () => {
    const { site, write, serving, owner } = await createPostgresSite()
    expect(await site.refuse()).toMatchObject({ code: 1, out: '', err: expect.stringMatching(/^stint: the database lacks 0001-foundation, 0002-operation, 0003-proof, 0004-credentials, 0005-rotation: run `stint migrate` first\n/) })

    const migrated = await site.migrate('--admin', 'ada')
    expect(migrated).toMatchObject({ code: 0, out: expect.stringMatching(/^stint_op_\S+\n$/) })
    expect(migrated.err).toContain(`The role ${servingRole} has the rights to serve, and none that it must not have.`)
    expect(await site.migrate()).toMatchObject({ code: 0, out: '', err: expect.stringContaining('that of this version already') })

    write('url', owner)
    expect(await site.refuse()).toMatchObject({ code: 1, err: expect.stringMatching(/^stint: PostgreSQL: the role postgres can change the audit log/) })
    // Nor does it take the owner's rights away to make it the role that serves.
    expect(await site.migrate()).toMatchObject({ code: 1, err: expect.stringMatching(/^stint: postgres would own the tables and serve/) })
    write('url', serving)

    const program = await site.serve()
    await useByCommands(site, migrated.out.trim())
    expect(await program.stop()).toMatchObject({ code: 0, signal: null })
    expect(program.said().err).not.toContain('"level":"error"')
    expect(await site.migrate()).toMatchObject({ code: 0 })
  })

  test('says what is wrong with a database that it cannot use, by its option, and nothing of its password', async () => {
    const { site, write, serving, owner } = await createPostgresSite()
    const nobody = await findFreePort()
    const changed = (url: string, change: (url: URL) => void): string => {
      const made = new URL(url)
      change(made)
      return made.href
    }
    const wrong = (url: string) => changed(url, (made) => (made.password = 'pass-word'))
    const elsewhere = (url: string) => changed(url, (made) => (made.pathname = '/none_such'))
    const cases: readonly (readonly [(url: string) => string, (option: string) => string])[] = [
      [() => 'pass-word', (option) => `${option} must be of the form postgres://user:password@host:5432/database`],
      [(url) => url.replace('postgres://', 'mysql://'), (option) => `${option} must be of the form postgres://`],
      [() => 'postgres://a:pass-word%@127.0.0.1/b', (option) => `${option} must be of the form postgres://`],
      [() => `postgres://a:pass-word@127.0.0.1:${nobody}/stint`, (option) => `nothing listens on 127.0.0.1 port ${nobody}: start PostgreSQL there, or correct ${option}`],
      [() => `postgres://a:pass-word@localhost:${nobody}/stint`, (option) => `nothing listens on localhost port ${nobody}: start PostgreSQL there, or correct ${option}`],
      [wrong, (option) => `with the password of ${option}: correct it there`],
      [(url) => changed(url, (made) => (made.password = '')), (option) => `${option} has no password that the server accepts for the role`],
      [elsewhere, (option) => `there is no database none_such: make it (CREATE DATABASE, encoding UTF8), or correct ${option}`],
    ]
    for (const [change, message] of cases) {
      write('url', change(serving))
      const served = await site.refuse()
      expect([served.code, served.out, served.err]).toEqual([1, '', expect.stringContaining(`stint: ${message('database.postgres.url')}`.replace('stint: with', 'with'))])
      write('url', serving)
      write('owner-url', change(owner))
      const migrated = await site.migrate()
      expect([migrated.code, migrated.out, migrated.err]).toEqual([1, '', expect.stringContaining(message('database.postgres.migrate_url'))])
      write('owner-url', owner)
      for (const { err } of [served, migrated]) {
        expect(err).not.toContain('pass-word')
        expect(err.trimEnd().split('\n')).toHaveLength(1)
      }
    }

    // An owner that may not make tables; a serving role that is missing, refused, or may do too much.
    write('owner-url', changed(serving, (made) => (made.search = '')))
    write('url', changed(serving, (made) => (made.username = 'none_such')))
    expect(await site.migrate()).toMatchObject({ code: 1, err: expect.stringMatching(/^stint: the role stint_app of database\.postgres\.migrate_url lacks rights on the database test_/) })
    write('owner-url', owner)
    expect(await site.migrate()).toMatchObject({ code: 1, err: expect.stringContaining('there is no such role as database.postgres.url names: make it (CREATE ROLE') })
    write('url', wrong(serving))
    expect(await site.migrate('--admin', 'ada')).toMatchObject({ code: 1, out: '', err: expect.stringContaining('with the password of database.postgres.url') })
    write('url', serving)
    expect(await site.migrate('--admin', 'ada')).toMatchObject({ code: 0, out: expect.stringMatching(/^stint_op_/) })
  })
})
