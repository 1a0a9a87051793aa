import { createHash, createPrivateKey, generateKeyPairSync } from 'node:crypto'
import { setTimeout } from 'node:timers/promises'
import { inspect } from 'node:util'
import { decodeJwt } from 'jose'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { ConnectorError, type MintRequest, type ToolContext } from '../../src/connectors/connector.ts'
import { githubAppConnector, writeEnvironment } from '../../src/connectors/github-app.ts'
import { Secret } from '../../src/kernel/secret.ts'
import { parseTool } from '../../src/policy/catalog.ts'
import { startGithub, type Github, type GithubFault, type GithubOptions } from '../github.ts'
import { createTestClock } from '../harness.ts'
import { listen } from '../listen.ts'
import { createToolContext } from './tool-context.ts'

const signal = AbortSignal.timeout(60_000)
const findInstallation = 'GET /repos/acme/website/installation'
const makeToken = 'POST /app/installations/700/access_tokens'
const endToken = 'DELETE /installation/token'
const pkcs1 = (key = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey) => key.export({ type: 'pkcs1', format: 'pem' }).toString()

interface OpenOptions extends GithubOptions {
  readonly appId?: string
  readonly privateKey?: string
  readonly apiUrl?: (url: string) => string
  readonly actions?: string
}

const usualActions = `
  issues.read: { permissions: { issues: read } }
  issues.write: { permissions: { issues: write } }
  code.read: { permissions: { contents: read } }`

/** The connector, opened for the app of a GitHub of its own, with a clock that the test moves. */
async function open({ appId, privateKey, apiUrl = (url) => url, actions = usualActions, ...options }: OpenOptions = {}) {
  const clock = createTestClock()
  const github = await startGithub({ clock, ...options })
  const parsed = parseTool('tools/github.yaml', `
tool: github
connector: github-app
sensitivity: medium
ttl: { default: 10m, max: 1h }
target: { name: repository, required: true, pattern: ".*" }
config:
  app_id: "${appId ?? github.appId}"
  private_key: { from: "env:GITHUB_KEY" }
  api_url: ${apiUrl(github.url)}
  private_network: true
actions:${actions}
`)
  if ('problems' in parsed) throw new Error(inspect(parsed.problems))
  const { actions: known } = parsed.tool
  const readSecret = vi.fn<ToolContext['readSecret']>(async () => new Secret(privateKey ?? github.privateKey))
  const tool = githubAppConnector.open(parsed.tool, createToolContext({ nowMs: () => clock.nowMs(), readSecret }))
  onTestFinished(() => tool.close())
  function ask(target: string | undefined, verbs: readonly string[] = ['issues.read']): MintRequest {
    const nowMs = clock.nowMs()
    const chosen = verbs.map((verb) => {
      const action = known.get(`github:${verb}`)
      if (action === undefined) throw new Error(verb)
      return action
    })
    return { grant: 'grant_0123456789abcdefghijklmnop', workload: 'bot', owner: 'support', actions: chosen, nowMs, expiresAtMs: nowMs + 600_000, ...(target !== undefined && { target }) }
  }
  return {
    clock,
    github,
    readSecret,
    tool,
    mint: (target = 'acme/website', verbs?: readonly string[], within = signal) => tool.mint(ask(target, verbs), within),
    mintWithoutTarget: () => tool.mint(ask(undefined), signal),
    revoke: (handle: Secret | undefined, within = signal) => tool.revoke({ grant: 'grant_0123456789abcdefghijklmnop', ...(handle !== undefined && { handle }) }, within),
    check: async () => (await tool.check(signal)).map(({ ok, sentence }) => `${ok ? 'ok' : 'no'} ${sentence}`),
  }
}

/** The error of a call, which holds neither a token nor an assertion nor a key. */
async function readFailure(promise: Promise<unknown>, github?: Github): Promise<ConnectorError> {
  const error: unknown = await promise.then(() => undefined, (thrown: unknown) => thrown)
  if (!(error instanceof ConnectorError)) throw new Error(`no ConnectorError: ${inspect(error)}`)
  const shown = inspect(error, { depth: 12, showHidden: true })
  expect(shown).not.toMatch(/ghs_|eyJ|BEGIN|PRIVATE KEY/)
  for (const { bearer } of github?.requests ?? []) expect(bearer === '' || !shown.includes(bearer)).toBe(true)
  return error
}

/** As an agent calls GitHub with the token. */
async function call(github: Github, token: string, path: string, init: RequestInit = {}): Promise<number> {
  const response = await fetch(`${github.url}${path}`, { ...init, headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' } })
  await response.arrayBuffer()
  return response.status
}

const newIssue = { method: 'POST', body: JSON.stringify({ title: 'new' }) }

describe('a token', () => {
  test('is for the one repository and just the permissions of the actions, until it is ended', async () => {
    const { github, mint, revoke, tool } = await open()
    const { credential, environment, token, handle, reference } = await mint()
    const bearer = token?.reveal() ?? ''
    expect(bearer).toMatch(/^ghs_/)
    expect(await call(github, bearer, '/repos/acme/website/issues/1')).toBe(200)
    expect(await call(github, bearer, '/repos/acme/website/issues', newIssue)).toBe(403)
    expect(await call(github, bearer, '/repos/acme/website/contents/README.md')).toBe(403)
    // The app is installed on that one, too.
    expect(await call(github, bearer, '/repos/acme/Docs.v2/issues/1')).toBe(403)
    expect(await call(github, bearer, '/repos/acme/payroll/issues/1')).toBe(403)

    expect(Object.entries(credential).map(([name, value]) => [name, value instanceof Secret ? value.reveal() : value])).toEqual([['token', bearer]])
    expect(environment['GH_TOKEN']).toBe(token)
    expect(reference).toBe(`hashed_token:${createHash('sha256').update(bearer).digest('base64')}`)
    expect(inspect({ credential, environment, token, handle, reference }, { depth: 9, showHidden: true })).not.toContain(bearer)

    expect([tool.effect, tool.undo, tool.list, tool.renew]).toEqual(['immediate', { livesSecondsMax: 3_600 }, undefined, undefined])
    expect(github.tokens()).toEqual([bearer])
    expect(await revoke(handle)).toEqual({ status: 'ended' })
    expect(github.tokens()).toEqual([])
    expect(await call(github, bearer, '/repos/acme/website/issues/1')).toBe(401)
  })

  test('can do all that any of the actions needs', async () => {
    const { github, mint } = await open()
    const { token } = await mint('acme/website', ['issues.write', 'issues.read', 'code.read'])
    expect(github.requests.find(({ method }) => method === 'POST')?.body).toEqual({ repositories: ['website'], permissions: { issues: 'write', contents: 'read' } })
    const bearer = token?.reveal() ?? ''
    expect(await call(github, bearer, '/repos/acme/website/issues', newIssue)).toBe(201)
    expect(await call(github, bearer, '/repos/acme/website/contents/README.md')).toBe(200)
    expect(await call(github, bearer, '/repos/acme/Docs.v2/issues', newIssue)).toBe(403)
  })

  test('dies by itself after its hour, whatever the grant is for', async () => {
    const { clock, github, mint } = await open()
    const { diesAtMs, token } = await mint('acme/Docs.v2')
    expect(diesAtMs).toBe(clock.nowMs() + 3_600_000)
    clock.advance(3_599_000)
    expect(await call(github, token?.reveal() ?? '', '/repos/acme/Docs.v2/issues/1')).toBe(200)
    clock.advance(1_000)
    expect(await call(github, token?.reveal() ?? '', '/repos/acme/Docs.v2/issues/1')).toBe(401)
  })

  test('is asked for by an assertion of at most ten minutes that begins a minute ago', async () => {
    const { clock, github, mint, readSecret } = await open()
    await mint()
    const bearers = github.requests.map(({ bearer }) => bearer)
    expect(bearers).toHaveLength(2)
    for (const bearer of bearers) {
      expect(decodeJwt(bearer)).toEqual({ iss: github.appId, iat: clock.nowMs() / 1000 - 60, exp: clock.nowMs() / 1000 + 480 })
    }
    expect(readSecret.mock.calls).toEqual([['env:GITHUB_KEY', "the GitHub app's private key"]])
  })

  test('is named to programs as they know it', async () => {
    const { github, mint } = await open()
    const { environment, token } = await mint()
    expect(environment).toEqual(writeEnvironment(github.url, 'acme/website', token ?? new Secret('')))
    const secret = new Secret('ghs_x')
    const everywhere = { GH_TOKEN: secret, GITHUB_TOKEN: secret }
    expect(writeEnvironment('https://api.github.com', 'acme/website', secret)).toEqual({ ...everywhere, GH_REPO: 'acme/website' })
    expect(writeEnvironment('https://api.acme.ghe.com', 'acme/website', secret)).toEqual({
      ...everywhere,
      GH_HOST: 'acme.ghe.com',
      GH_REPO: 'acme.ghe.com/acme/website',
      GITHUB_API_URL: 'https://api.acme.ghe.com',
    })
    expect(writeEnvironment('https://git.acme.test:8443/api/v3', 'acme/website', secret)).toEqual({
      ...everywhere,
      GH_ENTERPRISE_TOKEN: secret,
      GH_HOST: 'git.acme.test:8443',
      GH_REPO: 'git.acme.test:8443/acme/website',
      GITHUB_API_URL: 'https://git.acme.test:8443/api/v3',
    })
  })

  test.each([
    ['PKCS#8', (pem: string) => createPrivateKey(pem).export({ type: 'pkcs8', format: 'pem' }).toString()],
    ['one line of an environment variable', (pem: string) => pem.replaceAll('\n', '\\n')],
  ])('is made with a key in %s, too', async (_, write) => {
    const { github, mint, readSecret } = await open()
    readSecret.mockImplementation(async () => new Secret(write(github.privateKey)))
    expect((await mint()).token).toBeInstanceOf(Secret)
  })

  test('is made at an API below a path', async () => {
    const { github, mint } = await open({ apiUrl: (url) => `${url}/api/v3/` })
    await readFailure(mint())
    expect(github.requests.map(({ path }) => path)).toEqual(['/api/v3/repos/acme/website/installation'])
  })
})

describe('a target', () => {
  test.each([
    'acme', 'acme/', '/website', 'acme/website/issues', 'acme/..', '../app', './app', 'acme/.', '..', 'acme/website?x=1', 'acme/website#', 'acme/web site', 'acme/website\n', '\nacme/website',
    'acme%2Fwebsite', 'acme/%2e%2e', 'acme\\website', 'acme/*', "acme/web'site", 'acme/"website"', 'acme/wébsite', 'https://github.com/acme/website', `acme/${'w'.repeat(101)}`, `acme/${'x'.repeat(10_240)}`, '',
  ])('that is no repository is refused before anybody is asked: %j', async (target) => {
    const { github, mint } = await open()
    const error = await readFailure(mint(target))
    expect([error.outcome, error.publicMessage]).toEqual(['nothing_done', 'The target is no repository of GitHub: it is written owner/repository.'])
    expect(github.requests).toEqual([])
  })

  test('must be there', async () => {
    const { github, mintWithoutTarget } = await open()
    expect((await readFailure(mintWithoutTarget())).outcome).toBe('nothing_done')
    expect(github.requests).toEqual([])
  })

  test.each(['acme/payroll', 'beta/website', 'acme/nothing', 'nobody/website'])('where the app is not installed is refused: %s', async (target) => {
    const { github, mint } = await open()
    const [owner] = target.split('/')
    const error = await readFailure(mint(target), github)
    expect([error.outcome, error.publicMessage]).toEqual([
      'nothing_done',
      `The GitHub app is not installed on ${target}, or there is no such repository: an owner of ${owner} adds it to the app's installation.`,
    ])
    expect(github.tokens()).toEqual([])
  })

  test('in another case than GitHub’s is refused, for rules of the policy tell them apart', async () => {
    const { github, mint } = await open()
    // The emulator tells them apart, too; GitHub does not.
    github.fail('GET /repos/acme/WebSite/installation', { body: { id: 700, permissions: { issues: 'write' } } })
    const error = await readFailure(mint('acme/WebSite'), github)
    expect([error.outcome, error.publicMessage]).toEqual(['nothing_done', expect.stringContaining('GitHub writes the repository acme/website, and the target must be written so, too')])
    expect(github.requests.map(({ method }) => method)).toEqual(['GET', 'POST', 'DELETE'])
    expect(github.tokens()).toEqual([])
  })

  test('that has another name by now is refused, not followed', async () => {
    const { github, mint } = await open()
    github.fail(findInstallation, { status: 301, headers: { location: '/repositories/1/installation' }, body: { message: 'Moved Permanently' } })
    expect((await readFailure(mint(), github)).publicMessage).toContain('has another name at GitHub by now')
    expect(github.requests).toHaveLength(1)
  })
})

describe('a mint that GitHub refuses has done nothing', () => {
  const cases: readonly (readonly [string, string | RegExp, GithubFault, string, number?])[] = [
    ['suspended', findInstallation, { body: (found) => ({ ...found, suspended_at: '2026-01-01T00:00:00Z' }) }, 'installation on acme is suspended: an owner of acme lifts that'],
    ['suspended meanwhile', makeToken, { status: 403, body: { message: 'This installation has been suspended' } }, "the app's installation is suspended"],
    ['uninstalled meanwhile', makeToken, { status: 404, body: { message: 'Not Found' } }, 'is not installed on acme/website'],
    ['of an unknown app', findInstallation, { status: 404, body: { message: 'Integration not found' } }, 'no app with the app_id'],
    ['of a key that was removed', makeToken, { status: 401, body: { message: 'A JSON web token could not be decoded' } }, "does not accept the app's private key"],
    ['of a clock that is wrong', findInstallation, { status: 401, body: { message: "'Expiration time' claim ('exp') is too far in the future" } }, "the clock of Stint's machine is wrong"],
    ['of a repository it cannot reach', makeToken, { status: 422, body: { message: 'There is at least one repository that does not exist' } }, 'refuses a token for acme/website with issues:read (422)'],
    ['for another reason', makeToken, { status: 400, body: { message: 'ghs_secret' } }, 'GitHub refuses a token for acme/website (400)'],
    ['rate limited, by 429', makeToken, { status: 429, headers: { 'retry-after': '30' }, body: { message: 'Too many' } }, 'in 30 seconds', 30],
    ['rate limited, by 403 with Retry-After', findInstallation, { status: 403, headers: { 'retry-after': '12' }, body: { message: 'Slow down' } }, 'in 12 seconds', 12],
    ['out of calls', findInstallation, { status: 403, headers: { 'x-ratelimit-remaining': '0', 'x-ratelimit-reset': String(Date.UTC(2026, 0, 15, 12) / 1000 + 90) }, body: { message: 'x' } }, 'in 90 seconds', 90],
    ['rate limited without a time', makeToken, { status: 403, body: { message: 'You have exceeded a secondary rate limit' } }, 'in 60 seconds', 60],
    ['shut out', makeToken, { status: 403, body: { message: 'Maximum number of login attempts exceeded. Please try again later.' } }, 'in 60 seconds', 60],
    ['within GitHub, before anything was made', findInstallation, { status: 502, body: '<html>Unicorn</html>' }, 'does not answer as it should to the installation on acme/website (502)'],
    ['by garbage', findInstallation, { body: 'ghs_secret {' }, 'does not answer as it should'],
    ['by JSON of another type', findInstallation, { body: { id: 700, permissions: {} }, headers: { 'content-type': 'text/plain' } }, 'does not answer as it should'],
    ['by something else', findInstallation, { body: [] }, 'does not answer as it should'],
    ['by a break before anything was made', findInstallation, { cut: 'half' }, 'broke before its answer was complete'],
  ]

  test.each(cases.map(([name, at, fault, sentence, seconds]) => [name, at, fault, sentence, seconds] as const))('%s', async (_, at, fault, sentence, retryAfterSeconds) => {
    const { github, mint } = await open()
    github.fail(at, fault)
    const error = await readFailure(mint(), github)
    expect([error.outcome, error.publicMessage, error.retryAfterSeconds]).toEqual(['nothing_done', expect.stringContaining(sentence), retryAfterSeconds])
    expect(github.tokens()).toEqual([])
    github.mend()
    expect((await mint()).token).toBeInstanceOf(Secret)
  })

  test('for a permission that the installation has not', async () => {
    const { github, mint } = await open({ installed: { issues: 'read', metadata: 'read' } })
    const error = await readFailure(mint('acme/website', ['issues.write', 'code.read']), github)
    expect([error.outcome, error.publicMessage]).toEqual([
      'nothing_done',
      "The app's installation on acme has not the permission contents:read, issues:write: an admin adds it to the app, and an owner of acme accepts it.",
    ])
    expect((await mint('acme/website', ['issues.read'])).token).toBeInstanceOf(Secret)
  })

  test.each([
    ['another key', () => pkcs1(), "does not accept the app's private key"],
    ['no PEM', () => 's3cret', 'is not an RSA key in PEM'],
    ['half a PEM', () => pkcs1().slice(0, 400), 'is not an RSA key in PEM'],
    ['a public key', () => generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey.export({ type: 'spki', format: 'pem' }).toString(), 'is not an RSA key in PEM'],
    ['a key of another kind', () => generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(), 'is not an RSA key in PEM'],
  ])('with %s as root credential', async (_, write, sentence) => {
    const { github, mint } = await open({ privateKey: write() })
    const error = await readFailure(mint(), github)
    expect([error.outcome, error.publicMessage]).toEqual(['nothing_done', expect.stringContaining(sentence)])
    expect(error.publicMessage).not.toContain('s3cret')
  })

  test('with another app’s id', async () => {
    const { github, mint } = await open({ appId: '999' })
    expect((await readFailure(mint(), github)).publicMessage).toContain('an admin compares app_id and private_key')
  })

  test('with a clock that is ten minutes ahead or behind', async () => {
    const clock = createTestClock()
    for (const offMs of [600_000, -600_000]) {
      const { github, mint } = await open({ clock: { nowMs: () => clock.nowMs() + offMs } })
      expect((await readFailure(mint(), github)).publicMessage).toContain("the clock of Stint's machine is wrong")
    }
  })

  test('where the root credential cannot be read', async () => {
    const { github, mint, readSecret } = await open()
    const refusal = new ConnectorError({ outcome: 'nothing_done', publicMessage: 'The variable GITHUB_KEY is not set.' })
    readSecret.mockRejectedValue(refusal)
    expect(await readFailure(mint())).toBe(refusal)
    expect(github.requests).toEqual([])
  })

  test('where GitHub cannot be reached', async () => {
    const { mint } = await open({ apiUrl: () => 'http://127.0.0.1:9' })
    expect(await readFailure(mint())).toMatchObject({ outcome: 'nothing_done', publicMessage: expect.stringContaining('cannot be reached') })
  })
})

describe('a mint whose answer was lost is unknown', () => {
  const cases: readonly (readonly [string, GithubFault, string])[] = [
    ['cut after GitHub had made the token', { cut: 'after' }, 'broke before its answer was complete'],
    ['cut in the middle', { cut: 'half' }, 'broke before its answer was complete'],
    ['500', { status: 500, body: { message: 'suspended, Integration not found' } }, 'does not answer as it should to a token for acme/website (500)'],
    ['502 of something in between', { status: 502, body: '<html>ghs_secret</html>' }, '(502)'],
    ['504', { status: 504 }, '(504)'],
    ['408', { status: 408 }, '(408)'],
    ['a redirect', { status: 307, headers: { location: '/elsewhere' } }, '(307)'],
    ['200 instead of 201', { status: 200, body: { token: 'ghs_secret' } }, '(200)'],
    ['garbage', { status: 201, body: 'ghs_secret' }, 'its answer cannot be read'],
    ['no token', { body: () => ({ expires_at: '2026-01-15T13:00:00Z' }) }, 'its answer cannot be read'],
    ['a token that no header can hold', { body: (made) => ({ ...made, token: 'ghs_a\r\nx: y' }) }, 'its answer cannot be read'],
    ['100 MB', { status: 201, body: 'x'.repeat(104_857_600) }, 'more than 1048576 bytes'],
  ]

  test.each(cases)('%s', async (_, fault, sentence) => {
    const { github, mint } = await open()
    github.fail(makeToken, fault)
    expect(await readFailure(mint(), github)).toMatchObject({ outcome: 'unknown', publicMessage: expect.stringContaining(sentence) })
  })

  test('when it was slow', async () => {
    const { github, mint } = await open()
    github.fail(makeToken, { delayMs: 400 })
    const controller = new AbortController()
    const minting = readFailure(mint('acme/website', ['issues.read'], controller.signal), github)
    await vi.waitFor(() => expect(github.requests.map(({ method }) => method)).toContain('POST'), 5_000)
    controller.abort()
    expect((await minting).outcome).toBe('unknown')
    // It lives, and nobody has it.
    await vi.waitFor(() => expect(github.tokens()).toHaveLength(1), 5_000)
  })

  test('and not when GitHub was slow before', async () => {
    const { github, mint } = await open()
    github.fail(findInstallation, { delayMs: 400 })
    expect((await readFailure(mint('acme/website', ['issues.read'], AbortSignal.timeout(200)), github)).outcome).toBe('nothing_done')
    expect(github.tokens()).toEqual([])
  })
})

describe('a token for more than was asked is ended at once, and not given out', () => {
  const cases: readonly (readonly [string, (made: Readonly<Record<string, unknown>>) => object, string])[] = [
    ['another permission', (made) => ({ ...made, permissions: { issues: 'read', contents: 'read' } }), 'permissions that were not asked for (contents:read)'],
    ['a higher permission', (made) => ({ ...made, permissions: { issues: 'write' } }), '(issues:write)'],
    ['an unknown level', (made) => ({ ...made, permissions: { issues: 'maintain' } }), '(issues:maintain)'],
    ['metadata to write', (made) => ({ ...made, permissions: { issues: 'read', metadata: 'write' } }), '(metadata:write)'],
    ['a permission that is named as what every object has', (made) => ({ ...made, permissions: { constructor: 'read' } }), '(constructor:read)'],
    ['all repositories', (made) => ({ ...made, repository_selection: 'all' }), 'does not say that its token is for acme/website alone'],
    ['repositories that it does not name', (made) => ({ ...made, repositories: undefined }), 'does not say that its token is for acme/website alone'],
    ['no repository', (made) => ({ ...made, repositories: [] }), 'does not say that its token is for acme/website alone'],
    ['two repositories', (made) => ({ ...made, repositories: [{ full_name: 'acme/website' }, { full_name: 'acme/payroll' }] }), 'does not say that its token is for acme/website alone'],
    ['another repository', (made) => ({ ...made, repositories: [{ full_name: 'beta/website' }] }), 'for another repository than acme/website'],
    ['permissions that it does not name', (made) => ({ ...made, permissions: undefined }), 'with which permissions and until when'],
    ['a time that it does not name', (made) => ({ ...made, expires_at: 'tomorrow' }), 'with which permissions and until when'],
  ]

  test.each(cases)('%s', async (_, body, sentence) => {
    const { github, mint } = await open()
    github.fail(makeToken, { body })
    expect(await readFailure(mint(), github)).toMatchObject({ outcome: 'nothing_done', publicMessage: expect.stringMatching(/so that the token was ended at once\.$/) })
    expect(github.requests.map(({ method }) => method)).toEqual(['GET', 'POST', 'DELETE'])
    expect(github.tokens()).toEqual([])
    expect((await readFailure(mint())).publicMessage).toContain(sentence)
  })

  test('or, where that fails, it is unknown what lives', async () => {
    const { github, mint } = await open()
    github.fail(makeToken, { body: (made) => ({ ...made, permissions: { administration: 'write' } }) })
    github.fail(endToken, { status: 500 })
    expect((await readFailure(mint(), github)).outcome).toBe('unknown')
    expect(github.tokens()).toHaveLength(1)
  })

  test('but reading metadata is part of every permission', async () => {
    const { github, mint } = await open()
    github.fail(makeToken, { body: (made) => ({ ...made, permissions: { issues: 'read', metadata: 'read' } }) })
    expect((await mint()).token).toBeInstanceOf(Secret)
  })
})

describe('an end', () => {
  test('comes to the same again and again, also at once, and leaves other tokens alone', async () => {
    const { github, mint, revoke } = await open()
    const [first, second] = [await mint(), await mint()]
    for (let i = 0; i < 2; i++) expect(await revoke(first.handle)).toEqual({ status: 'ended' })
    expect(await Promise.all([revoke(first.handle), revoke(first.handle)])).toEqual([{ status: 'ended' }, { status: 'ended' }])
    expect(github.tokens()).toEqual([second.token?.reveal()])
  })

  test('of a token that GitHub does not know yet is tried until it does', async () => {
    const { github, mint, revoke } = await open()
    const { handle } = await mint()
    github.fail(endToken, { status: 401, body: { message: 'Bad credentials' } }, 2)
    expect(await revoke(handle)).toEqual({ status: 'ended' })
    expect(github.tokens()).toEqual([])
  })

  test('of one that is not fresh believes at once that GitHub does not know it', async () => {
    const { clock, github, mint, revoke } = await open()
    const { handle } = await mint()
    await revoke(handle)
    clock.advance(61_000)
    const before = github.requests.length
    expect(await revoke(handle)).toEqual({ status: 'ended' })
    expect(github.requests.length - before).toBe(1)
  })

  test('of one that has died asks nobody, once no clock can be wrong about that', async () => {
    const { clock, github, mint, revoke } = await open()
    const { handle } = await mint()
    clock.advance(3_600_000 + 899_000)
    const before = github.requests.length
    expect(await revoke(handle)).toEqual({ status: 'ended' })
    expect(github.requests.length - before).toBe(1)
    clock.advance(1_000)
    github.fail(endToken, { status: 500 })
    expect(await revoke(handle)).toEqual({ status: 'ended' })
    expect(github.requests.length - before).toBe(1)
  })

  test.each([
    ['long ago', '2020-01-01T00:00:00Z'],
    ['in years', '2099-01-01T00:00:00Z'],
  ])('of one that GitHub says dies %s is asked for all the same: a clock that is wrong says nothing', async (_, expiresAt) => {
    const { clock, github, mint, revoke } = await open()
    github.fail(makeToken, { body: (made) => ({ ...made, expires_at: expiresAt }) })
    const { handle, diesAtMs } = await mint()
    expect(diesAtMs).toBe(clock.nowMs() + 3_600_000)
    expect(await revoke(handle)).toEqual({ status: 'ended' })
    expect(github.tokens()).toEqual([])
  })

  test('without the token says until when it lives at most', async () => {
    const { clock, revoke } = await open()
    expect(await revoke(undefined)).toEqual({ status: 'lives_until', untilMs: clock.nowMs() + 3_600_000 })
  })

  test('needs neither the root credential nor the repository', async () => {
    const { github, mint, readSecret, revoke } = await open()
    const { handle } = await mint()
    readSecret.mockRejectedValue(new Error('is gone'))
    github.fail(/^(?!DELETE)/, { status: 404 })
    expect(await revoke(handle)).toEqual({ status: 'ended' })
  })

  const cases: readonly (readonly [string, GithubFault, Partial<ConnectorError>])[] = [
    ['a 401 of something in between', { status: 401, body: '<html>Proxy</html>' }, { outcome: 'nothing_done', publicMessage: expect.stringContaining('Something before GitHub asks for credentials of its own') }],
    ['a 401 of another sense', { status: 401, body: { message: 'Requires authentication' } }, { outcome: 'nothing_done' }],
    ['404', { status: 404, body: { message: 'Not Found' } }, { outcome: 'nothing_done', publicMessage: 'GitHub refuses the end of a token (404).' }],
    ['a suspended installation', { status: 403, body: { message: 'This installation has been suspended' } }, { outcome: 'nothing_done', publicMessage: expect.stringContaining('is suspended') }],
    ['a limit', { status: 429, headers: { 'retry-after': '77' } }, { retryAfterSeconds: 77 }],
    ['500', { status: 500 }, { outcome: 'unknown' }],
    ['500 that speaks of credentials', { status: 500, body: { message: 'Bad credentials' } }, { outcome: 'unknown' }],
    ['200', { status: 200, body: {} }, { outcome: 'unknown' }],
    ['a redirect', { status: 302, headers: { location: '/' } }, { outcome: 'unknown' }],
    ['a break', { cut: 'before' }, { outcome: 'unknown' }],
    ['garbage', { status: 200, body: 'Bad credentials' }, { outcome: 'unknown' }],
  ]

  test.each(cases)('is not taken for done after %s', async (_, fault, expected) => {
    const { github, mint, revoke } = await open()
    const { handle } = await mint()
    github.fail(endToken, fault)
    for (let i = 0; i < 10; i++) expect(await readFailure(revoke(handle), github)).toMatchObject(expected)
    expect(github.tokens()).toHaveLength(1)
    github.mend()
    expect(await revoke(handle)).toEqual({ status: 'ended' })
    expect(github.tokens()).toEqual([])
  })

  test('whose answer was lost is found done by the next try', async () => {
    const { github, mint, revoke } = await open()
    const { handle } = await mint()
    github.fail(endToken, { cut: 'after' }, 1)
    expect((await readFailure(revoke(handle), github)).outcome).toBe('unknown')
    expect(await revoke(handle)).toEqual({ status: 'ended' })
  })

  test('stops with the signal, also between two looks', async () => {
    const { github, mint, revoke } = await open()
    const { handle } = await mint()
    github.fail(endToken, { status: 401, body: { message: 'Bad credentials' } })
    const controller = new AbortController()
    const ending = readFailure(revoke(handle, controller.signal), github)
    await vi.waitFor(() => expect(github.requests.at(-1)?.method).toBe('DELETE'), 5_000)
    await setTimeout(100)
    controller.abort()
    expect((await ending).outcome).toBe('unknown')
    expect(github.tokens()).toHaveLength(1)
  })

  test.each(['', '{}', 'ghs_only'])('with a handle that is none fails without showing it: %j', async (text) => {
    const { github, revoke } = await open()
    expect((await readFailure(revoke(new Secret(text)))).publicMessage).toBe('What is kept to end the token cannot be read.')
    expect(github.requests).toEqual([])
  })
})

describe('a check', () => {
  const takes = (github: Github) => `ok GitHub (${new URL(github.url).host}) takes the key of the app triage (12345).`

  test('is content with an app that has just what the actions need', async () => {
    const { github, check } = await open({ accounts: ['acme', 'beta'] })
    expect(await check()).toEqual([takes(github), 'ok The app has just the permissions that the actions of this tool need.', 'ok The app is installed on acme, beta.'])
    expect(github.tokens()).toEqual([])
  })

  test('names what is missing, and what is too much', async () => {
    const { github, check } = await open({ permissions: { issues: 'read', administration: 'write', secrets: 'read', metadata: 'read' } })
    expect(await check()).toEqual([
      takes(github),
      "no The app has not the permission contents:read, issues:write, which actions of this tool need: an admin adds it on the app's settings page.",
      "no The app may do more than it needs: no action of this tool needs administration:write, secrets:read. An admin takes it away on the app's settings page.",
      'no The installation on acme has not accepted contents:read, issues:write yet: an owner of acme does that in its settings.',
    ])
  })

  test('names installations that lag behind, are suspended, or are none', async () => {
    const lagging = await open({ installed: { issues: 'write' } })
    expect((await lagging.check()).slice(2)).toEqual(['no The installation on acme has not accepted contents:read yet: an owner of acme does that in its settings.'])
    const nowhere = await open({ accounts: [] })
    expect((await nowhere.check()).slice(2)).toEqual([expect.stringMatching(/^no The app is installed nowhere/)])
    const suspended = await open({ accounts: ['acme'] })
    suspended.github.fail(/^GET \/app\/installations/, { body: [{ account: { login: 'acme' }, permissions: {}, suspended_at: '2026-01-01T00:00:00Z' }] })
    expect((await suspended.check()).slice(2)).toEqual(['no The installation on acme is suspended: an owner of acme lifts that in its settings.'])
  })

  test.each([
    ['another key', { privateKey: pkcs1() }, "no GitHub does not accept the app's private key"],
    ['no key', { privateKey: 'none' }, "no The GitHub app's private key is not an RSA key in PEM"],
    ['another app', { appId: '999' }, "no GitHub does not accept the app's private key"],
    ['nobody there', { apiUrl: () => 'http://127.0.0.1:9' }, 'no 127.0.0.1:9 cannot be reached'],
  ])('says what is wrong with %s, and does not throw', async (_, options, sentence) => {
    const { check } = await open(options)
    expect(await check()).toEqual([expect.stringContaining(sentence)])
  })

  test.each([
    ['500', { status: 500 }, 'no GitHub does not answer as it should to the app itself (500).'],
    ['garbage', { body: '<html>' }, 'no GitHub does not answer as it should to the app itself (200).'],
    ['another app’s answer', { body: { id: 1, slug: 'other', permissions: {} } }, 'no GitHub takes the key for the app 1, but the catalog file names the app 12345.'],
    ['a limit', { status: 429, headers: { 'retry-after': '5' } }, 'no GitHub limits how often it is called: the app itself is worth another try in 5 seconds.'],
  ])('says what is wrong with %s', async (_, fault, sentence) => {
    const { github, check } = await open()
    github.fail('GET /app', fault)
    expect((await check())[0]).toBe(sentence)
  })
})

test('only the host of api_url is called, and no private one unless the catalog allows it', async () => {
  const arrived = vi.fn<() => void>()
  const url = await listen((_, response) => {
    arrived()
    response.end()
  })
  const parsed = parseTool('tools/github.yaml', `
tool: github
connector: github-app
sensitivity: medium
ttl: { default: 10m, max: 1h }
target: { name: repository, required: true, pattern: ".*" }
config: { app_id: "1", private_key: { from: "env:KEY" }, api_url: "${url}" }
actions: { read: { permissions: { issues: read } } }
`)
  if ('problems' in parsed) throw new Error(inspect(parsed.problems))
  const key = pkcs1()
  const tool = githubAppConnector.open(parsed.tool, createToolContext({ nowMs: () => 0, readSecret: async () => new Secret(key) }))
  onTestFinished(() => tool.close())
  expect(await tool.check(signal)).toEqual([{ ok: false, sentence: expect.stringContaining('plain http is for this machine alone, with private_network: true') }])
  expect(arrived).not.toHaveBeenCalled()
})

test.each(['organization_secrets', 'members', 'team_discussions', 'enterprise_people'])('an action cannot have the permission %s, which reaches beyond any repository', (name) => {
  const parsed = parseTool('tools/github.yaml', `
tool: github
connector: github-app
sensitivity: medium
ttl: { default: 10m, max: 1h }
target: { name: repository, required: true, pattern: ".*" }
config: { app_id: "1", private_key: { from: "env:KEY" } }
actions: { read: { permissions: { ${name}: read } } }
`)
  expect(parsed).toEqual({ problems: [expect.objectContaining({ message: expect.stringContaining('must be a permission on repositories, not on a whole organization') })] })
})
