import { calculateJwkThumbprint, importJWK } from 'jose'
import { nearestName } from '../kernel/nearest.ts'
import { decodeBase64url } from './base64url.ts'
import { judgeEd25519Point } from './ed25519-point.ts'
import { createInputError, quoteName } from './input-problem.ts'
import { isRecord, type JsonRecord } from './strict-json.ts'
import { keysMax, type WorkloadKey } from './workload.ts'

/** A public key as it is stored: the thumbprint as `kid`, and no members but those that make the key. */
export type PublicKey = Pick<WorkloadKey, 'kid' | 'alg' | 'jwk'>

const coordinateBytes = 32

const curves = {
  'P-256': { kty: 'EC', alg: 'ES256', aliases: ['ES256'], coordinates: ['x', 'y'] },
  // RFC 9864 §2.2 names the algorithm after the curve; `EdDSA` is what it was called before.
  Ed25519: { kty: 'OKP', alg: 'Ed25519', aliases: ['Ed25519', 'EdDSA'], coordinates: ['x'] },
} as const
type Curve = (typeof curves)[keyof typeof curves]

const descriptions = ['kty', 'crv', 'kid', 'use', 'key_ops', 'alg'] as const
// RFC 7518 §6.2.2, §6.3.2, §6.4.1 and RFC 8037 §2: the members that only the holder may know.
const privateMembers: readonly string[] = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k', 'priv']
const certificateMembers: readonly string[] = ['x5c', 'x5u', 'x5t', 'x5t#S256', 'jku']

/**
 * The keys of a JWK Set (RFC 7517 §5) with 1 to 8 public signature keys, ES256 or Ed25519. Anything else is refused with
 * `invalid_input` and a message of its own; a `kid` must be the RFC 7638 thumbprint.
 */
export async function parsePublicKeys(jwks: unknown): Promise<PublicKey[]> {
  if (!isRecord(jwks)) {
    throw refuse('jwks', 'must be a JWK Set, a JSON object of the form {"keys":[…]}')
  }
  if (!Object.hasOwn(jwks, 'keys') && Object.hasOwn(jwks, 'kty')) {
    throw refuse('jwks', 'is a single JWK: put it into a set, {"keys":[…]}')
  }
  const unknown = Object.keys(jwks).find((name) => name !== 'keys')
  if (unknown !== undefined) throw refuse('jwks', `has the unknown member ${quoteName(unknown)}; only keys is allowed`)
  const { keys } = jwks
  if (!Array.isArray(keys) || keys.length === 0 || keys.length > keysMax) {
    throw refuse('jwks.keys', `must be an array of 1 to ${keysMax} public keys`)
  }
  const parsed: PublicKey[] = []
  for (const [index, jwk] of keys.entries()) {
    const path = `jwks.keys[${index}]`
    const key = await parsePublicKey(jwk, path)
    if (parsed.some(({ kid }) => kid === key.kid)) throw refuse(path, 'is the same key as one before it: send it once')
    parsed.push(key)
  }
  return parsed
}

async function parsePublicKey(jwk: unknown, path: string): Promise<PublicKey> {
  if (!isRecord(jwk)) throw refuse(path, 'must be a JWK, a JSON object')
  refusePrivateMembers(jwk, path)
  const curve = parseCurve(jwk, path)
  refuseUnknownMembers(jwk, curve, path)
  judgeUse(jwk, curve, path)
  const publicJwk: Record<string, string> = { kty: curve.kty, crv: nameOf(curve) }
  for (const coordinate of curve.coordinates) publicJwk[coordinate] = parseCoordinate(jwk, coordinate, path)
  await judgePoint(curve, publicJwk, path)
  const kid = await calculateJwkThumbprint(publicJwk, 'sha256')
  // Assertions name their key by its thumbprint: one that a client goes on to call by another name would never be found.
  if (jwk['kid'] !== undefined && jwk['kid'] !== kid) {
    throw refuse(`${path}.kid`, `must be the key's RFC 7638 thumbprint, ${kid}, or left out; assertions name the key by it`)
  }
  return { kid, alg: curve.alg, jwk: publicJwk }
}

/** Comes before every other check: whoever sent a private key must learn that above all. */
function refusePrivateMembers(jwk: JsonRecord, path: string): void {
  if (jwk['kty'] === 'oct') {
    throw refuse(path, 'is a symmetric key: send the public half of an ES256 or Ed25519 key pair')
  }
  const found = privateMembers.find((name) => Object.hasOwn(jwk, name))
  if (found === undefined) return
  throw refuse(
    `${path}.${found}`,
    'is a private member: this key has left its holder, so make a new one and send only its public part',
  )
}

function parseCurve(jwk: JsonRecord, path: string): Curve {
  const { kty, crv } = jwk
  if (kty === 'RSA') throw refuse(`${path}.kty`, 'is RSA, which is not accepted: use an ES256 or Ed25519 key')
  if (kty !== 'EC' && kty !== 'OKP') throw refuse(`${path}.kty`, 'must be EC (with P-256) or OKP (with Ed25519)')
  const found = crv === 'P-256' || crv === 'Ed25519' ? curves[crv] : undefined
  if (found === undefined || found.kty !== kty) {
    const given = typeof crv === 'string' ? `${quoteName(crv)}, which is not accepted` : 'missing or not text'
    throw refuse(`${path}.crv`, `is ${given} for ${kty}: use ${kty === 'EC' ? 'P-256' : 'Ed25519'}`)
  }
  return found
}

function refuseUnknownMembers(jwk: JsonRecord, curve: Curve, path: string): void {
  const known: readonly string[] = [...descriptions, ...curve.coordinates]
  for (const name of Object.keys(jwk)) {
    if (known.includes(name)) continue
    if (certificateMembers.includes(name)) {
      throw refuse(`${path}.${name}`, 'is not accepted: certificates and addresses are not followed, send the key alone')
    }
    const nearest = nearestName(name, known)
    const hint = nearest === undefined ? 'leave it out' : `did you mean ${nearest}?`
    throw refuse(path, `has the unknown member ${quoteName(name)}: ${hint}`)
  }
}

function judgeUse(jwk: JsonRecord, curve: Curve, path: string): void {
  const { use, alg, key_ops: operations } = jwk
  if (use !== undefined && use !== 'sig') throw refuse(`${path}.use`, 'must be sig or left out')
  const canVerify = Array.isArray(operations) && operations.length === 1 && operations[0] === 'verify'
  if (operations !== undefined && !canVerify) {
    throw refuse(`${path}.key_ops`, 'must be ["verify"] or left out')
  }
  if (alg !== undefined && !curve.aliases.some((name) => name === alg)) {
    throw refuse(`${path}.alg`, `must be ${curve.alg} for a key on ${nameOf(curve)}, or left out`)
  }
}

function parseCoordinate(jwk: JsonRecord, name: 'x' | 'y', path: string): string {
  const text = jwk[name]
  if (typeof text !== 'string') throw refuse(`${path}.${name}`, 'must be text in base64url')
  const bytes = decodeBase64url(text)
  if (bytes === undefined) throw refuse(`${path}.${name}`, 'must be canonical base64url without padding')
  if (bytes.length !== coordinateBytes) throw refuse(`${path}.${name}`, `must be exactly ${coordinateBytes} bytes`)
  return text
}

async function judgePoint(curve: Curve, jwk: Readonly<Record<string, string>>, path: string): Promise<void> {
  if (curve.kty === 'OKP') {
    const judged = judgeEd25519Point(decodeBase64url(jwk['x'] ?? '') ?? new Uint8Array())
    if (judged === 'not_canonical') throw refuse(`${path}.x`, 'is not a canonical encoding of a point (RFC 8032 §5.1.3)')
    if (judged === 'low_order') throw refuse(`${path}.x`, 'is a point of low order, for which anybody can sign')
    if (judged === 'not_on_curve') throw refuse(`${path}.x`, 'is not a point on the curve Ed25519')
  }
  try {
    // For P-256 this is what checks the curve's equation and that both coordinates are below the field's prime.
    await importJWK({ ...jwk }, curve.alg)
  } catch {
    throw refuse(path, `is not a point on the curve ${nameOf(curve)}`)
  }
}

function nameOf(curve: Curve): keyof typeof curves {
  return curve.kty === 'EC' ? 'P-256' : 'Ed25519'
}

function refuse(path: string, message: string): Error {
  return createInputError([{ path, message }])
}
