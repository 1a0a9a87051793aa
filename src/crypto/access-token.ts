import { z } from 'zod'
import { encodeBase64url } from '../identity/base64url.ts'
import { parseCompactJws, verifyJws } from '../identity/compact-jws.ts'
import { parseStrictObject } from '../identity/strict-json.ts'
import { BrokerError } from '../kernel/errors.ts'
import type { SigningKey, VerificationKey } from './keyring.ts'

/** What an access token says (RFC 9068 §2.2). Times are whole seconds since the epoch, as in every JWT. */
export interface AccessTokenClaims {
  readonly iss: string
  readonly sub: string
  /** The one resource that the token is for (RFC 8707 §2). */
  readonly aud: string
  readonly clientId: string
  readonly jti: string
  readonly iatSeconds: number
  readonly expSeconds: number
  /** The granted actions, separated by single spaces. */
  readonly scope: string
  /** RFC 9396 §9.1. */
  readonly authorizationDetails?: readonly Readonly<Record<string, unknown>>[]
}

const lengthMax = 16_384
const tokenType = 'at+jwt'
const utf8 = new TextEncoder()

const seconds = z.int().positive()
const headerSchema = z.strictObject({ alg: z.string(), typ: z.literal(tokenType), kid: z.string() })
// Exactly what `signAccessToken` writes: a claim that this version does not know could narrow what the token allows.
const claimsSchema = z.strictObject({
  iss: z.string(),
  sub: z.string(),
  aud: z.string(),
  client_id: z.string(),
  jti: z.string().min(1),
  iat: seconds,
  exp: seconds,
  scope: z.string(),
  authorization_details: z.array(z.record(z.string(), z.unknown())).optional(),
})

/**
 * Signs an `at+jwt` access token (RFC 9068), compact, at most 16 KiB. Throws `invalid_authorization_details` when what
 * was asked for does not fit or is not valid Unicode.
 */
export async function signAccessToken(key: SigningKey, claims: AccessTokenClaims): Promise<string> {
  const { iss, sub, aud, clientId, jti, iatSeconds, expSeconds, scope, authorizationDetails } = claims
  if (!Number.isSafeInteger(iatSeconds) || !Number.isSafeInteger(expSeconds) || expSeconds <= iatSeconds) {
    throw new RangeError('iatSeconds and expSeconds must be whole seconds, the first before the second')
  }
  const payload = JSON.stringify({
    iss,
    sub,
    aud,
    client_id: clientId,
    jti,
    iat: iatSeconds,
    exp: expSeconds,
    scope,
    ...(authorizationDetails !== undefined && { authorization_details: authorizationDetails }),
  })
  const bytes = utf8.encode(payload)
  // JSON.stringify writes a lone surrogate as an escape, and a token that holds one could never be read again.
  if (payload.includes('\\ud') && parseStrictObject(bytes) === undefined) {
    throw refuse('The request holds text that is not valid Unicode. Send it as well-formed UTF-8.')
  }
  const header = JSON.stringify({ alg: key.alg, typ: tokenType, kid: key.kid })
  const input = `${encodeBase64url(utf8.encode(header))}.${encodeBase64url(bytes)}`
  const token = `${input}.${encodeBase64url(await key.sign(input))}`
  if (token.length > lengthMax) {
    throw refuse('The request asks for more than fits into one token. Ask for fewer actions at a time.')
  }
  return token
}

/**
 * The claims of an access token that this broker signed, or `undefined` for anything else. An expired one is read all
 * the same: introspection and revocation judge `expSeconds` themselves, by the ledger's time.
 */
export async function readAccessToken(
  compact: string,
  context: { readonly issuer: string; verificationKey(kid: string): VerificationKey | undefined },
): Promise<AccessTokenClaims | undefined> {
  const jws = parseCompactJws(compact, lengthMax)
  if (jws === undefined) return undefined
  const header = headerSchema.safeParse(jws.header)
  const claims = claimsSchema.safeParse(jws.claims)
  if (!header.success || !claims.success || claims.data.iss !== context.issuer) return undefined
  const key = context.verificationKey(header.data.kid)
  if (key === undefined || key.alg !== header.data.alg) return undefined
  if (!(await verifyJws(jws, key.publicKey))) return undefined
  const { client_id: clientId, iat, exp, authorization_details: authorizationDetails, ...rest } = claims.data
  return {
    ...rest,
    clientId,
    iatSeconds: iat,
    expSeconds: exp,
    ...(authorizationDetails !== undefined && { authorizationDetails }),
  }
}

function refuse(publicMessage: string): BrokerError {
  return new BrokerError({ code: 'invalid_authorization_details', publicMessage })
}
