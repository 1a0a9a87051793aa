import { createHash, timingSafeEqual } from 'node:crypto'
import type { RandomBytes } from '../kernel/ids.ts'
import { Secret } from '../kernel/secret.ts'
import { decodeBase64url, encodeBase64url } from './base64url.ts'

/** What an operator may do: each route names the roles that it needs. */
export const roles = ['admin', 'approver', 'auditor'] as const
export type Role = (typeof roles)[number]

/** A person or a program that has proven to be an operator. */
export interface Operator {
  /** The credential's id, or `oidc:…` and the company issuer's subject for a person who signed in. */
  readonly id: string
  readonly name: string
  readonly role: Role
  /** The id of the sign-in, for a person who signed in. */
  readonly session?: string
}

const idBytes = 8
const secretBytes = 32

// Lengths are fixed, so that the `_` inside base64url cannot move the border between id and secret.
const credentialPattern = /^stint_op_([0-9a-f]{16})_([A-Za-z0-9_-]{43})$/

/** An operator's bearer credential, once, when it is made: `stint_op_<16 hex characters>_<43 of base64url>`. */
export interface OperatorCredential {
  readonly id: string
  readonly credential: Secret
  /** Hex SHA-256 of the secret part: what is stored. */
  readonly secretHash: string
}

/** A new operator credential. Its id is public and stands in the log; the credential is shown once and never stored. */
export function createOperatorCredential(random: RandomBytes): OperatorCredential {
  const id = Buffer.from(random(idBytes)).toString('hex')
  const secret = encodeBase64url(random(secretBytes))
  return { id, credential: new Secret(`stint_op_${id}_${secret}`), secretHash: hashSecret(secret) }
}

/** The id and the hash of the secret in a presented credential, or `undefined` if the text has not its exact form. */
export function parseOperatorCredential(text: string): { id: string; secretHash: string } | undefined {
  const [, id, secret] = credentialPattern.exec(text) ?? []
  if (id === undefined || secret === undefined || decodeBase64url(secret) === undefined) return undefined
  return { id, secretHash: hashSecret(secret) }
}

/**
 * Whether two hashes are the same, in constant time. `storedHash` is `undefined` for an operator that does not exist:
 * the comparison is made all the same, and the answer is no (invariant 10).
 */
export function operatorMatches(hash: string, storedHash: string | undefined): boolean {
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
