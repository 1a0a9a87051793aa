/** A secret that the broker keeps for a tool, without its value; times are RFC 3339. */
export interface SecretRecord {
  readonly name: string
  /** The one that is in use. Versions count from 1. */
  readonly version: number
  readonly created_at: string
  /** The tool that waits for a fresh one, and why this one opens nothing any more. */
  readonly needs_reconnection?: { readonly tool: string; readonly problem: string }
}

/** Which secrets to list. */
export interface SecretQuery {
  readonly limit?: number | undefined
  /** `next` of the page before. */
  readonly after?: string | undefined
}

/** Sorted by name; with `next` there are more. */
export interface SecretPage {
  readonly secrets: readonly SecretRecord[]
  readonly next?: string
}

/**
 * A version of a secret, without its value. `current`: in use. `pending`: to be the next, once its rotation is finished.
 * `previous`: replaced, and may still open something. `erased`: opens nothing.
 */
export interface SecretVersionRecord {
  readonly version: number
  readonly stage: 'current' | 'pending' | 'previous' | 'erased'
  readonly created_at: string
  /** The rotation that made it; absent where it was put. */
  readonly rotation?: string
}

/** Which versions of a secret to list. */
export interface SecretVersionQuery {
  readonly limit?: number | undefined
  /** `next` of the page before. */
  readonly before?: number | undefined
}

/** The newest first; with `next` there are more. */
export interface SecretVersionPage {
  readonly versions: readonly SecretVersionRecord[]
  readonly next?: number
}
