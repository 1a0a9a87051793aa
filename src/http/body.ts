import type { Context } from 'hono'
import type { z } from 'zod'
import { isRecord, readStrictJson, type JsonRecord } from '../identity/strict-json.ts'
import { BrokerError } from '../kernel/errors.ts'
import { decodePair, parseInput } from './query.ts'
import type { Body } from './route.ts'

/** The largest body of an ordinary request. */
export const bodyBytesMax = 64 * 1024
/** The largest body that carries a policy set: the set's own limit, and what JSON adds to it. */
export const policyBytesMax = 24 * 1024 * 1024
/** And its members: a folder has at most half as many files. */
export const policyMembersMax = 20_000

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/**
 * The parameters of a form body (RFC 6749 §3.2). Refuses with `invalid_request` what invariant 6 names: anything in the
 * query, another content type, a parameter that is unknown, sent twice, empty, or not UTF-8.
 */
export async function readForm<S extends z.ZodObject>(c: Context, schema: S, bytesMax?: number): Promise<z.output<S>> {
  if (c.req.url.includes('?')) throw refuse('Parameters belong in the body, not in the URL, where logs and proxies would keep them.')
  if (!isMediaType(c, 'application/x-www-form-urlencoded')) {
    throw refuse('Send the parameters as application/x-www-form-urlencoded.')
  }
  if (isEncoded(c)) throw refuse('Send the parameters as they are, without a Content-Encoding.')
  return parseForm(await readBytes(c, bytesMax), schema)
}

/** The same of a form's bytes. */
export function parseForm<S extends z.ZodObject>(bytes: Uint8Array, schema: S): z.output<S> {
  const names = Object.keys(schema.shape)
  const form: Partial<Record<string, string>> = Object.create(null) as Partial<Record<string, string>>
  const text = decode(bytes)
  if (text === undefined) throw refuse('The body is not UTF-8.')
  for (const pair of text === '' ? [] : text.split('&')) {
    const [name, value] = decodePair(pair) ?? []
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

/** Refuses a body where none is read (invariant 6). */
export function refuseBody(c: Context): void {
  const { 'content-length': length = '0', 'transfer-encoding': encoding } = c.req.header()
  if (Number(length) === 0 && encoding === undefined) return
  throw new BrokerError({ code: 'invalid_input', publicMessage: 'This address takes no body, and one was sent.' })
}

/** The JSON object of a request body. Throws `unsupported_media_type`, `payload_too_large` or `invalid_input`. */
export async function readJson(c: Context, { bytesMax, membersMax }: Partial<Pick<Body, 'bytesMax' | 'membersMax'>> = {}): Promise<JsonRecord> {
  if (!isMediaType(c, 'application/json')) {
    throw new BrokerError({ code: 'unsupported_media_type', publicMessage: 'Send the body as application/json.' })
  }
  if (isEncoded(c)) throw new BrokerError({ code: 'unsupported_media_type', publicMessage: 'Send the body as it is, without a Content-Encoding.' })
  const read = readStrictJson(await readBytes(c, bytesMax), membersMax)
  if (!read.ok) throw new BrokerError({ code: 'invalid_input', publicMessage: `The body ${read.problem}.` })
  if (isRecord(read.value)) return read.value
  throw new BrokerError({ code: 'invalid_input', publicMessage: 'The body must be one JSON object.' })
}

/**
 * The bytes of the body. One that says that it is too long is not read at all, and one that does not say its length is
 * counted as it comes. Throws `payload_too_large`, and `invalid_input` where the client goes away before its end.
 */
async function readBytes(c: Context, bytesMax = bodyBytesMax): Promise<Uint8Array> {
  const length = c.req.header('content-length')
  if (length !== undefined && Number(length) > bytesMax) throw tooLarge()
  try {
    // The server reads no more than the length that was said.
    if (length !== undefined && c.req.header('transfer-encoding') === undefined) return new Uint8Array(await c.req.arrayBuffer())
    return await collect(c.req.raw.body, bytesMax)
  } catch (cause) {
    if (cause instanceof BrokerError) throw cause
    throw cutOff(cause)
  }
}

/** The client went away, or its connection broke, before all of the body was there. */
export function cutOff(cause?: unknown): BrokerError {
  return new BrokerError({ code: 'invalid_input', publicMessage: 'The body did not arrive to its end.', ...(cause !== undefined && { cause }) })
}

/** Into one buffer that grows, for many small pieces would take up many times as much as what is in them. */
async function collect(body: ReadableStream<Uint8Array> | null, bytesMax: number): Promise<Uint8Array> {
  let buffer = new Uint8Array(0)
  let bytes = 0
  const reader = body?.getReader()
  for (;;) {
    const { done = true, value } = (await reader?.read()) ?? {}
    if (done || value === undefined) return buffer.subarray(0, bytes)
    if (bytes + value.length > bytesMax) throw tooLarge()
    if (bytes + value.length > buffer.length) {
      const grown = new Uint8Array(Math.min(bytesMax, Math.max(bytes + value.length, buffer.length * 2)))
      grown.set(buffer.subarray(0, bytes))
      buffer = grown
    }
    buffer.set(value, bytes)
    bytes += value.length
  }
}

function tooLarge(): BrokerError {
  return new BrokerError({ code: 'payload_too_large', publicMessage: 'The body is larger than this address takes.' })
}

function decode(bytes: Uint8Array): string | undefined {
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

/** RFC 9110 §8.4: nothing is unpacked here, and what was packed must not be read as if it were not. */
function isEncoded(c: Context): boolean {
  return (c.req.header('content-encoding') ?? 'identity').toLowerCase() !== 'identity'
}

function refuse(publicMessage: string): BrokerError {
  return new BrokerError({ code: 'invalid_request', publicMessage })
}
