import { createHmac, generateKeyPairSync } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { judgeIdToken, readGroups, readIdToken, referToSubject, roleOfGroups } from '../../src/identity/id-token.ts'
import { signJws } from '../broker.ts'

const nowMs = Date.UTC(2026, 0, 15, 12)
const nowSeconds = nowMs / 1000
const rules = { issuer: 'https://issuer.example/tenant', clientId: 'stint-cli' }
const claimsOf = (claims: Record<string, unknown> = {}) => ({ iss: rules.issuer, sub: 'ada', aud: rules.clientId, iat: nowSeconds, exp: nowSeconds + 3600, ...claims })
const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const make = (claims: Record<string, unknown> = {}, header: Record<string, unknown> = {}) => signJws({ alg: 'ES256', ...header }, claimsOf(claims), privateKey)

/** The reason for which a token would be refused, its signature aside. */
function judge(compact: string): string | undefined {
  const token = readIdToken(compact)
  return token === undefined ? 'id_token_malformed' : judgeIdToken(token, rules, nowMs)
}

describe('An ID token', () => {
  test.each<[string, Record<string, unknown>, Record<string, unknown>?]>([
    ['of now', {}],
    ['for a list of one', { aud: ['stint-cli'] }],
    ['for several, made for this client', { aud: ['else', 'stint-cli'], azp: 'stint-cli' }],
    ['for one, made for this client', { azp: 'stint-cli' }],
    ['of nearly ten minutes ago', { iat: nowSeconds - 599 }],
    ['of a clock that is a little ahead', { iat: nowSeconds + 30, nbf: nowSeconds + 30 }],
    ['with a fraction of a second', { iat: nowSeconds - 0.5 }],
    ['that says of its key more than is asked', {}, { typ: 'JWT', kid: 'a', x5t: 'b', jku: 'https://else.example' }],
    ...['RS256', 'PS256', 'ES256', 'EdDSA', 'Ed25519'].map((alg) => [`by ${alg}`, {}, { alg }] as [string, Record<string, unknown>, Record<string, unknown>]),
  ])('%s is taken', (_, claims, header) => {
    expect(judge(make(claims, header))).toBe(undefined)
  })

  test.each<[string, Record<string, unknown>, string]>([
    ['of another issuer', { iss: 'https://issuer.example/other' }, 'id_token_issuer_mismatch'],
    ['of an issuer with a slash more', { iss: `${rules.issuer}/` }, 'id_token_issuer_mismatch'],
    ['for another client', { aud: 'else' }, 'id_token_audience_mismatch'],
    ['for a client whose name only begins so', { aud: 'stint-cli2' }, 'id_token_audience_mismatch'],
    ['for several, none of them named', { aud: ['else', 'stint-cli'] }, 'id_token_audience_mismatch'],
    ['for several, made for another', { aud: ['else', 'stint-cli'], azp: 'else' }, 'id_token_audience_mismatch'],
    ['for this one, made for another', { azp: 'else' }, 'id_token_audience_mismatch'],
    ['made for no text', { azp: ['stint-cli'] }, 'id_token_audience_mismatch'],
    ['for nobody', { aud: [] }, 'id_token_audience_mismatch'],
    ['that has just expired', { exp: nowSeconds }, 'id_token_expired'],
    ['of ten minutes ago', { iat: nowSeconds - 600 }, 'id_token_expired'],
    ['of a clock that is far ahead', { iat: nowSeconds + 31 }, 'id_token_expired'],
    ['not valid yet', { nbf: nowSeconds + 31 }, 'id_token_expired'],
    ...(
      [
        { iss: undefined }, { iss: 7 }, { sub: undefined }, { sub: '' }, { sub: 7 }, { sub: 'a'.repeat(256) }, { aud: undefined }, { aud: [7] },
        { exp: undefined }, { exp: 'later' }, { exp: 1e300 }, { iat: undefined }, { iat: -1 }, { nbf: 'now' }, { events: {} },
      ] as Record<string, unknown>[]
    ).map((claims) => [`with ${JSON.stringify(claims, (_, value: unknown) => (value === undefined ? null : value)).slice(0, 40)}`, claims, 'id_token_malformed'] as [string, Record<string, unknown>, string]),
  ])('%s is refused', (_, claims, reason) => {
    expect(judge(make(claims))).toBe(reason)
  })

  test.each<Record<string, unknown>>([
    { alg: 'none' }, { alg: 'HS256' }, { alg: 'RS1' }, { alg: 'es256' }, { alg: undefined }, { alg: ['ES256'] },
    { typ: 'at+jwt' }, { typ: 'logout+jwt' }, { typ: 7 }, { kid: 7 }, { crit: ['b64'], b64: true }, { b64: false }, { zip: 'DEF' },
  ])('with the header %j is refused', (header) => {
    expect(judge(make({}, header))).toBe('id_token_malformed')
  })

  test.each(['', 'x', 'a.b.c', '..', `${make()}.x`, `${make()}=`, ` ${make()}`, make().replace(/\.[^.]*$/, ''), 'a'.repeat(33_000)])('that reads otherwise is refused', (text) => {
    expect(judge(text)).toBe('id_token_malformed')
  })

  test('that names a member twice is refused', () => {
    const text = JSON.stringify(claimsOf()).replace('{', '{"aud":"else",')
    expect(judge(signJws({ alg: 'ES256' }, text, privateKey))).toBe('id_token_malformed')
  })

  test('that is no signature\'s business is refused', () => {
    const [, payload] = make().split('.')
    const input = `${Buffer.from('{"alg":"HS256"}').toString('base64url')}.${payload ?? ''}`
    expect(judge(`${input}.${createHmac('sha256', rules.clientId).update(input).digest('base64url')}`)).toBe('id_token_malformed')
  })

  test('ends when it is ten minutes old, or before by its own exp', () => {
    expect(readIdToken(make())?.endsMs).toBe(nowMs + 600_000)
    expect(readIdToken(make({ exp: nowSeconds + 60 }))?.endsMs).toBe(nowMs + 60_000)
  })

  test('has one mark, whatever its signature looks like', () => {
    const token = make()
    const resigned = signJws({ alg: 'ES256' }, claimsOf(), privateKey)
    expect(resigned).not.toBe(token)
    expect(readIdToken(resigned)?.replayId).toBe(readIdToken(token)?.replayId)
    expect(readIdToken(make({ jti: 'a' }))?.replayId).not.toBe(readIdToken(token)?.replayId)
  })
})

describe('Groups', () => {
  const byRole = { admin: ['root'], approver: ['leads'], auditor: ['audit', 'security'] }
  const groupsOf = (groups: unknown, claim = 'groups') => {
    const token = readIdToken(make({ groups }))
    return token && readGroups(token, claim)
  }

  test.each<[unknown, string | undefined]>([
    [['root'], 'admin'],
    [['leads', 'audit'], 'approver'],
    [['security'], 'auditor'],
    [['else', 'audit', 'root', 'leads'], 'admin'],
    [['Root', 'root '], undefined],
    [[], undefined],
    ['root', undefined],
    [['root', 7], undefined],
    [{ 0: 'root' }, undefined],
    [undefined, undefined],
  ])('%j give %s', (groups, role) => {
    expect(roleOfGroups(groupsOf(groups) ?? [], byRole)).toBe(role)
  })

  test('are read from the claim alone', () => {
    expect(groupsOf(['root'], 'roles')).toBe(undefined)
    expect(groupsOf(['root'], 'constructor')).toBe(undefined)
  })
})

describe('The log names', () => {
  const refer = (subject: string, issuer = rules.issuer) => referToSubject({ issuer, subject })

  test.each(['ada', '248289761001', 'auth0|5f7c', 'okta:00u1', 'a_b.c-d', 'a'.repeat(128)])('%s as it is', (subject) => {
    expect(refer(subject)).toBe(subject)
  })

  test.each(['ada@example.com', 'Ada Lovelace', '+44 20 7946 0018', 'ä', 'sha256:abc', 'a'.repeat(129), 'a\n'])('%j by a hash that tells it from others', (subject) => {
    expect(refer(subject)).toMatch(/^sha256:[\w-]{43}$/)
    expect(refer(subject)).toBe(refer(subject))
    expect(refer(subject)).not.toBe(refer(`${subject}x@`))
    expect(refer(subject)).not.toBe(refer(subject, 'https://else.example'))
  })
})
