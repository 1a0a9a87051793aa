export type JsonRecord = Readonly<Record<string, unknown>>

// `ignoreBOM` keeps a byte order mark in the text, where JSON.parse then refuses it.
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** How many objects and lists may be within one another. Nothing that Stint takes needs more than a few. */
const depthMax = 32
/** How many members there may be in all, unless the reader expects more. */
const membersMaxUsual = 1_000

/** What was read, or what is wrong with it, as in `is not UTF-8`. */
export type StrictJson = { readonly ok: true; readonly value: unknown } | { readonly ok: false; readonly problem: string }

/**
 * Reads the JSON value in these UTF-8 bytes, of which no two parsers may make different things: refuses invalid UTF-8, a
 * member name that occurs twice (RFC 7515 §4, RFC 8725 §2.4), a lone surrogate, more depth than every parser takes, and,
 * before they cost anything, more than `membersMax` members.
 */
export function readStrictJson(bytes: Uint8Array, membersMax = membersMaxUsual): StrictJson {
  let text: string
  try {
    text = utf8.decode(bytes)
  } catch {
    return refuse('is not UTF-8')
  }
  const { colons, depth } = scan(text)
  if (depth > depthMax) return refuse(`nests more than ${depthMax} levels deep`)
  if (colons > membersMax) return refuse(`has more than ${membersMax} members`)
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return refuse('is not valid JSON')
  }
  const members = countMembers(value)
  if (members === -1) return refuse('holds half of a surrogate pair, which is no character')
  return members === colons ? { ok: true, value } : refuse('names a member twice')
}

/** The same value; `undefined`, which JSON cannot say, where it is refused. */
export function parseStrictJson(bytes: Uint8Array): unknown {
  const read = readStrictJson(bytes)
  return read.ok ? read.value : undefined
}

function refuse(problem: string): StrictJson {
  return { ok: false, problem }
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
 * members of the same name, so fewer members than colons means a duplicate, even one that is spelt with escapes. And how
 * deep it goes.
 */
function scan(text: string): { colons: number; depth: number } {
  let colons = 0
  let depth = 0
  let open = 0
  let inText = false
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i)
    if (code === 0x22) inText = !inText
    else if (inText) {
      if (code === 0x5c) i++
    } else if (code === 0x3a) colons++
    else if (code === 0x7b || code === 0x5b) depth = Math.max(depth, ++open)
    else if (code === 0x7d || code === 0x5d) open--
  }
  return { colons, depth }
}
