/** How the replacement of one long-lived secret stands, without its value; times are RFC 3339. Others than these words are shown as they are. */
export interface RotationRecord {
  /** A tool's name for its secret; `signing-keys`; `sealing-keys`; of a root credential where it comes from. */
  readonly name: string
  readonly kind: string
  readonly tool?: string
  /** Absent where nothing is replaced by schedule. */
  readonly every_seconds?: number
  /**
   * `idle`, `running`, `waiting` (it is tried again, or waits for somebody), `failed` (the last run came to nothing, and what
   * was in force still is), `unmanaged` (Stint does not replace it).
   */
  readonly state: string
  /** The run that is ordered or under way. */
  readonly id?: string
  /** What is done next of it: `order`, `create`, `set`, `test`, `finish`; `abandon` after one that has failed. */
  readonly step?: string
  readonly reason?: string
  /** The last run that came to an end. */
  readonly last_id?: string
  /** `finished` or `failed`. */
  readonly last_outcome?: string
  readonly last_at?: string
  readonly version?: string
  /** When the version before is to open nothing any more. */
  readonly retires_at?: string
  readonly next_at?: string
  readonly overdue: boolean
  readonly overdue_since?: string
  readonly problem?: string
  /** Of the step that failed last. */
  readonly tries?: number
  /** When it is tried, or looked at, again. */
  readonly try_at?: string
}

/** What is wanted of a rotation. */
export interface RotationOrder {
  /** The version in force may be in wrong hands: it opens nothing any more as soon as the next one is in force. */
  readonly leaked?: boolean | undefined
  readonly reason?: string | undefined
}

/** A rotation that was ordered, as it stands now. */
export interface BegunRotation extends RotationRecord {
  /** The run that does what was asked for; absent for the broker's own keys, which are replaced by the time of the answer. */
  readonly ordered?: string
  readonly audit_index: number
}
