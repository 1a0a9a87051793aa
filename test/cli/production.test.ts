import { execFileSync } from 'node:child_process'
import { randomBytes, X509Certificate } from 'node:crypto'
import { chmodSync, cpSync, readFileSync, writeFileSync } from 'node:fs'
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
    expect(migrated).toMatchObject({ code: 0, out: expect.stringMatching(/^stint_op_\S+\n$/), err: expect.stringContaining('Ran 0001-foundation.') })
    // Once: nobody makes a second first operator.
    expect(await site.migrate('--admin', 'eve')).toMatchObject({ code: 1, out: '', err: expect.stringContaining('There is an operator already') })
    expect(await site.migrate()).toMatchObject({ code: 0, out: '', err: 'The schema is that of this version already.\n' })

    const program = await site.serve()
    await useByCommands(site, migrated.out.trim())
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

  test('does not start while anything that it needs is missing, unreadable or readable to others', async () => {
    const site = await createSite(sqlite)
    const { folder, file, rootKey, certificate } = site
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
    const program = await site.serve()
    expect(await site.ask('/healthz', '127.0.0.1')).toBe(200)
    expect(await site.ask('/healthz', '127.0.0.2')).toBe('ECONNRESET')
    expect((await program.stop()).code).toBe(0)
  })

  test('is stopped, whatever connections are open on which nothing has come', async () => {
    const site = await createSite(sqlite)
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
    expect(await site.refuse()).toMatchObject({ code: 1, out: '', err: expect.stringMatching(/^stint: the database lacks 0001-foundation: run `stint migrate` first\n/) })

    const migrated = await site.migrate('--admin', 'ada')
    expect(migrated).toMatchObject({ code: 0, out: expect.stringMatching(/^stint_op_\S+\n$/) })
    expect(migrated.err).toContain(`The role ${servingRole} has the rights to serve.`)
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

  test('says what is wrong with a database that it cannot reach, and nothing of its password', async () => {
    const { site, write } = await createPostgresSite()
    const nobody = await findFreePort()
    const cases: readonly (readonly [string, RegExp])[] = [
      [`postgres://stint_app:pass-word@127.0.0.1:${nobody}/stint`, /^stint: the database does not answer: .*ECONNREFUSED/],
      [`postgres://stint_app:pass-word@localhost:${nobody}/stint`, /^stint: the database does not answer: .*ECONNREFUSED/],
      [`postgres://stint_app:pass-word@127.0.0.1:${server.missing === undefined ? server.port : 0}/none_such`, /password authentication failed|does not exist/],
    ]
    for (const [url, message] of cases) {
      write('url', url)
      const ended = await site.refuse()
      expect([ended.code, ended.out, ended.err]).toEqual([1, '', expect.stringMatching(message)])
      expect(ended.err).not.toContain('pass-word')
    }
    write('url', 'not a url')
    expect(await site.migrate()).toMatchObject({ code: 1, err: expect.stringContaining('must be of the form postgres://user:password@host/database') })
  })
})
