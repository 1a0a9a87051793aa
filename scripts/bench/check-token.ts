import assert from 'node:assert/strict'
import { createLocalJWKSet, jwtVerify, type JSONWebKeySet, type JWTPayload } from 'jose'
import { exchange, type Answer } from './exchange.ts'

/** What a token must be like. */
export interface Expected {
  readonly issuer: string
  readonly audience: string
  readonly scope: string
  readonly jwksUrl: string
}

/** Gets one token and verifies it with jose, as a resource server would. Throws for an answer or a token that is not as it must be. */
export async function checkToken(url: string, body: string, expected: Expected): Promise<{ answer: Answer; claims: JWTPayload }> {
  const answer = await exchange(url, { form: body })
  assert.ok(answer.status === 200, `the token endpoint answered ${answer.status}: ${answer.text.slice(0, 500)}`)
  // Judged by what follows.
  const { access_token: token } = JSON.parse(answer.text) as { access_token: string }
  const jwks = JSON.parse((await exchange(expected.jwksUrl)).text) as JSONWebKeySet
  const { issuer, audience } = expected
  const { payload } = await jwtVerify(token, createLocalJWKSet(jwks), { issuer, audience, algorithms: ['ES256'], typ: 'at+jwt' })
  assert.ok(payload['scope'] === expected.scope, 'the token is for something else than was asked for')
  return { answer, claims: payload }
}
