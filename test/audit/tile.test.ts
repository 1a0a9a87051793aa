import fc from 'fast-check'
import { expect, test } from 'vitest'
import { encodeBundle, hasTile, levelPattern, parseTilePlace, placePattern } from '../../src/audit/tile.ts'

/** The number as an address has it, by arithmetic alone. */
function spell(index: number): string {
  const last = String(index % 1000).padStart(3, '0')
  const spellFront = (rest: number): string => (rest === 0 ? '' : `${spellFront(Math.floor(rest / 1000))}x${String(rest % 1000).padStart(3, '0')}/`)
  return spellFront(Math.floor(index / 1000)) + last
}

test.for<[string, number, number]>([
  ['000', 0, 256],
  ['067', 67, 256],
  ['999', 999, 256],
  ['x001/000', 1_000, 256],
  ['x001/x234/067', 1_234_067, 256],
  ['x123/x000/x000/x000/000', 123_000_000_000_000, 256],
  ['000.p/1', 0, 1],
  ['x001/067.p/255', 1_067, 255],
])('%s is tile %s of width %s', ([text, index, width]) => {
  expect(text).toMatch(placePattern)
  expect(parseTilePlace(text)).toEqual({ index, width })
})

test('Every tile has one spelling, which says what it is', () => {
  const widths = fc.integer({ min: 1, max: 256 })
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 10 ** 15 - 1 }), widths, (index, width) => {
      const text = `${spell(index)}${width === 256 ? '' : `.p/${width}`}`
      expect(text).toMatch(placePattern)
      expect(parseTilePlace(text)).toEqual({ index, width })
      // Any other place that fits the pattern says something else.
      const changed = [`x000/${text}`, `x${text}`, `0${text}`, `${text}.p/256`, `${text}/`, ` ${text}`, `${text}\n`, text.replace('.p/', '.p/0')]
      for (const other of changed.filter((other) => other !== text)) expect(other).not.toMatch(placePattern)
    }),
  )
})

test.for(['', '0', '00', '67', '0067', '1000', 'x000/067', 'x001', 'x001/', 'x001/67', '001/067', 'x01/067', 'X001/067', 'x001//067', '/067', '067/', '067.p', '067.p/', '067.p/0', '067.p/00', '067.p/01', '067.p/256', '067.p/300', '067.p/1000', '067.p/-1', '067.p/1/', '067.P/1', '067p/1', '067.p/1.p/1', '-01', '+67', '6 7', '٠٦٧', '06a', 'x001.p/067', `${'x001/'.repeat(5)}067`])(
  '%j is no tile',
  (text) => {
    expect(text).not.toMatch(placePattern)
  },
)

test('There are the levels from 0 to 63', () => {
  for (let level = 0; level < 64; level++) expect(String(level)).toMatch(levelPattern)
  for (const none of ['64', '99', '100', '00', '01', '-1', '', 'entries', '1 ', '١']) expect(none).not.toMatch(levelPattern)
})

test('A tree has the tiles that its size gives it, and no others', () => {
  // The example of the specification: 273 full tiles and one of 112 at level 0, one of 17 behind a full one, one of one.
  const has = (level: number, index: number, width: number) => hasTile(70_000, { level, index, width })
  expect([has(0, 272, 256), has(0, 273, 112), has(0, 273, 113), has(0, 273, 256), has(0, 274, 1)]).toEqual([true, true, false, false, false])
  expect([has(1, 0, 256), has(1, 1, 17), has(1, 1, 18), has(2, 0, 1), has(2, 0, 2), has(3, 0, 1)]).toEqual([true, true, false, true, false, false])
  expect([hasTile(256, { level: 0, index: 0, width: 256 }), hasTile(256, { level: 1, index: 0, width: 1 }), hasTile(255, { level: 1, index: 0, width: 1 })]).toEqual([true, true, false])
  expect(hasTile(0, { level: 0, index: 0, width: 1 })).toBe(false)
  expect(hasTile(2 ** 53 - 1, { level: 63, index: 0, width: 1 })).toBe(false)
  expect(hasTile(2 ** 53 - 1, { level: 0, index: 10 ** 15 - 1, width: 256 })).toBe(false)
})

test('A bundle has each entry behind its length in bytes', () => {
  expect(encodeBundle([])).toEqual(Buffer.alloc(0))
  expect(encodeBundle(['a', '', 'ü'])).toEqual(Buffer.from('00016100000002c3bc', 'hex'))
  const long = 'a'.repeat(65_535)
  expect(encodeBundle([long]).subarray(0, 3).toString('hex')).toBe('ffff61')
  expect(() => encodeBundle([`${long}a`])).toThrow(RangeError)
})
