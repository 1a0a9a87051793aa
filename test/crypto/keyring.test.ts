import { calculateJwkThumbprint } from 'jose'
import { describe, expect, test } from 'vitest'
import { createKeyring, generateSigningKey, type SigningKeyRow } from '../../src/crypto/keyring.ts'
import { BrokerError } from '../../src/kernel/errors.ts'
import { Secret } from '../../src/kernel/secret.ts'

const first = await generateSigningKey()
const second = await generateSigningKey()

function makeRow(key: typeof first, times: Partial<SigningKeyRow> = {}): SigningKeyRow {
  return { ...key, use: 'token', createdAtMs: 0, publishAtMs: 0, signFromMs: 0, ...times }
}

// A rotation: the second key is published at 100, signs from 200; the first verifies until 300.
const rotation = [
  makeRow(first, { verifyUntilMs: 300 }),
  makeRow(second, { createdAtMs: 100, publishAtMs: 100, signFromMs: 200 }),
]

test('a generated key has its thumbprint as kid and hides its private half', async () => {
  expect(first.kid).toBe(await calculateJwkThumbprint(first.publicJwk, 'sha256'))
  expect(Object.keys(first.publicJwk).sort()).toEqual(['crv', 'kty', 'x', 'y'])
  expect(JSON.parse(first.privateJwk.reveal())).toEqual({ ...first.publicJwk, d: expect.stringMatching(/^[\w-]{43}$/) })
  expect(JSON.stringify(first)).toContain('[redacted]')
  expect(second.kid).not.toBe(first.kid)
})

describe('over a rotation', () => {
  const cases: [number, string, string[]][] = [
    [0, first.kid, [first.kid]],
    [99, first.kid, [first.kid]],
    [100, first.kid, [second.kid, first.kid]],
    [199, first.kid, [second.kid, first.kid]],
    [200, second.kid, [second.kid, first.kid]],
    [299, second.kid, [second.kid, first.kid]],
    [300, second.kid, [second.kid]],
  ]
  test.each(cases)('at %i', async (nowMs, signing, published) => {
    for (const rows of [rotation, rotation.toReversed()]) {
      const keyring = await createKeyring(rows)
      expect(keyring.signingKey(nowMs)).toMatchObject({ kid: signing, alg: 'ES256' })
      expect(keyring.jwks(nowMs).keys.map(({ kid }) => kid)).toEqual(published)
      for (const { kid } of [first, second]) {
        expect(keyring.verificationKey(kid, nowMs)?.kid).toBe(published.includes(kid) ? kid : undefined)
      }
    }
  })
})

test('the newest is the one that began to sign last, whenever it was made', async () => {
  const rows = [makeRow(first, { createdAtMs: 0, signFromMs: 200 }), makeRow(second, { createdAtMs: 100, signFromMs: 50 })]
  const keyring = await createKeyring(rows)
  expect([100, 250].map((nowMs) => keyring.signingKey(nowMs).kid)).toEqual([second.kid, first.kid])
})

test('the JWK Set shows the public members and no others', async () => {
  const leaky: SigningKeyRow = { ...makeRow(first), publicJwk: JSON.parse(first.privateJwk.reveal()) }
  const { keys } = (await createKeyring([leaky])).jwks(0)
  expect(keys).toEqual([{ ...first.publicJwk, use: 'sig', alg: 'ES256', kid: first.kid }])
})

test('private keys do not leave the keyring', async () => {
  const key = (await createKeyring([makeRow(first)])).signingKey(0)
  expect(Object.keys(key)).toEqual(['kid', 'alg', 'sign'])
})

describe('does not sign', () => {
  const { privateJwk: _, ...erased } = makeRow(first)
  const cases: [string, SigningKeyRow[]][] = [
    ['without keys', []],
    ['before the first key may', [makeRow(first, { signFromMs: 11 })]],
    ['before the key is published', [makeRow(first, { publishAtMs: 11 })]],
    ['once the key has ended', [makeRow(first, { verifyUntilMs: 10 })]],
    ['with an erased key', [erased]],
  ]
  test.each(cases)('%s', async (_name, rows) => {
    const keyring = await createKeyring(rows)
    expect(() => keyring.signingKey(10)).toThrow(expect.objectContaining({ code: 'unavailable' }))
  })

  test('with an erased key, which still verifies', async () => {
    expect((await createKeyring([erased])).verificationKey(first.kid, 0)?.kid).toBe(first.kid)
  })
})

describe('refuses rows', () => {
  const secret = JSON.parse(second.privateJwk.reveal()).d
  const cases: [string, SigningKeyRow[]][] = [
    ['with a kid twice', [makeRow(first), makeRow(first)]],
    ['with the kid of another key', [makeRow({ ...first, kid: second.kid })]],
    ['with the private half of another key', [makeRow({ ...first, privateJwk: second.privateJwk })]],
    ['with a private half that is no JSON', [makeRow({ ...first, privateJwk: new Secret(secret) })]],
    ['with a private half that is null', [makeRow({ ...first, privateJwk: new Secret('null') })]],
    ['with a private half without d', [makeRow({ ...first, privateJwk: new Secret(JSON.stringify(first.publicJwk)) })]],
    ['with a curve that is not P-256', [makeRow({ ...first, publicJwk: { ...first.publicJwk, crv: 'P-384' } })]],
  ]
  test.each(cases)('%s, without telling the secret', async (_name, rows) => {
    const error: unknown = await createKeyring(rows).then(() => undefined, (thrown: unknown) => thrown)
    if (!(error instanceof BrokerError)) throw error
    expect(error.code).toBe('internal')
    expect(`${error.stack} ${JSON.stringify(error)} ${String(error.cause)}`).not.toContain(String(secret).slice(0, 8))
  })
})
