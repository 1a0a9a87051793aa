import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { calculateJwkThumbprint } from 'jose'
import { BrokerError } from '../kernel/errors.ts'
import { Secret } from '../kernel/secret.ts'

/** A checkpoint key that was just made. */
export interface GeneratedCheckpointKey {
  /** The RFC 7638 thumbprint. */
  readonly kid: string
  /** The 32 bytes of the Ed25519 public key. */
  readonly publicKey: Uint8Array
  /** PKCS #8, PEM. */
  readonly privatePem: Secret
}

/** A new Ed25519 key pair (RFC 8032) for checkpoints alone: what signs tokens signs no trees. */
export async function generateCheckpointKey(): Promise<GeneratedCheckpointKey> {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519')
  const { x = '' } = publicKey.export({ format: 'jwk' })
  const kid = await calculateJwkThumbprint({ kty: 'OKP', crv: 'Ed25519', x }, 'sha256')
  const privatePem = new Secret(privateKey.export({ format: 'pem', type: 'pkcs8' }).toString())
  return { kid, publicKey: Buffer.from(x, 'base64url'), privatePem }
}

/** The private key, ready to sign. Throws `internal` unless it is that of the public key. */
export function openCheckpointKey(privatePem: Secret, publicKey: Uint8Array): KeyObject {
  const key = parsePrivateKey(privatePem)
  const { x = '' } = key === undefined ? {} : createPublicKey(key).export({ format: 'jwk' })
  if (key !== undefined && Buffer.from(x, 'base64url').equals(publicKey)) return key
  throw new BrokerError({ code: 'internal', publicMessage: 'The checkpoint key could not be used.', detail: 'its private half is not its public half\'s' })
}

function parsePrivateKey(privatePem: Secret): KeyObject | undefined {
  try {
    return createPrivateKey(privatePem.reveal())
  } catch {
    // An error of the parser may quote what it was given, which is the secret (invariant 7).
    return undefined
  }
}
