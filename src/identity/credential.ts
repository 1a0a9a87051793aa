import { createHash, timingSafeEqual } from 'node:crypto'
import type { RandomBytes } from '../kernel/ids.ts'
import { Secret } from '../kernel/secret.ts'
import { decodeBase64url, encodeBase64url } from './base64url.ts'

const idBytes = 8
const secretBytes = 32

/** What Stint gives out as text to be shown again: an operator's credential, that of a sign-in, a code to enrol with. */
const prefixes = { operator: 'op', session: 'os', enrolment: 'enroll' } as const
export type CredentialKind = keyof typeof prefixes

// Lengths are fixed, so that the `_` inside base64url cannot move the border between id and secret.
const credentialPattern = /^stint_(op|os|enroll)_([0-9a-f]{16})_([A-Za-z0-9_-]{43})$/

/** A credential, once, when it is made: `stint_op_<16 hex characters>_<43 of base64url>`, and so on. */
export interface CreatedCredential {
  readonly id: string
  readonly credential: Secret
  /** Hex SHA-256 of the secret part: what is stored. */
  readonly secretHash: string
}

/**
 * A new credential of that kind, with a new id or, in place of an earlier one, with its id. The id is public and stands in
 * the log; the credential is shown once and never stored.
 */
export function createCredential(random: RandomBytes, kind: CredentialKind, id = createId(random)): CreatedCredential {
  const secret = encodeBase64url(random(secretBytes))
  return { id, credential: new Secret(`stint_${prefixes[kind]}_${id}_${secret}`), secretHash: hashSecret(secret) }
}

function createId(random: RandomBytes): string {
  return Buffer.from(random(idBytes)).toString('hex')
}

/** A presented credential, as far as its form tells. */
export interface PresentedCredential<K extends CredentialKind = CredentialKind> {
  readonly kind: K
  readonly id: string
  readonly secretHash: string
}

/** What a text presents, or `undefined` if it has not the exact form of a credential of one of these kinds. */
export function parseCredential<const K extends CredentialKind>(text: string, kinds: readonly K[]): PresentedCredential<K> | undefined {
  const [, prefix, id, secret] = credentialPattern.exec(text) ?? []
  const kind = kinds.find((known) => prefixes[known] === prefix)
  if (kind === undefined || id === undefined || secret === undefined || decodeBase64url(secret) === undefined) return undefined
  return { kind, id, secretHash: hashSecret(secret) }
}

/**
 * Whether two hashes are the same, in constant time. `storedHash` is `undefined` where nothing has the presented id: the
 * comparison is made all the same, and the answer is no (invariant 10).
 */
export function secretMatches(hash: string, storedHash: string | undefined): boolean {
  const given = Buffer.from(hash, 'hex')
  const stored = Buffer.from(storedHash ?? '', 'hex')
  const comparable = given.length === 32 && stored.length === 32
  // A missing or damaged hash is compared with zeros; no secret is known that hashes to them, and `comparable` says no.
  const same = timingSafeEqual(padHash(given), padHash(stored))
  return same && comparable
}

function padHash(hash: Buffer): Buffer {
  return hash.length === 32 ? hash : Buffer.alloc(32)
}

/**
 * One round of SHA-256 without salt is right here: the secret is 256 random bits, so there is nothing to guess that a
 * slow hash would slow down, and no two are alike that a salt would tell apart.
 */
function hashSecret(secret: string): string {
  return createHash('sha256').update(secret, 'ascii').digest('hex')
}
