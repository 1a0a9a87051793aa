/** One policy's own text and its place in its file (an index of UTF-16 code units). */
export interface PolicyText {
  readonly text: string
  readonly index: number
}

// Whatever is not code: a comment ends at the first CR or LF, a string may hold escaped quotes.
const comment = String.raw`\/\/[^\n\r]*`
const string = String.raw`"(?:\\[\s\S]|[^"\\])*"`

/**
 * Cuts a file at the `;` that ends each policy, without the space and comments before it. Cedar then parses each piece
 * by itself, so that one broken policy does not hide the problems of the others. Nothing but space and comments is
 * left out: a last piece without `;` is given too, and is Cedar's to refuse.
 */
export function splitPolicies(text: string): PolicyText[] {
  const pieces: PolicyText[] = []
  let from = 0
  for (const match of text.matchAll(new RegExp(`${comment}|${string}|;`, 'g'))) {
    if (match[0] !== ';') continue
    pieces.push(trimStart(text, from, match.index + 1))
    from = match.index + 1
  }
  const rest = trimStart(text, from, text.length)
  return rest.text === '' ? pieces : [...pieces, rest]
}

/**
 * The first index in a policy's text of the entity literal `Type::"id"`, or of the string `"id"` if no type is given;
 * 0 if it is written in another way.
 */
export function findLiteral(policyText: string, id: string, type?: string): number {
  const tokens = [...policyText.matchAll(new RegExp(`${comment}|${string}|[A-Za-z_]\\w*|::|\\S`, 'g'))].filter(
    (token) => !token[0].startsWith('//'),
  )
  for (const [position, token] of tokens.entries()) {
    if (token[0] !== `"${id}"`) continue
    const start = type === undefined ? token : tokens[position - 2]
    if (type === undefined ? tokens[position - 1]?.[0] !== '::' : start?.[0] === type) return start?.index ?? 0
  }
  return 0
}

/**
 * The index of a character that makes a file look other than it is read, or `undefined`: control and bidirectional
 * characters, Unicode line ends (an editor may show the rest of a comment as a rule), and a lone CR (Cedar ends a
 * comment there, an editor may not). A lone surrogate would change on its way to UTF-8, behind the hash's back.
 */
export function findDeceptiveCharacter(text: string): number | undefined {
  const found = text.search(
    // oxlint-disable-next-line no-control-regex
    /[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]|\r(?!\n)|\p{Surrogate}/u,
  )
  return found === -1 ? undefined : found
}

function trimStart(text: string, from: number, to: number): PolicyText {
  const space = new RegExp(`(?:\\s|${comment})*`, 'y')
  space.lastIndex = from
  const index = from + (space.exec(text)?.[0].length ?? 0)
  // A comment before the end may hold the last `;` that was looked for; then nothing is left.
  return index >= to ? { text: '', index: to } : { text: text.slice(index, to), index }
}
