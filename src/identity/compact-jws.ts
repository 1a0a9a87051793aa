import type { KeyObject } from 'node:crypto'
import { inlineSignatures, isSignatureAlgorithm, type Signatures } from '../kernel/signatures.ts'
import { decodeBase64url } from './base64url.ts'
import { parseStrictObject, type JsonRecord } from './strict-json.ts'

/** A compact JWS (RFC 7515 §7.1) taken apart and not yet verified. */
export interface CompactJws {
  readonly header: JsonRecord
  readonly claims: JsonRecord
  /** Header and payload as they were sent, which is what is signed. */
  readonly protected: string
  readonly payload: string
  readonly signature: Uint8Array
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
  const signatureBytes = decodeBase64url(signature)
  if (headerBytes === undefined || payloadBytes === undefined || signatureBytes === undefined) return undefined
  const header = parseStrictObject(headerBytes)
  const claims = parseStrictObject(payloadBytes)
  if (header === undefined || claims === undefined) return undefined
  return { header, claims, protected: protectedPart, payload, signature: signatureBytes }
}

/**
 * Whether the signature is this public key's over the JWS, under the algorithm that its header names. The caller has
 * checked that this algorithm is the key's own (RFC 8725 §3.1) and that nothing in the header changes the rules (`crit`).
 */
export async function verifyJws(jws: CompactJws, key: KeyObject, { verify }: Pick<Signatures, 'verify'> = inlineSignatures): Promise<boolean> {
  const { alg } = jws.header
  if (!isSignatureAlgorithm(alg)) return false
  return verify({ alg, key, input: `${jws.protected}.${jws.payload}`, signature: jws.signature })
}
