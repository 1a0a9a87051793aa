// Walks RFC 8785 canonical JSON as bytes, without making values of it: many times as fast as to parse and to encode it
// again, and strict about all of it.

/** Finds members of objects, one object after another. */
export interface MemberFinder {
  /**
   * Whether the bytes from `start` to before `end` are one canonical object, in which case `startOf` and `endOf` tell where
   * the members are. The bytes must be UTF-8.
   */
  find(bytes: Uint8Array, start: number, end: number): boolean
  /** Where the value of the member of this path begins; -1 where there is none. Paths are counted as they were given. */
  startOf(path: number): number
  endOf(path: number): number
}

/** A member to look for in an object. A list of them is sorted by key, as canonical members are. */
interface Wanted {
  readonly key: Uint8Array
  /** The path that ends here, if one does. */
  readonly path: number | undefined
  /** The members to look for in its value, if that is an object. */
  readonly inner: readonly Wanted[]
}

/** Looks for the members of these paths, such as `decision.verdict`. Keys in them are ASCII without escapes. */
export function createMemberFinder(paths: readonly string[]): MemberFinder {
  const wanted = plan(paths.map((path, i) => ({ names: path.split('.'), path: i })))
  const places = new Int32Array(2 * paths.length)
  let bytes: Uint8Array = new Uint8Array()
  let end = 0

  /** Each of these returns where the value ends, or -1 if there is no canonical one. None of them looks far beyond the end. */
  function skipValue(at: number, inner: readonly Wanted[], depth: number): number {
    switch (bytes[at]) {
      case quote:
        return skipString(at)
      case brace:
        return skipObject(at, inner, depth + 1)
      case bracket:
        return skipArray(at, depth + 1)
      default:
        return skipScalar(bytes, at, end)
    }
  }

  function skipObject(start: number, members: readonly Wanted[], depth: number): number {
    if (depth > depthMax) return -1
    let at = start + 1
    if (bytes[at] === braceEnd) return at + 1
    let last = -1
    let lastEnd = -1
    for (let next = 0; ; ) {
      if (bytes[at] !== quote) return -1
      const key = at + 1
      const value = skipString(at) + 1
      const keyEnd = value - 2
      if (value === 0 || bytes[value - 1] !== colon) return -1
      if (last !== -1 && compareKeys(bytes, last, lastEnd, key, keyEnd) >= 0) return -1
      let found: Wanted | undefined
      for (let candidate = members[next]; candidate !== undefined; candidate = members[++next]) {
        const order = compareBytes(candidate.key, bytes, key, keyEnd)
        if (order === 0) found = candidate
        if (order >= 0) break
      }
      at = skipValue(value, found === undefined ? none : found.inner, depth)
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

  function skipArray(start: number, depth: number): number {
    if (depth > depthMax) return -1
    let at = start + 1
    if (bytes[at] === bracketEnd) return at + 1
    for (;;) {
      at = skipValue(at, none, depth)
      if (at === -1) return -1
      if (bytes[at] === bracketEnd) return at + 1
      if (bytes[at] !== comma) return -1
      at++
    }
  }

  /** Where nothing follows, undefined ends it as a control character does. */
  function skipString(start: number): number {
    for (let at = start + 1; ; at++) {
      const byte = bytes[at] ?? 0
      // Letters in lower case: most of all.
      if (byte > backslash) continue
      if (byte === quote) return at + 1
      if (byte < 0x20) return -1
      if (byte === backslash) {
        at = skipEscape(bytes, at)
        if (at === -1) return -1
      }
    }
  }

  return {
    find(source, start, to) {
      bytes = source
      end = to
      places.fill(-1)
      return source[start] === brace && skipObject(start, wanted, 0) === to
    },
    startOf: (path) => places[2 * path] ?? -1,
    endOf: (path) => places[2 * path + 1] ?? -1,
  }
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
