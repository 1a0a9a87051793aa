import { createLocalJWKSet, decodeProtectedHeader, jwtVerify, type JSONWebKeySet } from 'jose'
import * as openid from 'openid-client'
import { describe, expect, test } from 'vitest'
import { createWebIdentities } from '../../src/broker/web-identity.ts'
import { issuer, startBroker, type TestBroker } from '../broker.ts'
import { describeEngines } from '../harness.ts'

const identity = { subject: 'tool:reports', audience: 'sts.amazonaws.com', seconds: 300, claims: { 'https://aws.amazon.com/source_identity': 'grant_1' } } as const

const sign = async ({ broker }: TestBroker): Promise<string> => (await createWebIdentities(broker)(identity)).reveal()

describe('The metadata of OpenID Connect', () => {
  test('say what a cloud reads that trusts this issuer', async () => {
    const broker = await startBroker('sqlite')
    const response = await broker.send('GET', '/.well-known/openid-configuration')
    expect([response.status, response.headers.get('cache-control'), response.headers.get('content-type')]).toEqual([200, 'public, max-age=300', 'application/json'])
    expect(await response.json()).toEqual({
      issuer: 'https://stint.test',
      jwks_uri: 'https://stint.test/oauth2/jwks',
      response_types_supported: ['id_token'],
      subject_types_supported: ['public'],
      id_token_signing_alg_values_supported: ['ES256'],
      claims_supported: ['iss', 'sub', 'aud', 'iat', 'exp', 'jti'],
    })
  })

  test('are read by openid-client', async () => {
    const broker = await startBroker('sqlite')
    const config = await openid.discovery(new URL(issuer), 'sts.amazonaws.com', undefined, openid.None(), {
      [openid.customFetch]: async (url, { method }) => broker.send(method, new URL(url).pathname),
    })
    expect(config.serverMetadata()).toMatchObject({ issuer, jwks_uri: `${issuer}/oauth2/jwks` })
  })
})

describeEngines('A token by which Stint proves who it is', (engine) => {
  test('is verified by the keys that the metadata lead to, and says what it was asked to say', async () => {
    const broker = await startBroker(engine)
    const token = await sign(broker)
    const { jwks_uri: uri } = (await (await broker.send('GET', '/.well-known/openid-configuration')).json()) as { readonly jwks_uri: string }
    const keys = (await (await broker.send('GET', new URL(uri).pathname)).json()) as JSONWebKeySet
    const { payload, protectedHeader } = await jwtVerify(token, createLocalJWKSet(keys), { issuer, audience: 'sts.amazonaws.com', typ: 'JWT', algorithms: ['ES256'], currentDate: new Date(broker.clock.nowMs()) })
    const iat = broker.clock.nowMs() / 1000
    expect(payload).toEqual({ iss: issuer, sub: 'tool:reports', aud: 'sts.amazonaws.com', iat, exp: iat + 300, jti: expect.stringMatching(/^identity_[0-9a-z]{26}$/), 'https://aws.amazon.com/source_identity': 'grant_1' })
    expect(protectedHeader.kid).toBe(keys.keys[0]?.kid)
    expect(token).not.toBe(await sign(broker))
  })

  test('passes for no access token', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('bot', { team: 'support' })
    const token = await sign(broker)
    expect(decodeProtectedHeader(token).typ).toBe('JWT')
    const wish = { tool: 'tickets', actions: ['read'] }
    expect((await broker.send('POST', '/v1/grants', { json: wish, headers: { authorization: `Bearer ${token}` } })).status).toBe(401)
    const introspected = await broker.send('POST', '/oauth2/introspect', { form: agent.form({ token }) })
    expect([introspected.status, await introspected.json()]).toEqual([200, { active: false }])
  })

  test('cannot be made to say another issuer, or to last', async () => {
    const { broker } = await startBroker(engine)
    const signing = createWebIdentities(broker)
    const token = await signing({ ...identity, claims: { iss: 'https://evil.test', sub: 'x', aud: 'y', exp: 1 } })
    expect(JSON.parse(Buffer.from(token.reveal().split('.')[1] ?? '', 'base64url').toString())).toMatchObject({ iss: issuer, sub: 'tool:reports', aud: 'sts.amazonaws.com' })
    for (const seconds of [0, 301, 1.5]) await expect(signing({ ...identity, seconds })).rejects.toThrow(RangeError)
  })
})
