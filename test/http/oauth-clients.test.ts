import { once } from 'node:events'
import { createAdaptorServer } from '@hono/node-server'
import { createRemoteJWKSet, importJWK, jwtVerify, type CryptoKey } from 'jose'
import * as oauth from 'oauth4webapi'
import * as openid from 'openid-client'
import { describe, expect, onTestFinished, test } from 'vitest'
import { systemClock } from '../../src/kernel/clock.ts'
import { createTestClock } from '../harness.ts'
import { findFreePort } from '../free-port.ts'
import { createAgent, dayMs, startBroker, type TestAgent, type TestBroker } from '../broker.ts'
import { details } from './oauth-requests.ts'

/** A broker on a real socket whose issuer is where it listens. */
async function serve(): Promise<{ broker: TestBroker; issuer: string }> {
  const port = await findFreePort()
  const issuer = `http://127.0.0.1:${port}`
  const broker = await startBroker('sqlite', { issuer, development: true, clock: systemClock })
  const server = createAdaptorServer({ fetch: broker.app.fetch })
  server.listen(port, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => new Promise<void>((resolve) => {
    if ('closeAllConnections' in server) server.closeAllConnections()
    server.close(() => resolve())
  }))
  return { broker, issuer }
}

/** A registered workload, its key as the libraries want it. */
async function register(broker: TestBroker, issuer: string, name: string, alg: 'ES256' | 'Ed25519') {
  const agent = await createAgent(name, issuer, createTestClock(), alg)
  const response = await fetch(`${issuer}/v1/workloads`, {
    method: 'POST',
    headers: { authorization: `Bearer ${broker.adminCredential}`, 'content-type': 'application/json' },
    body: JSON.stringify({
      name,
      environment: 'test',
      stage: 'pilot',
      owner: { team: 'support', contact: 'oncall:support' },
      purpose: 'Runs in a test',
      review_at: new Date(Date.now() + dayMs).toISOString(),
      jwks: { keys: [agent.publicJwk] },
    }),
  })
  expect(response.status).toBe(201)
  return { agent, key: await toCryptoKey(agent) }
}

async function toCryptoKey({ privateKey, alg }: TestAgent): Promise<CryptoKey> {
  const key = await importJWK(privateKey.export({ format: 'jwk' }), alg)
  if (key instanceof Uint8Array) throw new TypeError('a private key is symmetric')
  return key
}

const insecure = { [oauth.allowInsecureRequests]: true }

describe.each(['ES256', 'Ed25519'] as const)('With a key for %s,', (alg) => {
  test('oauth4webapi discovers, gets, validates, introspects and revokes', async () => {
    const { broker, issuer } = await serve()
    const { agent, key } = await register(broker, issuer, 'triage-bot', alg)
    const issuerUrl = new URL(issuer)
    const as = await oauth.processDiscoveryResponse(
      issuerUrl,
      await oauth.discoveryRequest(issuerUrl, { algorithm: 'oauth2', ...insecure }),
    )
    const client = { client_id: agent.clientId }
    const auth = oauth.PrivateKeyJwt({ key, kid: agent.kid })

    const parameters = {
      authorization_details: details({ actions: ['tickets:read'], task: 't-1', ttl_seconds: 60 }),
      resource: 'https://tickets.test',
    }
    const given = await oauth.processClientCredentialsResponse(
      as,
      client,
      await oauth.clientCredentialsGrantRequest(as, client, auth, parameters, insecure),
    )
    expect(given).toMatchObject({ token_type: 'bearer', scope: 'tickets:read' })
    expect(given.expires_in).toBeGreaterThan(50)
    expect(given.expires_in).toBeLessThanOrEqual(60)
    expect(given.authorization_details).toEqual([{ type: 'stint', actions: ['tickets:read'], task: 't-1', ttl_seconds: 60 }])

    // As a resource server would: by our published keys, RFC 9068 §4.
    const request = new Request('https://tickets.test/1', { headers: { authorization: `Bearer ${given.access_token}` } })
    const claims = await oauth.validateJwtAccessToken(as, request, 'https://tickets.test', insecure)
    expect(claims).toMatchObject({ iss: issuer, sub: agent.clientId, client_id: agent.clientId, scope: 'tickets:read' })
    await expect(oauth.validateJwtAccessToken(as, request, 'https://payments.test', insecure)).rejects.toThrow(/aud/)

    const introspect = async () =>
      oauth.processIntrospectionResponse(as, client, await oauth.introspectionRequest(as, client, auth, given.access_token, insecure))
    expect(await introspect()).toMatchObject({ active: true, sub: agent.clientId, scope: 'tickets:read', jti: claims.jti })
    await oauth.processRevocationResponse(await oauth.revocationRequest(as, client, auth, given.access_token, insecure))
    expect(await introspect()).toEqual({ active: false })
  })

  test('openid-client does the same, and jose verifies the token by the published keys', async () => {
    const { broker, issuer } = await serve()
    const { agent, key } = await register(broker, issuer, 'triage-bot', alg)
    const config = await openid.discovery(new URL(issuer), agent.clientId, undefined, openid.PrivateKeyJwt({ key, kid: agent.kid }), {
      algorithm: 'oauth2',
      execute: [openid.allowInsecureRequests],
    })
    const given = await openid.clientCredentialsGrant(config, { scope: 'tickets:read tickets:comment' })
    expect(given).toMatchObject({ scope: 'tickets:read tickets:comment', expires_in: 600 })
    const keys = createRemoteJWKSet(new URL(config.serverMetadata().jwks_uri ?? ''))
    const { payload, protectedHeader } = await jwtVerify(given.access_token, keys, { issuer, audience: 'https://tickets.test', typ: 'at+jwt' })
    expect(payload).toMatchObject({ sub: agent.clientId, scope: 'tickets:read tickets:comment' })
    expect(protectedHeader.alg).toBe('ES256')
    expect(await openid.tokenIntrospection(config, given.access_token)).toMatchObject({ active: true, jti: payload.jti })
    await openid.tokenRevocation(config, given.access_token)
    expect(await openid.tokenIntrospection(config, given.access_token)).toEqual({ active: false })
  })
})

test('the libraries read our refusals as OAuth errors', async () => {
  const { broker, issuer } = await serve()
  const { agent, key } = await register(broker, issuer, 'triage-bot', 'ES256')
  const discover = (auth: openid.ClientAuth) =>
    openid.discovery(new URL(issuer), agent.clientId, undefined, auth, { algorithm: 'oauth2', execute: [openid.allowInsecureRequests] })
  const known = await discover(openid.PrivateKeyJwt({ key, kid: agent.kid }))
  await expect(openid.clientCredentialsGrant(known, { scope: 'tickets:purge' })).rejects.toMatchObject({
    error: 'access_denied',
    status: 400,
    error_description: 'The policy does not allow this.',
  })
  await expect(openid.clientCredentialsGrant(known, { scope: 'no:such' })).rejects.toMatchObject({ error: 'invalid_scope', status: 400 })
  const stranger = await createAgent('stranger', issuer, createTestClock())
  const unknown = await discover(openid.PrivateKeyJwt({ key: await toCryptoKey(stranger), kid: agent.kid }))
  await expect(openid.clientCredentialsGrant(unknown, { scope: 'tickets:read' })).rejects.toMatchObject({ error: 'invalid_client', status: 401 })
  const secret = await discover(openid.ClientSecretPost('hunter2'))
  await expect(openid.clientCredentialsGrant(secret, { scope: 'tickets:read' })).rejects.toMatchObject({
    error: 'invalid_request',
    error_description: expect.stringContaining('private_key_jwt'),
  })
})
