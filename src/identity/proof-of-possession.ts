import { createHash } from 'node:crypto'
import { z } from 'zod'
import { BrokerError } from '../kernel/errors.ts'
import { judgeClaims, parseAlgorithm, readSeconds } from './client-assertion.ts'
import { parseCompactJws, verifyJws } from './compact-jws.ts'
import { parsePublicKeys, type PublicKey } from './public-key.ts'
import { importPublicKey } from './workload-key-cache.ts'

const lengthMax = 8192

/**
 * What a proof is signed for: its `typ`, and the one claim that ties it to a single code or workload, so that it can be
 * taken to no other.
 */
export interface ProofPurpose {
  readonly type: 'stint-enrolment+jwt' | 'stint-key+jwt'
  readonly claim: 'code_sha256' | 'sub'
  readonly value: string
}

/** A public key whose holder has just signed with its private half, for this broker and this purpose. */
export interface ProvenKey {
  readonly key: PublicKey
  /** Names the proof for the replay marks: base64url SHA-256 over its type, the key and `jti`. */
  readonly replayId: string
  /** From then on the proof is refused as expired. */
  readonly expiresAtMs: number
}

/** `message` reads on from the word "proof"; it is for callers who have proven who they are, and says no secret. */
export type Possession = { readonly ok: true; readonly proven: ProvenKey } | { readonly ok: false; readonly message: string }

export interface ProofContext {
  /** This broker's issuer: the one audience that is accepted. */
  readonly issuer: string
  readonly nowMs: number
}

/**
 * Judges a proof of possession: a compact JWS of at most 8 KiB that the new key signs itself, with exactly `typ`, `alg` and
 * `jwk` in its header, and `aud`, `iat`, `exp` (at most five minutes), `jti` and the claim of its purpose in its payload.
 * That its `jti` is new is for the caller to record. What the proof is for is judged after its signature.
 */
export async function verifyPossession(
  compact: string,
  { type, claim, value }: ProofPurpose,
  { issuer, nowMs }: ProofContext,
): Promise<Possession> {
  const jws = parseCompactJws(compact, lengthMax)
  if (jws === undefined) return refuse('is no compact JWS of canonical base64url with one strict JSON object each in header and payload')
  const header = headerSchema.safeParse(jws.header)
  if (!header.success) return refuse('must hold typ, alg and jwk in its header, and nothing else')
  const { typ, alg: named, jwk } = header.data
  if (typ !== type) return refuse(`must have ${type} as typ in its header`)
  const key = await readKey(jwk)
  if (typeof key === 'string') return refuse(key)
  if (parseAlgorithm(named) !== key.alg) return refuse(`must be signed by ${key.alg}, which is the algorithm of its key`)
  if (!(await verifyJws(jws, importPublicKey(key.jwk)))) return refuse('is not signed with the key that it carries')

  const { [claim]: bound, ...others } = jws.claims
  if (bound !== value) return refuse(`must have ${value} as ${claim} in its payload`)
  const claims = claimsSchema.safeParse(others)
  if (!claims.success) return refuse(`must hold aud, iat, exp, jti and ${claim} in its payload, and nothing else`)
  const { aud, jti, iat, exp } = claims.data
  const [issuedAtMs, expiresAtMs] = [readSeconds(iat), readSeconds(exp)]
  if (issuedAtMs === undefined || expiresAtMs === undefined) return refuse('has an impossible time in iat or exp')
  const reason = judgeClaims({ audience: [aud], issuedAtMs, expiresAtMs, notBeforeMs: undefined }, issuer, nowMs)
  if (reason !== undefined) return refuse(`is not good here and now (${reason}): sign a fresh one of at most five minutes for ${issuer}`)
  return { ok: true, proven: { key, replayId: createReplayId(type, key.kid, jti), expiresAtMs } }
}

// Exactly these: a `kid` would name the key a second time, `crit`, `b64` and `zip` change the rules (RFC 8725).
const headerSchema = z.strictObject({ typ: z.string(), alg: z.string(), jwk: z.unknown().refine((jwk) => jwk !== undefined, 'is required') })

const claimsSchema = z.strictObject({
  aud: z.string(),
  iat: z.number(),
  exp: z.number(),
  jti: z.string().min(1).max(256).regex(/^\P{Cc}*$/u),
})

/** The key, or what is wrong with it. */
async function readKey(jwk: unknown): Promise<PublicKey | string> {
  try {
    const [key] = await parsePublicKeys({ keys: [jwk] })
    return key ?? 'carries no key'
  } catch (error) {
    if (!(error instanceof BrokerError)) throw error
    return `carries a key that cannot be taken: ${error.publicMessage.replace('jwks.keys[0]', 'jwk').replace(/\.$/, '')}`
  }
}

/** A JSON array of texts has one reading only; its first text tells it from the arrays that client assertions make. */
function createReplayId(type: string, kid: string, jti: string): string {
  return createHash('sha256').update(JSON.stringify([type, kid, jti])).digest('base64url')
}

function refuse(message: string): Possession {
  return { ok: false, message }
}
