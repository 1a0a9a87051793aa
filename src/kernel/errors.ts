import { redactSecrets } from './redact.ts'

/** Every way in which Stint refuses or fails, as one closed set. `http/problem.ts` alone maps them to HTTP. */
export type ErrorCode =
  // OAuth: RFC 6749 §5.2, RFC 8707 §2, RFC 9396 §5, RFC 7009 §2.2.1
  | 'invalid_request'
  | 'invalid_client'
  | 'unauthorized_client'
  | 'unsupported_grant_type'
  | 'invalid_scope'
  | 'invalid_target'
  | 'invalid_authorization_details'
  | 'access_denied'
  // Everything else speaks RFC 9457
  | 'invalid_input'
  | 'unauthenticated'
  | 'forbidden'
  | 'rate_limited'
  | 'not_found'
  | 'method_not_allowed'
  | 'unsupported_media_type'
  | 'payload_too_large'
  | 'conflict'
  | 'idempotency_mismatch'
  | 'denied'
  | 'tool_failed'
  | 'tool_unavailable'
  | 'policy_invalid'
  | 'config_invalid'
  | 'unavailable'
  | 'internal'

export interface BrokerErrorInit {
  readonly code: ErrorCode
  /** One sentence for the caller: what is wrong and what to do. Never a secret, never an internal. */
  readonly publicMessage: string
  /** For the operator's log only. */
  readonly detail?: string
  /** Structured facts that the caller may read, such as the list of problems in a policy set. */
  readonly extra?: Readonly<Record<string, unknown>>
  /** After how many seconds it is worth another try; for `rate_limited` and `unavailable`. */
  readonly retryAfterSeconds?: number
  readonly cause?: unknown
}

/** The one error that Stint throws on purpose. Anything else that is thrown is a bug and shows as `internal`. */
export class BrokerError extends Error {
  readonly code: ErrorCode
  readonly publicMessage: string
  readonly detail: string | undefined
  readonly extra: Readonly<Record<string, unknown>> | undefined
  readonly retryAfterSeconds: number | undefined

  constructor(init: BrokerErrorInit) {
    // Messages say back what was sent, and it may have been sent in a wrong place.
    const publicMessage = redactSecrets(init.publicMessage)
    super(init.detail === undefined ? publicMessage : `${publicMessage} (${init.detail})`, {
      cause: init.cause,
    })
    this.name = 'BrokerError'
    this.code = init.code
    this.publicMessage = publicMessage
    this.detail = init.detail
    this.extra = init.extra
    this.retryAfterSeconds = init.retryAfterSeconds
  }
}

/** Ends an exhaustive switch: compiles only when no case is left. */
export function unreachable(value: never): never {
  throw new Error(`unreachable case: ${JSON.stringify(value)}`)
}
