import { constants, sign, verify, type KeyObject } from 'node:crypto'

/** How each JWS algorithm signs, and with which kind of key (RFC 7518 §3.1, RFC 8037 §3.1, RFC 9864 §2.2). */
const algorithms = {
  ES256: { keyType: 'ec', digest: 'sha256', options: { dsaEncoding: 'ieee-p1363' }, bytes: 64 },
  Ed25519: { keyType: 'ed25519', digest: null, options: {}, bytes: 64 },
  EdDSA: { keyType: 'ed25519', digest: null, options: {}, bytes: 64 },
  RS256: { keyType: 'rsa', digest: 'sha256', options: { padding: constants.RSA_PKCS1_PADDING }, bytes: undefined },
  PS256: { keyType: 'rsa', digest: 'sha256', options: { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST }, bytes: undefined },
} as const

export type SignatureAlgorithm = keyof typeof algorithms

/** A signature to check. The key is public, and of the algorithm's kind. */
export interface VerifyJob {
  readonly alg: SignatureAlgorithm
  readonly key: KeyObject
  /** ASCII, as a JWS's signing input is (RFC 7515 §5.1). */
  readonly input: string
  readonly signature: Uint8Array
}

/** What is to be signed by ES256. */
export interface SignJob {
  readonly key: KeyObject
  /** ASCII. */
  readonly input: string
}

/** Where signatures are checked and made. */
export interface Signatures {
  /** Whether the signature is this key's over the input. Rejects with `TypeError` for a key of another kind: a bug of ours. */
  verify(job: VerifyJob): Promise<boolean>
  /** The ES256 signature over the input (RFC 7518 §3.4): 64 bytes. */
  sign(job: SignJob): Promise<Uint8Array>
}

/** On the thread that asks. */
export const inlineSignatures: Signatures = {
  verify: async (job) => verifySignature(job),
  sign: async (job) => signEs256(job),
}

export function isSignatureAlgorithm(alg: unknown): alg is SignatureAlgorithm {
  return typeof alg === 'string' && Object.hasOwn(algorithms, alg)
}

/** Does the one job or the other. */
export function doJob(job: SignJob | VerifyJob): boolean | Uint8Array {
  return 'signature' in job ? verifySignature(job) : signEs256(job)
}

export function verifySignature({ alg, key, input, signature }: VerifyJob): boolean {
  const { keyType, digest, options, bytes } = algorithms[alg]
  if (key.asymmetricKeyType !== keyType) throw new TypeError(`a key of type ${key.asymmetricKeyType} verifies no ${alg}`)
  if (bytes !== undefined && signature.length !== bytes) return false
  return verify(digest, Buffer.from(input, 'latin1'), { key, ...options }, signature)
}

function signEs256({ key, input }: SignJob): Uint8Array {
  return sign('sha256', Buffer.from(input, 'latin1'), { key, dsaEncoding: 'ieee-p1363' })
}
