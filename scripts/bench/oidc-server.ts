import { createServer } from 'node:http'
import { generateKeyPairSync } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { Provider } from 'oidc-provider'
import type { Signer } from './bodies.ts'
import { publicPartOf } from './signers.ts'

/**
 * node-oidc-provider for the same job, with the store that it brings along: `node oidc-server.ts PORT SIGNERS AUDIENCE SCOPE`.
 * Client credentials by `private_key_jwt`, ES256 in and out, the token a JWT for the resource that was asked for.
 */
const [, , port = '', signersFile = '', audience = '', scope = ''] = process.argv
// Of our own making.
const signers = JSON.parse(readFileSync(signersFile, 'utf8')) as Signer[]
const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: signers.map(({ clientId, kid, jwk }) => ({
    client_id: clientId,
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
    // The provider has an ES256 key alone, and will not take a client with the default.
    id_token_signed_response_alg: 'ES256',
    token_endpoint_auth_method: 'private_key_jwt',
    token_endpoint_auth_signing_alg: 'ES256',
    jwks: { keys: [{ ...publicPartOf(jwk), kid, alg: 'ES256', use: 'sig' }] },
  })),
  jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), kid: 'bench', alg: 'ES256', use: 'sig' }] },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: () => ({ scope, audience, accessTokenFormat: 'jwt', accessTokenTTL: 600, jwt: { sign: { alg: 'ES256' } } }),
    },
  },
  scopes: [scope],
  clientAuthMethods: ['private_key_jwt'],
  enabledJWA: { clientAuthSigningAlgValues: ['ES256'], idTokenSigningAlgValues: ['ES256'] },
})

createServer(provider.callback()).listen(Number(port), '127.0.0.1')
