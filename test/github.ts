import { generateKeyPairSync } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { setTimeout } from 'node:timers/promises'
import { createEmulator } from 'emulate'
import { jwtVerify, SignJWT } from 'jose'
import { onTestFinished } from 'vitest'
import { systemClock, type Clock } from '../src/kernel/clock.ts'
import { listen } from './listen.ts'

/** What of a call arrived at GitHub. */
export interface GithubRequest {
  readonly method: string
  readonly path: string
  readonly body: unknown
  /** The token or assertion, without `Bearer`. */
  readonly bearer: string
}

export interface GithubFault {
  readonly status?: number
  readonly headers?: Readonly<Record<string, string>>
  /** Text is sent as it is; of an answer that GitHub gave, what it is to be instead. */
  readonly body?: string | object | ((answer: Readonly<Record<string, unknown>>) => object)
  readonly delayMs?: number
  /** The connection breaks: before GitHub has heard of the call, after it has done it, or in the middle of the answer. */
  readonly cut?: 'before' | 'after' | 'half'
}

export interface Github {
  /** The `api_url` of a catalog file; it needs `private_network: true`. */
  readonly url: string
  readonly appId: string
  /** PKCS#1, as GitHub's settings page gives it. */
  readonly privateKey: string
  /** All that arrived, in order. */
  readonly requests: readonly GithubRequest[]
  /** The installation tokens that are alive: by it a test sees that nothing was left. */
  tokens(): readonly string[]
  /** From now on, calls of this method and path (`GET /app`) go wrong so, as many times. */
  fail(call: string | RegExp, fault: GithubFault, times?: number): void
  mend(): void
}

export interface GithubOptions {
  readonly clock?: Clock
  /** What the app may do, and its installations too unless `installed` says otherwise. */
  readonly permissions?: Readonly<Record<string, string>>
  readonly installed?: Readonly<Record<string, string>>
  /** Without any, the app is installed nowhere. */
  readonly accounts?: readonly string[]
}

const appId = 12_345
const tokenSeconds = 3_600
const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
const repositories = ['website', 'payroll', 'Docs.v2']

/**
 * GitHub of `emulate`: the accounts `acme` and `beta`, each with the private repositories `website`, `payroll` and `Docs.v2`,
 * an issue in each, and an app that is installed on `website` and `Docs.v2` of those that `accounts` names.
 *
 * The emulator lacks what a broker depends on, so that a proxy stands in front of it and adds that: `DELETE
 * /installation/token` really ends the token, which from then on is answered 401 "Bad credentials" everywhere, as is a token
 * that was never made or whose hour is over (the emulator takes any unknown token for its first user's); an app's assertion
 * is judged by GitHub's rules (ten minutes, not ahead of the clock); and all that by the clock of the test. Permissions on
 * private repositories are the emulator's own doing. Faults that no emulator has are injected there, too.
 */
export async function startGithub({ clock = systemClock, permissions = { issues: 'write', contents: 'read', metadata: 'read' }, installed, accounts = ['acme'] }: GithubOptions = {}): Promise<Github> {
  const pem = privateKey.export({ type: 'pkcs1', format: 'pem' }).toString()
  const owners = ['acme', 'beta']
  const emulator = await createEmulator({
    service: 'github',
    port: 0,
    seed: {
      tokens: Object.fromEntries(owners.map((login) => [`owner-${login}`, { login, scopes: ['repo'] }])),
      github: {
        users: owners.map((login) => ({ login })),
        repos: owners.flatMap((owner) => repositories.map((name) => ({ owner, name, private: true }))),
        apps: [
          {
            app_id: appId,
            slug: 'triage',
            name: 'Triage',
            private_key: pem,
            permissions,
            installations: accounts.map((account, i) => ({
              installation_id: 700 + i,
              account,
              repository_selection: 'selected',
              repositories: [`${account}/website`, `${account}/Docs.v2`],
              permissions: installed ?? permissions,
            })),
          },
        ],
      },
    },
  })
  onTestFinished(() => emulator.close())
  for (const owner of owners) {
    for (const repository of repositories) {
      const headers = { authorization: `Bearer owner-${owner}`, 'content-type': 'application/json' }
      const made = await fetch(`${emulator.url}/repos/${owner}/${repository}/issues`, { method: 'POST', headers, body: JSON.stringify({ title: `An issue of ${repository}` }) })
      if (made.status !== 201) throw new Error(`no issue: ${made.status}`)
    }
  }

  const requests: GithubRequest[] = []
  const diesAtMs = new Map<string, number>()
  let faults: { readonly call: string | RegExp; readonly fault: GithubFault; left: number }[] = []

  const isAlive = (token: string) => (diesAtMs.get(token) ?? 0) > clock.nowMs()

  /** The assertion as the emulator takes it, which knows no clock but the machine's; or GitHub's word against it. */
  async function translateAssertion(assertion: string): Promise<{ readonly bearer: string } | { readonly message: string }> {
    const currentDate = new Date(clock.nowMs())
    try {
      const { payload } = await jwtVerify(assertion, publicKey, { algorithms: ['RS256'], currentDate, requiredClaims: ['iat', 'exp', 'iss'] })
      const { iat = 0, exp = 0, iss = '' } = payload
      if (iat > clock.nowMs() / 1000) return { message: "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued" }
      if (exp - clock.nowMs() / 1000 > 600) return { message: "'Expiration time' claim ('exp') is too far in the future" }
      if (iss !== String(appId)) return { message: 'A JSON web token could not be decoded' }
      return { bearer: await new SignJWT().setProtectedHeader({ alg: 'RS256' }).setIssuer(iss).setIssuedAt().setExpirationTime('5m').sign(privateKey) }
    } catch (error) {
      const expired = error instanceof Error && 'code' in error && error.code === 'ERR_JWT_EXPIRED'
      return { message: expired ? "'Expiration time' claim ('exp') must be a numeric value representing the future time at which the assertion expires" : 'A JSON web token could not be decoded' }
    }
  }

  async function answer({ method, path, bearer, body }: GithubRequest): Promise<{ status: number; body: unknown }> {
    const refuse = (status: number, message: string) => ({ status, body: { message, documentation_url: 'https://docs.github.com/rest', status: String(status) } })
    const assertion = bearer.startsWith('eyJ')
    if (!assertion && !isAlive(bearer)) return refuse(401, bearer === '' ? 'Requires authentication' : 'Bad credentials')
    if (`${method} ${path}` === 'DELETE /installation/token') {
      if (assertion) return refuse(404, 'Not Found')
      diesAtMs.delete(bearer)
      return { status: 204, body: undefined }
    }
    const translated = assertion ? await translateAssertion(bearer) : { bearer }
    if ('message' in translated) return refuse(401, translated.message)
    const response = await fetch(`${emulator.url}${path}`, {
      method,
      headers: { authorization: `Bearer ${translated.bearer}`, 'content-type': 'application/json' },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    })
    const text = await response.text()
    const made = text === '' ? undefined : JSON.parse(text)
    if (response.status !== 201 || !path.endsWith('/access_tokens')) return { status: response.status, body: made }
    diesAtMs.set(made.token, clock.nowMs() + tokenSeconds * 1000)
    return { status: 201, body: { ...made, expires_at: new Date(clock.nowMs() + tokenSeconds * 1000).toISOString().replace(/\.\d+Z/, 'Z') } }
  }

  function takeFault({ method, path }: GithubRequest): GithubFault | undefined {
    const call = `${method} ${path}`
    const found = faults.find((one) => one.left > 0 && (typeof one.call === 'string' ? one.call === call : one.call.test(call)))
    if (found !== undefined) found.left -= 1
    return found?.fault
  }

  async function handle(message: IncomingMessage, response: ServerResponse): Promise<void> {
    const text = Buffer.concat(await message.toArray()).toString()
    const request: GithubRequest = {
      method: message.method ?? '',
      path: message.url ?? '',
      bearer: (message.headers.authorization ?? '').replace(/^(?:bearer|token) /i, ''),
      body: text === '' ? undefined : JSON.parse(text),
    }
    requests.push(request)
    const { status, headers, body, delayMs = 0, cut } = takeFault(request) ?? {}
    if (cut === 'before') return void message.socket.destroy()
    // A status of its own, or a body that is no change of GitHub's, is instead of GitHub.
    const instead = (status !== undefined || body !== undefined) && typeof body !== 'function'
    const given = instead ? { status: status ?? 200, body } : await answer(request)
    if (delayMs > 0) await setTimeout(delayMs)
    if (cut === 'after') return void message.socket.destroy()
    const changed = typeof body === 'function' && typeof given.body === 'object' ? body({ ...given.body }) : given.body
    const bytes = changed === undefined ? '' : typeof changed === 'string' ? changed : JSON.stringify(changed)
    const type = typeof changed === 'string' ? 'text/html' : 'application/json; charset=utf-8'
    response.writeHead(given.status, { ...(bytes !== '' && { 'content-type': type }), 'content-length': Buffer.byteLength(bytes), ...headers })
    if (cut === 'half') response.write(bytes.slice(0, bytes.length / 2), () => message.socket.destroy())
    else response.end(bytes)
  }

  const url = await listen((message, response) => {
    handle(message, response).catch((error: unknown) => response.destroy(error instanceof Error ? error : undefined))
  })
  return {
    url,
    appId: String(appId),
    privateKey: pem,
    requests,
    tokens: () => [...diesAtMs.keys()].filter(isAlive),
    fail: (call, fault, times = Infinity) => void faults.unshift({ call, fault, left: times }),
    mend: () => void (faults = []),
  }
}
