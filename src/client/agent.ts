import { isObject, readObject, readObjects } from './answer.ts'
import { clientAssertionType, signAssertion } from './assertion.ts'
import { discoverBroker, type BrokerMetadata } from './discovery.ts'
import { clientError, StintError } from './errors.ts'
import { createSender, type ApiAnswer, type ConnectionOptions } from './http.ts'
import type { AgentKey } from './key.ts'

/** One workload at one broker. */
export interface AgentClientOptions extends ConnectionOptions {
  /** The workload's name; its SPIFFE ID follows from the broker's trust domain. Either this or `clientId`. */
  readonly workload?: string | undefined
  /** The workload's SPIFFE ID. */
  readonly clientId?: string | undefined
  readonly key: AgentKey
  /** Milliseconds since the epoch; the machine's clock by default. */
  readonly clock?: { nowMs(): number } | undefined
}

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

/** RFC 7662 §2.2: of a token that is not active, or not this caller's business, nothing but `active: false` is said. */
export interface Introspection {
  readonly active: boolean
  readonly [member: string]: unknown
}

/** An agent's side of the broker: every request proves the workload anew, with a fresh assertion. */
export interface AgentClient {
  /** The workload's SPIFFE ID at this broker. */
  clientId(): Promise<string>
  requestToken(request: TokenRequest): Promise<AgentToken>
  introspect(token: string): Promise<Introspection>
  /** Ends the token. A token that is unknown or has ended is no error (RFC 7009 §2.2). */
  revoke(token: string): Promise<void>
}

const metadataLifetimeMs = 3_600_000
const clockSkewMs = 5_000

/** Makes a client for one workload at one broker. Throws `invalid_option` at once for options that cannot work. */
export function createAgentClient(options: AgentClientOptions): AgentClient {
  const sender = createSender(options)
  const nowMs = (): number => options.clock?.nowMs() ?? Date.now()
  if ((options.workload === undefined) === (options.clientId === undefined)) {
    throw clientError('invalid_option', 'give either the name of the workload or its clientId (SPIFFE ID), not both.')
  }
  if (options.workload !== undefined && !/^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/.test(options.workload)) {
    const message = "a workload's name is a DNS label: lower-case letters, digits and dashes, 63 at most."
    throw clientError('invalid_option', message)
  }
  if (options.clientId !== undefined && !/^spiffe:\/\/[a-z0-9._-]+\/[\w.-]+$/.test(options.clientId)) {
    throw clientError('invalid_option', 'clientId must be a SPIFFE ID: spiffe://<trust domain>/<workload>.')
  }

  let known: { readonly metadata: Promise<BrokerMetadata>; readonly untilMs: number } | undefined
  function discover(): Promise<BrokerMetadata> {
    if (known !== undefined && nowMs() < known.untilMs) return known.metadata
    const asked = { metadata: discoverBroker(sender), untilMs: nowMs() + metadataLifetimeMs }
    known = asked
    // A failure is not remembered: the next request asks again.
    asked.metadata.catch(() => {
      if (known === asked) known = undefined
    })
    return asked.metadata
  }

  async function post(
    pathOf: (metadata: BrokerMetadata) => string,
    form: Readonly<Record<string, string | undefined>>,
  ): Promise<ApiAnswer> {
    const metadata = await discover()
    const clientId = idOf(metadata)
    const sentAtMs = nowMs()
    const assertion = await signAssertion(options.key, clientId, metadata.issuer, sentAtMs)
    try {
      return await sender.send({
        method: 'POST',
        path: pathOf(metadata),
        form: { ...form, client_assertion_type: clientAssertionType, client_assertion: assertion },
      })
    } catch (error) {
      throw error instanceof StintError ? explainClock(error, sentAtMs) : error
    }
  }

  function idOf(metadata: BrokerMetadata): string {
    return options.clientId ?? `spiffe://${metadata.trustDomain}/${options.workload ?? ''}`
  }

  return {
    async clientId() {
      return options.clientId ?? idOf(await discover())
    },

    async requestToken(request) {
      const askedAtMs = nowMs()
      const answer = await post((metadata) => metadata.tokenPath, {
        grant_type: 'client_credentials',
        ...describeAccess(request),
        resource: request.resource,
      })
      return readToken(answer, askedAtMs)
    },

    async introspect(token) {
      const { body } = await post((metadata) => metadata.introspectionPath, { token: checkToken(token) })
      const members = readObject(body, { active: 'boolean' }, 'an introspection')
      return { ...members, active: members['active'] === true }
    },

    async revoke(token) {
      await post((metadata) => metadata.revocationPath, { token: checkToken(token) })
    },
  }
}

/** Actions alone are a `scope`; whatever says more is one element of `authorization_details` (RFC 9396 §2). */
function describeAccess(request: TokenRequest): Record<string, string | undefined> {
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

function readToken(answer: ApiAnswer, askedAtMs: number): AgentToken {
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
  const index = answer.headers.get('stint-audit-index')
  return {
    accessToken,
    tokenType: 'Bearer',
    expiresIn,
    expiresAt: new Date(Math.min(askedAtMs + expiresIn * 1000, readExpiryMs(accessToken) ?? Infinity)),
    scope: typeof body['scope'] === 'string' ? body['scope'] : '',
    authorizationDetails: readObjects(body['authorization_details'] ?? [], { type: 'string' }, 'a token').filter(isObject),
    auditIndex: index !== null && /^\d{1,15}$/.test(index) ? Number(index) : undefined,
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

function checkToken(token: string): string {
  if (!isToken(token)) throw clientError('invalid_option', 'the token is malformed: it must be exactly as it was received.')
  return token
}

/**
 * A wrong clock is the one common cause of `invalid_client` that this side can see, and the broker must not name
 * (invariant 10): compare with the answer's `Date`.
 */
function explainClock(error: StintError, sentAtMs: number): StintError {
  if (error.code !== 'invalid_client' || error.answeredAtMs === undefined) return error
  const aheadMs = sentAtMs - error.answeredAtMs
  if (Math.abs(aheadMs) <= clockSkewMs) return error
  const seconds = Math.round(Math.abs(aheadMs) / 1000)
  return new StintError({
    ...error,
    message: `${error.message} (This machine's clock is ${seconds} s ${aheadMs > 0 ? 'ahead of' : 'behind'} the broker's.)`,
  })
}
