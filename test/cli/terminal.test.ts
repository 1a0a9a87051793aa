import { describe, expect, it } from 'vitest'
import { formatFields, formatJson, formatTable, printable, printableLines, truncate } from '../../src/cli/terminal.ts'

const hostile = [
  ['a CSI sequence', '\u001b[2J\u001b[31mred'],
  ['an 8-bit CSI', '\u009b2J'],
  ['an OSC title with BEL', '\u001b]0;title\u0007'],
  ['an OSC link with ST', '\u001b]8;;https://evil.example\u001b\\text'],
  ['a DCS', '\u001bP1;2|x\u009c'],
  ['carriage return', 'denied\rgranted'],
  ['backspace', 'deny\b\b\b\ballow'],
  ['a new line', 'x\n12  2026  grant.issued'],
  ['NUL, DEL, tab', 'a\0b\u007fc\td'],
  ['a right-to-left override', 'user\u202etxt.exe'],
  ['isolates', '\u2066a\u2069'],
  ['zero width', 'a\u200bb\ufeffc'],
  ['line and paragraph separators', 'a\u2028b\u2029c'],
  ['a lone surrogate', 'a\ud800b'],
  ['tag characters', 'a\u{e0041}b'],
] as const

// Written apart from the implementation: what no printed text may hold.
const dangerous = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]/

describe('printable', () => {
  it.each(hostile)('disarms %s', (_what, text) => {
    expect(printable(text)).toContain('\ufffd')
    expect(printable(text).replace(/\p{Co}/gu, '')).not.toMatch(dangerous)
    expect(printable(text)).not.toMatch(/\u{e0041}/u)
  })

  it('keeps what is only text', () => {
    const text = 'Grüße, 東京, 🙂, e\u0301, "a\\b" — 100 %'
    expect(printable(text)).toBe(text)
  })

  it('keeps what a sequence said', () => {
    expect(printable('\u001b[31mred')).toBe('\ufffd[31mred')
  })
})

describe('printableLines', () => {
  it('keeps line breaks and nothing else', () => {
    expect(printableLines('a\nb\r\u001b[0m')).toBe('a\nb\ufffd\ufffd[0m')
  })
})

describe('formatJson', () => {
  it.each(hostile)('escapes %s, and means the same', (_what, text) => {
    const json = formatJson({ [text]: [text] })
    expect(json.replaceAll('\n', '')).not.toMatch(dangerous)
    expect(json).not.toMatch(/\u{e0041}/u)
    expect(JSON.parse(json)).toEqual({ [text]: [text] })
  })
})

describe('formatTable', () => {
  it('aligns, disarms and cuts', () => {
    const rows = [
      ['a', 'x\u001b[1m', 'the end'],
      ['bbb', 'y', 'of a long line'],
    ]
    expect(formatTable(['N', 'V', 'REST'], rows, 20)).toBe('N    V      REST\na    x\ufffd[1m  the end\nbbb  y      of a lo…\n')
  })

  it('does not cut what goes to a file, nor leave blanks at the end', () => {
    expect(formatTable(['A', 'B'], [['x'.repeat(300), '']], undefined)).toBe(`A${' '.repeat(301)}B\n${'x'.repeat(300)}\n`)
  })
})

describe('formatFields', () => {
  it('leaves out what is absent', () => {
    expect(formatFields([['a', '1'], ['long', undefined], ['bb', 'x\ny']])).toBe('a     1\nbb    x\ufffdy\n')
  })
})

describe('truncate', () => {
  it.each([
    ['abc', 3, 'abc'],
    ['abcd', 3, 'ab…'],
    ['🙂🙂🙂', 2, '🙂…'],
    ['abc', 1, '…'],
    ['abc', undefined, 'abc'],
  ])('%s in %s columns', (text, columns, expected) => {
    expect(truncate(text, columns)).toBe(expected)
  })
})
