import { createPrivateKey, generateKeyPairSync, sign, type KeyObject } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import {
  findSignature,
  formatNote,
  formatSignature,
  formatVerifierKey,
  isNoteName,
  keyIdOf,
  parseNote,
  parseSignatures,
  parseVerifierKey,
  type NoteSignature,
  type NoteVerifier,
  type SignatureKind,
} from '../../src/audit/note.ts'

interface Signer {
  readonly verifier: NoteVerifier
  readonly key: string
  sign(text: string, seconds?: bigint): NoteSignature
}

function makeSigner(name = 'log.example', kind: SignatureKind = 'note', privateKey: KeyObject = generateKeyPairSync('ed25519').privateKey): Signer {
  const { x = '' } = privateKey.export({ format: 'jwk' })
  const key = formatVerifierKey(name, Buffer.from(x, 'base64url'), kind)
  const verifier = parseVerifierKey(key)
  if (verifier === undefined) throw new Error(`no verifier: ${key}`)
  return {
    key,
    verifier,
    sign(text, seconds = 1_768_478_400n) {
      const { keyId } = verifier
      if (kind === 'note') return { name, keyId, signature: sign(null, Buffer.from(text), privateKey) }
      const time = Buffer.alloc(8)
      time.writeBigUInt64BE(seconds)
      return { name, keyId, signature: Buffer.concat([time, sign(null, Buffer.from(`cosignature/v1\ntime ${seconds}\n${text}`), privateKey)]) }
    },
  }
}

const text = 'log.example/log\n3\nAAAA\n'

// What the Go project publishes to try its own implementation with.
const published = {
  key: 'PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW',
  note:
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n" +
    '\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n',
}

function verifies(note: string, key: string): boolean {
  const [signed, verifier] = [parseNote(note), parseVerifierKey(key)]
  return signed !== undefined && verifier !== undefined && findSignature(signed, verifier) !== undefined
}

describe('A signed note', () => {
  test('that others have published is read, verified and written as it was', () => {
    expect(verifies(published.note, published.key)).toBe(true)
    expect(verifies(published.note.replace('answer', 'answre'), published.key)).toBe(false)
    const parsed = parseNote(published.note)
    expect(parsed && formatNote(parsed)).toBe(published.note)
    const verifier = parseVerifierKey(published.key)
    expect(verifier && formatVerifierKey(verifier.name, Buffer.from(verifier.publicKey.export({ format: 'jwk' }).x ?? '', 'base64url'))).toBe(published.key)
  })

  test('has the signatures of several, each of which is found by its own key alone', () => {
    const [log, witness, stranger] = [makeSigner(), makeSigner('witness.example/w1', 'cosignature'), makeSigner('other.example')]
    const note = formatNote({ text, signatures: [log.sign(text), witness.sign(text)] })
    expect(note).toMatch(/^log\.example\/log\n3\nAAAA\n\n\u2014 log\.example \S+\n\u2014 witness\.example\/w1 \S+\n$/)
    const parsed = parseNote(note)
    expect(parsed?.text).toBe(text)
    expect(parsed && findSignature(parsed, log.verifier)).toEqual(log.sign(text))
    expect(parsed && findSignature(parsed, witness.verifier)).toEqual(witness.sign(text))
    expect(verifies(note, stranger.key)).toBe(false)
  })

  test('is nothing to a key of the same name, of the same id, or of another kind', () => {
    const { privateKey } = generateKeyPairSync('ed25519')
    const log = makeSigner('log.example', 'note', privateKey)
    const note = formatNote({ text, signatures: [log.sign(text)] })
    expect(verifies(note, log.key)).toBe(true)
    expect(verifies(note, makeSigner('log.example').key)).toBe(false)
    expect(verifies(note, makeSigner('log.example2', 'note', privateKey).key)).toBe(false)
    expect(verifies(note, makeSigner('log.example', 'cosignature', privateKey).key)).toBe(false)
    const parsed = parseNote(note)
    expect(findSignature({ text, signatures: [{ ...log.sign(text), name: 'other.example' }] }, log.verifier)).toBeUndefined()
    // As a key that was made until its id collided.
    const colliding = { ...makeSigner('log.example').verifier, keyId: log.verifier.keyId }
    expect(parsed && findSignature(parsed, colliding)).toBeUndefined()
  })

  test('with a bad signature by a key is not believed for another one by it that is good', () => {
    const log = makeSigner()
    const [good, bad] = [log.sign(text), log.sign('another text\n')]
    for (const signatures of [[bad], [bad, good], [good, bad]]) expect(verifies(formatNote({ text, signatures }), log.key)).toBe(false)
    expect(verifies(formatNote({ text, signatures: [good, good] }), log.key)).toBe(true)
    const other = makeSigner('other.example')
    expect(verifies(formatNote({ text, signatures: [{ ...bad, name: 'other.example', keyId: other.verifier.keyId }, good] }), log.key)).toBe(true)
  })

  test('may hold empty lines: the last one ends its text', () => {
    const log = makeSigner()
    const longer = 'first\n\n\u2014 log.example AAAAAAA=\n\nlast\n'
    const note = formatNote({ text: longer, signatures: [log.sign(longer)] })
    expect(parseNote(note)?.text).toBe(longer)
    expect(verifies(note, log.key)).toBe(true)
  })

  const line = formatSignature(makeSigner().sign(text))
  const [, name = '', encoded = ''] = line.trimEnd().split(' ')
  test.for<[string, string]>([
    ['nothing', ''],
    ['a text alone', text],
    ['no signature', `${text}\n`],
    ['no empty line', `${text}${line}`],
    ['no text', `\n${line}`],
    ['no newline at the end', `${text}\n${line.trimEnd()}`],
    ['something behind the signatures', `${text}\n${line}more\n`],
    ['an empty line behind the signatures', `${text}\n${line}\n`],
    ['a line that is no signature', `${text}\nmore\n${line}`],
    ['another dash', `${text}\n${line.replace('\u2014', '-')}`],
    ['a shorter dash', `${text}\n${line.replace('\u2014', '\u2013')}`],
    ['no space behind the dash', `${text}\n${line.replace('\u2014 ', '\u2014')}`],
    ['two spaces', `${text}\n${line.replace(' log', '  log')}`],
    ['a space at the end', `${text}\n${line.replace('\n', ' \n')}`],
    ['a carriage return', `${text}\n${line.replace('\n', '\r\n')}`],
    ['a tab in the text', `a\tb\n\n${line}`],
    ['a NUL in the text', `a\0b\n\n${line}`],
    ['a control character in a name', `${text}\n${line.replace('log', 'l\u0001g')}`],
    ['no name', `${text}\n\u2014  ${encoded}\n`],
    ['no signature behind the name', `${text}\n\u2014 ${name}\n`],
    ['a plus sign in a name', `${text}\n${line.replace('log', 'l+g')}`],
    ['a no-break space in a name', `${text}\n${line.replace('log', 'l\u00a0g')}`],
    ['a next-line character in a name', `${text}\n${line.replace('log', 'l\u0085g')}`],
    ['a key id and no signature', `${text}\n\u2014 ${name} AAAAAA==\n`],
    ['half a key id', `${text}\n\u2014 ${name} AAA=\n`],
    ['base64 without its padding', `${text}\n${line.replaceAll('=', '')}`],
    ['base64 for addresses', `${text}\n\u2014 ${name} AAAAAP__\n`],
    ['base64 with bits left over', `${text}\n\u2014 ${name} AAAAAAB=\n`],
    ['half a character', `a\ud800b\n\n${line}`],
    ['half a character in a name', `${text}\n${line.replace('log', 'l\ud800g')}`],
    ['65 signatures', `${text}\n${line.repeat(65)}`],
    ['more than 64 KiB', `${'a'.repeat(64 * 1024)}\n\n${line}`],
  ])('is not what has %s', ([, note]) => {
    // What there is must be what it takes.
    expect(parseNote(`${text}\n${line}`)).toBeDefined()
    expect(parseNote(note)).toBeUndefined()
  })

  test('may have as many signatures as a log with many witnesses needs', () => {
    expect(parseNote(`${text}\n${line.repeat(64)}`)?.signatures).toHaveLength(64)
  })
})

describe('A cosignature', () => {
  test('is over the text behind the time that it says', () => {
    const witness = makeSigner('witness.example', 'cosignature')
    const good = witness.sign(text)
    const check = (signature: Buffer, over = text) => findSignature({ text: over, signatures: [{ ...good, signature }] }, witness.verifier) !== undefined
    expect(good.signature).toHaveLength(72)
    expect(check(good.signature)).toBe(true)
    expect(check(good.signature, `${text}more\n`)).toBe(false)
    expect(check(good.signature.subarray(8))).toBe(false)
    expect(check(good.signature.subarray(0, 71))).toBe(false)
    expect(check(Buffer.concat([good.signature, Buffer.alloc(1)]))).toBe(false)
    const later = Buffer.from(good.signature)
    later.writeBigUInt64BE(1_768_478_401n)
    expect(check(later)).toBe(false)
    expect(check(witness.sign(text, 2n ** 63n - 1n).signature)).toBe(true)
    expect(check(witness.sign(text, 2n ** 63n).signature)).toBe(false)
  })

  test('is no signature of the text, nor the other way round, even by one key', () => {
    const { privateKey } = generateKeyPairSync('ed25519')
    const [log, witness] = [makeSigner('a.example', 'note', privateKey), makeSigner('a.example', 'cosignature', privateKey)]
    expect(log.verifier.keyId).not.toEqual(witness.verifier.keyId)
    for (const [one, other] of [[log, witness], [witness, log]] as const) {
      const signature = { ...one.sign(text), keyId: other.verifier.keyId }
      expect(findSignature({ text, signatures: [signature] }, other.verifier)).toBeUndefined()
    }
  })
})

describe('Signature lines alone', () => {
  const [one, two] = [makeSigner().sign(text), makeSigner('witness.example', 'cosignature').sign(text)]
  test.for<[string, string, number | undefined]>([
    ['none', '', 0],
    ['one', formatSignature(one), 1],
    ['two', formatSignature(one) + formatSignature(two), 2],
    ['one without its newline', formatSignature(one).trimEnd(), undefined],
    ['an empty line', '\n', undefined],
    ['an empty line between', `${formatSignature(one)}\n${formatSignature(two)}`, undefined],
    ['a whole note', formatNote({ text, signatures: [one] }), undefined],
    ['something else', '<html>\n', undefined],
  ])('are read: %s', ([, lines, count]) => {
    expect(parseSignatures(lines)?.length).toBe(count)
  })
})

describe('A verifier key', () => {
  test('of either kind is read as it was written, with the id that its name and kind give it', () => {
    for (const kind of ['note', 'cosignature'] as const) {
      const { key, verifier } = makeSigner('log.example/a', kind)
      expect(verifier).toMatchObject({ name: 'log.example/a', kind })
      expect(key.split('+')[1]).toBe(verifier.keyId.toString('hex'))
    }
    expect(keyIdOf('PeterNeumann', Buffer.from(published.key.split('+')[2] ?? '', 'base64')).toString('hex')).toBe('c74f20a3')
  })

  const good = 'PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW'
  const [, , encoded = ''] = good.split('+')
  const material = Buffer.from(encoded, 'base64')
  const made = (name: string, key: Buffer) => `${name}+${keyIdOf(name, key).toString('hex')}+${key.toString('base64')}`
  test.for<[string, string]>([
    ['nothing', ''],
    ['no hash', `PeterNeumann+${encoded}`],
    ['no key', 'PeterNeumann+c74f20a3+'],
    ['no name', made('', material)],
    ['another hash', good.replace('c74f', 'c74e')],
    ['another name', good.replace('Peter', 'Pater')],
    ['a hash in capitals', good.replace('c74f20a3', 'C74F20A3')],
    ['a hash cut short', good.replace('c74f20a3', 'c74f20a')],
    ['a space in its name', made('a b', material)],
    ['a newline in its name', made('a\nb', material)],
    ['a control character in its name', made('a\u0001b', material)],
    ['a newline at the end', `${good}\n`],
    ['a kind that is not known', made('a', Buffer.concat([Buffer.of(2), material.subarray(1)]))],
    ['a key cut short', made('a', material.subarray(0, 32))],
    ['a key with a byte more', made('a', Buffer.concat([material, Buffer.alloc(1)]))],
    ['one more part', `${good}+a`],
  ])('is not what has %s', ([, key]) => {
    expect(parseVerifierKey(good)).toBeDefined()
    expect(parseVerifierKey(key)).toBeUndefined()
  })

  test.for<[string, boolean]>([
    ['a', true],
    ['stint.test/log', true],
    ['grüße.example', true],
    ['', false],
    ['a b', false],
    ['a+b', false],
    ['a\u2003b', false],
    ['a\u0085b', false],
    ['a\u0000b', false],
    ['a\ud800b', false],
  ])('may have the name %j: %s', ([name, may]) => {
    expect(isNoteName(name)).toBe(may)
  })
})

test('An Ed25519 key that RFC 8032 names signs as it says', () => {
  // RFC 8032 §7.1, test 2.
  const seed = '4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb'
  const key = createPrivateKey({ key: Buffer.from(`302e020100300506032b657004220420${seed}`, 'hex'), format: 'der', type: 'pkcs8' })
  const { verifier } = makeSigner('rfc.example', 'note', key)
  const signature = Buffer.from(
    '92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00',
    'hex',
  )
  expect(findSignature({ text: 'r', signatures: [{ name: 'rfc.example', keyId: verifier.keyId, signature }] }, verifier)).toBeDefined()
})
