import { errors, flattenedVerify, type CryptoKey } from 'jose'
import { decodeBase64url } from './base64url.ts'
import { parseStrictObject, type JsonRecord } from './strict-json.ts'

/** A compact JWS (RFC 7515 §7.1) taken apart and not yet verified. */
export interface CompactJws {
  readonly header: JsonRecord
  readonly claims: JsonRecord
  /** The three parts as they were sent. */
  readonly protected: string
  readonly payload: string
  readonly signature: string
}

/**
 * Takes a compact JWS apart: at most `lengthMax` characters, exactly three parts of canonical base64url, header and
 * payload one strict JSON object each. An empty signature is left to the verification. `undefined` otherwise.
 */
export function parseCompactJws(compact: string, lengthMax: number): CompactJws | undefined {
  if (compact.length > lengthMax) return undefined
  // The limit keeps a text full of dots from becoming an array as long.
  const [protectedPart, payload, signature, ...rest] = compact.split('.', 4)
  if (protectedPart === undefined || payload === undefined || signature === undefined || rest.length > 0) {
    return undefined
  }
  const headerBytes = decodeBase64url(protectedPart)
  const payloadBytes = decodeBase64url(payload)
  if (headerBytes === undefined || payloadBytes === undefined || decodeBase64url(signature) === undefined) {
    return undefined
  }
  const header = parseStrictObject(headerBytes)
  const claims = parseStrictObject(payloadBytes)
  if (header === undefined || claims === undefined) return undefined
  return { header, claims, protected: protectedPart, payload, signature }
}

/**
 * Whether the signature is this public key's over the JWS, under the algorithm that its header names. The caller has
 * checked that this algorithm is the key's own (RFC 8725 §3.1) and that nothing in the header changes the rules (`crit`).
 */
export async function verifySignature(jws: CompactJws, key: CryptoKey): Promise<boolean> {
  const { alg } = jws.header
  if (typeof alg !== 'string') return false
  try {
    await flattenedVerify(
      { protected: jws.protected, payload: jws.payload, signature: jws.signature },
      key,
      { algorithms: [alg] },
    )
    return true
  } catch (error) {
    // What the sender can cause is a JOSEError. Anything else, such as a key of the wrong kind, is a bug of ours.
    if (error instanceof errors.JOSEError) return false
    throw error
  }
}
