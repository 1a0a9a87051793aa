// Character classes, escapes, group openings, quantifiers, then any other character, as the `u` flag reads them.
const token =
  /\[(?:\\[\s\S]|[^\]\\])*\]|\\(?:k<[^>]*>|[pP]\{[^}]*\}|u\{[^}]*\}|u[\dA-Fa-f]{4}|x[\dA-Fa-f]{2}|c[A-Za-z]|[\s\S])|\((?:\?(?:<?[=!]|<[^>]*>|[a-z-]*:))?|[*+?]\??|\{\d+(?:,\d*)?\}\??|[\s\S]/gu

const choicesMax = 8

interface Group {
  /** Holds a repetition, an optional part or an alternative, so that to repeat it would multiply the ways to match. */
  branches: boolean
  /** The open repetitions where the group begins, and where its finished alternatives end. */
  readonly entry: readonly RegExp[]
  readonly exits: RegExp[]
}

/**
 * Why a valid pattern could take a matcher that backtracks too long, or `undefined`. Refused are look-around,
 * back-references, a repeated group in which there is anything to choose, more than eight optional parts and inner
 * alternatives, and more than one repetition that follows another without a separator that only one of them can match.
 * What is left takes at most 256 times the square of the target's length in steps, and in practice its length.
 */
export function findCostlyRepetition(pattern: string): string | undefined {
  const parts = [...pattern.matchAll(token)].map((match) => match[0])
  const outer: Group[] = []
  let group: Group = { branches: false, entry: [], exits: [] }
  let closed: Group = group
  // The repetitions that are still open: no separator stands between them and this place.
  let open: RegExp[] = []
  let overlaps = 0
  let choices = 0

  for (const [position, part] of parts.entries()) {
    const before = parts[position - 1] ?? ''
    if (/^\(\?<?[=!]/.test(part)) return 'must not look ahead or behind'
    if (/^\\(?:[1-9]|k<)/.test(part)) return 'must not refer back to a group'
    if (part.startsWith('(')) {
      outer.push(group)
      group = { branches: false, entry: open, exits: [] }
    } else if (part === ')') {
      open = [...group.exits, ...open]
      closed = group
      group = outer.pop() ?? group
      group.branches ||= closed.branches
    } else if (part === '|') {
      if (outer.length > 0) choices += 1
      group.branches = true
      group.exits.push(...open)
      open = [...group.entry]
    } else if (isQuantifier(part)) {
      const most = mostTimes(part)
      if (before === ')' && most > 1 && closed.branches) {
        return 'must not repeat a group that holds a repetition or an alternative: repeat one character class instead'
      }
      if (isFixed(part)) continue
      group.branches = true
      if (most <= 1) {
        choices += 1
        // Without the optional part, what was open before it still is.
        if (before === ')') open = [...closed.entry, ...open]
        continue
      }
      if (open.length > 0) overlaps += 1
      open = [...open, before === ')' ? /[\s\S]/u : new RegExp(`^(?:${before})$`, 'u')]
    } else if (!isQuantifier(parts[position + 1] ?? '') && isSeparator(part, open)) {
      open = []
    }
  }
  if (overlaps > 1) return 'has too many repetitions that can match the same text: put a fixed separator between them'
  if (choices > choicesMax) return `has more than ${choicesMax} optional parts and alternatives within groups`
  return undefined
}

function isQuantifier(part: string): boolean {
  return /^(?:[*+?]|\{\d)/.test(part)
}

function isFixed(quantifier: string): boolean {
  return /^\{\d+\}/.test(quantifier)
}

function mostTimes(quantifier: string): number {
  const bounds = /^\{(\d+)(?:(,)(\d*))?\}/.exec(quantifier)
  if (bounds === null) return quantifier.startsWith('?') ? 1 : Number.POSITIVE_INFINITY
  const [, least = '', comma, most = ''] = bounds
  return comma === undefined ? Number(least) : most === '' ? Number.POSITIVE_INFINITY : Number(most)
}

/** Whether a part always takes one character that no open repetition can match, judged on the first 1,024 code points. */
function isSeparator(part: string, open: readonly RegExp[]): boolean {
  // These take no character.
  if (['^', '$', '\\b', '\\B'].includes(part)) return false
  const expression = new RegExp(`^(?:${part})$`, 'u')
  let matches = 0
  for (let code = 0; code < 1024; code++) {
    const character = String.fromCodePoint(code)
    if (!expression.test(character)) continue
    matches += 1
    if (open.some((repeated) => repeated.test(character))) return false
  }
  return matches > 0
}
