import { z } from 'zod'
import { keysMaxAgeSeconds } from '../crypto/key-life.ts'
import { defineRoute, type Route } from './route.ts'

const assertionAlgorithms = ['ES256', 'Ed25519', 'EdDSA']

const texts = z.array(z.string())

/** RFC 8414 §2, RFC 9396 §10. */
const metadata = z.strictObject({
  issuer: z.url(),
  token_endpoint: z.url(),
  jwks_uri: z.url(),
  introspection_endpoint: z.url(),
  revocation_endpoint: z.url(),
  response_types_supported: texts,
  grant_types_supported: texts,
  authorization_details_types_supported: texts,
  token_endpoint_auth_methods_supported: texts,
  token_endpoint_auth_signing_alg_values_supported: texts,
  introspection_endpoint_auth_methods_supported: texts,
  introspection_endpoint_auth_signing_alg_values_supported: texts,
  revocation_endpoint_auth_methods_supported: texts,
  revocation_endpoint_auth_signing_alg_values_supported: texts,
  stint_trust_domain: z.string(),
})

/** OpenID Connect Discovery 1.0 §3, as far as a cloud reads it that trusts this issuer: nobody signs in here. */
const openidMetadata = z.strictObject({
  issuer: z.url(),
  jwks_uri: z.url(),
  response_types_supported: texts,
  subject_types_supported: texts,
  id_token_signing_alg_values_supported: texts,
  claims_supported: texts,
})

/** RFC 7517 §5. */
const keySet = z.strictObject({
  keys: z.array(
    z.strictObject({ kty: z.string(), crv: z.string(), x: z.string(), y: z.string(), use: z.literal('sig'), alg: z.string(), kid: z.string() }),
  ),
})

export const discoveryRoutes: readonly Route[] = [
  defineRoute({
    method: 'GET',
    // RFC 8414 §3.
    path: '/.well-known/oauth-authorization-server',
    access: 'anyone',
    summary: 'The metadata of this authorization server',
    answers: { 200: { description: 'RFC 8414', schema: metadata } },
    async handle(c) {
      const { issuer, trustDomain } = c.get('broker')
      c.header('cache-control', `public, max-age=${keysMaxAgeSeconds}`)
      return c.json({
        issuer,
        token_endpoint: `${issuer}/oauth2/token`,
        jwks_uri: `${issuer}/oauth2/jwks`,
        introspection_endpoint: `${issuer}/oauth2/introspect`,
        revocation_endpoint: `${issuer}/oauth2/revoke`,
        response_types_supported: [],
        grant_types_supported: ['client_credentials'],
        authorization_details_types_supported: ['stint'],
        token_endpoint_auth_methods_supported: ['private_key_jwt'],
        token_endpoint_auth_signing_alg_values_supported: assertionAlgorithms,
        introspection_endpoint_auth_methods_supported: ['private_key_jwt'],
        introspection_endpoint_auth_signing_alg_values_supported: assertionAlgorithms,
        revocation_endpoint_auth_methods_supported: ['private_key_jwt'],
        revocation_endpoint_auth_signing_alg_values_supported: assertionAlgorithms,
        // Not of the RFC: a client_id is spiffe://<trust domain>/<workload>.
        stint_trust_domain: trustDomain,
      })
    },
  }),
  defineRoute({
    method: 'GET',
    path: '/.well-known/openid-configuration',
    access: 'anyone',
    summary: 'The same for clouds that trust tokens by which Stint itself proves who it is',
    answers: { 200: { description: 'OpenID Connect Discovery 1.0', schema: openidMetadata } },
    async handle(c) {
      const { issuer } = c.get('broker')
      c.header('cache-control', `public, max-age=${keysMaxAgeSeconds}`)
      return c.json({
        issuer,
        jwks_uri: `${issuer}/oauth2/jwks`,
        response_types_supported: ['id_token'],
        subject_types_supported: ['public'],
        id_token_signing_alg_values_supported: ['ES256'],
        claims_supported: ['iss', 'sub', 'aud', 'iat', 'exp', 'jti'],
      })
    },
  }),
  defineRoute({
    method: 'GET',
    // RFC 7517 §5.
    path: '/oauth2/jwks',
    access: 'anyone',
    summary: 'The keys with which tokens are verified',
    answers: { 200: { description: 'RFC 7517', schema: keySet, type: 'application/jwk-set+json' } },
    async handle(c) {
      const { knowledge, ledger } = c.get('broker')
      const { keyring } = await knowledge.refresh()
      c.header('cache-control', `public, max-age=${keysMaxAgeSeconds}`)
      return c.body(JSON.stringify(keyring.jwks(ledger.nowMs())), 200, { 'content-type': 'application/jwk-set+json' })
    },
  }),
]
