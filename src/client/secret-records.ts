/** A secret that the broker keeps for a tool, without its value; times are RFC 3339. */
export interface SecretRecord {
  readonly name: string
  /** Counts from 1; the last one is in use, and earlier ones are erased. */
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
