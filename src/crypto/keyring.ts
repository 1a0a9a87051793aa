import { KeyObject } from 'node:crypto'
import { calculateJwkThumbprint, exportJWK, generateKeyPair, importJWK } from 'jose'
import { BrokerError } from '../kernel/errors.ts'
import { Secret } from '../kernel/secret.ts'
import { inlineSignatures, type Signatures } from '../kernel/signatures.ts'
import { compareNewest, hasEnded } from './key-life.ts'

/** The public half of an ES256 key: `kty`, `crv`, `x` and `y`, no other members. */
export type PublicJwk = Readonly<Record<'kty' | 'crv' | 'x' | 'y', string>>

/** A signing key that was just made. */
export interface GeneratedSigningKey {
  /** The RFC 7638 thumbprint. */
  readonly kid: string
  readonly alg: 'ES256'
  readonly publicJwk: PublicJwk
  /** The private JWK as JSON text. */
  readonly privateJwk: Secret
}

/**
 * A stored signing key, opened. Its life: published, so that caches learn of it, from `publishAtMs`; signs from
 * `signFromMs`; verifies, and is published, until `verifyUntilMs`, which is set once a successor has taken over.
 */
export interface SigningKeyRow {
  readonly kid: string
  readonly use: 'token'
  readonly alg: 'ES256'
  readonly publicJwk: PublicJwk
  /** Absent once the private half was erased: such a key verifies and signs no more. */
  readonly privateJwk?: Secret
  readonly createdAtMs: number
  readonly publishAtMs: number
  readonly signFromMs: number
  readonly verifyUntilMs?: number
}

export interface SigningKey {
  readonly kid: string
  readonly alg: 'ES256'
  /** The signature over these ASCII characters (RFC 7518 §3.4), 64 bytes. The key itself stays in the keyring. */
  sign(input: string): Promise<Uint8Array>
}

export interface VerificationKey {
  readonly kid: string
  readonly alg: 'ES256'
  readonly publicKey: KeyObject
}

/** A key as the JWKS shows it (RFC 7517 §4). */
export type PublishedJwk = PublicJwk & { readonly use: 'sig'; readonly alg: 'ES256'; readonly kid: string }

export interface Keyring {
  /** The newest key whose time to sign has come; throws `unavailable` when there is none. */
  signingKey(nowMs: number): SigningKey
  /** The JWK Set for discovery: every key that is published and not yet removed, the newest first. */
  jwks(nowMs: number): { keys: PublishedJwk[] }
  /** The key of that `kid`, while it is published. */
  verificationKey(kid: string, nowMs: number): VerificationKey | undefined
}

type Ring = SigningKeyRow & { readonly publicKey: KeyObject; readonly privateKey: KeyObject | undefined }

/** A new ES256 key pair (RFC 7518 §3.4). */
export async function generateSigningKey(): Promise<GeneratedSigningKey> {
  const { privateKey } = await generateKeyPair('ES256', { extractable: true })
  const jwk = await exportJWK(privateKey)
  const publicJwk = pickPublic(jwk)
  const kid = await calculateJwkThumbprint(publicJwk, 'sha256')
  return { kid, alg: 'ES256', publicJwk, privateJwk: new Secret(JSON.stringify({ ...publicJwk, d: jwk.d })) }
}

/** Makes a keyring of stored keys; throws `internal` for a row whose `kid`, public and private half do not fit. */
export async function createKeyring(rows: readonly SigningKeyRow[], signatures: Pick<Signatures, 'sign'> = inlineSignatures): Promise<Keyring> {
  const kids = new Set(rows.map(({ kid }) => kid))
  if (kids.size !== rows.length) throw refuseRow('two rows have the same kid')
  const keys = await Promise.all(rows.map(openRow))
  keys.sort(compareNewest)
  return {
    signingKey(nowMs) {
      for (const { kid, alg, privateKey, ...row } of keys) {
        const isDue = row.signFromMs <= nowMs && isPublished(row, nowMs)
        if (isDue && privateKey !== undefined) return { kid, alg, sign: (input) => signatures.sign({ key: privateKey, input }) }
      }
      throw new BrokerError({
        code: 'unavailable',
        publicMessage: 'Tokens cannot be signed at the moment. Try again shortly.',
        detail: 'no token key has its time to sign now',
      })
    },
    jwks(nowMs) {
      const published = keys.filter((key) => isPublished(key, nowMs))
      return { keys: published.map(({ kid, alg, publicJwk }) => ({ ...publicJwk, use: 'sig', alg, kid })) }
    },
    verificationKey(kid, nowMs) {
      const key = keys.find((one) => one.kid === kid)
      return key && isPublished(key, nowMs) ? { kid, alg: key.alg, publicKey: key.publicKey } : undefined
    },
  }
}

function isPublished(row: Pick<SigningKeyRow, 'publishAtMs' | 'verifyUntilMs'>, nowMs: number): boolean {
  return row.publishAtMs <= nowMs && !hasEnded(row, nowMs)
}

async function openRow(row: SigningKeyRow): Promise<Ring> {
  const publicJwk = pickPublic(row.publicJwk)
  const thumbprint = await calculateJwkThumbprint(publicJwk, 'sha256')
  if (thumbprint !== row.kid) throw refuseRow(`the kid ${row.kid} is not its key's thumbprint`)
  const publicKey = await importKey(publicJwk)
  if (row.privateJwk === undefined) return { ...row, publicJwk, publicKey, privateKey: undefined }
  return { ...row, publicJwk, publicKey, privateKey: await importPrivateKey(row.privateJwk, publicJwk, row.kid) }
}

/** Importing refuses a private half of another key: with it, tokens would be signed that nobody can verify. */
async function importPrivateKey(secret: Secret, publicJwk: PublicJwk, kid: string): Promise<KeyObject> {
  try {
    const { d }: { d?: unknown } = JSON.parse(secret.reveal())
    if (typeof d === 'string') return await importKey({ ...publicJwk, d })
  } catch {
    // Falls through: an error of the parser quotes what it was given, which is the secret (invariant 7).
  }
  throw refuseRow(`the private half of ${kid} is not its public half's, or cannot be read`)
}

async function importKey(jwk: PublicJwk & { readonly d?: string }): Promise<KeyObject> {
  const key = await importJWK({ ...jwk }, 'ES256', { extractable: true })
  if (key instanceof Uint8Array) throw refuseRow('a token key is symmetric')
  return KeyObject.from(key)
}

/** Only the members that make the public key, so that no private one can slip into the JWKS. */
function pickPublic({ kty, crv, x, y }: { kty?: string; crv?: string; x?: string; y?: string }): PublicJwk {
  if (kty === 'EC' && crv === 'P-256' && x !== undefined && y !== undefined) return { kty, crv, x, y }
  throw refuseRow('a token key is not on P-256')
}

function refuseRow(detail: string): BrokerError {
  return new BrokerError({ code: 'internal', publicMessage: 'A token key could not be used.', detail })
}
