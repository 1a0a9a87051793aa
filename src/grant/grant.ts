/** What a grant's state follows from. */
export interface GrantFacts {
  readonly expiresAtMs: number
  /** The log entry that ended the grant before its time, by itself or together with others. */
  readonly revokedIndex?: number
}

/**
 * The states of a grant that Stint can end by itself: nothing outside has to be asked, so that it is `active` from its
 * record on, and its end is a fact of the log or of the clock rather than a step that somebody has to take.
 */
export type GrantState = 'active' | 'revoked' | 'expired'

/** A grant's state at an instant of the ledger's time. A revocation outranks the expiry that would have come anyway. */
export function grantState(grant: GrantFacts, nowMs: number): GrantState {
  if (grant.revokedIndex !== undefined) return 'revoked'
  return grant.expiresAtMs <= nowMs ? 'expired' : 'active'
}
