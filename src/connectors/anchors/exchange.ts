import { AnchorFailure } from './anchor.ts'

/** One request and its whole answer, within a time and a size. */
export type Exchange = (url: URL, request?: ExchangeRequest) => Promise<Exchanged>

export interface ExchangeRequest {
  /** Sent by POST, as text; a GET without it. */
  readonly text?: string
  readonly headers?: Readonly<Record<string, string>>
}

export interface Exchanged {
  readonly status: number
  readonly text: string
}

/** Far more than a note with many signatures. */
const answerBytesMax = 64 * 1024

export interface ExchangeOptions {
  readonly fetch?: typeof globalThis.fetch
  /** For the whole of it: to connect, to be answered, to read the answer. */
  readonly timeoutMs?: number
}

/** Makes the way in which anchors are spoken to. What goes wrong throws an `AnchorFailure`. */
export function createExchange({ fetch = globalThis.fetch, timeoutMs = 5_000 }: ExchangeOptions = {}): Exchange {
  return async (url, { text, headers } = {}) => {
    try {
      const response = await fetch(url, {
        method: text === undefined ? 'GET' : 'POST',
        headers: { 'user-agent': 'stint', ...(text !== undefined && { 'content-type': 'text/plain; charset=utf-8' }), ...headers },
        ...(text !== undefined && { body: text }),
        // The configuration names whom to speak to; an answer must not name somebody else.
        redirect: 'error',
        signal: AbortSignal.timeout(timeoutMs),
      })
      return { status: response.status, text: await readText(response) }
    } catch (error) {
      throw new AnchorFailure(`${url.href}: ${describe(error)}`, error)
    }
  }
}

/** The body as text, counted while it arrives: a length that was announced proves nothing. */
async function readText({ body }: Response): Promise<string> {
  const chunks: Uint8Array[] = []
  let bytes = 0
  // Leaving the loop cancels the rest.
  for await (const chunk of body ?? []) {
    bytes += chunk.byteLength
    if (bytes > answerBytesMax) throw new Error(`answered with more than ${answerBytesMax} bytes`)
    chunks.push(chunk)
  }
  return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(Buffer.concat(chunks))
}

/** fetch says only that it failed; why is its cause. */
function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const { cause } = error
  return cause instanceof Error && cause.message !== '' ? `${error.message}: ${cause.message}` : error.message
}
