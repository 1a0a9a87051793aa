import { isObject } from './answer.ts'
import { clientError, StintError } from './errors.ts'
import { readErrorAnswer, readRetryAfter } from './error-answer.ts'
import { describeFailure } from './failure.ts'
import { readBrokerUrl } from './url.ts'

/** Settings that every client of this folder takes. */
export interface ConnectionOptions {
  /** The broker's origin, for example `https://stint.example.com`. */
  readonly url: string
  /** Replaces the global `fetch`. */
  readonly fetch?: typeof globalThis.fetch | undefined
  /** For one request with its whole answer, in milliseconds; 10,000 by default. */
  readonly timeoutMs?: number | undefined
  /** Allows plain http to other machines. */
  readonly allowInsecure?: boolean | undefined
}

/** One request, before anything is encoded but its path. */
export interface ApiRequest {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  /** Begins with a slash, each segment already encoded. */
  readonly path: string
  readonly query?: Readonly<Record<string, string | number | undefined>>
  readonly json?: unknown
  readonly form?: Readonly<Record<string, string | undefined>>
  readonly bearer?: string
  /** Where this one takes longer than others do: replaces the default, not what the options say. */
  readonly timeoutMsDefault?: number
}

/** An answer of status 2xx. */
export interface ApiAnswer {
  readonly status: number
  readonly headers: Headers
  /** The parsed JSON, `undefined` where the answer was empty. */
  readonly body: unknown
}

/** Sends one request to the broker; throws `StintError` for everything but a 2xx with JSON or nothing in it. */
export interface Sender {
  readonly origin: string
  send(request: ApiRequest): Promise<ApiAnswer>
}

const timeoutMsDefault = 10_000
const answerBytesMax = 8 * 1024 * 1024

/** Checks the options and makes the one function through which all requests go. */
export function createSender(options: ConnectionOptions): Sender {
  const origin = readBrokerUrl(options.url, options.allowInsecure === true)
  const { timeoutMs: timeoutMsGiven = timeoutMsDefault } = options
  if (!Number.isSafeInteger(timeoutMsGiven) || timeoutMsGiven < 1 || timeoutMsGiven > 600_000) {
    throw clientError('invalid_option', 'timeoutMs must be a whole number of milliseconds, 1 to 600000.')
  }
  const doFetch = options.fetch ?? globalThis.fetch

  async function exchange(request: ApiRequest): Promise<ApiAnswer> {
    const url = new URL(request.path, origin)
    const timeoutMs = options.timeoutMs ?? request.timeoutMsDefault ?? timeoutMsDefault
    for (const [name, value] of Object.entries(request.query ?? {})) {
      if (value !== undefined) url.searchParams.set(name, String(value))
    }
    try {
      const response = await doFetch(url, {
        method: request.method,
        headers: headersOf(request),
        body: bodyOf(request) ?? null,
        // A redirect would carry the credential or the assertion to wherever the answer points.
        redirect: 'manual',
        signal: AbortSignal.timeout(timeoutMs),
      })
      const redirected = response.type === 'opaqueredirect' || (response.status >= 300 && response.status < 400)
      if (redirected) {
        await response.body?.cancel()
        const message = `${origin} answered with a redirect, which is not followed: use the broker's own URL.`
        throw clientError('redirected', message, { status: response.status })
      }
      const text = await readText(response, origin)
      return { status: response.status, headers: response.headers, body: parseJson(text, response, origin) }
    } catch (error) {
      throw error instanceof StintError ? error : describeFailure(error, origin, timeoutMs, request.method !== 'GET')
    }
  }

  return {
    origin,
    async send(request) {
      const answer = await exchange(request)
      if (answer.status >= 200 && answer.status < 300) return answer
      const secrets = [request.bearer ?? '', request.form?.['client_assertion'] ?? '', request.form?.['token'] ?? '']
      throw readErrorAnswer(answer.status, answer.headers, isObject(answer.body) ? answer.body : {}, secrets)
    },
  }
}

function headersOf(request: ApiRequest): Record<string, string> {
  const type = request.json !== undefined ? 'application/json' : 'application/x-www-form-urlencoded'
  return {
    accept: 'application/json, application/problem+json',
    'user-agent': 'stint-client',
    ...((request.json !== undefined || request.form !== undefined) && { 'content-type': type }),
    ...(request.bearer !== undefined && { authorization: `Bearer ${request.bearer}` }),
  }
}

function bodyOf(request: ApiRequest): string | undefined {
  if (request.json !== undefined) return JSON.stringify(request.json)
  if (request.form === undefined) return undefined
  const form = new URLSearchParams()
  for (const [name, value] of Object.entries(request.form)) if (value !== undefined) form.set(name, value)
  return form.toString()
}

/** The body as text, counted while it arrives: a length that was announced proves nothing. */
async function readText(response: Response, origin: string): Promise<string> {
  const decoder = new TextDecoder('utf-8', { fatal: true })
  let text = ''
  let bytes = 0
  if (response.body === null) return text
  try {
    for await (const chunk of response.body) {
      bytes += chunk.byteLength
      if (bytes > answerBytesMax) {
        throw clientError('answer_too_large', `${origin} answered with more than ${answerBytesMax} bytes: ask for less.`, {
          status: response.status,
        })
      }
      text += decoder.decode(chunk, { stream: true })
    }
    return text + decoder.decode()
  } catch (error) {
    // What TextDecoder throws for bytes that are no UTF-8; undici's own TypeErrors have no such code.
    if (error instanceof TypeError && 'code' in error && error.code === 'ERR_ENCODING_INVALID_ENCODED_DATA') {
      throw notJson(response, origin)
    }
    throw error
  }
}

function parseJson(text: string, response: Response, origin: string): unknown {
  if (text === '' && response.ok) return undefined
  const type = (response.headers.get('content-type') ?? '').split(';')[0]?.trim().toLowerCase() ?? ''
  if (!/^application\/(?:[\w.-]+\+)?json$/.test(type)) throw notJson(response, origin)
  try {
    const body: unknown = JSON.parse(text)
    return body
  } catch {
    throw notJson(response, origin)
  }
}

/** Something else than Stint answered, most often a proxy: its page is not repeated, its status is. */
function notJson(response: Response, origin: string): StintError {
  return clientError(
    'bad_answer',
    `${origin} answered ${response.status}, but not with JSON: something other than a Stint broker is answering there, ` +
      `or a proxy before it.`,
    {
      status: response.status,
      retryAfterSeconds: readRetryAfter(response.headers),
    },
  )
}
