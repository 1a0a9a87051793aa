import { createHash } from 'node:crypto'
import { readSeconds } from './client-assertion.ts'
import { parseCompactJws, type CompactJws } from './compact-jws.ts'
import { roles, type Role } from './operator.ts'
import type { RefusalReason } from './refusal.ts'

/** The longest ID token that is looked at: some issuers list hundreds of groups. */
export const idTokenCharactersMax = 32 * 1024

const ageMsMax = 600_000
const skewMsMax = 30_000

/** By allow-list (RFC 8725 §3.1): nothing symmetric, for a client's name or a public key would then be a signing key. */
export const idTokenAlgorithms = ['RS256', 'PS256', 'ES256', 'EdDSA', 'Ed25519'] as const
export type IdTokenAlgorithm = (typeof idTokenAlgorithms)[number]

/** An ID token (OpenID Connect Core §2) that has the right form. Nothing in it is proven or judged yet. */
export interface IdToken {
  readonly jws: CompactJws
  readonly alg: IdTokenAlgorithm
  readonly kid: string | undefined
  readonly issuer: string
  readonly subject: string
  readonly audience: readonly string[]
  /** The client that it was made for, where the issuer says so (`azp`). */
  readonly authorizedParty: unknown
  readonly issuedAtMs: number
  readonly notBeforeMs: number | undefined
  /** From then on it is refused: by its `exp`, or because it is too old to begin a session with. */
  readonly endsMs: number
  /** Names it for the replay marks: base64url SHA-256 of what is signed, since a signature can have more than one form. */
  readonly replayId: string
}

/** What an ID token must be made by and for. */
export interface IdTokenRules {
  readonly issuer: string
  readonly clientId: string
}

/** Takes an ID token apart, or `undefined` for what is none of the form and the algorithms that Stint takes. */
export function readIdToken(compact: string): IdToken | undefined {
  const jws = parseCompactJws(compact, idTokenCharactersMax)
  if (jws === undefined) return undefined
  const { alg: algGiven, kid, typ } = jws.header
  const alg = idTokenAlgorithms.find((known) => known === algGiven)
  if (alg === undefined || (kid !== undefined && typeof kid !== 'string')) return undefined
  // Extensions that change the rules. What else an issuer says of its key (`x5t`, `jku`) is ignored: the key comes from its JWKS.
  if (['crit', 'b64', 'zip'].some((name) => Object.hasOwn(jws.header, name))) return undefined
  // RFC 8725 §3.11: the issuer's access tokens and logout tokens are no proof that somebody signed in here.
  if (typ !== undefined && !(typeof typ === 'string' && typ.toLowerCase() === 'jwt')) return undefined
  if (Object.hasOwn(jws.claims, 'events')) return undefined
  const { iss, sub, aud, azp, exp, iat, nbf } = jws.claims
  if (typeof iss !== 'string' || typeof sub !== 'string' || sub === '' || sub.length > 255) return undefined
  const audience = typeof aud === 'string' ? [aud] : aud
  if (!Array.isArray(audience) || !audience.every((one) => typeof one === 'string')) return undefined
  const [expiresAtMs, issuedAtMs, notBeforeMs] = [readSeconds(exp), readSeconds(iat), readSeconds(nbf)]
  if (expiresAtMs === undefined || issuedAtMs === undefined || (nbf !== undefined && notBeforeMs === undefined)) return undefined
  return {
    jws,
    alg,
    kid,
    issuer: iss,
    subject: sub,
    audience,
    authorizedParty: azp,
    issuedAtMs,
    notBeforeMs,
    endsMs: Math.min(expiresAtMs, issuedAtMs + ageMsMax),
    replayId: hash(['id_token', jws.protected, jws.payload]),
  }
}

/** Judges issuer, audience and times by OpenID Connect Core §3.1.3.7, or `undefined` when all is well. */
export function judgeIdToken(token: IdToken, { issuer, clientId }: IdTokenRules, nowMs: number, proofsFromMs = -Infinity): RefusalReason | undefined {
  const { audience, authorizedParty, issuedAtMs, notBeforeMs, endsMs } = token
  if (token.issuer !== issuer) return 'id_token_issuer_mismatch'
  if (!audience.includes(clientId)) return 'id_token_audience_mismatch'
  // A token for several audiences says for which of them it was made.
  const foreign = authorizedParty === undefined ? audience.length > 1 : authorizedParty !== clientId
  if (foreign) return 'id_token_audience_mismatch'
  if (issuedAtMs <= proofsFromMs + skewMsMax) return 'id_token_before_restore'
  const ahead = Math.max(issuedAtMs, notBeforeMs ?? 0) > nowMs + skewMsMax
  return endsMs <= nowMs || ahead ? 'id_token_expired' : undefined
}

/** The groups in a claim of the ID token; `undefined` where it holds no list of texts. */
export function readGroups({ jws }: IdToken, claim: string): readonly string[] | undefined {
  const groups = jws.claims[claim]
  return Array.isArray(groups) && groups.every((group) => typeof group === 'string') ? groups : undefined
}

/** The first of admin, approver, auditor that one of the groups has. */
export function roleOfGroups(groups: readonly string[], groupsByRole: Readonly<Record<Role, readonly string[]>>): Role | undefined {
  return roles.find((role) => groupsByRole[role].some((group) => groups.includes(group)))
}

/**
 * The person as the log names them. People appear in it by reference: a subject that is or looks like an address, or that
 * is no plain word, is replaced by its hash, the same each time.
 */
export function referToSubject({ issuer, subject }: Pick<IdToken, 'issuer' | 'subject'>): string {
  const plain = subjectPattern.test(subject) && !subject.startsWith(hashPrefix)
  return plain ? subject : `${hashPrefix}${hash([issuer, subject])}`
}

/** What `referToSubject` gives. */
export const subjectPattern = /^[A-Za-z0-9._:|-]{1,128}$/

const hashPrefix = 'sha256:'

/** A JSON array of texts has one reading only, so that no two lists have the same hash. */
function hash(texts: readonly string[]): string {
  return createHash('sha256').update(JSON.stringify(texts)).digest('base64url')
}
