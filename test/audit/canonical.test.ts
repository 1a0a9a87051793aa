import { expect, test } from 'vitest'
import { createMemberReader } from '../../src/audit/canonical.ts'
import { canonicalJson, type JsonValue } from '../../src/audit/encode.ts'

const { read: find, json, has, is, isAround, count, text: textOf } = createMemberReader(['a', 'b.c', 'b', 'deep.er.still', 'b.d'])

function isCanonical(text: string): boolean {
  const bytes = Buffer.from(`x${text}\n`)
  return find(bytes, 1, bytes.length - 1)
}

test('Canonical objects are known as such', () => {
  const values: JsonValue[] = [
    {},
    { a: 1, b: [] },
    { a: -1, b: 1.5, c: 1e21, d: 1e-7, e: 0, f: true, g: false, h: null, i: 9007199254740992, j: 2 ** 60 },
    { a: 'text', b: '"\\\b\f\n\r\t\u0000\u001f\u007f/', ü: 'ü', '\u20ac': '€', '😀': '😀', '\ufb33': 'ﬡ' },
    { '': '', '1': 1, '10': 10, '9': 9, A: 'A', a: 'a', 'a b': 0, aa: 0, 'a\nb': 0, 'a"': 1 },
    { list: [[], [1, [2, { x: [{}] }]], 'x'], z: { z: { z: {} } } },
  ]
  for (const value of values) expect(isCanonical(canonicalJson(value)), canonicalJson(value)).toBe(true)
})

test.each([
  ['', 'nothing'],
  ['[]', 'a list'],
  ['"a"', 'text'],
  ['{ }', 'white space'],
  ['{"a": 1}', 'white space before a value'],
  ['{"a":1} ', 'white space behind'],
  ['{"a":1}{"a":1}', 'two objects'],
  ['{"a":1', 'no end'],
  ['{"a":"1', 'no end of a text'],
  ['{"a":[1', 'no end of a list'],
  ['{"a":1,}', 'a comma too many'],
  ['{"a":[1,]}', 'a comma too many in a list'],
  ['{"a"}', 'no value'],
  ['{"a":}', 'an empty value'],
  ['{a:1}', 'a key without quotes'],
  ['{"b":1,"a":1}', 'keys out of order'],
  ['{"a":1,"a":2}', 'a key twice'],
  ['{"x":{"a":1,"a":1}}', 'a key twice further down'],
  ['{"a":1,"\\u0061":2}', 'a key twice, spelled otherwise'],
  ['{"\\u0061":1}', 'an escape of what needs none'],
  ['{"a":"\\/"}', 'an escaped slash'],
  ['{"a":"\\u000A"}', 'a control that has a short form'],
  ['{"a":"\\u001F"}', 'digits in upper case'],
  ['{"a":"\\u0020"}', 'an escaped space'],
  ['{"a":"\\ud800"}', 'a lone surrogate'],
  ['{"a":"\t"}', 'a control as it is'],
  ['{"a":01}', 'a leading zero'],
  ['{"a":-0}', 'a negative zero'],
  ['{"a":1.0}', 'a decimal too many'],
  ['{"a":1e2}', 'an exponent that needs none'],
  ['{"a":1e400}', 'a number too large'],
  ['{"a":NaN}', 'no number'],
  ['{"a":9007199254740993}', 'a number that has another nearest'],
  ['{"a":tru}', 'no literal'],
  ['{"\ufb33":1,"😀":1}', 'keys in the order of code points and not of code units'],
  [`{"a":${'['.repeat(100)}${']'.repeat(100)}}`, 'what is far too deep'],
])('%s is not canonical: %s', (text) => {
  expect(isCanonical(text)).toBe(false)
})

test('Members are found where they are, and nowhere else', () => {
  const text = '{"a":[{"a":1}],"b":{"a":2,"c":{"b":0},"d":"x"},"deep":{"er":[]},"z":{"a":3}}'
  const bytes = Buffer.from(text)
  expect(find(bytes, 0, bytes.length)).toBe(true)
  expect([0, 1, 2, 3].map(json)).toEqual(['[{"a":1}]', '{"b":0}', '{"a":2,"c":{"b":0},"d":"x"}', ''])
  expect([0, 1, 2, 3].map(has)).toEqual([true, true, true, false])
  expect([textOf(4), textOf(0), textOf(3)]).toEqual(['x', '', ''])
  expect([is(1, Buffer.from('{"b":0}')), is(1, Buffer.from('{"b":1}')), is(1, Buffer.from('{"b":0')), is(3, Buffer.from(''))]).toEqual([true, false, false, false])
  const around = (before: string, behind: string, trim = 0) => isAround(2, Buffer.from(before), 1, Buffer.from(behind), trim)
  expect([around('{"a":2,"c":', ',"d":"x"}'), around('{"a":2,"c":', ',"d":"y"}'), around('{"a":2,"c":{', '},"d":"x"}', 1), around('{"a":2,"c"', ':,"d":"x"}')]).toEqual([true, false, true, false])
  expect(isAround(3, Buffer.from(''), 1, Buffer.from(''))).toBe(false)
  const other = Buffer.from('{"z":1}')
  expect(find(other, 0, other.length)).toBe(true)
  expect([has(0), json(0)]).toEqual([false, ''])
  for (const [number, expected] of Object.entries({ 0: 0, 17: 17, '-1': -1, 1.5: -1, '"7"': -1, 123456789012345: 123456789012345 })) {
    const counted = Buffer.from(`{"a":${number}}`)
    expect([find(counted, 0, counted.length), count(0)]).toEqual([true, expected])
  }
  expect(count(3)).toBe(-1)
})

test('Every change of one byte of an entry leaves it canonical or is seen, as by parsing and encoding it again', () => {
  const text = canonicalJson({ actor: { id: 'a', kind: 'x' }, list: [1, 20, 'a\\"b'], n: -1.5e-9, t: true, ü: null })
  const bytes = Buffer.from(text)
  for (let at = 0; at < bytes.length; at++) {
    for (const byte of Buffer.from('"\\{}[],:0-.e1au\u001f ')) {
      const changed = Buffer.from(bytes)
      changed[at] = byte
      if (!changed.toString('utf8').isWellFormed() || changed.toString('utf8').includes('\ufffd')) continue
      expect(find(changed, 0, changed.length), changed.toString()).toBe(roundTrips(changed.toString()))
    }
  }
})

function roundTrips(text: string): boolean {
  try {
    const value = JSON.parse(text) as JsonValue
    return typeof value === 'object' && value !== null && !Array.isArray(value) && canonicalJson(value) === text
  } catch {
    return false
  }
}
