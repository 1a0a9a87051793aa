import { isObject } from './answer.ts'
import { clientError, StintError } from './errors.ts'
import { readErrorAnswer, readRetryAfter } from './error-answer.ts'
import { describeFailure } from './failure.ts'
import { readPieces, watchSilence } from './stream.ts'
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
  /** Further headers, each value already what a header may be. */
  readonly headers?: Readonly<Record<string, string>>
  /** What of `json` and `headers` must not stand in an error, should the answer repeat it. */
  readonly secrets?: readonly string[]
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

/** An answer of status 2xx that may be of any size. */
export interface ApiStream {
  readonly headers: Headers
  /** What arrives, as it arrives, once. Throws `StintError` when it was cut off, or nothing came for too long. */
  readonly pieces: AsyncIterable<Uint8Array>
}

/** Sends one request to the broker; throws `StintError` for everything but a 2xx with JSON or nothing in it. */
export interface Sender {
  readonly origin: string
  send(request: ApiRequest): Promise<ApiAnswer>
  /** As `send`, for an answer that is read while it arrives: the time limit is for each piece of it. */
  open(request: ApiRequest): Promise<ApiStream>
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

  const limitOf = (request: ApiRequest): number => options.timeoutMs ?? request.timeoutMsDefault ?? timeoutMsDefault

  async function fetchOnce(request: ApiRequest, signal: AbortSignal): Promise<Response> {
    const url = new URL(request.path, origin)
    for (const [name, value] of Object.entries(request.query ?? {})) {
      if (value !== undefined) url.searchParams.set(name, String(value))
    }
    const response = await doFetch(url, {
      method: request.method,
      headers: headersOf(request),
      body: bodyOf(request) ?? null,
      // A redirect would carry the credential or the assertion to wherever the answer points.
      redirect: 'manual',
      signal,
    })
    const redirected = response.type === 'opaqueredirect' || (response.status >= 300 && response.status < 400)
    if (redirected) {
      await response.body?.cancel()
      const message = `${origin} answered with a redirect, which is not followed: use the broker's own URL.`
      throw clientError('redirected', message, { status: response.status })
    }
    return response
  }

  async function readAnswer(request: ApiRequest, response: Response): Promise<ApiAnswer> {
    const { status, headers } = response
    const body = parseJson(await readText(response, origin), response, origin)
    if (status >= 200 && status < 300) return { status, headers, body }
    const secrets = [request.bearer ?? '', request.form?.['client_assertion'] ?? '', request.form?.['token'] ?? '', ...(request.secrets ?? [])]
    throw readErrorAnswer(status, headers, isObject(body) ? body : {}, secrets)
  }

  function explain(error: unknown, request: ApiRequest): StintError {
    return error instanceof StintError ? error : describeFailure(error, origin, limitOf(request), request.method !== 'GET')
  }

  return {
    origin,
    async send(request) {
      try {
        return await readAnswer(request, await fetchOnce(request, AbortSignal.timeout(limitOf(request))))
      } catch (error) {
        throw explain(error, request)
      }
    },
    async open(request) {
      const silence = watchSilence(limitOf(request))
      try {
        const response = await silence.limit(fetchOnce(request, silence.signal))
        if (!response.ok) await silence.limit(readAnswer(request, response))
        return { headers: response.headers, pieces: readPieces(response, silence, (error) => explain(error, request)) }
      } catch (error) {
        throw explain(error, request)
      }
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
    ...request.headers,
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
