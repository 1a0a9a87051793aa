import { readAuditIndex, readObject } from './answer.ts'
import { clientAssertionType, signAssertion } from './assertion.ts'
import { discoverBroker, type BrokerMetadata } from './discovery.ts'
import { clientError, StintError } from './errors.ts'
import { createSender, type ApiAnswer, type ApiRequest, type ConnectionOptions } from './http.ts'
import type { AgentKey } from './key.ts'
import { createOwnGrantMethods, type OwnGrantMethods } from './own-grants.ts'
import { signProof } from './proof.ts'
import { checkToken, describeAccess, readToken, type AgentToken, type TokenRequest } from './token.ts'

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

/** RFC 7662 §2.2: of a token that is not active, or not this caller's business, nothing but `active: false` is said. */
export interface Introspection {
  readonly active: boolean
  readonly [member: string]: unknown
}

/** A new key in place of the one that the client has. */
export interface KeyRotation {
  readonly kid: string
  readonly replaces: string
  /** Until then the replaced key proves the workload too. */
  readonly until: Date
  /** Index of the audit entry; `undefined` where the rotation had been done before. */
  readonly auditIndex: number | undefined
}

/** An agent's side of the broker: every request proves the workload anew, with a fresh assertion. */
export interface AgentClient extends OwnGrantMethods {
  /** The workload's SPIFFE ID at this broker. */
  clientId(): Promise<string>
  requestToken(request: TokenRequest): Promise<AgentToken>
  introspect(token: string): Promise<Introspection>
  /** Ends the token. A token that is unknown or has ended is no error (RFC 7009 §2.2). */
  revoke(token: string): Promise<void>
  /**
   * Registers a new key in place of the client's own, which goes on proving the workload for the overlap: an hour, or the
   * given 0 to 86,400 seconds. After a lost answer it may be called again with the same new key, which must be kept
   * before the first call. This client goes on with its own key: make another one with the new key.
   */
  rotateKey(newKey: AgentKey, overlapSeconds?: number): Promise<KeyRotation>
  /** Whether the client's key proves the workload now. */
  provesWorkload(): Promise<boolean>
}

/** By which a request without a form carries its proof. */
const assertionHeader = 'client-assertion'
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

  /** Sends what `make` makes of a fresh assertion. */
  async function prove(
    make: (assertion: string, metadata: BrokerMetadata, sentAtMs: number) => ApiRequest | Promise<ApiRequest>,
  ): Promise<ApiAnswer> {
    const metadata = await discover()
    const sentAtMs = nowMs()
    const assertion = await signAssertion(options.key, idOf(metadata), metadata.issuer, sentAtMs)
    try {
      return await sender.send(await make(assertion, metadata, sentAtMs))
    } catch (error) {
      throw error instanceof StintError ? explainClock(error, sentAtMs) : error
    }
  }

  function post(pathOf: (metadata: BrokerMetadata) => string, form: Readonly<Record<string, string | undefined>>): Promise<ApiAnswer> {
    return prove((assertion, metadata) => ({
      method: 'POST',
      path: pathOf(metadata),
      form: { ...form, client_assertion_type: clientAssertionType, client_assertion: assertion },
    }))
  }

  async function introspect(token: string): Promise<Introspection> {
    const { body } = await post((metadata) => metadata.introspectionPath, { token: checkToken(token) })
    const members = readObject(body, { active: 'boolean' }, 'an introspection')
    return { ...members, active: members['active'] === true }
  }

  function idOf(metadata: BrokerMetadata): string {
    return options.clientId ?? `spiffe://${metadata.trustDomain}/${options.workload ?? ''}`
  }

  return {
    ...createOwnGrantMethods((request) =>
      prove((assertion) => ({
        ...request,
        headers: { ...request.headers, [assertionHeader]: assertion },
        secrets: [assertion],
      })),
    ),

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

    introspect,

    async revoke(token) {
      await post((metadata) => metadata.revocationPath, { token: checkToken(token) })
    },

    async rotateKey(newKey, overlapSeconds) {
      const answer = await prove(async (assertion, metadata, sentAtMs) => {
        const proof = await signProof(newKey, { clientId: idOf(metadata) }, metadata.issuer, sentAtMs)
        const json = { client_assertion: assertion, proof, overlap_seconds: overlapSeconds }
        return { method: 'POST', path: '/v1/keys/rotate', json, secrets: [assertion, proof] }
      })
      return readRotation(answer, newKey)
    },

    async provesWorkload() {
      try {
        // The one request that changes nothing and needs no token of one's own: of this one the broker knows nothing.
        await introspect('none')
        return true
      } catch (error) {
        if (error instanceof StintError && error.code === 'invalid_client') return false
        throw error
      }
    },
  }
}

function readRotation(answer: ApiAnswer, newKey: AgentKey): KeyRotation {
  const body = readObject(answer.body, { kid: 'string', replaces: 'string', until: 'string' }, 'a rotation')
  const until = new Date(String(body['until']))
  if (body['kid'] !== newKey.kid || Number.isNaN(until.getTime())) {
    throw clientError('bad_answer', 'the answer is about another key than the one that was sent, or names no time.')
  }
  return { kid: newKey.kid, replaces: String(body['replaces']), until, auditIndex: readAuditIndex(answer.headers).audit_index }
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
