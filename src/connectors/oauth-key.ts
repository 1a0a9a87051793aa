import { createPrivateKey, type KeyObject } from 'node:crypto'
import { ConnectorError } from './connector.ts'

/** A client's private key for `private_key_jwt`, ready to sign; the `kid` that its JWK names. */
export interface ClientKey {
  readonly key: CryptoKey
  readonly kid?: string
  /** Ed25519 has two names in JOSE (RFC 9864), and an upstream may know only one of them. */
  readonly alg: 'ES256' | 'RS256' | 'PS256' | 'EdDSA'
}

interface Form {
  readonly alg: ClientKey['alg']
  readonly algorithm: Parameters<KeyObject['toCryptoKey']>[0]
}

/** Reads a private key as JWK or PEM: P-256, Ed25519, or RSA of 2048 bits or more. Throws `ConnectorError`; what it could not read is not quoted. */
export function readClientKey(text: string): ClientKey {
  const jwk = readJwk(text)
  const { alg, algorithm } = chooseForm(importKey(text, jwk), jwk?.['alg'])
  const key = importKey(text, jwk).toCryptoKey(algorithm, false, ['sign'])
  return { key, alg, ...(typeof jwk?.['kid'] === 'string' && { kid: jwk['kid'] }) }
}

function readJwk(text: string): Readonly<Record<string, unknown>> | undefined {
  if (!text.trimStart().startsWith('{')) return undefined
  try {
    // What is no object is no key, as `createPrivateKey` finds.
    return JSON.parse(text) as Record<string, unknown>
  } catch {
    throw refuse('it is neither a JWK nor PEM')
  }
}

function importKey(text: string, jwk: Readonly<Record<string, unknown>> | undefined): KeyObject {
  try {
    // In an environment variable the lines are often kept apart by a backslash and an n.
    return jwk === undefined ? createPrivateKey(text.replaceAll('\\n', '\n')) : createPrivateKey({ key: jwk, format: 'jwk' })
  } catch {
    throw refuse('it is neither a private JWK nor a private key in PEM without a passphrase')
  }
}

function chooseForm({ asymmetricKeyType: type, asymmetricKeyDetails: details }: KeyObject, wanted: unknown): Form {
  const form = formOf(type, details, wanted)
  if (form === undefined) throw refuse('it is no key of P-256 or Ed25519, nor one of RSA with 2048 bits or more')
  const names = form.alg === 'EdDSA' ? ['EdDSA', 'Ed25519'] : [form.alg]
  if (wanted === undefined || names.some((name) => name === wanted)) return form
  throw refuse('its member "alg" does not fit it, or is none of ES256, RS256, PS256, EdDSA and Ed25519')
}

function formOf(type: KeyObject['asymmetricKeyType'], details: KeyObject['asymmetricKeyDetails'], wanted: unknown): Form | undefined {
  if (type === 'ed25519') return { alg: 'EdDSA', algorithm: { name: 'Ed25519' } }
  if (type === 'ec' && details?.namedCurve === 'prime256v1') return { alg: 'ES256', algorithm: { name: 'ECDSA', namedCurve: 'P-256' } }
  if (type !== 'rsa' || (details?.modulusLength ?? 0) < 2048) return undefined
  if (wanted === 'PS256') return { alg: 'PS256', algorithm: { name: 'RSA-PSS', hash: 'SHA-256' } }
  return { alg: 'RS256', algorithm: { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' } }
}

function refuse(why: string): ConnectorError {
  return new ConnectorError({ outcome: 'nothing_done', publicMessage: `The client's private key cannot be used: ${why}.` })
}
