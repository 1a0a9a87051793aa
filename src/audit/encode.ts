import { hash } from 'node:crypto'

/** A value that JSON can carry. `undefined` members are left out, as JSON does. */
export type JsonValue = null | boolean | number | string | readonly JsonValue[] | JsonObject
export interface JsonObject {
  readonly [key: string]: JsonValue | undefined
}

/**
 * RFC 8785 canonical JSON: members sorted by UTF-16 code units, no white space, numbers as ECMAScript prints them.
 * Throws `TypeError` for what has no canonical form: NaN, infinities, lone surrogates.
 */
export function canonicalJson(value: JsonValue): string {
  switch (typeof value) {
    case 'string':
      return canonicalString(value)
    case 'number':
      if (!Number.isFinite(value)) throw new TypeError(`no canonical JSON for the number ${value}`)
      return JSON.stringify(value)
    case 'boolean':
      return value ? 'true' : 'false'
    case 'object':
      break
    default:
      throw new TypeError(`no canonical JSON for a ${typeof value}`)
  }
  if (value === null) return 'null'
  if (isArray(value)) return `[${value.map(canonicalJson).join(',')}]`
  let text = ''
  for (const key of Object.keys(value).sort()) {
    const member = value[key]
    if (member === undefined) continue
    text += `${text === '' ? '' : ','}${canonicalString(key)}:${canonicalJson(member)}`
  }
  return `{${text}}`
}

// Array.isArray does not narrow a readonly array out of the union.
function isArray(value: readonly JsonValue[] | JsonObject): value is readonly JsonValue[] {
  return Array.isArray(value)
}

/** What JSON escapes, or UTF-8 cannot say. Hardly any text of an event has one, and to look costs less than to escape. */
const special = /["\\\p{Cc}\ud800-\udfff]/u

function canonicalString(text: string): string {
  if (!special.test(text)) return `"${text}"`
  if (!text.isWellFormed()) throw new TypeError('no canonical JSON for a string with a lone surrogate')
  return JSON.stringify(text)
}

const leafPrefix = Buffer.from([0])

/** RFC 6962 §2.1 leaf hash: SHA-256 of `0x00 ‖ bytes`, 32 bytes. */
export function leafHash(bytes: Uint8Array): Buffer {
  return hash('sha256', Buffer.concat([leafPrefix, bytes]), 'buffer')
}
