/** One thing that is wrong with what was sent: a field of a body (`path`), or a place in a policy file (1-based). */
export interface Problem {
  readonly message: string
  readonly path?: string
  readonly file?: string
  readonly line?: number
  readonly column?: number
  readonly suggestion?: string
}

/**
 * What went wrong where no answer could be used; every other code is the broker's own: an OAuth error such as
 * `access_denied`, or the last part of a problem's type such as `not_found`.
 */
export type ClientErrorCode =
  | 'invalid_option'
  | 'invalid_key'
  | 'connection_failed'
  | 'tls_failed'
  | 'timed_out'
  | 'redirected'
  | 'answer_too_large'
  | 'bad_answer'

/** What a `StintError` is made of. */
export interface StintErrorInit {
  readonly code: string
  /** One sentence for a person: what is wrong and what to do. Never a secret. */
  readonly message: string
  readonly status?: number | undefined
  readonly requestId?: string | undefined
  readonly problems?: readonly Problem[] | undefined
  readonly retryAfterSeconds?: number | undefined
  readonly answeredAtMs?: number | undefined
  readonly cause?: unknown
}

/** The one error that this client throws: a refusal by the broker, or no usable answer from it. */
export class StintError extends Error {
  readonly code: string
  /** HTTP status of the answer; `undefined` when there was none. */
  readonly status: number | undefined
  /** The broker's name for the request, under which its operator finds it in the log. */
  readonly requestId: string | undefined
  readonly problems: readonly Problem[]
  /** Seconds to wait before another try, where the broker said so (RFC 9110 §10.2.3). */
  readonly retryAfterSeconds: number | undefined
  /** The broker's clock when it answered (`Date`), in milliseconds since the epoch. */
  readonly answeredAtMs: number | undefined

  constructor(init: StintErrorInit) {
    super(init.message, init.cause === undefined ? undefined : { cause: init.cause })
    this.name = 'StintError'
    this.code = init.code
    this.status = init.status
    this.requestId = init.requestId
    this.problems = init.problems ?? []
    this.retryAfterSeconds = init.retryAfterSeconds
    this.answeredAtMs = init.answeredAtMs
  }
}

/** An error that this client found by itself, with a code of its closed set. */
export function clientError(code: ClientErrorCode, message: string, rest: Partial<StintErrorInit> = {}): StintError {
  return new StintError({ ...rest, code, message })
}
