// Walks RFC 8785 canonical JSON as bytes, without making values of it: many times as fast as to parse and to encode it
// again, and strict about all of it.

/** The members of one object after another, by paths that are counted as they were given. */
export interface MemberReader {
  /** Whether the bytes from `start` to before `end` are one canonical object, whose members are read from then on. The bytes must be UTF-8. */
  read(bytes: Buffer, start: number, end: number): boolean
  has(path: number): boolean
  /** The member's JSON as it stands there; empty where there is none. */
  json(path: number): string
  /** The member's text; empty where there is none or where it is no text. */
  text(path: number): string
  /** The whole number that the member is, from 0; -1 where there is none or where it is another value. */
  count(path: number): number
  /** Where the member's JSON begins; -1 where there is none. */
  startOf(path: number): number
  /** Whether the member's JSON is this. */
  is(path: number, json: Uint8Array): boolean
  /** Whether the member's JSON is that of another one between these; with `trim`, less so many bytes at each end of it. */
  isAround(path: number, before: Uint8Array, other: number, behind: Uint8Array, trim?: number): boolean
}

/** A member to look for in an object. A list of them is sorted by key, as canonical members are. */
interface Wanted {
  readonly key: Uint8Array
  /** The path that ends here, if one does. */
  readonly path: number | undefined
  /** The members to look for in its value, if that is an object. */
  readonly inner: readonly Wanted[]
}

/** Reads the members of these paths, such as `decision.verdict`. Keys in them are ASCII without escapes. */
export function createMemberReader(paths: readonly string[]): MemberReader {
  const wanted = plan(paths.map((path, i) => ({ names: path.split('.'), path: i })))
  const places = new Int32Array(2 * paths.length)
  let bytes: Buffer = Buffer.alloc(0)

  const startOf = (path: number): number => places[2 * path] ?? -1
  const endOf = (path: number): number => places[2 * path + 1] ?? -1
  const has = (path: number): boolean => startOf(path) !== -1

  return {
    read(source, start, end) {
      bytes = source
      places.fill(-1)
      return source[start] === brace && skipObject(source, start, end, wanted, places, 0) === end
    },
    has,
    json: (path) => (startOf(path) === -1 ? '' : bytes.toString('utf8', startOf(path), endOf(path))),
    text(path) {
      const start = startOf(path)
      return start === -1 || bytes[start] !== quote ? '' : decodeText(bytes, start + 1, endOf(path) - 1)
    },
    count(path) {
      const [start, end] = [startOf(path), endOf(path)]
      if (start === -1 || end - start > 15) return -1
      let value = 0
      for (let at = start; at < end; at++) {
        const digit = (bytes[at] ?? 0) - 0x30
        if (digit < 0 || digit > 9) return -1
        value = 10 * value + digit
      }
      return value
    },
    startOf,
    is: (path, json) => has(path) && endOf(path) - startOf(path) === json.length && isThere(bytes, startOf(path), json, 0, json.length),
    isAround(path, before, other, behind, trim = 0) {
      const [start, from, to] = [startOf(path), startOf(other) + trim, endOf(other) - trim]
      const middle = start + before.length
      if (start === -1 || startOf(other) === -1 || endOf(path) - start !== before.length + (to - from) + behind.length) return false
      return (
        isThere(bytes, start, before, 0, before.length) &&
        isThere(bytes, middle, bytes, from, to) &&
        isThere(bytes, middle + to - from, behind, 0, behind.length)
      )
    },
  }
}

function isThere(bytes: Uint8Array, at: number, part: Uint8Array, from: number, to: number): boolean {
  for (let i = from; i < to; i++) if (bytes[at + i - from] !== part[i]) return false
  return true
}

const brace = 0x7b
const braceEnd = 0x7d
const bracket = 0x5b
const bracketEnd = 0x5d
const quote = 0x22
const backslash = 0x5c
const colon = 0x3a
const comma = 0x2c
const none: readonly Wanted[] = []
/** Far deeper than an event is; so that no depth can exhaust the stack. */
const depthMax = 64

/** Each of these returns where the value ends, or -1 if there is no canonical one. None looks beyond the first control character. */
function skipValue(bytes: Uint8Array, at: number, end: number, wanted: readonly Wanted[], places: Int32Array, depth: number): number {
  switch (bytes[at]) {
    case quote:
      return skipString(bytes, at)
    case brace:
      return skipObject(bytes, at, end, wanted, places, depth + 1)
    case bracket:
      return skipArray(bytes, at, end, places, depth + 1)
    default:
      return skipScalar(bytes, at, end)
  }
}

function skipObject(bytes: Uint8Array, start: number, end: number, wanted: readonly Wanted[], places: Int32Array, depth: number): number {
  if (depth > depthMax) return -1
  let at = start + 1
  if (bytes[at] === braceEnd) return at + 1
  let last = -1
  let lastEnd = -1
  for (let next = 0; ; ) {
    if (bytes[at] !== quote) return -1
    const key = at + 1
    const value = skipString(bytes, at) + 1
    const keyEnd = value - 2
    if (value === 0 || bytes[value - 1] !== colon) return -1
    if (last !== -1 && compareKeys(bytes, last, lastEnd, key, keyEnd) >= 0) return -1
    let found: Wanted | undefined
    for (let candidate = wanted[next]; candidate !== undefined; candidate = wanted[++next]) {
      const order = compareBytes(candidate.key, bytes, key, keyEnd)
      if (order === 0) found = candidate
      if (order >= 0) break
    }
    at = skipValue(bytes, value, end, found === undefined ? none : found.inner, places, depth)
    if (at === -1) return -1
    if (found?.path !== undefined) {
      places[2 * found.path] = value
      places[2 * found.path + 1] = at
    }
    if (bytes[at] === braceEnd) return at + 1
    if (bytes[at] !== comma) return -1
    last = key
    lastEnd = keyEnd
    at++
  }
}

function skipArray(bytes: Uint8Array, start: number, end: number, places: Int32Array, depth: number): number {
  if (depth > depthMax) return -1
  let at = start + 1
  if (bytes[at] === bracketEnd) return at + 1
  for (;;) {
    at = skipValue(bytes, at, end, none, places, depth)
    if (at === -1) return -1
    if (bytes[at] === bracketEnd) return at + 1
    if (bytes[at] !== comma) return -1
    at++
  }
}

function skipString(bytes: Uint8Array, start: number): number {
  let at = start + 1
  for (let byte = bytes[at]; byte !== quote; byte = bytes[++at]) {
    // Where nothing follows, undefined ends it as a control character does.
    if (byte === undefined || byte < 0x20) return -1
    if (byte !== backslash) continue
    at = skipEscape(bytes, at)
    if (at === -1) return -1
  }
  return at + 1
}

function plan(paths: readonly { readonly names: readonly string[]; readonly path: number }[]): Wanted[] {
  const names = [...new Set(paths.map(({ names: [name = ''] }) => name))].sort()
  return names.map((name) => {
    const own = paths.filter(({ names: [first] }) => first === name)
    const inner = own.filter((one) => one.names.length > 1).map((one) => ({ names: one.names.slice(1), path: one.path }))
    return { key: Buffer.from(name), path: own.find((one) => one.names.length === 1)?.path, inner: plan(inner) }
  })
}

/** `\"`, `\\`, the short forms, and the other controls as `\u00` with lower-case digits: nothing else is escaped. */
function skipEscape(bytes: Uint8Array, at: number): number {
  const sign = String.fromCharCode(bytes[at + 1] ?? 0)
  if ('"\\bfnrt'.includes(sign)) return at + 1
  const digits = String.fromCharCode(...bytes.subarray(at + 2, at + 6))
  return sign === 'u' && /^00(?:0[0-7be-f]|1[0-9a-f])$/.test(digits) ? at + 5 : -1
}

function skipScalar(bytes: Uint8Array, start: number, end: number): number {
  let at = start
  let digits = true
  for (let byte = bytes[at] ?? 0; at < end && byte !== comma && byte !== braceEnd && byte !== bracketEnd; byte = bytes[++at] ?? 0) {
    if (byte < 0x30 || byte > 0x39) digits = false
  }
  const length = at - start
  // The usual number: a few digits.
  if (digits && length > 0 && length < 16 && (bytes[start] !== 0x30 || length === 1)) return at
  const text = Buffer.from(bytes.subarray(start, Math.min(at, start + 32))).toString('latin1')
  if (text === 'true' || text === 'false' || text === 'null') return at
  return length <= 32 && Number.isFinite(Number(text)) && String(Number(text)) === text ? at : -1
}

/**
 * By UTF-16 code units of what the keys stand for (RFC 8785 §3.2.3). That is the order of their bytes up to the first that
 * differs, unless there was an escape before it, or it is of a character beyond ASCII.
 */
function compareKeys(bytes: Uint8Array, a: number, endA: number, b: number, endB: number): number {
  const length = Math.min(endA - a, endB - b)
  for (let i = 0; i < length; i++) {
    const one = bytes[a + i] ?? 0
    const other = bytes[b + i] ?? 0
    if (one === backslash || other === backslash || ((one >= 0x80 || other >= 0x80) && one !== other)) return compareTexts(bytes, a, endA, b, endB)
    if (one !== other) return one - other
  }
  return endA - a - (endB - b)
}

function compareTexts(bytes: Uint8Array, a: number, endA: number, b: number, endB: number): number {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const [one, other] = [decodeText(buffer, a, endA), decodeText(buffer, b, endB)]
  return one < other ? -1 : one > other ? 1 : 0
}

function compareBytes(key: Uint8Array, bytes: Uint8Array, start: number, end: number): number {
  const length = Math.min(key.length, end - start)
  for (let i = 0; i < length; i++) {
    const difference = (key[i] ?? 0) - (bytes[start + i] ?? 0)
    if (difference !== 0) return difference
  }
  return key.length - (end - start)
}

/** The text that a JSON string stands for, of which these are the bytes between the quotes. */
export function decodeText(bytes: Buffer, start: number, end: number): string {
  const text = bytes.toString('utf8', start, end)
  if (!text.includes('\\')) return text
  // It was walked over before: it is a JSON string.
  return JSON.parse(`"${text}"`) as string
}
