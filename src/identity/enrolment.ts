import { createHash } from 'node:crypto'

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

/** The form of an enrolment's id. */
export const enrolmentIdPattern = /^[0-9a-f]{16}$/

/** What a proof of possession names the code by: base64url SHA-256 of the whole code. */
export function digestCode(code: string): string {
  return createHash('sha256').update(code).digest('base64url')
}
