import type { Server } from './children.ts'

/** What is measured: one or more processes that give tokens, and what is asked of them. */
export interface Subject {
  readonly name: string
  readonly servers: readonly Server[]
  /** The token endpoints, one for each process. */
  readonly urls: readonly string[]
  /** What an assertion names as its audience. */
  readonly audience: string
  readonly signersFile: string
  readonly signerCount: number
  /** The form of a token request without its assertion, encoded. */
  readonly form: string
  /**
   * Gets a token with this body and looks closely at it: signature, claims and, where there is a log, its entry. Gives the
   * entry's index, so that it can be seen how many were recorded between two tokens. Throws for whatever is not as it must be.
   */
  check(body: string): Promise<{ readonly index?: number }>
  /** How an operator reaches its log, where it has one. */
  readonly log?: { readonly url: string; readonly credential: string }
  /** What there is to tell of it, as how long it took to prepare. */
  readonly notes: Readonly<Record<string, number | string>>
}
