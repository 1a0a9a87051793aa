import { isObject, readAuditIndex, readObject, readObjects } from './answer.ts'
import { clientError } from './errors.ts'
import type { ApiAnswer } from './http.ts'

/** What a token is asked for. */
export interface TokenRequest {
  /** Full names, `tool:verb`, all of one tool. */
  readonly actions: readonly string[]
  /** The one object within the tool that the work is about. */
  readonly target?: string | undefined
  /** Whole seconds; the tool's default where absent. */
  readonly ttlSeconds?: number | undefined
  /** The caller's own name for the piece of work. */
  readonly task?: string | undefined
  /** The tool's audience (RFC 8707); the actions' tool where absent. */
  readonly resource?: string | undefined
}

/** What was granted, which may be less than what was asked. */
export interface AgentToken {
  readonly accessToken: string
  readonly tokenType: 'Bearer'
  /** Seconds from the answer on. */
  readonly expiresIn: number
  /** Counted from before the request was sent by this machine's clock, and never later than the token's own `exp`. */
  readonly expiresAt: Date
  readonly scope: string
  readonly authorizationDetails: readonly Readonly<Record<string, unknown>>[]
  /** Index of the audit entry that records the grant, where the broker named it. */
  readonly auditIndex: number | undefined
}

/** Actions alone are a `scope`; whatever says more is one element of `authorization_details` (RFC 9396 §2). */
export function describeAccess(request: TokenRequest): Record<string, string | undefined> {
  const { actions, target, task, ttlSeconds } = request
  if (actions.length === 0) throw clientError('invalid_option', 'name at least one action, tool:verb.')
  for (const action of actions) {
    // A space would make two actions of one, a quote or backslash is no scope token (RFC 6749 §3.3).
    if (!/^[\x21\x23-\x5b\x5d-\x7e]{1,256}$/.test(action)) {
      throw clientError('invalid_option', 'an action is written tool:verb, without spaces.')
    }
  }
  if (ttlSeconds !== undefined && (!Number.isSafeInteger(ttlSeconds) || ttlSeconds < 1)) {
    throw clientError('invalid_option', 'ttlSeconds must be a whole number of seconds, at least 1.')
  }
  if (target === undefined && task === undefined && ttlSeconds === undefined) return { scope: actions.join(' ') }
  const detail = {
    type: 'stint',
    actions,
    ...(target !== undefined && { target }),
    ...(task !== undefined && { task }),
    ...(ttlSeconds !== undefined && { ttl_seconds: ttlSeconds }),
  }
  return { authorization_details: JSON.stringify([detail]) }
}

/** The token in an answer. Throws `bad_answer` for one of a kind that must not be used. */
export function readToken(answer: ApiAnswer, askedAtMs: number): AgentToken {
  const shape = {
    access_token: 'string',
    token_type: 'string',
    expires_in: 'number',
    scope: 'string?',
    authorization_details: 'array?',
  } as const
  const body = readObject(answer.body, shape, 'a token')
  const accessToken = String(body['access_token'])
  const expiresIn = Number(body['expires_in'])
  // RFC 6749 §7.1: a token of a type that is not understood must not be used. The lifetime is bounded so that it is a date.
  if (String(body['token_type']).toLowerCase() !== 'bearer') throw clientError('bad_answer', 'the token is no Bearer token.')
  if (!isToken(accessToken)) throw clientError('bad_answer', 'the token in the answer is malformed.')
  if (!(expiresIn >= 0 && expiresIn <= 1e9)) throw clientError('bad_answer', 'the lifetime in the answer is out of range.')
  return {
    accessToken,
    tokenType: 'Bearer',
    expiresIn,
    expiresAt: new Date(Math.min(askedAtMs + expiresIn * 1000, readExpiryMs(accessToken) ?? Infinity)),
    scope: typeof body['scope'] === 'string' ? body['scope'] : '',
    authorizationDetails: readObjects(body['authorization_details'] ?? [], { type: 'string' }, 'a token').filter(isObject),
    auditIndex: readAuditIndex(answer.headers).audit_index,
  }
}

/** `exp` of a JWT (RFC 7519 §4.1.4) in milliseconds; `undefined` for an opaque token. Unverified: it only ever shortens. */
function readExpiryMs(accessToken: string): number | undefined {
  try {
    const claims: unknown = JSON.parse(Buffer.from(accessToken.split('.')[1] ?? '', 'base64url').toString('utf8'))
    const exp = isObject(claims) ? claims['exp'] : undefined
    return typeof exp === 'number' && exp >= 0 && exp <= 1e11 ? exp * 1000 : undefined
  } catch {
    return undefined
  }
}

/** RFC 6750 §2.1 `b64token`: what may stand in a header, and all that a broker's token may be. */
function isToken(text: string): boolean {
  return /^[\w.~+/-]+=*$/.test(text)
}

/** The token, if it is what a token may be; throws `invalid_option` otherwise. */
export function checkToken(token: string): string {
  if (!isToken(token)) throw clientError('invalid_option', 'the token is malformed: it must be exactly as it was received.')
  return token
}
