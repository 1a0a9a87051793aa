import { createPrivateKey, type KeyObject } from 'node:crypto'
import { SignJWT } from 'jose'
import { ConnectorError } from './connector.ts'
import { readRetryAfter, type Outbound } from './outbound.ts'

/** What GitHub answered: judged by whoever asked. */
export interface GithubAnswer {
  readonly status: number
  readonly headers: Headers
  /** The JSON of the body, `undefined` where it is none. */
  readonly body: unknown
  /** What GitHub says in an error, to tell one from another. It is not shown: nobody knows what it quotes. */
  readonly message: string
}

export interface GithubCall {
  readonly method: 'GET' | 'POST' | 'DELETE'
  /** The path's segments, each of which stays one. */
  readonly path: readonly string[]
  readonly query?: Readonly<Record<string, string>>
  /** A token, or the app's own assertion. */
  readonly bearer: string
  readonly body?: object
}

/** Asks GitHub; an answer of any status resolves. Throws the `ConnectorError` of `Outbound`. */
export type AskGithub = (call: GithubCall, signal: AbortSignal) => Promise<GithubAnswer>

export function createAskGithub(outbound: Outbound, apiUrl: string): AskGithub {
  return async ({ method, path, query, bearer, body }, signal) => {
    const url = new URL(`${apiUrl.replace(/\/+$/, '')}/${path.map(encodeSegment).join('/')}`)
    url.search = new URLSearchParams(query).toString()
    const response = await outbound.fetch(url, {
      method,
      headers: {
        authorization: `Bearer ${bearer}`,
        accept: 'application/vnd.github+json',
        'x-github-api-version': '2022-11-28',
        ...(body !== undefined && { 'content-type': 'application/json' }),
      },
      ...(body !== undefined && { body: JSON.stringify(body) }),
      // A repository that has moved is another target, not the one that was allowed.
      redirect: 'manual',
      signal,
    })
    const answer = parseJson(await response.text(), response.headers)
    const message = typeof answer === 'object' && answer !== null && 'message' in answer ? answer.message : undefined
    return { status: response.status, headers: response.headers, body: answer, message: typeof message === 'string' ? message : '' }
  }
}

/** The key as GitHub's settings page gives it (PKCS#1), or as PKCS#8. Throws `ConnectorError` for anything else. */
export function readAppKey(pem: string): KeyObject {
  try {
    // In an environment variable the lines are often kept apart by a backslash and an n.
    const key = createPrivateKey(pem.replaceAll('\\n', '\n'))
    if (key.asymmetricKeyType === 'rsa') return key
  } catch {
    // What cannot be read is not quoted.
  }
  throw new ConnectorError({
    outcome: 'nothing_done',
    publicMessage: "The GitHub app's private key is not an RSA key in PEM: an admin makes one on the app's settings page and stores the whole file.",
  })
}

/** The assertion by which an app speaks for itself. GitHub takes at most 10 minutes, and none that begins ahead of its clock. */
export async function signAppAssertion(key: KeyObject, appId: string, nowMs: number): Promise<string> {
  const nowSeconds = Math.floor(nowMs / 1000)
  return new SignJWT().setProtectedHeader({ alg: 'RS256', typ: 'JWT' }).setIssuer(appId).setIssuedAt(nowSeconds - 60).setExpirationTime(nowSeconds + 480).sign(key)
}

/**
 * An answer that did not do what was asked, whoever it concerns: limits, the app's assertion, GitHub itself. `lost` says that
 * a failure within GitHub leaves open what was done.
 */
export function explainAnswer({ status, headers, message }: GithubAnswer, what: string, nowMs: number, lost: boolean): ConnectorError {
  const limited = status === 429 || (status === 403 && (headers.has('retry-after') || headers.get('x-ratelimit-remaining') === '0' || /rate limit|login attempts/i.test(message)))
  if (limited) {
    const retryAfterSeconds = readRetryAfter(headers, nowMs) ?? readReset(headers, nowMs) ?? 60
    return refuse(`GitHub limits how often it is called: ${what} is worth another try in ${retryAfterSeconds} seconds.`, retryAfterSeconds)
  }
  if (status === 403 && /suspended/i.test(message)) {
    return refuse(`GitHub refuses ${what}, for the app's installation is suspended: an owner of the account lifts that in the settings of the installation.`)
  }
  if (status === 404 && /integration not found/i.test(message)) return refuse("GitHub has no app with the app_id of the tool's catalog file: an admin corrects it.")
  if (status === 401 && /'(?:expiration time|issued at)' claim/i.test(message)) return refuse("GitHub does not accept the time in the app's assertion: the clock of Stint's machine is wrong.")
  if (status === 401) {
    return refuse("GitHub does not accept the app's private key: an admin compares app_id and private_key in the tool's catalog file with the app's settings page.")
  }
  const refused = status >= 400 && status < 500 && status !== 408
  return new ConnectorError({
    outcome: lost && !refused ? 'unknown' : 'nothing_done',
    publicMessage: refused ? `GitHub refuses ${what} (${status}).` : `GitHub does not answer as it should to ${what} (${status}).`,
  })
}

/** When the limit of calls ends, where the answer tells. */
function readReset(headers: Headers, nowMs: number): number | undefined {
  const text = headers.get('x-ratelimit-reset') ?? ''
  return /^\d{1,12}$/.test(text) ? Math.min(Math.max(Math.ceil(Number(text) - nowMs / 1000), 1), 86_400) : undefined
}

function encodeSegment(segment: string): string {
  // They would be taken for a step within the path, encoded or not.
  if (/^\.{0,2}$/.test(segment)) throw refuse('A part of a path to GitHub is empty, or dots.')
  return encodeURIComponent(segment)
}

function parseJson(text: string, headers: Headers): unknown {
  if (!/^application\/(?:[\w.-]+\+)?json\b/i.test(headers.get('content-type') ?? '')) return undefined
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

function refuse(publicMessage: string, retryAfterSeconds?: number): ConnectorError {
  return new ConnectorError({ outcome: 'nothing_done', publicMessage, ...(retryAfterSeconds !== undefined && { retryAfterSeconds }) })
}
