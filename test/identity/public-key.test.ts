import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { parsePublicKeys } from '../../src/identity/public-key.ts'
import { BrokerError } from '../../src/kernel/errors.ts'
import { makeKey } from './hand-made.ts'

const ec = makeKey('ES256')
const ed = makeKey('Ed25519')

async function refusalOf(jwks: unknown): Promise<string> {
  try {
    await parsePublicKeys(jwks)
  } catch (error) {
    if (error instanceof BrokerError && error.code === 'invalid_input') {
      // The text for people and the problems for programs must say the same.
      const problems = error.extra?.['problems']
      expect(problems).toEqual([{ path: expect.any(String), message: expect.any(String) }])
      return error.publicMessage
    }
    throw error
  }
  return 'accepted'
}

const base64url = (hex: string) => Buffer.from(hex, 'hex').toString('base64url')
const edOf = (hex: string) => ({ kty: 'OKP', crv: 'Ed25519', x: base64url(hex) })
const exported = (pair: { publicKey: KeyObject }) => pair.publicKey.export({ format: 'jwk' })

function flipLastBit(coordinate = ''): string {
  const bytes = Buffer.from(coordinate, 'base64url')
  bytes.writeUInt8(bytes.readUInt8(31) ^ 1, 31)
  return bytes.toString('base64url')
}

describe('keeps the thumbprint and the public members', () => {
  test('of both kinds, in their order', async () => {
    const keys = await parsePublicKeys({ keys: [ec.jwk, ed.jwk] })
    expect(keys).toEqual([
      { kid: ec.kid, alg: 'ES256', jwk: ec.jwk },
      { kid: ed.kid, alg: 'Ed25519', jwk: ed.jwk },
    ])
  })

  test('of the example in RFC 8037 appendix A.3', async () => {
    const jwk = edOf('d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a')
    const [key] = await parsePublicKeys({ keys: [jwk] })
    expect(key?.kid).toBe('kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k')
  })

  test('and drops what describes the key', async () => {
    const described = { ...ec.jwk, kid: ec.kid, use: 'sig', key_ops: ['verify'], alg: 'ES256' }
    expect(await parsePublicKeys({ keys: [described] })).toEqual([{ kid: ec.kid, alg: 'ES256', jwk: ec.jwk }])
  })

  test.each(['EdDSA', 'Ed25519'])('of an Ed25519 key that says alg %s', async (alg) => {
    expect(await parsePublicKeys({ keys: [{ ...ed.jwk, alg }] })).toEqual([{ kid: ed.kid, alg: 'Ed25519', jwk: ed.jwk }])
  })

  test('of eight keys, every one a point on its curve', async () => {
    const keys = Array.from({ length: 8 }, (_, i) => makeKey(i % 2 === 0 ? 'ES256' : 'Ed25519').jwk)
    expect(await parsePublicKeys({ keys })).toHaveLength(8)
  })
})

describe('refuses the set', () => {
  const cases: [string, unknown, RegExp][] = [
    ['nothing', undefined, /^jwks must be a JWK Set/],
    ['null', null, /must be a JWK Set/],
    ['a PEM', '-----BEGIN PUBLIC KEY-----', /must be a JWK Set/],
    ['an array', [ec.jwk], /must be a JWK Set/],
    ['one JWK', ec.jwk, /single JWK: put it into a set/],
    ['no keys', {}, /jwks\.keys must be an array of 1 to 8/],
    ['an empty set', { keys: [] }, /1 to 8/],
    ['nine keys', { keys: Array.from({ length: 9 }, () => ec.jwk) }, /1 to 8/],
    ['keys that is an object', { keys: { 0: ec.jwk } }, /1 to 8/],
    ['another member', { keys: [ec.jwk], issuer: 'x' }, /unknown member "issuer"/],
    ['a key that is text', { keys: ['key'] }, /jwks\.keys\[0\] must be a JWK/],
    ['a key that is null', { keys: [null] }, /jwks\.keys\[0\] must be a JWK/],
    ['a key twice', { keys: [ec.jwk, ed.jwk, ec.jwk] }, /jwks\.keys\[2\] is the same key as one before it/],
    ['a key twice, named once', { keys: [{ ...ec.jwk, kid: ec.kid }, ec.jwk] }, /same key/],
  ]
  test.each(cases)('%s', async (_name, jwks, message) => {
    expect(await refusalOf(jwks)).toMatch(message)
  })
})

describe('refuses a key', () => {
  const ecPrivate = ec.privateKey.export({ format: 'jwk' })
  const edPrivate = ed.privateKey.export({ format: 'jwk' })
  const rsa = exported(generateKeyPairSync('rsa', { modulusLength: 2048 }))
  const p384 = exported(generateKeyPairSync('ec', { namedCurve: 'P-384' }))
  const p521 = exported(generateKeyPairSync('ec', { namedCurve: 'P-521' }))
  const secp256k1 = exported(generateKeyPairSync('ec', { namedCurve: 'secp256k1' }))
  const x25519 = exported(generateKeyPairSync('x25519'))
  const ed448 = exported(generateKeyPairSync('ed448'))
  // x = 0 is on P-256; x = p encodes the same point a second time.
  const atZero = {
    kty: 'EC',
    crv: 'P-256',
    x: base64url('00'.repeat(32)),
    y: base64url('66485c780e2f83d72433bd5d84a06bb6541c2af31dae871728bf856a174f93f4'),
  }
  const p = 'ffffffff00000001000000000000000000000000ffffffffffffffffffffffff'
  const x = ec.jwk['x'] ?? ''
  const cases: [string, unknown, RegExp][] = [
    ['an EC private key', ecPrivate, /\.d is a private member: .* make a new one/],
    ['an Ed25519 private key', edPrivate, /\.d is a private member/],
    ['an RSA private member', { ...rsa, p: 'AQAB' }, /\.p is a private member/],
    ['a private member beside a public key', { ...ec.jwk, k: 'AAAA' }, /\.k is a private member/],
    ['a symmetric key', { kty: 'oct', k: 'AAAA' }, /is a symmetric key/],
    ['RSA', rsa, /\.kty is RSA, which is not accepted/],
    ['no kty', { ...ec.jwk, kty: undefined }, /\.kty must be EC/],
    ['kty as an array', { ...ec.jwk, kty: ['EC'] }, /\.kty must be EC/],
    ['P-384', p384, /\.crv is "P-384", which is not accepted/],
    ['P-521', p521, /\.crv is "P-521"/],
    ['secp256k1', secp256k1, /\.crv is "secp256k1"/],
    ['X25519', x25519, /\.crv is "X25519", which is not accepted for OKP: use Ed25519/],
    ['Ed448', ed448, /\.crv is "Ed448"/],
    ['a curve of the other kind', { ...ec.jwk, crv: 'Ed25519' }, /\.crv is "Ed25519", .* for EC: use P-256/],
    ['a curve called __proto__', { ...ec.jwk, crv: '__proto__' }, /\.crv is "__proto__"/],
    ['no curve', { ...ec.jwk, crv: undefined }, /\.crv is missing/],
    ['the wrong alg for P-256', { ...ec.jwk, alg: 'ES384' }, /\.alg must be ES256 for a key on P-256/],
    ['EdDSA for P-256', { ...ec.jwk, alg: 'EdDSA' }, /\.alg must be ES256/],
    ['the wrong alg for Ed25519', { ...ed.jwk, alg: 'ES256' }, /\.alg must be Ed25519 for a key on Ed25519/],
    ['alg none', { ...ed.jwk, alg: 'none' }, /\.alg must be/],
    ['use enc', { ...ec.jwk, use: 'enc' }, /\.use must be sig/],
    ['key_ops sign', { ...ec.jwk, key_ops: ['sign'] }, /\.key_ops must be \["verify"\]/],
    ['key_ops with another', { ...ec.jwk, key_ops: ['verify', 'encrypt'] }, /\.key_ops must be/],
    ['key_ops empty', { ...ec.jwk, key_ops: [] }, /\.key_ops must be/],
    ['key_ops as text', { ...ec.jwk, key_ops: 'verify' }, /\.key_ops must be/],
    ['a kid that is a number', { ...ec.jwk, kid: 1 }, /\.kid must be the key's RFC 7638 thumbprint/],
    ['a kid of its own', { ...ec.jwk, kid: 'my key' }, /thumbprint, [\w-]{43}, or left out/],
    ['x5c', { ...ec.jwk, x5c: ['MIIB'] }, /\.x5c is not accepted: certificates/],
    ['x5u', { ...ec.jwk, x5u: 'https://evil.example.com' }, /\.x5u is not accepted/],
    ['jku', { ...ec.jwk, jku: 'https://evil.example.com' }, /\.jku is not accepted/],
    ['an unknown member', { ...ec.jwk, keyops: ['verify'] }, /unknown member "keyops": did you mean key_ops\?/],
    ['an unknown member unlike any', { ...ec.jwk, extractable: true }, /unknown member "extractable": leave it out/],
    ['y on an Ed25519 key', { ...ed.jwk, y: ec.jwk['y'] }, /unknown member "y"/],
    ['no x', { ...ec.jwk, x: undefined }, /\.x must be text in base64url/],
    ['no y', { ...ec.jwk, y: undefined }, /\.y must be text in base64url/],
    ['x a number', { ...ec.jwk, x: 1 }, /\.x must be text in base64url/],
    ['x padded', { ...ec.jwk, x: `${x}=` }, /\.x must be canonical base64url/],
    ['x with white space', { ...ec.jwk, x: ` ${x}` }, /\.x must be canonical base64url/],
    ['x in the other alphabet', { ...ec.jwk, x: '+'.repeat(43) }, /\.x must be canonical base64url/],
    ['x with unused bits set', { ...ec.jwk, x: `${'A'.repeat(42)}B` }, /\.x must be canonical base64url/],
    ['x too short', { ...ec.jwk, x: base64url('11'.repeat(31)) }, /\.x must be exactly 32 bytes/],
    ['x with a leading zero', { ...ec.jwk, x: base64url(`00${'11'.repeat(32)}`) }, /\.x must be exactly 32 bytes/],
    ['an empty x', { ...ec.jwk, x: '' }, /\.x must be exactly 32 bytes/],
    ['a point off P-256', { ...ec.jwk, y: flipLastBit(ec.jwk['y']) }, /is not a point on the curve P-256/],
    ['x and y zero', { ...atZero, y: atZero.x }, /is not a point on the curve P-256/],
    ['x beyond the prime of P-256', { ...atZero, x: base64url(p) }, /is not a point on the curve P-256/],
    ['x and y exchanged', { ...ec.jwk, x: ec.jwk['y'], y: x }, /is not a point on the curve P-256/],
    ['a point off Ed25519', edOf(`02${'00'.repeat(31)}`), /\.x is not a point on the curve Ed25519/],
  ]
  test.each(cases)('%s', async (_name, key, message) => {
    // Through JSON, as it arrives, so that a member set to undefined is a member that is missing.
    expect(await refusalOf(JSON.parse(JSON.stringify({ keys: [key] })))).toMatch(message)
  })

  test('accepts the point at x = 0, whose second spelling is refused above', async () => {
    expect(await refusalOf({ keys: [atZero] })).toBe('accepted')
  })

  // The eight points of small order and the second spellings of theirs that fit into 32 bytes.
  const lowOrder = [
    '0000000000000000000000000000000000000000000000000000000000000000',
    '0000000000000000000000000000000000000000000000000000000000000080',
    '0100000000000000000000000000000000000000000000000000000000000000',
    '0100000000000000000000000000000000000000000000000000000000000080',
    'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
    'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff',
    'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a',
    'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa',
    '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05',
    '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85',
  ]
  test.each(lowOrder)('Ed25519 point of low order %s', async (hex) => {
    expect(await refusalOf({ keys: [edOf(hex)] })).toMatch(/\.x is a point of low order/)
  })

  const lowest = ['ed', 'ee', 'ef', 'ff'].map((low) => `${low}${'ff'.repeat(30)}`)
  const notCanonical = lowest.flatMap((bytes) => [`${bytes}7f`, `${bytes}ff`])
  test.each(notCanonical)('Ed25519 point spelt %s', async (hex) => {
    expect(await refusalOf({ keys: [edOf(hex)] })).toMatch(/\.x is not a canonical encoding/)
  })
})
