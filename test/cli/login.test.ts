import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:https'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { describe, expect, it, onTestFinished } from 'vitest'
import { runCli } from '../../src/cli/main.ts'
import { systemClock } from '../../src/kernel/clock.ts'
import { startRealBroker } from '../client/real-broker.ts'
import { sendJson, startCompanyIssuer } from '../company-issuer.ts'
import { browse, startCompanyProvider, type ProviderOptions } from '../company-provider.ts'
import { createFolder, createRecorder, runRecorded, type Recording, type Surroundings } from './recorder.ts'

/** A broker whose people sign in at a real provider, and a person with a home of their own. */
async function setUp(options: ProviderOptions = {}) {
  const provider = await startCompanyProvider(options)
  const broker = await startRealBroker({ signIn: provider.settings })
  const home = createFolder()
  const env = { STINT_URL: broker.url, XDG_STATE_HOME: home }
  const run = (args: readonly string[], more: Surroundings = {}) => runRecorded(args, { ...more, env: { ...env, ...more.env } })
  const file = join(home, 'stint', `${encodeURIComponent(broker.url)}.json`)
  return { provider, ...broker, home, env, run, file }
}

/** Runs `stint login …`; the person acts as soon as it has said where, by the first text that fits. */
async function login(args: readonly string[], env: Surroundings['env'], where: RegExp, act: (place: string) => Promise<unknown>): Promise<Recording> {
  const { io, read } = createRecorder({ ...(env && { env }) })
  const running = runCli(['login', ...args], io)
  for (;;) {
    const [, place] = where.exec(read().err) ?? []
    if (place !== undefined) {
      await act(place)
      return { code: await running, ...read() }
    }
    const code = await Promise.race([running, setTimeout(5)])
    if (code !== undefined) return { code, ...read() }
  }
}

const page = /\n {2}(http:\S+\/auth\?\S+)\n/
const wholeCode = /or open (http:\S+)\n/

describe('stint login', () => {
  it('signs a person in by a browser, for all commands that follow, until stint logout', async () => {
    const { run, env, file, admin, home } = await setUp()
    let last = ''
    const { code, out, err } = await login(['--no-browser'], env, page, async (url) => {
      const asked = new URL(url).searchParams
      expect(Object.fromEntries(asked)).toMatchObject({ response_type: 'code', scope: 'openid groups', code_challenge_method: 'S256', client_id: 'stint-cli' })
      expect(asked.get('redirect_uri')).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/callback$/)
      expect([asked.get('state')?.length, asked.get('nonce')?.length, asked.get('code_challenge')?.length]).toEqual([43, 43, 43])
      last = (await browse(url, 'ada')).text
    })
    expect(code, err).toBe(0)
    expect(last).toContain('You can close this window')
    expect(out).toMatch(/^Signed in at http:\S+ as oidc:ada, admin, until 20\S+Z\n$/)
    expect(out + err).not.toContain('stint_os_')
    expect(statSync(file).mode & 0o777).toBe(0o600)
    expect(statSync(join(home, 'stint')).mode & 0o777).toBe(0o700)
    expect(readdirSync(join(home, 'stint'))).toHaveLength(1)

    const whoami = await run(['whoami'])
    expect(whoami).toMatchObject({ code: 0, out: expect.stringContaining('oidc:ada') })
    const { entries } = await admin.listAudit({ type: 'operator.signed_in' })
    expect(entries).toMatchObject([{ event: { subject: 'ada', role: 'admin' } }])

    const { credential } = JSON.parse(readFileSync(file, 'utf8')) as { credential: string }
    expect(await run(['logout'])).toMatchObject({ code: 0, out: expect.stringMatching(/^Signed out at/) })
    expect(existsSync(file)).toBe(false)
    const gone = await run(['whoami'], { env: { STINT_OPERATOR_TOKEN: credential } })
    expect(gone).toMatchObject({ code: 1, out: '' })
    expect(await run(['whoami'])).toMatchObject({ code: 1, err: expect.stringContaining('run stint login') })
    expect(await run(['logout'])).toMatchObject({ code: 0, out: expect.stringMatching(/^There was no live session/) })
  })

  it('opens the browser', async () => {
    const { env } = await setUp()
    const folder = createFolder()
    const seen = join(folder, 'seen')
    writeFileSync(join(folder, 'browser'), `#!/bin/sh\nprintf %s "$1" > '${seen}.tmp'; mv '${seen}.tmp' '${seen}'\n`)
    chmodSync(join(folder, 'browser'), 0o755)
    const { code } = await login(['--json'], { ...env, BROWSER: join(folder, 'browser') }, page, async (url) => {
      while (!existsSync(seen)) await setTimeout(10)
      expect(readFileSync(seen, 'utf8')).toBe(url)
      await browse(url, 'ada')
    })
    expect(code).toBe(0)
  })

  it('signs a person in by a code on any device, where no browser can be shown', async () => {
    const { env, run } = await setUp({ groups: ['audit'] })
    const { code, out, err } = await login(['--json'], env, wholeCode, async (url) => {
      expect((await browse(url, 'bob')).text).toContain('Sign-in Success')
    })
    expect(code, err).toBe(0)
    expect(err).toMatch(/enter the code\n\n {2}[A-Z]{4}-[A-Z]{4}\n/)
    expect(JSON.parse(out)).toMatchObject({ subject: 'bob', role: 'auditor', status: 'live' })
    expect(out).not.toContain('credential')
    expect((await run(['audit', 'list'])).code).toBe(0)
    expect(await run(['revoke', '--workload', 'x'])).toMatchObject({ code: 1, err: expect.stringContaining('role admin') })
  })

  it.each(['ES256', 'PS256', 'Ed25519'] as const)('works with an issuer that signs by %s', async (idTokenAlg) => {
    const { env } = await setUp({ idTokenAlg })
    const { code, err } = await login(['--no-browser'], env, page, (url) => browse(url, 'ada'))
    expect(code, err).toBe(0)
  })

  it('ends the session that the new one takes the place of', async () => {
    const { env, admin } = await setUp()
    for (let i = 0; i < 2; i++) expect((await login(['--no-browser'], env, page, (url) => browse(url, 'ada'))).code).toBe(0)
    const { sessions } = await admin.listSessions()
    expect(sessions.map(({ status }) => status).sort()).toEqual(['ended', 'live'])
  })

  it('keeps the sessions of several brokers apart', async () => {
    const { env, run, url } = await setUp()
    await login(['--no-browser'], env, page, (place) => browse(place, 'ada'))
    expect((await run(['whoami'])).code).toBe(0)
    const other = await startRealBroker()
    expect(await run(['whoami', '--url', other.url])).toMatchObject({ code: 1, err: expect.stringContaining('run stint login') })
    // The same machine by another name is another broker.
    expect((await run(['whoami', '--url', url.replace('127.0.0.1', 'localhost')])).code).toBe(1)
  })

  it('is told what to ask for when nothing of it has a role', async () => {
    const { env, file } = await setUp({ groups: ['else'] })
    const { code, out, err } = await login(['--no-browser'], env, page, (url) => browse(url, 'eve'))
    expect([code, out]).toEqual([1, ''])
    expect(err).toContain('You are oidc:eve, but none of your groups has a role here')
    expect(existsSync(file)).toBe(false)
  })

  it('takes no answer but its own', async () => {
    const { env } = await setUp()
    const { code, err } = await login(['--no-browser'], env, page, async (url) => {
      const callback = new URL(url).searchParams.get('redirect_uri') ?? ''
      for (const forged of ['?code=x&state=y', '?error=access_denied', '', '?code=x']) expect((await fetch(`${callback}${forged}`)).status).toBe(404)
      const state = new URL(url).searchParams.get('state') ?? ''
      expect((await fetch(`${callback}?code=x&state=${state}`, { method: 'POST' })).status).toBe(404)
      expect((await fetch(callback.replace('/callback', `/?state=${state}`))).status).toBe(404)
      await browse(url, 'ada')
    })
    expect(code, err).toBe(0)
  })

  it('ends when the issuer refuses, and says so', async () => {
    const { env } = await setUp()
    const { code, err } = await login(['--no-browser'], env, page, async (url) => {
      const asked = new URL(url).searchParams
      const answer = new URLSearchParams({ state: asked.get('state') ?? '', error: 'access_denied', error_description: 'not \u001b[2Jtoday', iss: new URL(url).origin })
      await fetch(`${asked.get('redirect_uri') ?? ''}?${answer.toString()}`)
    })
    expect(code).toBe(1)
    expect(err).toMatch(/stint: http:\S+ refused: not .\[2Jtoday \(access_denied\)\n$/)
    expect(err).not.toContain('\u001b')
  })

  it('refuses a code that was not asked for by it', async () => {
    const { env } = await setUp()
    const { code, err } = await login(['--no-browser'], env, page, async (url) => {
      const asked = new URL(url).searchParams
      await fetch(`${asked.get('redirect_uri') ?? ''}?${new URLSearchParams({ state: asked.get('state') ?? '', code: 'stolen', iss: new URL(url).origin }).toString()}`)
    })
    expect([code, err]).toEqual([1, expect.stringContaining('refused: ')])
  })

  it('refuses an ID token with another nonce, which is not shown to the broker', async () => {
    const company = await startCompanyIssuer(systemClock)
    const broker = await startRealBroker({ signIn: company.settings })
    const metadata = { issuer: company.url, jwks_uri: `${company.url}/keys`, authorization_endpoint: `${company.url}/auth`, token_endpoint: `${company.url}/token` }
    company.answer('/.well-known/openid-configuration', (response) => sendJson(response, metadata))
    const run = async (nonceOf: (asked: string) => string | undefined) => {
      const env = { STINT_URL: broker.url, XDG_STATE_HOME: createFolder() }
      return login([], env, page, async (url) => {
        const asked = new URL(url).searchParams
        const idToken = await company.sign({ nonce: nonceOf(asked.get('nonce') ?? '') })
        company.answer('/token', (response) => sendJson(response, { access_token: 'x', token_type: 'Bearer', id_token: idToken }))
        await fetch(`${asked.get('redirect_uri') ?? ''}?code=x&state=${asked.get('state') ?? ''}`)
      })
    }
    for (const nonce of [undefined, 'else']) {
      const { code, err } = await run(() => nonce)
      expect([code, err]).toEqual([1, expect.stringMatching(/cannot be used: .*nonce/)])
    }
    expect((await broker.admin.listSessions()).sessions).toEqual([])
    expect(await run((asked) => asked)).toMatchObject({ code: 0 })
  })

  it('takes an ID token from a file or from standard input, and from nowhere else', async () => {
    const company = await startCompanyIssuer(systemClock)
    const broker = await startRealBroker({ signIn: company.settings })
    const folder = createFolder()
    const env = { STINT_URL: broker.url, XDG_STATE_HOME: folder }
    const file = join(folder, 'token')
    const token = await company.sign()
    writeFileSync(file, `${token}\n`, { mode: 0o644 })
    expect(await runRecorded(['login', '--id-token-file', file], { env })).toMatchObject({ code: 1, err: expect.stringContaining('chmod 600') })
    chmodSync(file, 0o600)
    expect(await runRecorded(['login', '--id-token-file', file], { env })).toMatchObject({ code: 0, err: '' })
    expect(await runRecorded(['login', '--id-token-file', '-'], { env, input: await company.sign() })).toMatchObject({ code: 0 })
    const again = await runRecorded(['login', '--id-token-file', file], { env })
    expect(again).toMatchObject({ code: 1, err: expect.stringContaining('not accepted') })
    expect(again.err).not.toContain(token.slice(-40))
    for (const input of ['', 'x', `${token} ${token}`]) {
      expect(await runRecorded(['login', '--id-token-file', '-'], { env, input })).toMatchObject({ code: 1, err: expect.stringContaining('holds no ID token') })
    }
    const wrong = await runRecorded(['login', token], { env })
    expect([wrong.code, wrong.err.includes(token)]).toEqual([2, false])
    expect((await runRecorded(['login', '--device', '--no-browser'], { env })).code).toBe(2)
  })

  it('says what is in the way', async () => {
    const { env, run } = await setUp({ deviceFlow: false })
    expect(await run(['login', '--device'])).toMatchObject({ code: 1, err: expect.stringContaining('has no device flow') })
    expect(await run(['login'], { env: { ...env, XDG_STATE_HOME: undefined } })).toMatchObject({ code: 1, err: expect.stringContaining('XDG_STATE_HOME') })
    const plain = await startRealBroker()
    expect(await run(['login', '--url', plain.url])).toMatchObject({ code: 1, err: expect.stringContaining('operators.oidc') })
    const company = await startCompanyIssuer(systemClock)
    const lost = await startRealBroker({ signIn: company.settings })
    await company.stop()
    expect(await run(['login', '--url', lost.url])).toMatchObject({ code: 1, err: expect.stringMatching(/^stint: http:\S+ cannot be reached/) })
    const far = await startRealBroker({ signIn: { ...company.settings, issuer: 'http://issuer.example' } })
    expect(await run(['login', '--url', far.url])).toMatchObject({ code: 1, err: expect.stringContaining('not reached by https') })
  })

  it('says how to trust an issuer whose certificate is of a private authority', async () => {
    const folder = createFolder()
    const [cert, key] = [join(folder, 'cert.pem'), join(folder, 'key.pem')]
    const subject = ['-subj', '/CN=company', '-addext', 'subjectAltName=IP:127.0.0.1', '-days', '1']
    execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', key, '-out', cert, ...subject], { stdio: 'ignore' })
    const server = createServer({ cert: readFileSync(cert), key: readFileSync(key) }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    onTestFinished(() => void server.close())
    const address = server.address()
    const issuer = `https://127.0.0.1:${typeof address === 'object' && address !== null ? address.port : 0}`
    const company = await startCompanyIssuer(systemClock)
    const { url } = await startRealBroker({ signIn: { ...company.settings, issuer } })
    const { code, err } = await runRecorded(['login'], { env: { STINT_URL: url, XDG_STATE_HOME: folder } })
    expect([code, err]).toEqual([1, expect.stringMatching(/^stint: TLS with https:\S+ failed \(DEPTH_ZERO_SELF_SIGNED_CERT\): .*NODE_EXTRA_CA_CERTS=\/path\/to\/ca\.pem/)])
  })
})

describe('a kept session', () => {
  const saved = { credential: `stint_os_${'0'.repeat(16)}_${'A'.repeat(43)}`, session: '0'.repeat(16), subject: 'ada', role: 'admin', expires_at: '2999-01-01T00:00:00.000Z' }

  it('that is over, that others can read, or that is damaged, is not used', async () => {
    const { run, file, env, url } = await setUp()
    await login(['--no-browser'], env, page, (place) => browse(place, 'ada'))
    for (const [content, mode, message] of [
      [{ ...saved, origin: url, expires_at: '2020-01-01T00:00:00.000Z' }, 0o600, 'ended at 2020-01-01T00:00:00.000Z: run stint login'],
      [{ ...saved, origin: url }, 0o640, 'chmod 600'],
      [{ ...saved, origin: 'https://else.example' }, 0o600, 'run stint login'],
      [{ ...saved, origin: url, credential: 7 }, 0o600, 'run stint login'],
      ['stint_os_', 0o600, 'run stint login'],
      [{ ...saved, origin: url }, 0o600, `the operator's credential from the session of stint login was not accepted by ${url}. It may have expired or been revoked: run stint login.`],
    ] as const) {
      writeFileSync(file, JSON.stringify(content))
      chmodSync(file, mode)
      const { code, err } = await run(['whoami'])
      expect([code, err]).toEqual([1, expect.stringContaining(message)])
      expect(err).not.toContain('AAAA')
    }
    // A session of which the broker knows nothing is over.
    expect(await run(['logout'])).toMatchObject({ code: 0, out: expect.stringContaining('no live session') })
    expect(existsSync(file)).toBe(false)
  })

  it('stays where the broker cannot be told of its end', async () => {
    const { run, file, env } = await setUp()
    await login(['--no-browser'], env, page, (place) => browse(place, 'ada'))
    const kept = readFileSync(file, 'utf8')
    const nowhere = 'http://127.0.0.1:9'
    const other = join(file, '..', `${encodeURIComponent(nowhere)}.json`)
    writeFileSync(other, JSON.stringify({ ...JSON.parse(kept) as object, origin: nowhere }), { mode: 0o600 })
    expect((await run(['logout', '--url', nowhere])).code).toBe(1)
    expect(existsSync(other)).toBe(true)
  })

  it('gives way to STINT_OPERATOR_TOKEN', async () => {
    const { run, env, operator } = await setUp()
    const { err } = await login(['--no-browser'], { ...env, STINT_OPERATOR_TOKEN: operator }, page, (place) => browse(place, 'ada'))
    expect(err).toContain('STINT_OPERATOR_TOKEN is set')
    expect((await run(['whoami'], { env: { STINT_OPERATOR_TOKEN: operator } })).out).not.toContain('oidc:ada')
    expect((await run(['whoami'])).out).toContain('oidc:ada')
  })
})

describe('stint session', () => {
  it('shows who is signed in, and ends it', async () => {
    const { run, env, operator } = await setUp()
    await login(['--no-browser'], env, page, (place) => browse(place, 'ada'))
    const asRoot = (args: readonly string[]) => run(args, { env: { STINT_OPERATOR_TOKEN: operator } })
    const list = await asRoot(['session', 'list'])
    expect(list.out).toMatch(/^SESSION +SUBJECT +ROLE +STATUS +SINCE +UNTIL\n[0-9a-f]{16} +ada +admin +live +20\S+Z +20\S+Z\n$/)
    const [id = ''] = /[0-9a-f]{16}/.exec(list.out) ?? []
    expect(await asRoot(['session', 'end', id, '--reason', 'lost'])).toMatchObject({ code: 0, out: expect.stringMatching(/^Ended the session of ada\. Audit entry \d+\.\n$/) })
    expect(await asRoot(['session', 'end', id])).toMatchObject({ code: 0, out: 'The session was over already.\n' })
    expect(await run(['whoami'])).toMatchObject({ code: 1, err: expect.stringContaining('stint login') })
    expect(await asRoot(['session', 'list'])).toEqual({ code: 0, out: '', err: 'No session matches.\n' })
    expect(JSON.parse((await asRoot(['session', 'list', '--status', 'all', '--json'])).out)).toMatchObject({ sessions: [{ status: 'ended' }] })
    expect(await asRoot(['session', 'end', '--subject', 'ada'])).toMatchObject({ code: 0, out: 'Ended 0 sessions.\n' })
    for (const args of [['session', 'end'], ['session', 'end', id, '--subject', 'ada'], ['session', 'end', '--subject', '']]) {
      expect((await asRoot(args)).code).toBe(2)
    }
  })
})
