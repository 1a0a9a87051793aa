import type { Secret } from '../../kernel/secret.ts'
import type { HttpCall } from '../../policy/kinds/rotators.ts'
import { ConnectorError } from '../connector.ts'

/** What the names in braces stand for in one call. */
export type Filling = Readonly<Partial<Record<'auth' | 'current' | 'pending' | 'retired', Secret>>>

export interface FilledCall {
  readonly url: string
  readonly method: string
  readonly headers: Headers
  readonly body?: string
}

/** A call with its secrets in it, each escaped as its place asks for. Throws `ConnectorError` where one cannot stand there. */
export function fillCall({ method, url, headers, basic, json, form }: HttpCall, filling: Filling): FilledCall {
  const fill = (text: string): string => text.replaceAll(/\{([a-z]+)\}/g, (whole, name: string) => Object.entries(filling).find(([one]) => one === name)?.[1].reveal() ?? whole)
  const filled = new Headers()
  const setHeader = (name: string, value: string): void => {
    // Not by the error that is thrown, for it quotes the value.
    if (!/^[\x20-\x7e]*$/.test(value)) throw refuse(`A secret that stands in the header ${name} is not of printable characters of ASCII alone, as a header is.`)
    filled.set(name, value)
  }
  if (json !== undefined) setHeader('content-type', 'application/json')
  if (form !== undefined) setHeader('content-type', 'application/x-www-form-urlencoded')
  for (const [name, value] of Object.entries(headers)) setHeader(name, fill(value))
  if (basic !== undefined) setHeader('authorization', `Basic ${Buffer.from(`${fill(basic.user)}:${fill(basic.password)}`).toString('base64')}`)
  const body = json === undefined ? form && new URLSearchParams(Object.entries(form).map(([name, value]) => [name, fill(value)])).toString() : JSON.stringify(fillJson(json, fill))
  return { url, method, headers: filled, ...(body !== undefined && { body }) }
}

/** Texts of JSON are filled and then written, so that a quote in a secret stays a quote in a text. Names are not filled. */
function fillJson(value: unknown, fill: (text: string) => string): unknown {
  if (typeof value === 'string') return fill(value)
  if (Array.isArray(value)) return value.map((one) => fillJson(one, fill))
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, fillJson(one, fill)]))
}

const valueLengthMax = 16_384

/** The text at a JSON Pointer (RFC 6901) of a JSON text; `undefined` where there is none, or an empty or a very long one. */
export function readPointer(text: string, pointer: string): string | undefined {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return undefined
  }
  for (const token of pointer.slice(1).split('/')) {
    const name = token.replaceAll('~1', '/').replaceAll('~0', '~')
    if (typeof value !== 'object' || value === null) return undefined
    value = Object.entries(value).find(([one]) => one === name)?.[1]
  }
  return typeof value === 'string' && value !== '' && value.length <= valueLengthMax ? value : undefined
}

function refuse(publicMessage: string): ConnectorError {
  return new ConnectorError({ outcome: 'nothing_done', publicMessage })
}
