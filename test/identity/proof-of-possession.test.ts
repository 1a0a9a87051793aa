import { expect, test } from 'vitest'
import { verifyPossession, type ProofPurpose } from '../../src/identity/proof-of-possession.ts'
import { issuer, makeKey, nowMs, nowSeconds, signCompact, subject, type HandMadeKey } from './hand-made.ts'

const ec = makeKey('ES256')
const ed = makeKey('Ed25519')
const forWorkload: ProofPurpose = { type: 'stint-key+jwt', claim: 'sub', value: subject }
const forCode: ProofPurpose = { type: 'stint-enrolment+jwt', claim: 'code_sha256', value: 'x' }
const claims = { aud: issuer, iat: nowSeconds, exp: nowSeconds + 300, jti: 'one' }

const headerOf = ({ registered: { alg, jwk } }: HandMadeKey, typ = 'stint-key+jwt') => ({ typ, alg, jwk })
const verify = (compact: string, purpose = forWorkload, at = nowMs) => verifyPossession(compact, purpose, { issuer, nowMs: at })

async function accepted(compact: string, purpose = forWorkload) {
  const result = await verify(compact, purpose)
  if (!result.ok) throw new Error(result.message)
  return result.proven
}

test.each([
  ['ES256', ec, {}],
  ['Ed25519', ed, {}],
  ['EdDSA, its former name', ed, { alg: 'EdDSA' }],
  ['a JWK that says what it is for', ec, { jwk: { ...ec.jwk, kid: ec.kid, use: 'sig', alg: 'ES256', key_ops: ['verify'] } }],
])('accepts %s, and gives the key as it is registered', async (_what, key, changes) => {
  const proven = await accepted(signCompact(key, { ...headerOf(key), ...changes }, { ...claims, sub: subject }))
  const { kid, alg, jwk } = key.registered
  expect(proven).toEqual({ key: { kid, alg, jwk }, replayId: expect.stringMatching(/^[\w-]{43}$/) as unknown, expiresAtMs: nowMs + 300_000 })
})

test('is told apart from others by what it is for, its key and its jti, and by nothing else', async () => {
  const id = async (key: HandMadeKey, more = {}) => (await accepted(signCompact(key, headerOf(key), { ...claims, sub: subject, ...more }))).replayId
  const first = await id(ec)
  expect(await id(ec, { exp: nowSeconds + 60 })).toBe(first)
  const enrolment = (await accepted(signCompact(ec, headerOf(ec, 'stint-enrolment+jwt'), { ...claims, code_sha256: 'x' }), forCode)).replayId
  expect(new Set([first, await id(ec, { jti: 'two' }), await id(ed), enrolment]).size).toBe(4)
})

test('lives to its last millisecond', async () => {
  const compact = signCompact(ec, headerOf(ec), { ...claims, sub: subject })
  expect(await verify(compact, forWorkload, nowMs + 299_999)).toMatchObject({ ok: true })
  expect(await verify(compact, forWorkload, nowMs + 300_000)).toMatchObject({ ok: false, message: expect.stringContaining('(expired)') as unknown })
})

test('of one purpose serves no other', async () => {
  const both = { ...claims, sub: subject, code_sha256: 'x' }
  for (const [typ, payload, purpose] of [
    ['stint-key+jwt', { ...claims, sub: subject }, forCode],
    ['stint-enrolment+jwt', { ...claims, code_sha256: 'x' }, forWorkload],
    ['stint-enrolment+jwt', { ...claims, sub: subject }, forWorkload],
    ['stint-key+jwt', { ...claims, code_sha256: 'x' }, forCode],
    ['stint-enrolment+jwt', { ...claims, code_sha256: 'y' }, forCode],
    ['stint-enrolment+jwt', { ...claims, sub: subject }, forCode],
    ['stint-key+jwt', { ...claims, sub: `${subject}2` }, forWorkload],
    ['stint-key+jwt', both, forWorkload],
  ] as const) {
    expect(await verify(signCompact(ec, headerOf(ec, typ), payload), purpose)).toMatchObject({ ok: false })
  }
})

test('of another key is refused, whatever the header says', async () => {
  const payload = { ...claims, sub: subject }
  expect(await verify(signCompact(ed, { ...headerOf(ec), alg: 'Ed25519' }, payload))).toMatchObject({ ok: false })
  expect(await verify(signCompact(makeKey('ES256'), headerOf(ec), payload))).toMatchObject({ ok: false, message: 'is not signed with the key that it carries' })
  expect(await verify('x'.repeat(8193))).toMatchObject({ ok: false })
})
