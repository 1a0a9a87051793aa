import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
import { CommandError, type Io } from './command.ts'
import { askIssuer, requireIdToken, type Issuer } from './login-issuer.ts'

const answerMsMax = 300_000
const path = '/callback'

/**
 * An ID token by the authorization code flow with PKCE (RFC 7636) for a native application (RFC 8252): the person signs in
 * in a browser of this machine, which brings the answer to a port that listens for this one time.
 */
export async function signInByBrowser(issuer: Issuer, io: Io, { open }: { readonly open: boolean }): Promise<string> {
  const { oidc, configuration, scope } = issuer
  const [verifier, state, nonce] = [oidc.randomPKCECodeVerifier(), oidc.randomState(), oidc.randomNonce()]
  const receiver = await listenForAnswer(state)
  try {
    const url = oidc.buildAuthorizationUrl(configuration, {
      redirect_uri: receiver.redirectUri,
      scope,
      state,
      nonce,
      code_challenge: await oidc.calculatePKCECodeChallenge(verifier),
      code_challenge_method: 'S256',
    })
    io.err(`Sign in on this page, in a browser on this machine:\n\n  ${url.href}\n\n`)
    if (open) openPage(url.href, io)
    const answer = await receiver.answer
    const checks = { pkceCodeVerifier: verifier, expectedState: state, expectedNonce: nonce, idTokenExpected: true }
    const tokens = await askIssuer(issuer, () => oidc.authorizationCodeGrant(configuration, answer, checks))
    return requireIdToken(issuer, tokens.id_token)
  } finally {
    receiver.close()
  }
}

interface Receiver {
  readonly redirectUri: string
  /** The address, with its parameters, at which the answer arrived. Rejects when it does not come in time. */
  readonly answer: Promise<URL>
  close(): void
}

/** RFC 8252 §7.3: on loopback alone, by address and not by name, on a port that the system chooses. */
async function listenForAnswer(state: string): Promise<Receiver> {
  const server = createServer({ requestTimeout: 10_000, maxHeaderSize: 64 * 1024 })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (typeof address !== 'object' || address === null) throw new Error('the loopback server has no port')
  const origin = `http://127.0.0.1:${address.port}`
  let timer: NodeJS.Timeout | undefined
  const answer = new Promise<URL>((resolve, reject) => {
    timer = setTimeout(() => reject(new CommandError('nobody signed in within five minutes: run stint login again')), answerMsMax)
    server.on('request', ({ method, url: target = '/' }, response) => {
      const url = URL.canParse(target, origin) ? new URL(target, origin) : undefined
      const isAnswer = method === 'GET' && url?.origin === origin && url.pathname === path
      // Whatever else runs on this machine can ask here too: only who knows the state brings the answer.
      if (!isAnswer || url.searchParams.get('state') !== state) return sendPage(response, 404, 'There is nothing here.')
      sendPage(response, 200, 'Stint has the answer. You can close this window and go back to the terminal.')
      resolve(url)
    })
  })
  // Where building the page fails first, nobody waits for it any more.
  answer.catch(() => undefined)
  return {
    redirectUri: `${origin}${path}`,
    answer,
    close() {
      clearTimeout(timer)
      server.close()
      server.closeIdleConnections()
    },
  }
}

function sendPage(response: ServerResponse, status: number, text: string): void {
  response.writeHead(status, {
    'content-type': 'text/html; charset=utf-8',
    'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
    'cache-control': 'no-store',
    'referrer-policy': 'no-referrer',
    'x-content-type-options': 'nosniff',
    connection: 'close',
  })
  response.end(`<!doctype html><html lang="en"><title>Stint</title><p>${text}</p></html>\n`)
}

/** Opens the page where that works; the address was printed for where it does not. */
function openPage(url: string, { env }: Io): void {
  const [command, ...args] = openerOf(env)
  const child = spawn(command, [...args, url], { stdio: 'ignore', detached: true })
  child.on('error', () => undefined)
  child.unref()
}

function openerOf(env: Io['env']): readonly [string, ...string[]] {
  const chosen = env['BROWSER']
  if (chosen !== undefined && chosen !== '') return [chosen]
  if (process.platform === 'darwin') return ['open']
  // `start` would read the address as a command line.
  return process.platform === 'win32' ? ['rundll32', 'url.dll,FileProtocolHandler'] : ['xdg-open']
}

/** Whether a browser can be shown where this runs. */
export function hasBrowser({ env }: Pick<Io, 'env'>): boolean {
  const isSet = (name: string): boolean => env[name] !== undefined && env[name] !== ''
  if (isSet('BROWSER')) return true
  if (isSet('SSH_CONNECTION')) return false
  return process.platform === 'darwin' || process.platform === 'win32' || isSet('DISPLAY') || isSet('WAYLAND_DISPLAY')
}
