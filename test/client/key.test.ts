import { createPublicKey, verify } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { decodeJwt, decodeProtectedHeader } from 'jose'
import { signAssertion } from '../../src/client/assertion.ts'
import { generatePrivateJwk, importAgentKey, keyAlgorithms, publicJwks, refusePrivateKeys } from '../../src/client/key.ts'

const p256 = await generatePrivateJwk('ES256')
const ed25519 = await generatePrivateJwk('Ed25519')
const foreignP256 = await generatePrivateJwk('ES256')
const foreignEd25519 = await generatePrivateJwk('Ed25519')

/** The key without some of its members. */
function without(jwk: Readonly<Record<string, string>>, ...names: string[]): Record<string, string> {
  return Object.fromEntries(Object.entries(jwk).filter(([name]) => !names.includes(name)))
}

describe('generatePrivateJwk and importAgentKey', () => {
  it.each(keyAlgorithms)('make and read an %s key whose public half holds nothing private', async (alg) => {
    const jwk = await generatePrivateJwk(alg)
    const key = await importAgentKey(jwk)
    expect(key.alg).toBe(alg)
    expect(key.kid).toMatch(/^[\w-]{43}$/)
    expect(jwk['kid']).toBe(key.kid)
    expect(publicJwks(key)).toEqual({ keys: [without(jwk, 'd')] })
    expect(key.privateKey.extractable).toBe(false)
    expect(JSON.stringify(key)).not.toContain(jwk['d'])
  })

  it('computes the thumbprint of RFC 8037 appendix A.3', async () => {
    const key = await importAgentKey({
      kty: 'OKP',
      crv: 'Ed25519',
      d: 'nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A',
      x: '11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo',
      alg: 'EdDSA',
      kid: 'whatever it says',
    })
    expect(key.kid).toBe('kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k')
    expect(key.alg).toBe('Ed25519')
  })

  it.each([
    ['nothing', undefined, 'no JSON object'],
    ['a list', [p256], 'no JSON object'],
    ['a set', { keys: [p256] }, 'a set of keys'],
    ['a public key', without(p256, 'd'), 'public key'],
    ['another curve', { ...p256, crv: 'P-384' }, 'neither P-256'],
    ['X25519', { ...ed25519, crv: 'X25519' }, 'neither P-256'],
    ['a symmetric key', { kty: 'oct', k: 'AAAA' }, 'neither P-256'],
    ['an algorithm of another curve', { ...p256, alg: 'Ed25519' }, 'another algorithm'],
    ['EdDSA on P-256', { ...p256, alg: 'EdDSA' }, 'another algorithm'],
    ['a foreign x (P-256)', { ...p256, x: foreignP256['x'] }, 'do not belong together'],
    ['a foreign key pair (P-256)', { ...foreignP256, d: p256['d'] }, 'do not belong together'],
    ['a foreign x (Ed25519)', { ...ed25519, x: foreignEd25519['x'] }, 'do not belong together'],
    ['no x', without(p256, 'x'), 'do not belong together'],
    ['a short d', { ...p256, d: 'AAAA' }, 'do not belong together'],
  ])('refuse %s', async (_what, jwk, reason) => {
    await expect(importAgentKey(jwk)).rejects.toThrow(reason)
    await expect(importAgentKey(jwk)).rejects.toMatchObject({ name: 'StintError', code: 'invalid_key' })
  })

  it('never repeat the key in an error', async () => {
    const d = p256['d'] ?? ''
    const error = await importAgentKey({ ...p256, x: '!' }).catch((caught: unknown) => caught)
    expect(error).toBeInstanceOf(Error)
    expect(`${String(error)} ${JSON.stringify(error)} ${String(error instanceof Error && error.cause)}`).not.toContain(d)
  })
})

describe('refusePrivateKeys', () => {
  it.each([
    ['a private key', p256],
    ['a set with one', { keys: [without(p256, 'd'), ed25519] }],
    ['an RSA prime', { keys: [{ kty: 'RSA', n: 'x', e: 'AQAB', p: 'x' }] }],
    ['a symmetric key', { keys: [{ kty: 'oct', k: 'AAAA' }] }],
    ['a set that is a key, too', { keys: [], d: 'x' }],
    ['an empty private member', { keys: [{ ...without(p256, 'd'), d: null }] }],
  ])('refuses %s', (_what, jwks) => {
    expect(() => refusePrivateKeys(jwks)).toThrow(/private key.*nothing was sent/)
  })

  const harmless: readonly unknown[] = [{ keys: [without(p256, 'd')] }, without(p256, 'd'), { keys: 'd' }, undefined, 'd']
  it.each(harmless.map((jwks) => ({ jwks })))('lets $jwks pass', ({ jwks }) => {
    expect(() => refusePrivateKeys(jwks)).not.toThrow()
  })
})

describe('signAssertion', () => {
  it.each(keyAlgorithms)('signs with %s what RFC 7523 asks for, once', async (alg) => {
    const key = await importAgentKey(alg === 'ES256' ? p256 : ed25519)
    const id = 'spiffe://example.com/bot'
    const nowMs = 1_800_000_000_999
    const first = await signAssertion(key, id, 'https://stint.example.com', nowMs)
    const second = await signAssertion(key, id, 'https://stint.example.com', nowMs)
    expect(decodeProtectedHeader(first)).toEqual({ alg, kid: key.kid })
    const { jti, ...claims } = decodeJwt(first)
    expect(claims).toEqual({ iss: id, sub: id, aud: 'https://stint.example.com', iat: 1_800_000_000, exp: 1_800_000_060 })
    expect(jti).not.toBe(decodeJwt(second).jti)
    const end = first.lastIndexOf('.')
    const publicKey = createPublicKey({ key: { ...key.publicJwk }, format: 'jwk' })
    const signature = Buffer.from(first.slice(end + 1), 'base64url')
    const digest = alg === 'ES256' ? 'sha256' : null
    const signed = Buffer.from(first.slice(0, end))
    expect(verify(digest, signed, { key: publicKey, dsaEncoding: 'ieee-p1363' }, signature)).toBe(true)
  })
})
