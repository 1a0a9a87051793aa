import { isObject } from './answer.ts'
import { clientError, type StintError } from './errors.ts'
import { brokerUrlDefault } from './url.ts'

/** Node's codes for a TLS connection that could not be made or trusted. */
export const tlsCodes = /^(?:ERR_TLS_|ERR_SSL_|CERT_|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_|HOSTNAME_MISMATCH|EPROTO$)/

/**
 * Says in one sentence why there was no answer. `changing`: the request may have been carried out all the same, and the
 * sentence must not claim otherwise (a timeout is an unknown outcome, invariant 2).
 */
export function describeFailure(error: unknown, origin: string, timeoutMs: number, changing: boolean): StintError {
  const unknown = changing ? ' Whether the request was carried out is not known.' : ''
  if (error instanceof Error && error.name === 'TimeoutError') {
    const message = `no whole answer from ${origin} within ${timeoutMs / 1000} s.${unknown}`
    return clientError('timed_out', message, { cause: error })
  }
  // fetch says only "fetch failed"; what happened is its cause.
  const cause = error instanceof Error && error.cause !== undefined ? error.cause : error
  const code = isObject(cause) && typeof cause['code'] === 'string' ? cause['code'] : ''
  if (code === 'ECONNREFUSED') {
    const isDefault = origin === brokerUrlDefault
    // Elsewhere, a broker in development would be started beside the one that is meant.
    const start = isDefault ? ' Start it with stint serve --config FILE, or for a trial with npm start; or give its URL.' : ''
    const message = `nothing listens at ${origin}: is that the broker's URL, and is it running?${start}`
    return clientError('connection_failed', message, { cause })
  }
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') {
    return clientError('connection_failed', `the host of ${origin} is not known (${code}): check the URL.`, { cause })
  }
  if (tlsCodes.test(code)) {
    const message =
      `TLS with ${origin} failed (${code}): check the URL and the broker's certificate; ` +
      `a private certificate authority is trusted through NODE_EXTRA_CA_CERTS.`
    return clientError('tls_failed', message, { cause })
  }
  if (code.startsWith('HPE_') || (cause instanceof Error && cause.name === 'HTTPParserError')) {
    return clientError('bad_answer', `what listens at ${origin} does not speak HTTP: check the URL.`, { cause })
  }
  if (code === 'ECONNRESET' || code === 'UND_ERR_SOCKET' || code === 'ECONNABORTED') {
    return clientError('connection_failed', `${origin} closed the connection before it had answered.${unknown}`, { cause })
  }
  const reason = code !== '' ? code : cause instanceof Error && cause !== error ? cause.message : 'no connection'
  return clientError('connection_failed', `cannot reach ${origin} (${reason}).${unknown}`, { cause })
}
