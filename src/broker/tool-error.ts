import { ConnectorError } from '../connectors/connector.ts'
import { BrokerError } from '../kernel/errors.ts'

/** What a caller is told of a tool that did not do what it was asked; anything else is passed on as it is. */
export function toolError(error: ConnectorError, more?: string): BrokerError
export function toolError(error: unknown, more?: string): unknown
export function toolError(error: unknown, more?: string): unknown {
  if (!(error instanceof ConnectorError)) return error
  const publicMessage = more === undefined ? error.publicMessage : `${error.publicMessage} ${more}`
  const { retryAfterSeconds, cause } = error
  if (retryAfterSeconds === undefined) return new BrokerError({ code: 'tool_failed', publicMessage, cause })
  return new BrokerError({ code: 'tool_unavailable', publicMessage, retryAfterSeconds, cause })
}
