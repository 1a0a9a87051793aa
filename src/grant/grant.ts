/** What the end of a grant follows from, as far as Stint alone decides it. */
export interface GrantFacts {
  readonly expiresAtMs: number
  /** The log entry that ended the grant before its time, by itself or together with others. */
  readonly revokedIndex?: number
}

/** Every state that a grant can be in. What follows on what: `nextState`. */
export const grantStates = ['minting', 'active', 'ending', 'unknown', 'stuck', 'failed', 'revoked', 'expired', 'written_off'] as const

/**
 * `minting`: the outside system is being asked. `active`: given out. `ending`: it is to end, and the outside system is being
 * told. `unknown`: the answer to a mint was lost, and what may live cannot be found. `stuck`: the outside system has refused
 * to end it until nobody tried any more. `failed`: nothing was ever made. `written_off`: an admin has taken it upon himself.
 */
export type GrantState = (typeof grantStates)[number]

/** What happens to a grant whose credential lives in an outside system. */
export type GrantStep = 'minted' | 'mint_failed' | 'mint_lost' | 'end_ordered' | 'end_revoked' | 'end_expired' | 'given_up' | 'retried' | 'written_off'

const steps: { readonly [S in GrantState]?: { readonly [T in GrantStep]?: GrantState } } = {
  minting: { minted: 'active', mint_failed: 'failed', mint_lost: 'unknown', end_ordered: 'ending' },
  active: { end_ordered: 'ending' },
  unknown: { end_ordered: 'ending' },
  ending: { end_revoked: 'revoked', end_expired: 'expired', given_up: 'stuck' },
  stuck: { retried: 'ending', written_off: 'written_off' },
}

/** The state after a step, or `undefined` where the step has no place in that state: then nothing happens. */
export function nextState(state: GrantState, step: GrantStep): GrantState | undefined {
  return steps[state]?.[step]
}

/** Whether nothing more will ever happen to a grant in this state. */
export function isOver(state: GrantState): boolean {
  return steps[state] === undefined
}

/**
 * A grant's state at an instant of the ledger's time. `outside` is the state of its credential in an outside system; a token
 * that Stint signs has none: it is active from its record on, and its end is a fact of the log or of the clock. A
 * revocation outranks the expiry that would have come anyway.
 */
export function grantState(grant: GrantFacts, nowMs: number, outside?: GrantState): GrantState {
  const own = grant.revokedIndex !== undefined ? 'revoked' : grant.expiresAtMs <= nowMs ? 'expired' : 'active'
  if (outside === undefined) return own
  // From its own time on it is to end, whether or not anybody has begun to end it.
  return outside === 'active' && own !== 'active' ? 'ending' : outside
}
