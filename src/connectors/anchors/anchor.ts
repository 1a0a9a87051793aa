/** What an anchor has as its newest. */
export interface Kept {
  /** The signed note, as it was given. */
  readonly note: string
  /** When it was kept by the anchor's clock, as far as it tells. */
  readonly atMs?: number
}

/** A place outside of the database that keeps whole checkpoints, and gives the newest one back. */
export interface KeepingAnchor {
  readonly kind: 'file' | 'http'
  /** Names it in the log and to admins. */
  readonly name: string
  /** How many notes it takes at once. */
  readonly pieceMax: number
  /**
   * The newest checkpoint that it has; `undefined` where it has none, or does not tell. Throws `config_invalid` for a place
   * that must not be used, and `AnchorFailure` while it cannot be asked. So does `keep`.
   */
  last(): Promise<Kept | undefined>
  /** Resolves once all of them, the oldest first, are where a crash does not reach them. */
  keep(notes: readonly string[]): Promise<void>
}

/** Somebody else who signs that the log only ever grows (https://c2sp.org/tlog-witness), and remembers how far. */
export interface WitnessAnchor {
  readonly kind: 'witness'
  readonly name: string
  /** The name of its key, under which its signatures are stored. */
  readonly keyName: string
  addCheckpoint(submission: Submission): Promise<WitnessAnswer>
}

export type Anchor = KeepingAnchor | WitnessAnchor

export interface Submission {
  readonly note: string
  /** The size up to which the witness has signed, as far as is known. */
  readonly oldSize: number
  /** The nodes that lead from there to the checkpoint, of 32 bytes each. */
  readonly proof: readonly Uint8Array[]
}

export type WitnessAnswer =
  /** Its signature line, which was verified. */
  | { readonly status: 'signed'; readonly line: string }
  /** It has signed up to that size, and wants to be led from there. */
  | { readonly status: 'elsewhere'; readonly size: number }
  /** The tree does not go on from the one that it has signed. */
  | { readonly status: 'contradicted' }

/** An anchor that does not do what it is there for: in words for the operator. It is tried again. */
export class AnchorFailure extends Error {
  constructor(message: string, cause?: unknown) {
    super(message, { cause })
    this.name = 'AnchorFailure'
  }
}
