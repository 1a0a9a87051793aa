import canonicalize from 'canonicalize'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { canonicalJson, leafHash, type JsonValue } from '../../src/audit/encode.ts'

describe('Canonical JSON', () => {
  test('is what another implementation makes of any JSON value', () => {
    const value = fc.jsonValue({ maxDepth: 5, noUnicodeString: false })
    fc.assert(
      fc.property(value, (given) => {
        // fast-check's own type for a JSON value is not ours, though the values are the same.
        const text = canonicalJson(given as JsonValue)
        expect(text).toBe(canonicalize(given))
        // Reading it back loses only the sign of zero, which JSON does not keep.
        expect(canonicalJson(JSON.parse(text) as JsonValue)).toBe(text)
      }),
      { numRuns: 500 },
    )
  })

  test('does not depend on the order in which an object was built', () => {
    const members = fc.uniqueArray(fc.tuple(fc.string({ unit: 'binary' }), fc.integer()), { selector: ([key]) => key, maxLength: 12 })
    fc.assert(
      fc.property(members, fc.func(fc.integer()), (given, rank) => {
        const shuffled = given.toSorted((a, b) => rank(a) - rank(b))
        expect(canonicalJson(Object.fromEntries(shuffled))).toBe(canonicalJson(Object.fromEntries(given)))
      }),
    )
  })

  // RFC 8785 appendix B: the bits of a double, and its text.
  test.for<[string, string]>([
    ['0000000000000000', '0'],
    ['8000000000000000', '0'],
    ['0000000000000001', '5e-324'],
    ['8000000000000001', '-5e-324'],
    ['7fefffffffffffff', '1.7976931348623157e+308'],
    ['ffefffffffffffff', '-1.7976931348623157e+308'],
    ['4340000000000000', '9007199254740992'],
    ['c340000000000000', '-9007199254740992'],
    ['4430000000000000', '295147905179352830000'],
    ['44b52d02c7e14af5', '9.999999999999997e+22'],
    ['44b52d02c7e14af6', '1e+23'],
    ['44b52d02c7e14af7', '1.0000000000000001e+23'],
    ['444b1ae4d6e2ef4e', '999999999999999700000'],
    ['444b1ae4d6e2ef4f', '999999999999999900000'],
    ['444b1ae4d6e2ef50', '1e+21'],
    ['3eb0c6f7a0b5ed8c', '9.999999999999997e-7'],
    ['3eb0c6f7a0b5ed8d', '0.000001'],
    ['41b3de4355555553', '333333333.3333332'],
    ['41b3de4355555554', '333333333.33333325'],
    ['41b3de4355555555', '333333333.3333333'],
    ['41b3de4355555556', '333333333.3333334'],
    ['41b3de4355555557', '333333333.33333343'],
    ['becbf647612f3696', '-0.0000033333333333333333'],
    ['43143ff3c1cb0959', '1424953923781206.2'],
  ])('prints the double %s as %s', ([bits, text]) => {
    expect(canonicalJson(Buffer.from(bits, 'hex').readDoubleBE())).toBe(text)
  })

  test('sorts members by UTF-16 code units (RFC 8785 §3.2.3)', () => {
    const given = {
      '\u20ac': 'Euro Sign',
      '\r': 'Carriage Return',
      '\ufb33': 'Hebrew Letter Dalet With Dagesh',
      '1': 'One',
      '\ud83d\ude00': 'Emoji: Grinning Face',
      '\u0080': 'Control',
      '\u00f6': 'Latin Small Letter O With Diaeresis',
    }
    // Read from the text, for a parsed object puts names that are integers first.
    const values = [...canonicalJson(given).matchAll(/:"([^"]*)"/g)].map((match) => match[1])
    expect(values).toEqual([
      'Carriage Return',
      'One',
      'Control',
      'Latin Small Letter O With Diaeresis',
      'Euro Sign',
      'Emoji: Grinning Face',
      'Hebrew Letter Dalet With Dagesh',
    ])
  })

  test('escapes what must be escaped and nothing else (RFC 8785 §3.2.2.2)', () => {
    expect(canonicalJson({ string: '\u20ac$\u000f\u000aA\'\u0042\u0022\u005c\\"\u002f' })).toBe('{"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}')
    expect(canonicalJson('\b\f\t\u0000\u001f\u007f\u2028<>&')).toBe('"\\b\\f\\t\\u0000\\u001f\u007f\u2028<>&"')
    expect(canonicalJson([56, { d: true, '10': null, '1': [] }])).toBe('[56,{"1":[],"10":null,"d":true}]')
  })

  test('leaves absent members out, and keeps a member of any name', () => {
    expect(canonicalJson({ b: undefined, a: 1 })).toBe('{"a":1}')
    expect(canonicalJson(JSON.parse('{"__proto__":{"x":1},"constructor":2}') as JsonValue)).toBe('{"__proto__":{"x":1},"constructor":2}')
  })

  test.for<[string, unknown]>([
    ['NaN', Number.NaN],
    ['an infinity', Number.POSITIVE_INFINITY],
    ['a high surrogate alone', '\ud800'],
    ['a low surrogate alone', ['x\udc00y']],
    ['a lone surrogate in a name', { 'a\ud83d': 1 }],
    ['a bigint', 1n],
    ['undefined', undefined],
    ['undefined in a list', [undefined]],
    ['a function', { a: () => 1 }],
    ['a symbol', Symbol('x')],
  ])('refuses %s, which has none', ([, value]) => {
    // What the compiler would refuse.
    expect(() => canonicalJson(value as JsonValue)).toThrow(TypeError)
  })
})

test('The leaf hash is SHA-256 of a zero byte and the bytes (RFC 6962 §2.1)', () => {
  expect(leafHash(Buffer.alloc(0)).toString('hex')).toBe('6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d')
  expect(leafHash(Buffer.of(0)).toString('hex')).toBe('96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7')
})
