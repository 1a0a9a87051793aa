import { expect, test } from 'vitest'
import { parseStrictJson, parseStrictObject } from '../../src/identity/strict-json.ts'

const bytesOf = (text: string) => new TextEncoder().encode(text)

const accepted = [
  '{}',
  '{"a":{"a":[{"a":1},{"a":2}]}}',
  '{":":":","\\"":"\\":"}',
  '{"a\\\\":1}',
  '{"__proto__":{"a":1},"a":2}',
  '["a:b"]',
  '"a:b"',
  'null',
  '-1.5e3',
  '"\\ud83d\\ude00"',
  `${'['.repeat(32)}${']'.repeat(32)}`,
  `[${'[],'.repeat(100)}"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["]`,
]
test.each(accepted)('reads %s as JSON.parse does', (text) => {
  expect(parseStrictJson(bytesOf(text))).toEqual(JSON.parse(text))
})

const refused = [
  '',
  '{"a":1,"a":1}',
  '{"a":1,"\\u0061":1}',
  '[{"b":{"c":1,"d":{"e":1,"e":2}}}]',
  '{"__proto__":1,"__proto__":2}',
  '{"a\\":":1,"a\\":":2}',
  '{"a":"\\udc00"}',
  '"\\ud800"',
  '["\\ud800"]',
  '{"\\ud800":1}',
  '\ufeff{}',
  '{"a":1}x',
  "{'a':1}",
  '{"a":1,}',
  `${'['.repeat(33)}${']'.repeat(33)}`,
  JSON.stringify(Object.fromEntries(Array.from({ length: 1_001 }, (_, i) => [`a${i}`, i]))),
  `${'{"a":'.repeat(33)}1${'}'.repeat(33)}`,
]
test.each(refused)('refuses %s', (text) => {
  expect(parseStrictJson(bytesOf(text))).toBeUndefined()
})

test.each(['null', '[]', '1', '"{}"', 'true'])('%s is no object', (text) => {
  expect(parseStrictObject(bytesOf(text))).toBeUndefined()
})

test.each([[0xff], [0xc0, 0xaf], [0xed, 0xa0, 0x80], [0xf4, 0x90, 0x80, 0x80]])('refuses invalid UTF-8: %i …', (...bytes) => {
  expect(parseStrictJson(Uint8Array.from([0x22, ...bytes, 0x22]))).toBeUndefined()
})
