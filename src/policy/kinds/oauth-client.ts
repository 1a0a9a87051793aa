import { z } from 'zod'
import type { ConnectorKind } from '../catalog.ts'
import { privateNetwork, secretSource, serviceUrl } from './parts.ts'

const config = z
  .strictObject({
    /** The upstream's issuer, whose metadata (RFC 8414) name its endpoints. */
    issuer: serviceUrl,
    client_id: z.string().min(1).max(256),
    /** A private JWK (RFC 7523 `private_key_jwt`), or a secret; exactly one of them. */
    private_key: secretSource.optional(),
    client_secret: secretSource.optional(),
    /** With it access tokens come from this refresh token, which must be `sealed:`, for the upstream may replace it. */
    refresh_token: secretSource.refine(({ from }) => from.startsWith('sealed:'), 'must be sealed:name, for the upstream may replace it').optional(),
    /** RFC 8707, where the upstream wants it. */
    resource: z.string().max(512).optional(),
    /** The longest that an access token of the upstream lives, whatever it is asked for. */
    token_seconds_max: z.int().min(60).max(86_400),
    /** Whether the upstream's APIs ask it about each token, so that one which was revoked there opens nothing from then on. */
    tokens_are_checked: z.boolean().default(false),
    private_network: privateNetwork,
  })
  .refine(({ private_key, client_secret }) => (private_key === undefined) !== (client_secret === undefined), 'must name exactly one of private_key and client_secret')

const action = { scopes: z.array(z.string().regex(/^[\x21\x23-\x5b\x5d-\x7e]+$/, 'must be an OAuth scope')).min(1).max(32) }

export type OauthClientConfig = z.output<typeof config>
export type OauthClientAction = { readonly scopes: readonly string[] }

/** An access token of an upstream that speaks OAuth 2. */
export const oauthClientKind: ConnectorKind = { audience: 'optional', actionShape: action, config }
