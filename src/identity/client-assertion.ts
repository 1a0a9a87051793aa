import { parseCompactJws, type CompactJws } from './compact-jws.ts'
import type { RefusalReason } from './refusal.ts'
import type { JsonRecord } from './strict-json.ts'
import { workloadNameOf, type WorkloadKeyAlgorithm } from './workload.ts'

const lengthMax = 8192
const lifetimeMsMax = 300_000
const skewMsMax = 5_000
// The last second of the year 9999: a later instant cannot be written as RFC 3339.
const secondsMax = 253_402_300_799

const headerMembers: readonly string[] = ['alg', 'kid', 'typ']
const types: readonly string[] = ['jwt', 'client-authentication+jwt']
// RFC 9068 §2.2: claims of an access token, which must never pass for its holder's proof (RFC 8725 §2.8).
const accessTokenClaims = ['scope', 'client_id', 'authorization_details'] as const
const controlCharacter = /\p{Cc}/u

/** A client assertion (RFC 7523 §3) that has the right form. Nothing in it is proven or judged yet. */
export interface ClientAssertion {
  readonly jws: CompactJws
  readonly alg: WorkloadKeyAlgorithm
  /** The key that the sender names; `undefined` when it leaves the choice to us. */
  readonly kid: string | undefined
  readonly issuer: string
  readonly subject: string
  readonly audience: readonly string[]
  readonly jti: string
  readonly expiresAtMs: number
  readonly issuedAtMs: number | undefined
  readonly notBeforeMs: number | undefined
}

export type Refused = { readonly ok: false; readonly reason: RefusalReason }

/** Reads an assertion of at most 8 KiB. What it refuses depends on the text alone, never on what is registered. */
export function readClientAssertion(compact: string): { ok: true; assertion: ClientAssertion } | Refused {
  const jws = parseCompactJws(compact, lengthMax)
  if (jws === undefined) return refuse('assertion_malformed')
  const { header } = jws
  // An allow-list: `jku`, `x5u`, `x5c`, `jwk` bring keys of their own, `crit`, `b64`, `zip` change the rules (RFC 8725).
  if (Object.keys(header).some((name) => !headerMembers.includes(name))) return refuse('header_not_allowed')
  const { kid, typ } = header
  if (kid !== undefined && typeof kid !== 'string') return refuse('header_not_allowed')
  const alg = parseAlgorithm(header['alg'])
  if (alg === undefined) return refuse('algorithm_not_allowed')
  if (typ !== undefined && !(typeof typ === 'string' && types.includes(typ.toLowerCase()))) {
    return refuse('type_not_allowed')
  }
  const read = readClaims(jws.claims)
  return read.ok ? { ok: true, assertion: { jws, alg, kid, ...read.claims } } : read
}

/**
 * The name of the workload that the assertion speaks for: `iss` and `sub` are both its SPIFFE ID (RFC 7523 §3). It may
 * not exist.
 */
export function readWorkloadName(
  assertion: ClientAssertion,
  trustDomain: string,
): { ok: true; name: string } | Refused {
  const name = workloadNameOf(trustDomain, assertion.issuer)
  if (name === undefined) return refuse('issuer_mismatch')
  return assertion.subject === assertion.issuer ? { ok: true, name } : refuse('subject_mismatch')
}

/**
 * Judges audience and times by RFC 7523 §3, or `undefined` when all is well. `issuer` is this broker's own, and the only
 * audience: a token endpoint's address as well would let one server's assertion be used at another. What a sender whose
 * clock is as far ahead as may be can have signed before `proofsFromMs` is refused: good ones are for so long, too.
 */
export function judgeClaims(
  { audience, expiresAtMs, issuedAtMs, notBeforeMs }: Pick<ClientAssertion, 'audience' | 'expiresAtMs' | 'issuedAtMs' | 'notBeforeMs'>,
  issuer: string,
  nowMs: number,
  proofsFromMs = -Infinity,
): RefusalReason | undefined {
  if (audience.length !== 1 || audience[0] !== issuer) return 'audience_mismatch'
  if (expiresAtMs <= nowMs) return 'expired'
  // Without an iat it may be as old as its exp allows.
  if ((issuedAtMs ?? expiresAtMs - lifetimeMsMax) <= proofsFromMs + skewMsMax) return 'before_restore'
  if (notBeforeMs !== undefined && notBeforeMs > nowMs + skewMsMax) return 'not_yet_valid'
  if (issuedAtMs === undefined) return expiresAtMs - nowMs > lifetimeMsMax ? 'lifetime_too_long' : undefined
  if (issuedAtMs > nowMs + skewMsMax) return 'issued_in_future'
  if (nowMs - issuedAtMs > lifetimeMsMax) return 'too_old'
  return expiresAtMs - issuedAtMs > lifetimeMsMax ? 'lifetime_too_long' : undefined
}

/** `EdDSA` is the former name of Ed25519 (RFC 9864 §2.2); that the key is on that curve is checked with the key. */
export function parseAlgorithm(alg: unknown): WorkloadKeyAlgorithm | undefined {
  if (alg === 'ES256' || alg === 'Ed25519') return alg
  return alg === 'EdDSA' ? 'Ed25519' : undefined
}

type Claims = Omit<ClientAssertion, 'jws' | 'alg' | 'kid'>

/** Claims that are not named here are ignored, as RFC 7523 §3 rule 10 allows, but for those of an access token. */
function readClaims(claims: JsonRecord): { ok: true; claims: Claims } | Refused {
  if (accessTokenClaims.some((name) => Object.hasOwn(claims, name))) return refuse('type_not_allowed')
  const { iss, sub, aud, exp, iat, nbf, jti } = claims
  if (typeof iss !== 'string' || typeof sub !== 'string') return refuse('claims_malformed')
  const audience = typeof aud === 'string' ? [aud] : aud
  if (!Array.isArray(audience) || !audience.every((one) => typeof one === 'string')) return refuse('claims_malformed')
  if (exp === undefined) return refuse('expiry_missing')
  const expiresAtMs = readSeconds(exp)
  const issuedAtMs = iat === undefined ? undefined : readSeconds(iat)
  const notBeforeMs = nbf === undefined ? undefined : readSeconds(nbf)
  if (expiresAtMs === undefined) return refuse('claims_malformed')
  if (iat !== undefined && issuedAtMs === undefined) return refuse('claims_malformed')
  if (nbf !== undefined && notBeforeMs === undefined) return refuse('claims_malformed')
  if (jti === undefined) return refuse('jti_missing')
  if (typeof jti !== 'string' || jti === '' || jti.length > 256 || controlCharacter.test(jti)) {
    return refuse('claims_malformed')
  }
  return {
    ok: true,
    claims: { issuer: iss, subject: sub, audience, jti, expiresAtMs, issuedAtMs, notBeforeMs },
  }
}

/** Milliseconds of a NumericDate (RFC 7519 §2), which may have a fraction. `1e400` is parsed as Infinity and refused. */
export function readSeconds(value: unknown): number | undefined {
  if (typeof value !== 'number' || !(value > 0 && value <= secondsMax)) return undefined
  return Math.round(value * 1000)
}

function refuse(reason: RefusalReason): Refused {
  return { ok: false, reason }
}
