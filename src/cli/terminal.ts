/**
 * Text from outside made safe to print: every control, format and line-breaking character becomes U+FFFD, so that it can
 * neither steer the terminal (ECMA-48), nor forge a line, nor turn the text around (Unicode TR 36 §2.6). What such a
 * sequence tried to say stays readable.
 */
export function printable(text: string): string {
  return text.replace(unsafe, '\ufffd')
}

/** As `printable`, but keeps line breaks: for messages of several lines that Stint itself has put together. */
export function printableLines(text: string): string {
  return text.split('\n').map(printable).join('\n')
}

// Controls, format characters (directions, zero-width), line and paragraph separators, lone surrogates.
const unsafe = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu

/** JSON for programs, with every character escaped that a terminal could obey; the value it stands for is the same. */
export function formatJson(value: unknown): string {
  const text = JSON.stringify(value, undefined, 2)
  // The only line breaks in it are those between members.
  return `${text.replace(unsafe, (character) => (character === '\n' ? character : escapeUnits(character)))}\n`
}

/** A character as JSON escapes it: its UTF-16 code units. */
function escapeUnits(character: string): string {
  const units = Array.from({ length: character.length }, (_, i) => character.charCodeAt(i))
  return units.map((unit) => `\\u${unit.toString(16).padStart(4, '0')}`).join('')
}

/** The text cut to that many characters, ending in an ellipsis where something was cut; uncut without a width. */
export function truncate(text: string, columns: number | undefined): string {
  if (columns === undefined) return text
  const characters = [...text]
  return characters.length <= columns ? text : `${characters.slice(0, Math.max(0, columns - 1)).join('')}…`
}

/** Rows under a header, columns padded, two spaces between, lines cut to the terminal. Cells are made printable. */
export function formatTable(
  header: readonly string[],
  rows: readonly (readonly string[])[],
  columns: number | undefined,
): string {
  const table = [header, ...rows.map((row) => row.map(printable))]
  const widths = header.map((_, i) => Math.max(...table.map((row) => [...(row[i] ?? '')].length)))
  return table
    .map((row) => row.map((cell, i) => cell + ' '.repeat((widths[i] ?? 0) - [...cell].length)).join('  ').trimEnd())
    .map((line) => `${truncate(line, columns)}\n`)
    .join('')
}

/** Names and values, one pair a line, the values in one column. Absent values are left out; values are made printable. */
export function formatFields(fields: readonly (readonly [name: string, value: string | undefined])[]): string {
  const width = Math.max(...fields.map(([name]) => name.length))
  return fields
    .filter((field): field is [string, string] => field[1] !== undefined)
    .map(([name, value]) => `${`${name.padEnd(width)}  ${printable(value)}`.trimEnd()}\n`)
    .join('')
}

/** An RFC 3339 time without fractions of a second, which are more than a person reads; made printable. */
export function formatInstant(time: string): string {
  return printable(time.replace(/\.\d+Z$/, 'Z'))
}
