import { ConnectorError } from './connector.ts'

/** A call to AWS that failed, in the words of whoever made it. */
export interface AwsCall {
  /** What was asked for, to stand behind `AWS refuses`: `a session of the role`. Callers read it. */
  readonly what: string
  /** The right that it needs, as IAM names it: `sts:AssumeRole`. */
  readonly right: string
  /** Whether it only reads, so that a lost answer leaves nothing open. */
  readonly reads?: boolean
}

/** What AWS answered in place of what was asked for. None of it is for a caller: some messages quote the signed request. */
export interface AwsRefusal {
  /** `AccessDenied`, `PackedPolicyTooLarge`, …: without the suffix `Exception`, which some services write and others do not. */
  readonly code: string
  readonly status: number
  readonly message: string
}

const throttled = /^(?:Throttling|ThrottlingError|ThrottledException|RequestThrottled|RequestLimitExceeded|TooManyRequests|BandwidthLimitExceeded|SlowDown|PriorRequestNotComplete)$/
const expired = /^(?:ExpiredToken|TokenRefreshRequired)$/
const unknownKey = /^(?:InvalidClientTokenId|UnrecognizedClient|InvalidAccessKeyId|SignatureDoesNotMatch|InvalidSignature|IncompleteSignature|MissingAuthenticationToken|AuthFailure)$/
const denied = /^(?:AccessDenied|UnauthorizedOperation|UnauthorizedAccess|NotAuthorized)$/

/** What AWS itself answered, or `undefined` where the call failed otherwise: on its way, or by an answer that cannot be read. */
export function readAwsRefusal(error: unknown): AwsRefusal | undefined {
  if (!(error instanceof Error) || error instanceof ConnectorError || !('$fault' in error)) return undefined
  const name = 'Code' in error && typeof error.Code === 'string' ? error.Code : error.name
  // Of JSON services it may begin with a namespace.
  const code = name.slice(name.lastIndexOf('#') + 1).replace(/(?<=.)Exception$/, '')
  return { code, status: readStatus(error) ?? 0, message: error.message }
}

/**
 * What the AWS SDK threw as a `ConnectorError`, with the outcome that it leaves: `unknown` for a lost answer of a call that
 * changes something. The callers of AWS explain beforehand what only they can. What AWS said is quoted nowhere, but its code
 * and the right that is missing, to admins (invariant 7).
 */
export function explainAwsFailure(error: unknown, call: AwsCall): ConnectorError {
  if (error instanceof ConnectorError) return error.outcome === 'unknown' && call.reads === true ? nothingDone(error) : error
  const { what } = call
  const refusal = readAwsRefusal(error)
  const status = refusal?.status ?? readStatus(error)
  const lost = call.reads === true ? 'nothing_done' : 'unknown'
  if (refusal === undefined) {
    const timedOut = error instanceof Error && /^(?:AbortError|TimeoutError)$/.test(error.name)
    const publicMessage = timedOut ? `AWS did not answer in time to ${what}.` : `AWS answered to ${what} in a way that cannot be read${status === undefined ? '' : ` (${status})`}.`
    // An error of the parser quotes what it was given.
    return new ConnectorError({ outcome: lost, publicMessage, cause: new Error(error instanceof Error ? error.name : typeof error) })
  }
  const { code } = refusal
  const cause = new Error(`${code} (${status ?? 'no status'})`)
  const retryAfterSeconds = readRetryAfterSeconds(error)
  if (throttled.test(code) || status === 429) {
    const seconds = retryAfterSeconds ?? 5
    return new ConnectorError({ outcome: 'nothing_done', publicMessage: `AWS limits how often it is called: ${what} is worth another try in ${seconds} seconds.`, retryAfterSeconds: seconds, cause })
  }
  const explained = explainKey(refusal) ?? (denied.test(code) ? explainDenied(refusal, call) : undefined)
  if (explained !== undefined) return new ConnectorError({ outcome: 'nothing_done', ...explained, cause })
  const refused = refusal.status >= 400 && refusal.status < 500 && refusal.status !== 408
  const publicMessage = refused ? `AWS refuses ${what} (${code}).` : `AWS does not answer as it should to ${what} (${status ?? code}).`
  return new ConnectorError({ outcome: refused ? 'nothing_done' : lost, publicMessage, cause, ...(retryAfterSeconds !== undefined && { retryAfterSeconds }) })
}

/** The right that a refusal names as missing, such as `sts:TagSession`: the one part of what AWS says that is repeated. */
export function readMissingRight({ message }: AwsRefusal): string | undefined {
  return /not authorized to perform:? ([a-z0-9-]{1,40}:[A-Za-z]{1,64})\b/.exec(message)?.[1]
}

interface Explained {
  readonly publicMessage: string
  readonly adminMessage: string
}

const keyProblem = "The tool's root credential is not accepted by AWS: an admin puts a fresh one, and sees more with stint tool check."

/** What is wrong with the root credential, or with the clock by which its signatures are made. */
function explainKey({ code, message }: AwsRefusal): Explained | undefined {
  if (/^Request(?:Expired|TimeTooSkewed)$|^InvalidRequestTime$/.test(code) || /^Signature (?:expired|not yet current)/i.test(message)) {
    const sentence = "AWS does not accept the time of Stint's signature: the clock of Stint's machine is wrong."
    return { publicMessage: sentence, adminMessage: sentence }
  }
  const advice = 'an admin puts a fresh one where the catalog file says that it is kept'
  if (expired.test(code)) return { publicMessage: keyProblem, adminMessage: `The tool's root credential has expired at AWS: ${advice}.` }
  if (!unknownKey.test(code)) return undefined
  return { publicMessage: keyProblem, adminMessage: `AWS does not accept the tool's root credential (${code}): it is wrong, was deleted or is inactive; ${advice}.` }
}

function explainDenied(refusal: AwsRefusal, { what, right }: AwsCall): Explained {
  const missing = readMissingRight(refusal)
  return {
    publicMessage: `AWS does not allow Stint ${what}: an admin sees why with stint tool check.`,
    adminMessage: `AWS does not allow Stint ${what}: the right ${missing ?? right} is missing, or a policy denies it.`,
  }
}

function nothingDone(error: ConnectorError): ConnectorError {
  const { publicMessage, adminMessage, retryAfterSeconds, cause } = error
  return new ConnectorError({ outcome: 'nothing_done', publicMessage, adminMessage, cause, ...(retryAfterSeconds !== undefined && { retryAfterSeconds }) })
}

function readStatus(error: unknown): number | undefined {
  const metadata = memberOf(error, '$metadata')
  const status = memberOf(metadata, 'httpStatusCode')
  return typeof status === 'number' ? status : undefined
}

/** Retry-After in seconds (RFC 9110 §10.2.3), at most a day. */
function readRetryAfterSeconds(error: unknown): number | undefined {
  const text = memberOf(memberOf(memberOf(error, '$response'), 'headers'), 'retry-after')
  return typeof text === 'string' && /^\d{1,9}$/.test(text) ? Math.min(Math.max(Number(text), 1), 86_400) : undefined
}

function memberOf(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined
}
