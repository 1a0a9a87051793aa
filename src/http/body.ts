import type { Context } from 'hono'
import type { z } from 'zod'
import { parseStrictObject, type JsonRecord } from '../identity/strict-json.ts'
import { BrokerError } from '../kernel/errors.ts'
import { parseInput } from './query.ts'

/** The largest body of an ordinary request. */
export const bodyBytesMax = 64 * 1024
/** The largest body that carries a policy set: the set's own limit, and what JSON adds to it. */
export const policyBytesMax = 24 * 1024 * 1024

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/**
 * The parameters of a form body (RFC 6749 §3.2). Refuses with `invalid_request` what invariant 6 names: anything in the
 * query, another content type, a parameter that is unknown, sent twice, empty, or not UTF-8.
 */
export async function readForm<S extends z.ZodObject>(c: Context, schema: S): Promise<z.output<S>> {
  const names = Object.keys(schema.shape)
  if (c.req.url.includes('?')) throw refuse('Parameters belong in the body, not in the URL, where logs and proxies would keep them.')
  if (!isMediaType(c, 'application/x-www-form-urlencoded')) {
    throw refuse('Send the parameters as application/x-www-form-urlencoded.')
  }
  const form: Partial<Record<string, string>> = Object.create(null) as Partial<Record<string, string>>
  const text = decode(await c.req.arrayBuffer())
  if (text === undefined) throw refuse('The body is not UTF-8.')
  for (const pair of text === '' ? [] : text.split('&')) {
    const at = pair.indexOf('=')
    const name = decodePart(at === -1 ? pair : pair.slice(0, at))
    const value = at === -1 ? undefined : decodePart(pair.slice(at + 1))
    if (name === undefined || value === undefined) throw refuse('A parameter is not form-encoded UTF-8 of the form name=value.')
    if (!names.includes(name)) {
      const hint = name === 'client_secret' ? '; authenticate by private_key_jwt (RFC 7523)' : ''
      throw refuse(`The parameter ${name.slice(0, 64)} is not taken here${hint}.`)
    }
    if (form[name] !== undefined) throw refuse(`The parameter ${name} was sent twice.`)
    if (value === '') throw refuse(`The parameter ${name} is empty: give it a value or leave it out.`)
    form[name] = value
  }
  return parseInput(schema, form, 'invalid_request')
}

function decodePart(part: string): string | undefined {
  try {
    return decodeURIComponent(part.replaceAll('+', ' '))
  } catch {
    return undefined
  }
}

/** Refuses a body where none is read (invariant 6). */
export function refuseBody(c: Context): void {
  const { 'content-length': length = '0', 'transfer-encoding': encoding } = c.req.header()
  if (Number(length) === 0 && encoding === undefined) return
  throw new BrokerError({ code: 'invalid_input', publicMessage: 'This address takes no body, and one was sent.' })
}

/** The JSON object of a request body. Throws `unsupported_media_type` or `invalid_input`. */
export async function readJson(c: Context): Promise<JsonRecord> {
  if (!isMediaType(c, 'application/json')) {
    throw new BrokerError({ code: 'unsupported_media_type', publicMessage: 'Send the body as application/json.' })
  }
  const body = parseStrictObject(new Uint8Array(await c.req.arrayBuffer()))
  if (body !== undefined) return body
  throw new BrokerError({
    code: 'invalid_input',
    publicMessage: 'The body must be one JSON object in UTF-8, with no member named twice.',
  })
}

function decode(bytes: ArrayBuffer): string | undefined {
  try {
    return utf8.decode(bytes)
  } catch {
    return undefined
  }
}

/** Whether the body is of that type; a charset may follow, if it is UTF-8. */
function isMediaType(c: Context, wanted: string): boolean {
  const [type = '', ...parameters] = (c.req.header('content-type') ?? '').toLowerCase().split(';')
  return type.trim() === wanted && parameters.every((parameter) => /^\s*charset="?utf-8"?\s*$/.test(parameter))
}

function refuse(publicMessage: string): BrokerError {
  return new BrokerError({ code: 'invalid_request', publicMessage })
}
