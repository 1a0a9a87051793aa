export interface Position {
  readonly line: number
  readonly column: number
}

/** Finds line and column (1-based, UTF-16 code units) of an index into `text`; `\n`, `\r\n` and `\r` each end a line. */
export function createLocator(text: string): (index: number) => Position {
  const starts = [0]
  for (const match of text.matchAll(/\r\n|\n|\r/g)) starts.push(match.index + match[0].length)
  return (index) => {
    let low = 0
    let high = starts.length - 1
    while (low < high) {
      const middle = (low + high + 1) >> 1
      if ((starts[middle] ?? 0) <= index) low = middle
      else high = middle - 1
    }
    return { line: low + 1, column: index - (starts[low] ?? 0) + 1 }
  }
}

/** The index into `text` of a UTF-8 byte offset, which is how Cedar gives positions. Past the end it is the end. */
export function indexOfByte(text: string, byteOffset: number): number {
  let bytes = 0
  let index = 0
  for (const character of text) {
    if (bytes >= byteOffset) return index
    const code = character.codePointAt(0) ?? 0
    bytes += code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x1_0000 ? 3 : 4
    index += character.length
  }
  return index
}
