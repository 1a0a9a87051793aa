import { z } from 'zod'
import type { ConnectorKind } from './kind.ts'
import { allowedHost, privateNetwork, secretSource, serviceUrl } from './parts.ts'

const config = z
  .strictObject({
    /** The upstream's issuer, whose metadata (RFC 8414) name its endpoints. */
    issuer: serviceUrl,
    /** Where else than on the issuer's own host its endpoints may be. */
    hosts: z.array(allowedHost).max(8).default([]),
    client_id: z.string().regex(/^[\x20-\x7e]{1,256}$/, 'must be 1 to 256 printable characters of ASCII'),
    /** A private key as JWK or PEM (RFC 7523 `private_key_jwt`), or a secret; exactly one of them. */
    private_key: secretSource.optional(),
    client_secret: secretSource.optional(),
    /** With it access tokens come from this refresh token. */
    refresh_token: secretSource.refine(({ from }) => from.startsWith('sealed:'), 'must be sealed:name, for the upstream may replace it').optional(),
    /** RFC 8707, where the upstream wants it. */
    resource: z.string().min(1).max(512).optional(),
    /** The longest that an access token of the upstream lives, whatever it is asked for. */
    token_seconds_max: z.int().min(60).max(86_400),
    /**
     * Whether tokens are revoked when their grant ends, where the upstream has an endpoint for it (RFC 7009). With a refresh
     * token not by default: an upstream may end that one, and all that came of it, together with the access token (§2.1).
     */
    revocation: z.boolean().optional(),
    /** Whether the upstream's APIs ask it about each token, so that one which was revoked there opens nothing from then on. */
    tokens_are_checked: z.boolean().default(false),
    private_network: privateNetwork,
  })
  .refine(({ private_key, client_secret }) => (private_key === undefined) !== (client_secret === undefined), 'must name exactly one of private_key and client_secret')
  .transform((given) => ({ ...given, revocation: given.revocation ?? given.refresh_token === undefined }))
  .refine(({ tokens_are_checked: checked, revocation }) => !checked || revocation, {
    path: ['tokens_are_checked'],
    error: 'must not be true without revocation: true, for a token that nobody revokes is good until it expires',
  })

const action = { scopes: z.array(z.string().regex(/^[\x21\x23-\x5b\x5d-\x7e]+$/, 'must be an OAuth scope')).min(1).max(32) }

export type OauthClientConfig = z.output<typeof config>
export type OauthClientAction = { readonly scopes: readonly string[] }

/** An access token of an upstream that speaks OAuth 2. */
export const oauthClientKind: ConnectorKind = { audience: 'optional', lendsToken: true, actionShape: action, config }
