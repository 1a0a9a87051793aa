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
