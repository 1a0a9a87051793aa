import { createPrivateKey, createPublicKey } from 'node:crypto'
import { calculateJwkThumbprint, exportJWK, generateKeyPair, importJWK } from 'jose'
import { isObject } from './answer.ts'
import { clientError } from './errors.ts'

/** Signature algorithms that a workload's key may have (RFC 7518 §3.4, RFC 9864 §2.2). */
export const keyAlgorithms = ['ES256', 'Ed25519'] as const
export type KeyAlgorithm = (typeof keyAlgorithms)[number]

/** A public key as RFC 7517 writes it: its required members, `alg`, `use` and the thumbprint as `kid`. */
export type PublicJwk = Readonly<Record<string, string>>

/** A private key as RFC 7517 writes it: the members of `PublicJwk` and `d`. Whoever holds it is the workload. */
export type PrivateJwk = Readonly<Record<string, string>>

/** A workload's key, ready to sign. The private half cannot be read out of it. */
export interface AgentKey {
  readonly alg: KeyAlgorithm
  /** RFC 7638 SHA-256 thumbprint: the name under which the broker knows the key. */
  readonly kid: string
  readonly publicJwk: PublicJwk
  readonly privateKey: CryptoKey
}

/** A new private key, to be kept where only the agent can read it. */
export async function generatePrivateJwk(alg: KeyAlgorithm = 'ES256'): Promise<PrivateJwk> {
  const { privateKey } = await generateKeyPair(alg, { extractable: true })
  const { d, ...required } = requiredMembers(await exportJWK(privateKey))
  const publicJwk = await describePublicJwk(alg, required)
  return { ...publicJwk, ...(d !== undefined && { d }) }
}

/**
 * Reads a private JWK, P-256 (ES256) or Ed25519; throws `invalid_key` for anything else, and for a public half that does
 * not belong to the private one, which the broker could only refuse without saying why (invariant 10).
 */
export async function importAgentKey(jwk: unknown): Promise<AgentKey> {
  if (!isObject(jwk)) throw clientError('invalid_key', 'the key is no JSON object: a private JWK (RFC 7517) is needed.')
  if (Array.isArray(jwk['keys'])) {
    throw clientError('invalid_key', 'this is a set of keys (JWKS): the private key alone is needed, one JWK.')
  }
  const alg = algorithmOf(jwk)
  if (typeof jwk['d'] !== 'string') {
    throw clientError('invalid_key', 'this is a public key: signing needs the private JWK, the one with the member "d".')
  }
  const given = requiredMembers(jwk)
  const { d: _private, ...publicGiven } = given
  const derived = derivePublicJwk(given)
  // Not every version of Node compares the two halves itself.
  if (derived === undefined || Object.entries(derived).some(([name, value]) => publicGiven[name] !== value)) {
    throw clientError('invalid_key', 'the private and the public members of this key do not belong together.')
  }
  const publicJwk = await describePublicJwk(alg, derived)
  // A private key of an asymmetric algorithm is never imported as bytes, the other thing importJWK may return.
  const privateKey = (await importJWK(given, alg, { extractable: false })) as CryptoKey
  return { alg, kid: publicJwk['kid'] ?? '', publicJwk, privateKey }
}

/**
 * Throws `invalid_key` where a key or set of keys holds a private or secret member (RFC 7518 §6.2.2, §6.3.2, §6.4.1): to
 * be called before keys are sent anywhere. Whether the keys are any good is for the broker to say.
 */
export function refusePrivateKeys(jwks: unknown): void {
  const keys: readonly unknown[] = isObject(jwks) && Array.isArray(jwks['keys']) ? [jwks, ...jwks['keys']] : [jwks]
  const secrets = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k']
  if (keys.some((key) => isObject(key) && secrets.some((member) => Object.hasOwn(key, member)))) {
    throw clientError(
      'invalid_key',
      'this is a private key, which must not leave the agent: nothing was sent. ' +
        'Send its public half, which stint key public FILE prints.',
    )
  }
}

/** The set of public keys (RFC 7517 §5) to hand to an admin for registration. */
export function publicJwks(key: AgentKey): { readonly keys: readonly PublicJwk[] } {
  return { keys: [key.publicJwk] }
}

function algorithmOf(jwk: Readonly<Record<string, unknown>>): KeyAlgorithm {
  const { kty, crv } = jwk
  const edwards = kty === 'OKP' && crv === 'Ed25519' ? 'Ed25519' : undefined
  const alg = kty === 'EC' && crv === 'P-256' ? 'ES256' : edwards
  if (alg === undefined) {
    throw clientError('invalid_key', 'the key is neither P-256 (ES256) nor Ed25519: make one with stint key create.')
  }
  const stated = jwk['alg']
  // EdDSA is the older name of the same algorithm on this curve (RFC 9864 §2.2).
  if (stated !== undefined && stated !== alg && !(alg === 'Ed25519' && stated === 'EdDSA')) {
    throw clientError('invalid_key', `the key says another algorithm than ${alg}, the one of its curve.`)
  }
  return alg
}

/** The members that make the key (RFC 7518 §6.2, RFC 8037 §2), without what else the file says of it. */
function requiredMembers(jwk: object): Record<string, string> {
  const members: Record<string, string> = {}
  for (const [name, value] of Object.entries(jwk)) {
    if (['kty', 'crv', 'x', 'y', 'd'].includes(name) && typeof value === 'string') members[name] = value
  }
  return members
}

function derivePublicJwk(privateJwk: Record<string, string>): Record<string, string> | undefined {
  try {
    const key = createPublicKey(createPrivateKey({ key: privateJwk, format: 'jwk' }))
    return requiredMembers(key.export({ format: 'jwk' }))
  } catch {
    // What node:crypto says of a malformed key may quote it.
    return undefined
  }
}

async function describePublicJwk(alg: KeyAlgorithm, required: Record<string, string>): Promise<PublicJwk> {
  return { ...required, alg, use: 'sig', kid: await calculateJwkThumbprint(required) }
}
