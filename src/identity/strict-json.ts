export type JsonRecord = Readonly<Record<string, unknown>>

// `ignoreBOM` keeps a byte order mark in the text, where JSON.parse then refuses it.
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/**
 * The JSON value in these UTF-8 bytes, which no two parsers read differently. `undefined`, which JSON cannot say, for
 * invalid UTF-8, a member name that occurs twice (RFC 7515 §4, RFC 8725 §2.4) or a lone surrogate.
 */
export function parseStrictJson(bytes: Uint8Array): unknown {
  try {
    const text = utf8.decode(bytes)
    const value: unknown = JSON.parse(text)
    return countMembers(value) === countColons(text) ? value : undefined
  } catch {
    return undefined
  }
}

/** The same for bytes that must hold one object. */
export function parseStrictObject(bytes: Uint8Array): JsonRecord | undefined {
  const value = parseStrictJson(bytes)
  return isRecord(value) ? value : undefined
}

/** Whether the value is an object with members, so neither an array nor `null`. */
export function isRecord(value: unknown): value is JsonRecord {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** How many members the parsed value has, at every depth; -1 when a name or a text in it holds a lone surrogate. */
function countMembers(root: unknown): number {
  let members = 0
  // A list of our own instead of recursion: the depth is the sender's choice.
  const open: unknown[] = [root]
  while (open.length > 0) {
    const value = open.pop()
    if (typeof value === 'string') {
      if (!value.isWellFormed()) return -1
    } else if (Array.isArray(value)) {
      for (const item of value) open.push(item)
    } else if (isRecord(value)) {
      for (const name of Object.keys(value)) {
        if (!name.isWellFormed()) return -1
        members++
        open.push(value[name])
      }
    }
  }
  return members
}

/**
 * How many members were written: in valid JSON, each has one colon outside of text. JSON.parse keeps the last of two
 * members of the same name, so fewer members than colons means a duplicate, even one that is spelt with escapes.
 */
function countColons(text: string): number {
  let colons = 0
  let inText = false
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i)
    if (code === 0x22) inText = !inText
    else if (inText) {
      if (code === 0x5c) i++
    } else if (code === 0x3a) colons++
  }
  return colons
}
