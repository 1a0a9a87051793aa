import { describe, expect, test } from 'vitest'
import { routes } from '../../src/http/app.ts'
import { isNormalPath } from '../../src/http/limits.ts'
import { takesAgents, type Route } from '../../src/http/route.ts'
import { pathOf } from '../http/admin-requests.ts'
import { head, listen, statusesIn, type Listening } from './wire.ts'

const guarded = routes.filter(({ access }) => access !== 'anyone')

/** Other ways to write an address, some of which some servers take for the same. */
function respell(path: string): string[] {
  const last = path.lastIndexOf('/')
  const [before, after] = [path.slice(0, last), path.slice(last + 1)]
  const escapeFirst = (text: string) => `%${text.charCodeAt(0).toString(16)}${text.slice(1)}`
  return [
    `/${path}`,
    `${path}/`,
    `${path}//`,
    `${before}//${after}`,
    `${before}/./${after}`,
    `${before}/x/../${after}`,
    `/healthz/..${path}`,
    `/healthz/%2e%2e${path}`,
    `/healthz/%2E%2E${path}`,
    `/healthz/.%2e${path}`,
    `/healthz%2f..${path}`,
    `/healthz/..%2f${path.slice(1)}`,
    `/healthz/..;${path}`,
    `/healthz/%252e%252e${path}`,
    `/healthz/%c0%ae%c0%ae${path}`,
    `/healthz/..%c0%af${path.slice(1)}`,
    `/oauth2/jwks/..%5c..${path}`,
    path.replaceAll('/', '\\'),
    `${before}%2f${after}`,
    `${before}%2F${after}`,
    `${before}%5c${after}`,
    `${before}%252f${after}`,
    `${before};x=/${after}`,
    `${path};x`,
    `${path}%3bx`,
    `${path}%00`,
    `${path}%00.css`,
    `${path}%20`,
    `${path}%0a`,
    `${path}%`,
    `${path}%zz`,
    `${path}%3f`,
    `${path}%23`,
    `${path}.json`,
    `${path}#x`,
    `${before}/${escapeFirst(after)}`,
    `${before}/${escapeFirst(after).toUpperCase()}`,
    `/${escapeFirst(path.slice(1))}`,
    path.toUpperCase(),
    path.replace(/[a-z]/, (letter) => letter.toUpperCase()),
    `http://a${path}`,
    `https://a${path}`,
    `//a${path}`,
    `/http://a${path}`,
    `*${path}`,
    path.slice(1),
  ].filter((spelling) => spelling !== path)
}

/** The statuses of requests for each address, none with a body. */
async function ask({ exchange }: Listening, method: string, targets: readonly string[], headers = ''): Promise<number[]> {
  return Promise.all(
    targets.map(async (target) => {
      const answer = await exchange(head(`${method} ${target} HTTP/1.1\nhost: a\n${headers}connection: close`))
      const statuses = statusesIn(answer)
      expect([target, statuses.length]).toEqual([target, 1])
      return statuses[0] ?? 0
    }),
  )
}

const outcome = (targets: readonly string[], statuses: readonly number[], allowed: readonly number[]) =>
  targets.flatMap((target, i) => (allowed.includes(statuses[i] ?? 0) ? [] : [[target, statuses[i]]]))

describe('No other spelling of a guarded address', () => {
  const each = (route: Route) => ({ ...route, at: pathOf(route) })

  test('is answered to a stranger, and none does anything for an admin', async () => {
    const listening = await listen()
    await listening.broker.register('bot')
    const before = await listening.broker.events()
    const authorization = `authorization: Bearer ${listening.broker.adminCredential}\n`
    for (const { method, at, access } of guarded.map(each)) {
      const targets = respell(at)
      // The address itself first, so that the rest means something.
      expect([method, at, await ask(listening, method, [at])]).toEqual([method, at, [at.startsWith('/oauth2/') ? 400 : at === '/v1/keys/rotate' ? 415 : 401]])
      expect([method, at, outcome(targets, await ask(listening, method, targets), [400, 401, 404, 405])]).toEqual([method, at, []])
      expect([method, at, outcome(targets, await ask(listening, method, targets, authorization), takesAgents(access) ? [400, 401, 404, 405] : [400, 404, 405])]).toEqual([method, at, []])
    }
    expect(await listening.broker.events()).toEqual(before)
  }, 120_000)

  test('nor a header that some servers take for another address or method', async () => {
    const listening = await listen()
    const headers = [
      'x-http-method-override: OPTIONS',
      'x-http-method: GET',
      'x-method-override: HEAD',
      'x-original-url: /healthz',
      'x-rewrite-url: /healthz',
      'x-forwarded-prefix: /healthz',
      'x-forwarded-path: /healthz',
      'x-forwarded-uri: /healthz',
      'x-accel-redirect: /v1/workloads',
      'x-middleware-subrequest: src/middleware',
    ]
    for (const header of headers) {
      for (const { method, at } of guarded.map(each).filter(({ access }) => typeof access !== 'string')) {
        expect([header, at, await ask(listening, method, [at], `${header}\n`)]).toEqual([header, at, [401]])
      }
      // Nor the other way round: what is open does not become something else.
      expect(await ask(listening, 'GET', ['/healthz'], `${header.replace('/healthz', '/v1/workloads')}\n`)).toEqual([200])
      expect(await ask(listening, 'POST', ['/healthz'], `${header}\ncontent-length: 0\n`)).toEqual([405])
    }
    expect(await ask(listening, 'GET', ['/v1/workloads?_method=OPTIONS', '/v1/workloads?_method=HEAD'])).toEqual([401, 401])
  }, 60_000)

  test('and a parameter of a path is one segment and nothing else', async () => {
    const listening = await listen()
    const { broker } = listening
    await broker.register('bot')
    const names = ['bot%2fsuspend', 'bot%2Fsuspend', 'bot%5csuspend', 'bot%252fsuspend', 'bot;suspend', 'bot%00', 'bot%0a', '..', '.', '%2e', '%2e%2e', '__proto__', 'constructor', 'Bot', 'b%6ft', '%62ot', 'bot%20', 'bot,', '*', 'ｂｏｔ', '%ef%bd%82ot', 'b%c3%b6t']
    const authorization = `authorization: Bearer ${broker.adminCredential}\n`
    const json = `${authorization}content-type: application/json\n`
    for (const name of names) {
      expect([name, outcome([name], await ask(listening, 'GET', [`/v1/workloads/${name}`], authorization), [400, 404])]).toEqual([name, []])
      expect([name, outcome([name], await ask(listening, 'POST', [`/v1/workloads/${name}`], json), [400, 404, 405])]).toEqual([name, []])
    }
    const seen = (await (await broker.sendAsAdmin('GET', '/v1/workloads/bot')).json()) as { status: string }
    expect(seen.status).toBe('active')
  })
})

test.each([
  ['/', true],
  ['/v1/workloads', true],
  ['/.well-known/oauth-authorization-server', true],
  ['/v1/sessions/oidc:alice', true],
  ['/v1/sessions/oidc%3Aalice', true],
  ['/v1/tasks/case%2042', true],
  ['/v1/tasks/caf%C3%A9', true],
  ['/v1/tasks/100%25', true],
  ['/v1/tasks/caf%c3%a9', false],
  ['/v1/tasks/case+42', true],
  ['/v1/tasks/a%2Fb', false],
  ['/v1/tasks/a%3Fb', false],
  ['/v1/tasks/a%ff', false],
  ['/v1/...', true],
  ['/v1/..', false],
  ['', false],
  ['*', false],
  ['v1', false],
  ['/v1/', false],
])('%s is normal: %s', (path, normal) => {
  expect(isNormalPath(path)).toBe(normal)
})
