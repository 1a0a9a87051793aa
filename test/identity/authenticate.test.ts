import { sign } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { createAuthenticator, type AuthenticationContext } from '../../src/identity/authenticate.ts'
import type { RefusalReason } from '../../src/identity/refusal.ts'
import type { Workload } from '../../src/identity/workload.ts'
import {
  encodePart,
  goodClaims,
  issuer,
  macCompact,
  makeKey,
  makeWorkload,
  nowMs,
  nowSeconds,
  signBytes,
  signCompact,
  subject,
  trustDomain,
} from './hand-made.ts'

const ec = makeKey('ES256')
const ed = makeKey('Ed25519')
const removed = makeKey('ES256', { removedAtMs: nowMs - 500 })
const foreign = makeKey('ES256')
const workload = makeWorkload([ec, ed, removed])
const other = makeWorkload([foreign], { name: 'other-bot' })

const authenticate = createAuthenticator()

function contextOf(...workloads: Workload[]): AuthenticationContext {
  const findWorkload = async (name: string) => workloads.find((one) => one.name === name)
  return { issuer, trustDomain, nowMs, findWorkload }
}

async function refusalOf(compact: string, context = contextOf(workload, other)) {
  const result = await authenticate(compact, context)
  return result.ok ? 'accepted' : result.reason
}

const header = { alg: 'ES256', kid: ec.kid }
const { exp: _exp, ...withoutExp } = goodClaims
const { iat: _iat, ...withoutIat } = goodClaims
const { jti: _jti, ...withoutJti } = goodClaims
const good = signCompact(ec, header, goodClaims)
const [goodHeader = '', goodPayload = '', goodSignature = ''] = good.split('.')

describe('accepts', () => {
  const pem = { alg: 'ES256', kid: ec.kid }
  const cases: [string, string][] = [
    ['ES256 with kid', good],
    ['Ed25519 with kid', signCompact(ed, { alg: 'Ed25519', kid: ed.kid }, goodClaims)],
    ['EdDSA, the former name, with an Ed25519 key', signCompact(ed, { alg: 'EdDSA', kid: ed.kid }, goodClaims)],
    ['ES256 without kid', signCompact(ec, { alg: 'ES256' }, goodClaims)],
    ['Ed25519 without kid', signCompact(ed, { alg: 'Ed25519' }, goodClaims)],
    ['typ JWT', signCompact(ec, { ...pem, typ: 'JWT' }, goodClaims)],
    ['typ jwt', signCompact(ec, { ...pem, typ: 'jwt' }, goodClaims)],
    ['typ client-authentication+jwt', signCompact(ec, { ...pem, typ: 'Client-Authentication+JWT' }, goodClaims)],
    ['aud as an array of one', signCompact(ec, header, { ...goodClaims, aud: [issuer] })],
    ['no iat', signCompact(ec, header, withoutIat)],
    ['iat within the skew', signCompact(ec, header, { ...goodClaims, iat: nowSeconds + 5 })],
    ['nbf within the skew', signCompact(ec, header, { ...goodClaims, nbf: nowSeconds + 5 })],
    ['exactly five minutes', signCompact(ec, header, { ...goodClaims, exp: nowSeconds + 300 })],
    ['exactly five minutes, no iat', signCompact(ec, header, { ...withoutIat, exp: nowSeconds + 300 })],
    ['fractions of seconds', signCompact(ec, header, { ...goodClaims, exp: nowSeconds + 0.5, iat: nowSeconds - 0.25 })],
    ['a claim that RFC 7523 lets us ignore', signCompact(ec, header, { ...goodClaims, version: 3 })],
    ['a jti of 256 characters', signCompact(ec, header, { ...goodClaims, jti: 'j'.repeat(256) })],
    ['white space inside the JSON', signCompact(ec, header, JSON.stringify(goodClaims, undefined, 2))],
    ['a colon after a quote in text', signCompact(ec, header, { ...goodClaims, jti: 'x":y' })],
    ['colons, quotes and backslashes in text', signCompact(ec, header, { ...goodClaims, jti: 'a:"b\\":c\\' })],
  ]
  test.each(cases)('%s', async (_name, compact) => {
    expect(await refusalOf(compact)).toBe('accepted')
  })

  test('a key that ends in a moment, named or not, and the assertion no longer than it', async () => {
    const ending = makeKey('ES256', { removedAtMs: nowMs + 1 })
    const context = contextOf(makeWorkload([ec, ending]))
    for (const named of [{ kid: ending.kid }, {}]) {
      const result = await authenticate(signCompact(ending, { alg: 'ES256', ...named }, goodClaims), context)
      expect(result).toMatchObject({ ok: true, principal: { kid: ending.kid, assertion: { expiresAtMs: nowMs + 1 } } })
    }
  })

  test('says who it is, by which key, and until when the assertion lives', async () => {
    const result = await authenticate(good, contextOf(workload))
    expect(result).toEqual({
      ok: true,
      principal: {
        workload,
        kid: ec.kid,
        proof: 'private_key_jwt',
        assertion: { replayId: expect.stringMatching(/^[\w-]{43}$/), expiresAtMs: nowMs + 60_000 },
      },
    })
  })

  test('both of two keys without a kid, as in a rotation, and names the one that signed', async () => {
    const next = makeKey('ES256')
    for (const key of [ec, next]) {
      const compact = signCompact(key, { alg: 'ES256' }, goodClaims)
      const result = await authenticate(compact, contextOf(makeWorkload([ec, next])))
      expect(result.ok && result.principal.kid).toBe(key.kid)
    }
  })

  test('more keys than it remembers', async () => {
    const keys = [makeKey('ES256'), makeKey('ES256'), makeKey('ES256')]
    const small = createAuthenticator({ keysCachedMax: 1 })
    for (const key of [...keys, ...keys]) {
      const compact = signCompact(key, { alg: 'ES256', kid: key.kid }, goodClaims)
      const result = await small(compact, contextOf(makeWorkload(keys)))
      expect(result.ok && result.principal.kid).toBe(key.kid)
    }
  })
})

describe('refuses a text that is no strict JWS', () => {
  const edit = (from: string, to: string) => signCompact(ec, header, JSON.stringify(goodClaims).replace(from, to))
  const cases: [string, string][] = [
    ['nothing', ''],
    ['no dots', 'abc'],
    ['two parts', `${goodHeader}.${goodPayload}`],
    ['four parts', `${good}.`],
    ['five parts', `${good}.${goodPayload}.${goodSignature}`],
    ['JSON serialization', JSON.stringify({ protected: goodHeader, payload: goodPayload, signature: goodSignature })],
    ['padding on the header', `${goodHeader}=.${goodPayload}.${goodSignature}`],
    ['padding on the signature', `${good}==`],
    ['white space before', ` ${good}`],
    ['a line break after', `${good}\n`],
    ['white space inside', `${goodHeader}. ${goodPayload}.${goodSignature}`],
    ['the other base64 alphabet', `${goodHeader}.${goodPayload}.${'+/'.repeat(43)}`],
    ['unused bits that are not zero', `${goodHeader}.${goodPayload}.${'A'.repeat(85)}B`],
    ['a letter outside ASCII', `${good}é`],
    ['more than 8 KiB', signCompact(ec, header, { ...goodClaims, pad: 'x'.repeat(8192) })],
    ['a header that is an array', signCompact(ec, [header], goodClaims)],
    ['a header that is null', signCompact(ec, null, goodClaims)],
    ['a payload that is an array', signCompact(ec, header, [goodClaims])],
    ['a payload that is text', signCompact(ec, header, '"text"')],
    ['an empty payload', signCompact(ec, header, '')],
    ['an empty header', signCompact(ec, '', goodClaims)],
    ['text after the payload', signCompact(ec, header, `${JSON.stringify(goodClaims)}{}`)],
    ['NaN', signCompact(ec, header, JSON.stringify(goodClaims).replace(/"exp":\d+/, '"exp":NaN'))],
    ['a byte order mark', signCompact(ec, header, `\ufeff${JSON.stringify(goodClaims)}`)],
    ['a claim twice', edit('{', '{"sub":"x",')],
    ['a claim twice, once in escapes', edit('{', '{"\\u0073ub":"x",')],
    ['a claim twice, deep inside', edit('{', '{"a":[{"b":1,"b":1}],')],
    ['a header member twice', signCompact(ec, `{"alg":"none","alg":"ES256","kid":"${ec.kid}"}`, goodClaims)],
    ['a lone surrogate', edit('one-of', '\\ud800')],
    ['a lone surrogate as a name', edit('{', '{"\\udc00":1,')],
  ]
  test.each(cases)('%s', async (_name, compact) => {
    expect(await refusalOf(compact)).toBe('assertion_malformed')
  })

  test('invalid UTF-8', async () => {
    const payload = Buffer.concat([Buffer.from('{"a":"'), Buffer.from([0xff]), Buffer.from('"}')]).toString('base64url')
    const input = `${goodHeader}.${payload}`
    expect(await refusalOf(`${input}.${signBytes(ec, input).toString('base64url')}`)).toBe('assertion_malformed')
  })

  test('nesting of more than 32 levels', async () => {
    const nested = (levels: number) => JSON.stringify(goodClaims).replace('{', `{"a":${'['.repeat(levels)}${']'.repeat(levels)},`)
    expect(await refusalOf(signCompact(ec, header, nested(31)))).toBe('accepted')
    expect(await refusalOf(signCompact(ec, header, nested(32)))).toBe('assertion_malformed')
    expect(await refusalOf(signCompact(ec, header, nested(2500)))).toBe('assertion_malformed')
  })
})

describe('refuses a header', () => {
  const pem = ec.publicKey.export({ type: 'spki', format: 'pem' })
  const der = ec.publicKey.export({ type: 'spki', format: 'der' })
  const hs256 = { alg: 'HS256', kid: ec.kid }
  const cases: [string, RefusalReason, string][] = [
    ['alg none', 'algorithm_not_allowed', `${encodePart({ alg: 'none' })}.${goodPayload}.`],
    ['alg None with a signature', 'algorithm_not_allowed', signCompact(ec, { alg: 'None', kid: ec.kid }, goodClaims)],
    ['no alg', 'algorithm_not_allowed', signCompact(ec, { kid: ec.kid }, goodClaims)],
    ['alg in lower case', 'algorithm_not_allowed', signCompact(ec, { alg: 'es256', kid: ec.kid }, goodClaims)],
    ['alg as an array', 'algorithm_not_allowed', signCompact(ec, { alg: ['ES256'], kid: ec.kid }, goodClaims)],
    ['alg __proto__', 'algorithm_not_allowed', signCompact(ec, { alg: '__proto__', kid: ec.kid }, goodClaims)],
    ['HS256 under the PEM', 'algorithm_not_allowed', macCompact(pem, hs256, goodClaims)],
    ['HS256 under the DER', 'algorithm_not_allowed', macCompact(der, hs256, goodClaims)],
    ['HS256 under the JWK', 'algorithm_not_allowed', macCompact(JSON.stringify(ec.jwk), hs256, goodClaims)],
    ['ES256 with an HMAC under the PEM', 'signature_invalid', macCompact(pem, header, goodClaims)],
    ['RS256', 'algorithm_not_allowed', signCompact(ec, { alg: 'RS256', kid: ec.kid }, goodClaims)],
    ['ES384', 'algorithm_not_allowed', signCompact(ec, { alg: 'ES384', kid: ec.kid }, goodClaims)],
    ['ES256 for an Ed25519 key', 'algorithm_not_allowed', signCompact(ed, { alg: 'ES256', kid: ed.kid }, goodClaims)],
    ['EdDSA for an EC key', 'algorithm_not_allowed', signCompact(ec, { alg: 'EdDSA', kid: ec.kid }, goodClaims)],
    ['Ed25519 for an EC key', 'algorithm_not_allowed', signCompact(ec, { alg: 'Ed25519', kid: ec.kid }, goodClaims)],
    ['kid as a path', 'key_unknown', signCompact(ec, { alg: 'ES256', kid: '../../../dev/null' }, goodClaims)],
    ['kid as SQL', 'key_unknown', signCompact(ec, { alg: 'ES256', kid: "' OR 1=1 --" }, goodClaims)],
    ['kid empty', 'key_unknown', signCompact(ec, { alg: 'ES256', kid: '' }, goodClaims)],
    ['kid of another workload', 'key_unknown', signCompact(foreign, { alg: 'ES256', kid: foreign.kid }, goodClaims)],
    ['kid as an array', 'header_not_allowed', signCompact(ec, { alg: 'ES256', kid: [ec.kid] }, goodClaims)],
    ['kid as a number', 'header_not_allowed', signCompact(ec, { alg: 'ES256', kid: 1 }, goodClaims)],
    ['kid null', 'header_not_allowed', signCompact(ec, { alg: 'ES256', kid: null }, goodClaims)],
    ['typ at+jwt', 'type_not_allowed', signCompact(ec, { ...header, typ: 'at+jwt' }, goodClaims)],
    ['typ dpop+jwt', 'type_not_allowed', signCompact(ec, { ...header, typ: 'dpop+jwt' }, goodClaims)],
    ['typ empty', 'type_not_allowed', signCompact(ec, { ...header, typ: '' }, goodClaims)],
    ['typ as an array', 'type_not_allowed', signCompact(ec, { ...header, typ: ['JWT'] }, goodClaims)],
    ['typ null', 'type_not_allowed', signCompact(ec, { ...header, typ: null }, goodClaims)],
  ]
  test.each(cases)('%s: %s', async (_name, reason, compact) => {
    expect(await refusalOf(compact)).toBe(reason)
  })

  const members: [string, unknown][] = [
    ['jku', 'https://evil.example.com/jwks'],
    ['x5u', 'https://evil.example.com/cert.pem'],
    ['x5c', ['MIIB']],
    ['jwk', foreign.jwk],
    ['crit', ['exp']],
    ['crit', []],
    ['b64', false],
    ['b64', true],
    ['zip', 'DEF'],
    ['cty', 'JWT'],
    ['__proto__', {}],
    ['constructor', 1],
  ]
  test.each(members)('with %s %j', async (name, value) => {
    const text = `{"alg":"ES256","kid":"${ec.kid}",${JSON.stringify(name)}:${JSON.stringify(value)}}`
    expect(await refusalOf(signCompact(ec, text, goodClaims))).toBe('header_not_allowed')
  })

  test('with its own key inside, even though the signature fits that key', async () => {
    const compact = signCompact(foreign, { alg: 'ES256', jwk: foreign.jwk }, goodClaims)
    expect(await refusalOf(compact)).toBe('header_not_allowed')
  })
})

describe('refuses claims', () => {
  const rawExp = (text: string) => JSON.stringify(goodClaims).replace(/"exp":\d+/, `"exp":${text}`)
  const cases: [string, RefusalReason, unknown][] = [
    ['no iss', 'claims_malformed', { ...goodClaims, iss: undefined }],
    ['no sub', 'claims_malformed', { ...goodClaims, sub: undefined }],
    ['iss as an array', 'claims_malformed', { ...goodClaims, iss: [subject] }],
    ['iss ≠ sub', 'subject_mismatch', { ...goodClaims, sub: `spiffe://${trustDomain}/other-bot` }],
    ['sub with another spelling', 'subject_mismatch', { ...goodClaims, sub: `${subject}/` }],
    ['iss of another trust domain', 'issuer_mismatch', { ...goodClaims, iss: 'spiffe://evil.example/triage-bot' }],
    ['iss a bare name', 'issuer_mismatch', { ...goodClaims, iss: 'triage-bot', sub: 'triage-bot' }],
    ['iss in upper case', 'issuer_mismatch', { ...goodClaims, iss: subject.toUpperCase() }],
    ['iss with a path', 'issuer_mismatch', { ...goodClaims, iss: `${subject}/x`, sub: `${subject}/x` }],
    ['iss with a line break', 'issuer_mismatch', { ...goodClaims, iss: `${subject}\n`, sub: `${subject}\n` }],
    ['no aud', 'claims_malformed', { ...goodClaims, aud: undefined }],
    ['aud as an object', 'claims_malformed', { ...goodClaims, aud: { 0: issuer } }],
    ['aud with a number', 'claims_malformed', { ...goodClaims, aud: [issuer, 1] }],
    ['aud empty', 'audience_mismatch', { ...goodClaims, aud: [] }],
    ['aud with another', 'audience_mismatch', { ...goodClaims, aud: [issuer, 'https://other.example.com'] }],
    ['aud twice the issuer', 'audience_mismatch', { ...goodClaims, aud: [issuer, issuer] }],
    ['aud the token endpoint', 'audience_mismatch', { ...goodClaims, aud: `${issuer}/oauth2/token` }],
    ['aud with a slash', 'audience_mismatch', { ...goodClaims, aud: `${issuer}/` }],
    ['no exp', 'expiry_missing', withoutExp],
    ['exp as text', 'claims_malformed', { ...goodClaims, exp: String(nowSeconds + 60) }],
    ['exp null', 'claims_malformed', { ...goodClaims, exp: null }],
    ['exp 1e400', 'claims_malformed', rawExp('1e400')],
    ['exp -1', 'claims_malformed', rawExp('-1')],
    ['exp 0', 'claims_malformed', rawExp('0')],
    ['exp in milliseconds', 'claims_malformed', { ...goodClaims, exp: nowMs + 60_000 }],
    ['exp a moment ago', 'expired', { ...goodClaims, exp: nowSeconds - 0.001, iat: nowSeconds - 10 }],
    ['exp now', 'expired', { ...goodClaims, exp: nowSeconds, iat: nowSeconds - 10 }],
    ['iat as text', 'claims_malformed', { ...goodClaims, iat: String(nowSeconds) }],
    ['iat null', 'claims_malformed', { ...goodClaims, iat: null }],
    ['iat in the future', 'issued_in_future', { ...goodClaims, iat: nowSeconds + 5.001 }],
    ['iat long ago', 'too_old', { ...goodClaims, iat: nowSeconds - 300.001 }],
    ['lifetime over five minutes', 'lifetime_too_long', { ...goodClaims, iat: nowSeconds, exp: nowSeconds + 300.001 }],
    ['a lifetime that began earlier', 'lifetime_too_long', { ...goodClaims, iat: nowSeconds - 299, exp: nowSeconds + 2 }],
    ['lifetime over five minutes without iat', 'lifetime_too_long', { ...withoutIat, exp: nowSeconds + 300.001 }],
    ['nbf as text', 'claims_malformed', { ...goodClaims, nbf: 'now' }],
    ['nbf in the future', 'not_yet_valid', { ...goodClaims, nbf: nowSeconds + 5.001 }],
    ['no jti', 'jti_missing', withoutJti],
    ['jti empty', 'claims_malformed', { ...goodClaims, jti: '' }],
    ['jti a number', 'claims_malformed', { ...goodClaims, jti: 7 }],
    ['jti too long', 'claims_malformed', { ...goodClaims, jti: 'j'.repeat(257) }],
    ['jti with a control character', 'claims_malformed', { ...goodClaims, jti: 'a\u0000b' }],
    ['jti with a line break', 'claims_malformed', { ...goodClaims, jti: 'a\nb' }],
    ['an access token: scope', 'type_not_allowed', { ...goodClaims, scope: 'tickets:read' }],
    ['an access token: client_id', 'type_not_allowed', { ...goodClaims, client_id: subject }],
    ['an access token: authorization_details', 'type_not_allowed', { ...goodClaims, authorization_details: [] }],
  ]
  test.each(cases)('%s: %s', async (_name, reason, claims) => {
    expect(await refusalOf(signCompact(ec, header, claims))).toBe(reason)
  })
})

describe('refuses a signature', () => {
  const input = `${goodHeader}.${goodPayload}`
  const signature = Buffer.from(goodSignature, 'base64url')
  const zeroR = Buffer.concat([Buffer.alloc(32), signature.subarray(32)])
  const zeroS = Buffer.concat([signature.subarray(0, 32), Buffer.alloc(32)])
  const order = Buffer.from('ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551', 'hex')
  const flipped = Buffer.from(signature)
  flipped.writeUInt8(flipped.readUInt8(10) ^ 1, 10)
  const edHeader = encodePart({ alg: 'Ed25519', kid: ed.kid })
  const edInput = `${edHeader}.${goodPayload}`
  const edSignature = signBytes(ed, edInput)
  // S + L: the same signature to whoever does not check that S is below the order (RFC 8032 §8.4).
  const l = 2n ** 252n + 27742317777372353535851937790883648493n
  const s = BigInt(`0x${Buffer.from(edSignature.subarray(32)).reverse().toString('hex')}`) + l
  const malleated = Buffer.concat([
    edSignature.subarray(0, 32),
    Buffer.from(s.toString(16).padStart(64, '0'), 'hex').reverse(),
  ])
  const cases: [string, string, Buffer][] = [
    ['that is empty', input, Buffer.alloc(0)],
    ['in DER', input, sign('sha256', Buffer.from(input), { key: ec.privateKey, dsaEncoding: 'der' })],
    ['of zeros', input, Buffer.alloc(64)],
    ['with r zero', input, zeroR],
    ['with s zero', input, zeroS],
    ['with r and s the order', input, Buffer.concat([order, order])],
    ['with a bit flipped', input, flipped],
    ['cut short', input, signature.subarray(0, 63)],
    ['with a byte more', input, Buffer.concat([signature, Buffer.from([0])])],
    ['of a stranger', input, signBytes(foreign, input)],
    ['of the workload\'s other key', input, signBytes(removed, input)],
    ['over another payload', `${goodHeader}.${encodePart({ ...goodClaims, jti: 'another' })}`, signature],
    ['of zeros, Ed25519', edInput, Buffer.alloc(64)],
    ['with S beyond the order, Ed25519', edInput, malleated],
    ['cut short, Ed25519', edInput, edSignature.subarray(0, 63)],
  ]
  test.each(cases)('%s', async (_name, signed, bytes) => {
    expect(await refusalOf(`${signed}.${bytes.toString('base64url')}`)).toBe('signature_invalid')
  })

  test('that proves nothing, whatever else is wrong: the claims of a stranger are not reported', async () => {
    const expired = signCompact(foreign, header, { ...goodClaims, exp: nowSeconds - 1 })
    expect(await refusalOf(expired)).toBe('signature_invalid')
  })
})

describe('refuses a workload', () => {
  function signedBy(key: typeof ec, claims: unknown = goodClaims): string {
    return signCompact(key, { alg: 'ES256', kid: key.kid }, claims)
  }

  test('that is unknown, and does not name it', async () => {
    const id = `spiffe://${trustDomain}/nobody`
    const result = await authenticate(signedBy(ec, { ...goodClaims, iss: id, sub: id }), contextOf(workload))
    expect(result).toEqual({ ok: false, reason: 'workload_unknown' })
  })

  test('that is not asked for: no look-up when iss and sub differ', async () => {
    const asked: string[] = []
    const findWorkload = async (name: string) => void asked.push(name) as undefined
    const claims = { ...goodClaims, iss: `spiffe://${trustDomain}/other-bot` }
    const result = await authenticate(signedBy(foreign, claims), { issuer, trustDomain, nowMs, findWorkload })
    expect([result, asked]).toEqual([{ ok: false, reason: 'subject_mismatch' }, []])
  })

  test('by another workload\'s key, and names the one that was claimed', async () => {
    const result = await authenticate(signedBy(foreign), contextOf(workload, other))
    expect(result).toEqual({ ok: false, reason: 'key_unknown', workload: 'triage-bot' })
  })

  test('by a key that was removed', async () => {
    expect(await refusalOf(signedBy(removed))).toBe('key_removed')
  })

  test('by a key that has just ended', async () => {
    const ended = makeKey('ES256', { removedAtMs: nowMs })
    const context = contextOf(makeWorkload([ended]))
    expect(await refusalOf(signCompact(ended, { alg: 'ES256', kid: ended.kid }, goodClaims), context)).toBe('key_removed')
    expect(await refusalOf(signCompact(ended, { alg: 'ES256' }, goodClaims), context)).toBe('key_unknown')
  })

  test('by a key that was removed, without a kid', async () => {
    expect(await refusalOf(signCompact(removed, { alg: 'ES256' }, goodClaims))).toBe('signature_invalid')
  })

  test('without any key of the algorithm', async () => {
    const compact = signCompact(ed, { alg: 'Ed25519' }, goodClaims)
    expect(await refusalOf(compact, contextOf(makeWorkload([ec])))).toBe('key_unknown')
  })

  test('with more than two keys of the algorithm and no kid', async () => {
    const many = makeWorkload([ec, makeKey('ES256'), makeKey('ES256')])
    expect(await refusalOf(signCompact(ec, { alg: 'ES256' }, goodClaims), contextOf(many))).toBe('kid_required')
    expect(await refusalOf(good, contextOf(many))).toBe('accepted')
  })

  test.each([
    ['before', { iat: nowSeconds - 6 }, 'before_restore'],
    ['then, by a clock that may be five seconds ahead', { iat: nowSeconds - 1 }, 'before_restore'],
    ['after that', { iat: nowSeconds }, 'accepted'],
    ['nobody knows when, for it has no iat and its exp allows before', { iat: undefined, exp: nowSeconds + 299 }, 'before_restore'],
    ['after that, by its exp', { iat: undefined, exp: nowSeconds + 300 }, 'accepted'],
  ])('whose assertion was signed %s, where the log was restored', async (_, claims, reason) => {
    const context = { ...contextOf(workload), proofsFromMs: (nowSeconds - 5) * 1000 - 1 }
    expect(await refusalOf(signCompact(ec, header, { ...goodClaims, exp: nowSeconds + 60, ...claims }), context)).toBe(reason)
  })

  const standings: [RefusalReason, Partial<Workload>][] = [
    ['workload_suspended', { status: 'suspended' }],
    ['workload_retired', { status: 'retired' }],
    ['review_overdue', { reviewAtMs: nowMs }],
  ]
  test.each(standings)('%s, told only to the holder of a key', async (reason, extra) => {
    const context = contextOf(makeWorkload([ec], extra))
    expect(await refusalOf(good, context)).toBe(reason)
    expect(await refusalOf(signCompact(foreign, header, goodClaims), context)).toBe('signature_invalid')
    expect(await refusalOf(signedBy(ec, { ...goodClaims, exp: nowSeconds - 1 }), context)).toBe('expired')
  })

  test('up to the instant of its review', async () => {
    expect(await refusalOf(good, contextOf(makeWorkload([ec], { reviewAtMs: nowMs + 1 })))).toBe('accepted')
  })
})

describe('the replay id', () => {
  async function replayIdOf(name: string, jti: string): Promise<string> {
    const id = `spiffe://${trustDomain}/${name}`
    const compact = signCompact(ec, header, { ...goodClaims, iss: id, sub: id, jti })
    const result = await authenticate(compact, contextOf(makeWorkload([ec], { name })))
    if (!result.ok) throw new Error(result.reason)
    const { assertion } = result.principal
    if (assertion === undefined) throw new Error('a principal without an assertion')
    return assertion.replayId
  }

  test('is the same for the same workload and jti, whatever else the assertion says', async () => {
    const again = await authenticate(
      signCompact(ec, { ...header, typ: 'JWT' }, { ...goodClaims, exp: nowSeconds + 30 }),
      contextOf(workload),
    )
    expect(again.ok && again.principal.assertion?.replayId).toBe(await replayIdOf('triage-bot', goodClaims.jti))
  })

  test('differs wherever workload or jti differ, also where their texts join to the same', async () => {
    const pairs: [string, string][] = [['a', 'bc'], ['ab', 'c'], ['a', '","bc'], ['a', 'bC'], ['b', 'bc']]
    const ids = await Promise.all(pairs.map(([name, jti]) => replayIdOf(name, jti)))
    expect(new Set(ids).size).toBe(pairs.length)
  })
})
