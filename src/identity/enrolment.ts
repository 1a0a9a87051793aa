import { createHash } from 'node:crypto'
import type { RandomBytes } from '../kernel/ids.ts'
import { Secret } from '../kernel/secret.ts'
import { decodeBase64url, encodeBase64url } from './base64url.ts'
import { hashSecret } from './operator.ts'

/** A one-time code with which an agent registers a key of its own, and what became of it. */
export interface Enrolment {
  readonly id: string
  readonly workload: string
  readonly createdAtMs: number
  readonly expiresAtMs: number
  /** When it was redeemed or cancelled. */
  readonly endedAtMs?: number
  /** The key that was registered by it; absent unless it was redeemed. */
  readonly kid?: string
}

/** How long a code can be redeemed. */
export const enrolmentLifetimeMs = 15 * 60_000

export const enrolmentStatuses = ['open', 'redeemed', 'cancelled', 'expired'] as const
export type EnrolmentStatus = (typeof enrolmentStatuses)[number]

/** What a code is good for at that time; only an open one can be redeemed. */
export function enrolmentStatus({ endedAtMs, kid, expiresAtMs }: Enrolment, nowMs: number): EnrolmentStatus {
  if (endedAtMs !== undefined) return kid === undefined ? 'cancelled' : 'redeemed'
  return expiresAtMs <= nowMs ? 'expired' : 'open'
}

const idBytes = 8
const secretBytes = 32

// Lengths are fixed, so that the `_` inside base64url cannot move the border between id and secret.
const codePattern = /^stint_enroll_([0-9a-f]{16})_([A-Za-z0-9_-]{43})$/

/** The form of an enrolment's id. */
export const enrolmentIdPattern = /^[0-9a-f]{16}$/

/** A new code, `stint_enroll_<16 hex characters>_<43 of base64url>`: shown once, only its secret part's hash is stored. */
export function createEnrolmentCode(random: RandomBytes): { id: string; code: Secret; codeHash: string } {
  const id = Buffer.from(random(idBytes)).toString('hex')
  const secret = encodeBase64url(random(secretBytes))
  return { id, code: new Secret(`stint_enroll_${id}_${secret}`), codeHash: hashSecret(secret) }
}

/** The id and the hash of the secret in a presented code, or `undefined` if the text has not its exact form. */
export function parseEnrolmentCode(text: string): { id: string; codeHash: string } | undefined {
  const [, id, secret] = codePattern.exec(text) ?? []
  if (id === undefined || secret === undefined || decodeBase64url(secret) === undefined) return undefined
  return { id, codeHash: hashSecret(secret) }
}

/** What a proof of possession names the code by: base64url SHA-256 of the whole code. */
export function digestCode(code: string): string {
  return createHash('sha256').update(code).digest('base64url')
}
