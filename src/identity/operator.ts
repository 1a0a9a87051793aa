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
  /** Until when the credential or the sign-in lasts; absent where it does not expire. */
  readonly expiresAtMs?: number
}

/** An operator's name: unique for ever, so that the log never means two by one. */
export const operatorNamePattern = /^[a-z0-9][a-z0-9._-]{0,62}$/

export const operatorStatuses = ['active', 'expired', 'revoked'] as const
export type OperatorStatus = (typeof operatorStatuses)[number]

/** Whether an operator's credential is good at that time. What was revoked stays so, also once it has expired. */
export function operatorStatus(
  { expiresAtMs, revokedAtMs }: { readonly expiresAtMs?: number; readonly revokedAtMs?: number },
  nowMs: number,
): OperatorStatus {
  if (revokedAtMs !== undefined) return 'revoked'
  return expiresAtMs !== undefined && expiresAtMs <= nowMs ? 'expired' : 'active'
}

const idBytes = 8
const secretBytes = 32

/** Whose credential it is: an operator's own, or that of a sign-in. */
const prefixes = { operator: 'op', session: 'os' } as const
export type CredentialKind = keyof typeof prefixes

// Lengths are fixed, so that the `_` inside base64url cannot move the border between id and secret.
const credentialPattern = /^stint_(op|os)_([0-9a-f]{16})_([A-Za-z0-9_-]{43})$/

/** An operator's bearer credential, once, when it is made: `stint_op_<16 hex characters>_<43 of base64url>`. */
export interface OperatorCredential {
  readonly id: string
  readonly credential: Secret
  /** Hex SHA-256 of the secret part: what is stored. */
  readonly secretHash: string
}

/**
 * A new credential of that kind, with a new id or, in place of an earlier one, with its id. The id is public and stands in
 * the log; the credential is shown once and never stored.
 */
export function createOperatorCredential(
  random: RandomBytes,
  { kind = 'operator', id = createId(random) }: { readonly kind?: CredentialKind; readonly id?: string } = {},
): OperatorCredential {
  const secret = encodeBase64url(random(secretBytes))
  return { id, credential: new Secret(`stint_${prefixes[kind]}_${id}_${secret}`), secretHash: hashSecret(secret) }
}

function createId(random: RandomBytes): string {
  return Buffer.from(random(idBytes)).toString('hex')
}

/** A presented credential, as far as its form tells. */
export interface PresentedCredential {
  readonly kind: CredentialKind
  readonly id: string
  readonly secretHash: string
}

/** The kind, the id and the hash of the secret in a presented credential, or `undefined` if the text has not its exact form. */
export function parseOperatorCredential(text: string): PresentedCredential | undefined {
  const [, prefix, id, secret] = credentialPattern.exec(text) ?? []
  if (id === undefined || secret === undefined || decodeBase64url(secret) === undefined) return undefined
  return { kind: prefix === prefixes.session ? 'session' : 'operator', id, secretHash: hashSecret(secret) }
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
export function hashSecret(secret: string): string {
  return createHash('sha256').update(secret, 'ascii').digest('hex')
}
