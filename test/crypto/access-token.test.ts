import { jwtVerify } from 'jose'
import { createPrivateKey, sign } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { readAccessToken, signAccessToken, type AccessTokenClaims } from '../../src/crypto/access-token.ts'
import { createKeyring, generateSigningKey } from '../../src/crypto/keyring.ts'
import { createAuthenticator } from '../../src/identity/authenticate.ts'
import {
  encodePart,
  issuer,
  macCompact,
  makeKey,
  makeWorkload,
  nowMs,
  nowSeconds,
  signCompact,
  subject,
  trustDomain,
} from '../identity/hand-made.ts'

const generated = await generateSigningKey()
const keyring = await createKeyring([{ ...generated, use: 'token', createdAtMs: 0, publishAtMs: 0, signFromMs: 0 }])
const signingKey = keyring.signingKey(nowMs)
const context = { issuer, verificationKey: (kid: string) => keyring.verificationKey(kid, nowMs) }

const claims: AccessTokenClaims = {
  iss: issuer,
  sub: subject,
  aud: 'https://tickets.example.com',
  clientId: subject,
  jti: 'grant_01',
  iatSeconds: nowSeconds,
  expSeconds: nowSeconds + 600,
  scope: 'tickets:read tickets:comment',
  authorizationDetails: [{ type: 'stint', actions: ['tickets:read', 'tickets:comment'], task: 'a "task": é' }],
}
const { authorizationDetails: _, ...plainClaims } = claims

const token = await signAccessToken(signingKey, claims)
const [goodHeader = '', goodPayload = '', goodSignature = ''] = token.split('.')
const payload = JSON.parse(Buffer.from(goodPayload, 'base64url').toString())
const header = { alg: 'ES256', typ: 'at+jwt', kid: generated.kid }

// The same key in node:crypto, to sign by hand what signAccessToken would never write.
const byHand = {
  ...makeKey('ES256'),
  privateKey: createPrivateKey({ key: JSON.parse(generated.privateJwk.reveal()), format: 'jwk' }),
}

describe('an access token', () => {
  test('has the header and the claims of RFC 9068', () => {
    expect(JSON.parse(Buffer.from(goodHeader, 'base64url').toString())).toEqual(header)
    expect(payload).toEqual({
      iss: issuer,
      sub: subject,
      aud: 'https://tickets.example.com',
      client_id: subject,
      jti: 'grant_01',
      iat: nowSeconds,
      exp: nowSeconds + 600,
      scope: 'tickets:read tickets:comment',
      authorization_details: claims.authorizationDetails,
    })
  })

  test('verifies with another library', async () => {
    const verificationKey = keyring.verificationKey(generated.kid, nowMs)
    if (verificationKey === undefined) throw new Error('no key')
    const { payload: verified } = await jwtVerify(token, verificationKey.publicKey, {
      issuer,
      audience: claims.aud,
      typ: 'at+jwt',
      algorithms: ['ES256'],
      currentDate: new Date(nowMs),
    })
    expect(verified).toEqual(payload)
  })

  test.each([claims, plainClaims])('reads back as what was signed (%#)', async (signed) => {
    expect(await readAccessToken(await signAccessToken(signingKey, signed), context)).toStrictEqual(signed)
  })

  test('reads back when it has expired: the caller judges', async () => {
    const expired = { ...claims, iatSeconds: 1000, expSeconds: 1001 }
    expect(await readAccessToken(await signAccessToken(signingKey, expired), context)).toStrictEqual(expired)
  })

  test('is no client assertion, neither by its type nor by its claims', async () => {
    const key = makeKey('ES256')
    const findWorkload = async () => makeWorkload([key])
    const authenticate = createAuthenticator()
    const asAssertion = { ...payload, iss: subject, aud: issuer, exp: nowSeconds + 60 }
    for (const compact of [
      token,
      signCompact(key, { ...header, kid: key.kid }, asAssertion),
      signCompact(key, { alg: 'ES256', kid: key.kid }, asAssertion),
    ]) {
      const result = await authenticate(compact, { issuer, trustDomain, nowMs, findWorkload })
      expect(result).toEqual({ ok: false, reason: 'type_not_allowed' })
    }
  })
})

describe('does not sign', () => {
  const times: [number, number][] = [[1.5, 10], [1, 10.5], [10, 10], [10, 9], [Number.NaN, 10], [1, Infinity]]
  test.each(times)('from %d until %d', async (iatSeconds, expSeconds) => {
    await expect(signAccessToken(signingKey, { ...claims, iatSeconds, expSeconds })).rejects.toThrow(RangeError)
  })

  test('what could not be read again', async () => {
    const refused = expect.objectContaining({ code: 'invalid_authorization_details' })
    const long = signAccessToken(signingKey, { ...claims, authorizationDetails: [{ task: 'x'.repeat(16_384) }] })
    await expect(long).rejects.toEqual(refused)
    const surrogate = signAccessToken(signingKey, { ...claims, authorizationDetails: [{ task: '\ud800' }] })
    await expect(surrogate).rejects.toEqual(refused)
    const lookAlike = { ...claims, authorizationDetails: [{ task: '\\ud800' }] }
    expect(await readAccessToken(await signAccessToken(signingKey, lookAlike), context)).toStrictEqual(lookAlike)
  })
})

describe('reads nothing from', () => {
  const stranger = makeKey('ES256')
  const input = `${goodHeader}.${goodPayload}`
  const publicJwk = JSON.stringify(generated.publicJwk)
  function signed(changedHeader: unknown, changedPayload: unknown = payload): string {
    return signCompact(byHand, changedHeader, changedPayload)
  }
  const der = sign('sha256', Buffer.from(input), { key: byHand.privateKey, dsaEncoding: 'der' }).toString('base64url')
  const cases: [string, string][] = [
    ['nothing', ''],
    ['what is no JWT', 'opaque-token'],
    ['two parts', input],
    ['four parts', `${token}.x`],
    ['padding', `${token}=`],
    ['white space', `${token} `],
    ['no signature', `${input}.`],
    ['a stranger\'s signature', signCompact(stranger, header, payload)],
    ['another payload', `${goodHeader}.${encodePart({ ...payload, sub: 'x' })}.${goodSignature}`],
    ['a signature in DER', `${input}.${der}`],
    ['a signature of zeros', `${input}.${Buffer.alloc(64).toString('base64url')}`],
    ['alg none', `${encodePart({ ...header, alg: 'none' })}.${goodPayload}.`],
    ['HS256 under the public key', macCompact(publicJwk, { ...header, alg: 'HS256' }, payload)],
    ['another algorithm', signed({ ...header, alg: 'ES384' })],
    ['no typ', signed({ alg: 'ES256', kid: generated.kid })],
    ['typ JWT', signed({ ...header, typ: 'JWT' })],
    ['typ in upper case', signed({ ...header, typ: 'AT+JWT' })],
    ['no kid', signed({ alg: 'ES256', typ: 'at+jwt' })],
    ['an unknown kid', signed({ ...header, kid: stranger.kid })],
    ['a kid that is an array', signed({ ...header, kid: [generated.kid] })],
    ['crit', signed({ ...header, crit: ['exp'] })],
    ['jwk', signed({ ...header, jwk: generated.publicJwk })],
    ['b64', signed({ ...header, b64: false })],
    ['a header member twice', signed(JSON.stringify(header).replace('{', '{"typ":"JWT",'))],
    ['another issuer', signed(header, { ...payload, iss: 'https://other.example.com' })],
    ['aud as an array', signed(header, { ...payload, aud: [claims.aud] })],
    ['no exp', signed(header, { ...payload, exp: undefined })],
    ['exp as text', signed(header, { ...payload, exp: String(payload.exp) })],
    ['exp with a fraction', signed(header, { ...payload, exp: payload.exp + 0.5 })],
    ['exp 1e400', signed(header, JSON.stringify(payload).replace(/"exp":\d+/, '"exp":1e400'))],
    ['no jti', signed(header, { ...payload, jti: undefined })],
    ['an unknown claim', signed(header, { ...payload, cnf: {} })],
    ['a claim twice', signed(header, JSON.stringify(payload).replace('{', '{"scope":"x",'))],
    ['authorization_details as an object', signed(header, { ...payload, authorization_details: {} })],
    ['more than 16 KiB', signed(header, { ...payload, scope: 'x'.repeat(16_384) })],
  ]
  test.each(cases)('%s', async (_name, compact) => {
    expect(await readAccessToken(compact, context)).toBeUndefined()
  })

  test('the hand that signs the hostile ones signs a good one as well', async () => {
    expect(await readAccessToken(signed(header), context)).toStrictEqual(claims)
  })

  test('a token whose key was removed', async () => {
    expect(await readAccessToken(token, { issuer, verificationKey: () => undefined })).toBeUndefined()
  })
})
