import { generateKeyPairSync, hash, type KeyObject } from 'node:crypto'
import { judgeClaims, readClientAssertion, readWorkloadName, type ClientAssertion } from './client-assertion.ts'
import { verifyJws } from './compact-jws.ts'
import type { RefusalReason } from './refusal.ts'
import { keyStatus, type Workload, type WorkloadKey, type WorkloadKeyAlgorithm } from './workload.ts'
import { inlineSignatures, type Signatures } from '../kernel/signatures.ts'
import { createWorkloadKeyCache } from './workload-key-cache.ts'

/** A workload that has proven who it is. */
export interface Principal {
  readonly workload: Workload
  readonly proof: 'private_key_jwt' | 'stint_token'
  /** The key that it proved. */
  readonly kid?: string
  /** Or the grant under which Stint had issued the token that it showed. */
  readonly grant?: string
  readonly assertion?: {
    /** Names the assertion for the replay marks: base64url SHA-256 over issuer and `jti` (RFC 7519 §4.1.7). */
    readonly replayId: string
    /** From then on the assertion is refused, as expired or by the end of its key, and its replay mark may be forgotten. */
    readonly expiresAtMs: number
  }
}

/** `workload` in a refusal is the name that was claimed, and only if such a workload exists. For the log alone. */
export type Authentication =
  | { readonly ok: true; readonly principal: Principal }
  | { readonly ok: false; readonly reason: RefusalReason; readonly workload?: string }

export interface AuthenticationContext {
  /** This broker's issuer: the one audience that is accepted. */
  readonly issuer: string
  readonly trustDomain: string
  readonly nowMs: number
  /** Assertions that were signed before are refused; see `judgeClaims`. */
  readonly proofsFromMs?: number | undefined
  /** The workload of that name with all its keys, removed ones too. Should cost the same whether it exists or not. */
  findWorkload(name: string): Promise<Workload | undefined>
}

/** Decides whether a client assertion proves a workload. That its `jti` is new is for the caller to record and check. */
export type AuthenticateWorkload = (compact: string, context: AuthenticationContext) => Promise<Authentication>

// Without a `kid` there may be an old and a new key during a rotation. Both places are always filled, with decoys where
// there is no key, so that the time does not tell how many keys a workload has.
const keysTriedWithKid = 1
const keysTriedWithoutKid = 2

/**
 * Makes the function that authenticates workloads by `private_key_jwt`. It remembers imported keys, at most
 * `keysCachedMax`, and nothing else. Every assertion of the right form costs the same verification, against a decoy
 * where there is no such workload or key, and the reasons are sorted out only afterwards (invariant 10).
 */
export function createAuthenticator({ keysCachedMax = 10_000, signatures = inlineSignatures }: { readonly keysCachedMax?: number; readonly signatures?: Pick<Signatures, 'verify'> } = {}): AuthenticateWorkload {
  const importKey = createWorkloadKeyCache(keysCachedMax)
  const decoys = { ES256: createDecoy('ES256'), Ed25519: createDecoy('Ed25519') }

  async function proveKey(assertion: ClientAssertion, candidates: readonly WorkloadKey[]): Promise<WorkloadKey | undefined> {
    const places = assertion.kid === undefined ? keysTriedWithoutKid : keysTriedWithKid
    const verified = await Promise.all(
      Array.from({ length: places }, async (_, place) => {
        const candidate = candidates[place]
        const valid = await verifyJws(assertion.jws, candidate === undefined ? decoys[assertion.alg] : importKey(candidate), signatures)
        // A decoy proves nothing, whatever the verification says.
        return valid ? candidate : undefined
      }),
    )
    return verified.find((candidate) => candidate !== undefined)
  }

  return async (compact, { issuer, trustDomain, nowMs, proofsFromMs, findWorkload }) => {
    const read = readClientAssertion(compact)
    if (!read.ok) return read
    const { assertion } = read
    const named = readWorkloadName(assertion, trustDomain)
    const workload = named.ok ? await findWorkload(named.name) : undefined
    const selected = selectKeys(workload?.keys ?? [], assertion, nowMs)
    const key = await proveKey(assertion, selected.candidates)

    if (!named.ok) return named
    if (workload === undefined) return { ok: false, reason: 'workload_unknown' }
    const refuse = (reason: RefusalReason): Authentication => ({ ok: false, reason, workload: workload.name })
    if (selected.reason !== undefined) return refuse(selected.reason)
    if (key === undefined) return refuse('signature_invalid')
    // From here on the sender holds, or held, a key of the workload.
    if (keyStatus(key, nowMs) === 'removed') return refuse('key_removed')
    const reason = judgeClaims(assertion, issuer, nowMs, proofsFromMs) ?? judgeStanding(workload, nowMs)
    if (reason !== undefined) return refuse(reason)
    // With its key the assertion ends too: so that what is committed after that is late, however long it was decided before.
    const expiresAtMs = Math.min(assertion.expiresAtMs, key.removedAtMs ?? Infinity)
    const replayId = createReplayId(assertion)
    return {
      ok: true,
      principal: { workload, kid: key.kid, proof: 'private_key_jwt', assertion: { replayId, expiresAtMs } },
    }
  }
}

/** Why a workload that has proven itself is refused all the same, or `undefined` while it stands in good order. */
export function judgeStanding(workload: Workload, nowMs: number): RefusalReason | undefined {
  if (workload.status === 'retired') return 'workload_retired'
  if (workload.status === 'suspended') return 'workload_suspended'
  return workload.reviewAtMs <= nowMs ? 'review_overdue' : undefined
}

/** The keys that may have made the signature, as many as there are places for; or the reason why there are none. */
function selectKeys(
  keys: readonly WorkloadKey[],
  { alg, kid }: ClientAssertion,
  nowMs: number,
): { candidates: readonly WorkloadKey[]; reason?: RefusalReason } {
  if (kid !== undefined) {
    const key = keys.find((one) => one.kid === kid)
    if (key === undefined) return { candidates: [], reason: 'key_unknown' }
    return key.alg === alg ? { candidates: [key] } : { candidates: [], reason: 'algorithm_not_allowed' }
  }
  const live = keys.filter((key) => key.alg === alg && keyStatus(key, nowMs) !== 'removed')
  if (live.length === 0) return { candidates: [], reason: 'key_unknown' }
  return live.length <= keysTriedWithoutKid ? { candidates: live } : { candidates: [], reason: 'kid_required' }
}

/** A JSON array of texts has one reading only, so that no two pairs of issuer and `jti` have the same hash. */
function createReplayId({ issuer, subject, jti }: ClientAssertion): string {
  return hash('sha256', JSON.stringify([issuer, subject, jti]), 'base64url')
}

/** A public key whose private half nobody keeps. */
function createDecoy(alg: WorkloadKeyAlgorithm): KeyObject {
  return (alg === 'ES256' ? generateKeyPairSync('ec', { namedCurve: 'P-256' }) : generateKeyPairSync('ed25519')).publicKey
}
