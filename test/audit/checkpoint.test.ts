import { generateKeyPairSync } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { formatCheckpoint, openCheckpoint, originOf, parseCheckpoint, signCheckpoint } from '../../src/audit/checkpoint.ts'
import { formatNote, formatVerifierKey, parseNote, parseVerifierKey } from '../../src/audit/note.ts'

const root = Buffer.alloc(32, 7)
const encoded = root.toString('base64')
const origin = 'stint.test/log'

function makeKey(name = origin) {
  const { privateKey } = generateKeyPairSync('ed25519')
  const { x = '' } = privateKey.export({ format: 'jwk' })
  const verifier = parseVerifierKey(formatVerifierKey(name, Buffer.from(x, 'base64url')))
  if (verifier === undefined) throw new Error('no verifier')
  return { privateKey, verifier }
}

describe('A checkpoint', () => {
  test('is three lines, which say what went in', () => {
    expect(formatCheckpoint({ origin, size: 20_852_163, root })).toBe(`stint.test/log\n20852163\n${encoded}\n`)
    for (const size of [0, 1, 2 ** 40, Number.MAX_SAFE_INTEGER]) {
      expect(parseCheckpoint(formatCheckpoint({ origin, size, root }))).toEqual({ origin, size, root })
    }
    expect(originOf('stint.test')).toBe(origin)
  })

  test('that the specification shows is read', () => {
    const text = 'example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n'
    expect(parseCheckpoint(text)).toMatchObject({ origin: 'example.com/behind-the-sofa', size: 20_852_163 })
    expect(parseCheckpoint(`${text}extension one\nand two\n`)).toMatchObject({ size: 20_852_163 })
  })

  test.for<[string, string]>([
    ['nothing', ''],
    ['no origin', `\n3\n${encoded}\n`],
    ['no size', `${origin}\n${encoded}\n`],
    ['no root', `${origin}\n3\n`],
    ['an empty root', `${origin}\n3\n\n`],
    ['no newline at the end', `${origin}\n3\n${encoded}`],
    ['a leading zero', `${origin}\n03\n${encoded}\n`],
    ['a sign', `${origin}\n+3\n${encoded}\n`],
    ['a negative size', `${origin}\n-3\n${encoded}\n`],
    ['a size with a point', `${origin}\n3.0\n${encoded}\n`],
    ['a size in hexadecimal', `${origin}\n0x3\n${encoded}\n`],
    ['a space at the size', `${origin}\n3 \n${encoded}\n`],
    ['a size that no number holds exactly', `${origin}\n9007199254740992\n${encoded}\n`],
    ['a size of many digits', `${origin}\n${'9'.repeat(17)}\n${encoded}\n`],
    ['digits of another script', `${origin}\n٣\n${encoded}\n`],
    ['a root of 31 bytes', `${origin}\n3\n${root.subarray(1).toString('base64')}\n`],
    ['a root of 33 bytes', `${origin}\n3\n${Buffer.alloc(33, 7).toString('base64')}\n`],
    ['a root without its padding', `${origin}\n3\n${encoded.replace('=', '')}\n`],
    ['a root with bits left over', `${origin}\n3\n${encoded.replace('c=', 'd=')}\n`],
    ['a root in hexadecimal', `${origin}\n3\n${root.toString('hex')}\n`],
    ['an empty line behind', `${origin}\n3\n${encoded}\n\n`],
    ['an empty line among the extensions', `${origin}\n3\n${encoded}\none\n\ntwo\n`],
  ])('is not what has %s', ([, text]) => {
    expect(parseCheckpoint(text)).toBeUndefined()
  })

  test('that is signed is opened by the key of its log, whatever else is signed beneath it', () => {
    const [{ privateKey, verifier }, other] = [makeKey(), makeKey('witness.example')]
    const note = signCheckpoint({ origin, size: 3, root }, privateKey, verifier.keyId)
    expect(openCheckpoint(note, verifier)).toEqual({ origin, size: 3, root })
    const strange = parseNote(signCheckpoint({ origin: 'witness.example', size: 9, root }, other.privateKey, other.verifier.keyId))
    const signed = parseNote(note)
    const signatures = [...(strange?.signatures ?? []), ...(signed?.signatures ?? [])]
    expect(signatures).toHaveLength(2)
    expect(openCheckpoint(formatNote({ text: signed?.text ?? '', signatures }), verifier)).toEqual({ origin, size: 3, root })
  })

  test('that cannot be believed says why', () => {
    const { privateKey, verifier } = makeKey()
    const note = signCheckpoint({ origin, size: 3, root }, privateKey, verifier.keyId)
    expect(openCheckpoint(note, makeKey().verifier)).toBe('not signed by this key')
    expect(openCheckpoint(note.replace('\n3\n', '\n4\n'), verifier)).toBe('not signed by this key')
    expect(openCheckpoint(note.replace(encoded, Buffer.alloc(32, 8).toString('base64')), verifier)).toBe('not signed by this key')
    expect(openCheckpoint(note.replace(`${encoded}\n`, `${encoded}\nan extension\n`), verifier)).toBe('not signed by this key')
    expect(openCheckpoint(note, makeKey('other.test/log').verifier)).toBe('another log')
    expect(openCheckpoint(signCheckpoint({ origin: 'other.test/log', size: 3, root }, privateKey, verifier.keyId), verifier)).toBe('another log')
    for (const none of ['', 'a\n', `${formatCheckpoint({ origin, size: 3, root })}`, note.replace('\n3\n', '\nthree\n'), `${note}\n`]) {
      expect(openCheckpoint(none, verifier)).toBe('no checkpoint')
    }
  })
})
