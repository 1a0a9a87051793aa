import type { Context } from 'hono'
import type { ContentfulStatusCode } from 'hono/utils/http-status'
import { z } from 'zod'
import { BrokerError, type ErrorCode } from '../kernel/errors.ts'
import { redactSecrets } from '../kernel/redact.ts'
import type { Database } from '../storage/engine.ts'

/** The only place that knows status codes: RFC 6749 §5.2 for OAuth's codes, RFC 9110 §15 for the others. */
const statuses: Record<ErrorCode, ContentfulStatusCode> = {
  invalid_request: 400,
  invalid_client: 401,
  unauthorized_client: 400,
  unsupported_grant_type: 400,
  invalid_scope: 400,
  invalid_target: 400,
  invalid_authorization_details: 400,
  access_denied: 400,
  invalid_input: 400,
  unauthenticated: 401,
  forbidden: 403,
  rate_limited: 429,
  not_found: 404,
  method_not_allowed: 405,
  unsupported_media_type: 415,
  payload_too_large: 413,
  conflict: 409,
  idempotency_mismatch: 422,
  denied: 403,
  tool_failed: 502,
  tool_unavailable: 503,
  policy_invalid: 422,
  config_invalid: 500,
  unavailable: 503,
  internal: 500,
}

const titles: Partial<Record<ErrorCode, string>> = {
  invalid_input: 'The request is not valid',
  unauthenticated: 'Who are you?',
  forbidden: 'Your role may not do this',
  rate_limited: 'Too many requests',
  not_found: 'Not found',
  method_not_allowed: 'Method not allowed here',
  unsupported_media_type: 'Unsupported content type',
  payload_too_large: 'The request is too large',
  conflict: 'This does not fit what is there',
  idempotency_mismatch: 'This idempotency key stands for another request',
  denied: 'The policy does not allow this',
  tool_failed: 'The tool did not do it',
  tool_unavailable: 'The tool cannot do it at the moment',
  policy_invalid: 'The policy set is not valid',
  unavailable: 'Not available at the moment',
  internal: 'Something went wrong in the broker',
}

/** How long a client does well to wait after a 503. */
const unavailableSeconds = 2

/**
 * The error as what it is: anything that was not thrown on purpose says nothing but that it happened, or, where the
 * database itself is out of order, that it is worth another try.
 */
export function toBrokerError(error: unknown, { isTransactionError }: Pick<Database, 'isTransactionError'>): BrokerError {
  if (error instanceof BrokerError) return error
  if (isTransactionError(error)) {
    return new BrokerError({ code: 'unavailable', publicMessage: 'The database does not answer: try again shortly.', cause: error })
  }
  return new BrokerError({ code: 'internal', publicMessage: 'An unexpected error; the operator finds it under the request id.', cause: error })
}

/** The status of an error, for the API document. */
export function statusOf(code: ErrorCode): number {
  return statuses[code]
}

/** The title of an error, for people; the same for all that the RFCs name. */
export function titleOf(code: ErrorCode): string {
  return titles[code] ?? 'The request was refused'
}

// The keys of an object that is exhaustive over the union: none of them is anything else.
const codes = Object.keys(statuses) as ErrorCode[]

/** RFC 9457, with what Stint adds. */
export const problemAnswer = z
  .strictObject({
    type: z.enum(codes.map(problemType)),
    title: z.string(),
    status: z.int(),
    detail: z.string(),
    request_id: z.string(),
    problems: z
      .array(
        z.union([
          z.strictObject({ path: z.string(), message: z.string() }),
          z.strictObject({ file: z.string(), line: z.int(), column: z.int(), message: z.string(), suggestion: z.string().optional() }),
        ]),
      )
      .optional()
      .describe('Each thing that is wrong, by its place in the request or in the policy files.'),
    ended_outside: z.array(z.string()).optional().describe('Grants whose credential was ended in its tool although that could not be recorded yet.'),
  })
  .meta({ id: 'Problem' })

/** RFC 6749 §5.2. */
export const oauthErrorAnswer = z
  .strictObject({ error: z.enum([...new Set(codes.map(oauthCode))]), error_description: z.string().regex(/^[\x20\x21\x23-\x5b\x5d-\x7e]*$/) })
  .meta({ id: 'OAuthError' })

/** RFC 6749 §5.2: `{error, error_description}`. Codes that OAuth does not have become its nearest own. */
export function answerOAuthError(c: Context, error: BrokerError): Response {
  setErrorHeaders(c, error)
  const { status, body } = describeOAuthError(error)
  return c.json(body, status)
}

/** The same error by itself. */
export function describeOAuthError({ code, publicMessage }: BrokerError): { status: ContentfulStatusCode; body: z.output<typeof oauthErrorAnswer> } {
  return { status: statuses[code], body: { error: oauthCode(code), error_description: toDescription(publicMessage) } }
}

/** RFC 9457 problem details; `type` is stable, `detail` is for people. */
export function answerProblem(c: Context, error: BrokerError, requestId: string): Response {
  setErrorHeaders(c, error)
  // RFC 9110 §11.6.1. OAuth's endpoints say how they are authenticated at in their metadata instead (RFC 6749 §5.2).
  if (error.code === 'invalid_client') c.header('www-authenticate', 'Bearer realm="stint"')
  const { status, body } = describeProblem(error, requestId)
  return c.body(body, status, { 'content-type': 'application/problem+json' })
}

/** The problem details as text, and their status. */
export function describeProblem(error: BrokerError, requestId: string): { status: ContentfulStatusCode; body: string } {
  const status = statuses[error.code]
  const body = {
    type: problemType(error.code),
    title: titleOf(error.code),
    status,
    detail: error.publicMessage,
    request_id: requestId,
    ...error.extra,
  }
  // The problems that are listed say back what was sent, too.
  return { status, body: redactSecrets(JSON.stringify(body)) }
}

function setErrorHeaders(c: Context, error: BrokerError): void {
  for (const [name, value] of Object.entries(errorHeaders(error, c.req.header('authorization')))) c.header(name, value)
}

/** What an error's answer says in its headers. `authorization` is the header of the request. */
export function errorHeaders(error: BrokerError, authorization: string | undefined): Record<string, string> {
  // RFC 6749 §5.2: a client that tried the Authorization header is answered in the scheme that it tried.
  const scheme = error.code === 'invalid_client' && /^basic\b/i.test(authorization ?? '') ? 'Basic' : 'Bearer'
  const challenged = error.code === 'unauthenticated' || (error.code === 'invalid_client' && authorization !== undefined)
  const { retryAfterSeconds = error.code === 'unavailable' ? unavailableSeconds : undefined } = error
  return {
    ...(challenged && { 'www-authenticate': `${scheme} realm="stint"` }),
    ...(retryAfterSeconds !== undefined && { 'retry-after': String(retryAfterSeconds) }),
  }
}

function problemType(code: ErrorCode): string {
  return `urn:stint:problem:${code.replaceAll('_', '-')}`
}

function oauthCode(code: ErrorCode): string {
  switch (code) {
    case 'unavailable':
    case 'tool_unavailable':
    case 'rate_limited':
      return 'temporarily_unavailable'
    case 'internal':
    case 'tool_failed':
    case 'config_invalid':
      return 'server_error'
    case 'invalid_input':
    case 'not_found':
    case 'method_not_allowed':
    case 'unsupported_media_type':
    case 'payload_too_large':
    case 'conflict':
    case 'idempotency_mismatch':
    case 'policy_invalid':
      return 'invalid_request'
    case 'forbidden':
    case 'denied':
      return 'access_denied'
    case 'unauthenticated':
      return 'invalid_client'
    default:
      return code
  }
}

/** RFC 6749 §5.2 allows printable ASCII without `"` and `\`. */
function toDescription(message: string): string {
  return message.replaceAll('"', "'").replaceAll(/[^\x20-\x5b\x5d-\x7e]/g, '?')
}
