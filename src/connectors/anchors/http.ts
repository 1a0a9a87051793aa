import type { Secret } from '../../kernel/secret.ts'
import { AnchorFailure, type KeepingAnchor } from './anchor.ts'
import { createExchange, type ExchangeOptions } from './exchange.ts'

export interface HttpAnchorOptions extends ExchangeOptions {
  readonly url: string
  /** Sent as a bearer token (RFC 6750 §2.1). */
  readonly token?: Secret
}

/**
 * An HTTP endpoint: each checkpoint is sent to it by POST as text/plain, and any 2xx keeps it. GET of the same URL gives the
 * newest one that it has, or 404 for none; 405 says that it only takes.
 */
export function createHttpAnchor({ url, token, ...options }: HttpAnchorOptions): KeepingAnchor {
  const exchange = createExchange(options)
  const address = new URL(url)
  const headers = (): Record<string, string> => (token === undefined ? {} : { authorization: `Bearer ${token.reveal()}` })
  return {
    kind: 'http',
    name: `http ${url}`,
    pieceMax: 1,
    async last() {
      const { status, text } = await exchange(address, { headers: headers() })
      if (status === 404 || status === 405) return undefined
      if (status !== 200) throw new AnchorFailure(`${url} answered GET with ${status}`)
      return { note: text }
    },
    async keep(notes) {
      for (const note of notes) {
        const { status } = await exchange(address, { text: note, headers: headers() })
        if (status < 200 || status > 299) throw new AnchorFailure(`${url} answered POST with ${status}`)
      }
    },
  }
}
