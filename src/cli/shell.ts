/** A text as one word that a POSIX shell takes for exactly that (XCU §2.2.2); it holds no NUL, which no shell can take. */
export function quoteWord(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`
}

/** The same, bare where it needs no quotes. */
export function quoteArgument(text: string): string {
  return /^[\w./@:+-]+$/.test(text) ? text : quoteWord(text)
}
