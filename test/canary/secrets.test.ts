import { expect, test } from 'vitest'
import { makeMarked, search, watchKey } from './secrets.ts'

const { texts, jwk, canaries } = makeMarked()
const credential = texts.operator

test.each([
  ['as it is', credential],
  ['cut short', credential.slice(0, 50)],
  ['without its beginning', credential.slice(-24)],
  ['as base64', Buffer.from(credential).toString('base64')],
  ['as base64 behind one byte', Buffer.from(`x${credential}`).toString('base64')],
  ['as base64 behind two bytes', Buffer.from(`xy${credential}`).toString('base64')],
  ['as base64url', Buffer.from(`?>${credential}`).toString('base64url')],
  ['as hex', Buffer.from(credential).toString('hex')],
  ['in lower case', credential.toLowerCase()],
  ['within JSON within JSON', JSON.stringify(JSON.stringify({ credential }))],
  ['in a URL', `https://x.test/?a=${encodeURIComponent(credential)}`],
])('A credential is found %s', (_, text) => {
  expect(search({ here: `before ${text} after` }, canaries).map(({ canary }) => canary)).toEqual(['a forged operator credential'])
})

test('A private key is found as JWK, as PEM and as bytes, and its public half is not one', () => {
  const { d = '', x = '' } = jwk
  const key = [watchKey('a key', d)]
  const bytes = Buffer.from(d, 'base64url')
  for (const place of [JSON.stringify(jwk), bytes, bytes.toString('hex'), bytes.toString('base64')]) expect(search({ place }, key)).toHaveLength(1)
  expect(search({ pem: texts.pem }, canaries).map(({ canary }) => canary)).toContain('a PEM')
  expect(search({ x }, [...canaries, ...key])).toEqual([])
})
