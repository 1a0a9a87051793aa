/** How long clients may keep the key set and the metadata (RFC 9111 §5.2.2.1). */
export const keysMaxAgeSeconds = 300

/**
 * From a successor's publication to its first signature. Twice what caches may keep: for those that ask a little late,
 * and for clocks that differ.
 */
export const publishAheadMs = 2 * keysMaxAgeSeconds * 1000

/** What the life of a signing key is told by. */
export interface KeyTimes {
  readonly kid: string
  readonly createdAtMs: number
  readonly signFromMs: number
  /** Set once a successor has taken over: from then on nothing that the key has signed is accepted. */
  readonly verifyUntilMs?: number
}

/** `next`: published, and signs later. `verifying`: signs no more. `ended`: neither, and published no more. */
export const keyStatuses = ['next', 'signing', 'verifying', 'ended'] as const
export type KeyStatus = (typeof keyStatuses)[number]

/** Orders keys: the one that begins to sign last is first. */
export function compareNewest(a: KeyTimes, b: KeyTimes): number {
  return b.signFromMs - a.signFromMs || b.createdAtMs - a.createdAtMs || (a.kid < b.kid ? 1 : -1)
}

/** Whether nothing that the key has signed, or ever signs, is accepted any more. */
export function hasEnded({ verifyUntilMs }: Pick<KeyTimes, 'verifyUntilMs'>, nowMs: number): boolean {
  return verifyUntilMs !== undefined && verifyUntilMs <= nowMs
}

/** The key that signs at that time: of those that have not ended, the newest whose time has come. */
export function findSigning<K extends KeyTimes>(keys: readonly K[], nowMs: number): K | undefined {
  return keys.toSorted(compareNewest).find((key) => key.signFromMs <= nowMs && !hasEnded(key, nowMs))
}

/** Where the key is in its life. `keys` are all of them, itself included. */
export function keyStatus(key: KeyTimes, keys: readonly KeyTimes[], nowMs: number): KeyStatus {
  if (hasEnded(key, nowMs)) return 'ended'
  if (key.signFromMs > nowMs) return 'next'
  return findSigning(keys, nowMs)?.kid === key.kid ? 'signing' : 'verifying'
}

/** What is to be done now so that keys rotate by themselves (invariant 11). Nothing, most of the time. */
export interface DueSteps<K> {
  /** A successor is to be made: it is published now, and takes over when caches have had their time. */
  readonly successor: boolean
  /** Keys that another one has taken over from, and whose end is not set yet. */
  readonly replaced: readonly K[]
  /** The key that took over from them. */
  readonly signing: K | undefined
  /** Keys that have ended and whose private half is still there. */
  readonly ended: readonly K[]
}

/** Each key signs for `rotateAfterMs`, and longer only where nobody was there to replace it. */
export function findDueSteps<K extends KeyTimes & { readonly erased: boolean }>(
  keys: readonly K[],
  nowMs: number,
  rotateAfterMs: number,
): DueSteps<K> {
  const live = keys.filter((key) => !hasEnded(key, nowMs)).sort(compareNewest)
  const [newest] = live
  const signing = findSigning(live, nowMs)
  return {
    successor: newest === undefined || newest.signFromMs + rotateAfterMs - publishAheadMs <= nowMs,
    replaced: live.filter((key) => key !== signing && key.signFromMs <= nowMs && key.verifyUntilMs === undefined),
    signing,
    ended: keys.filter((key) => hasEnded(key, nowMs) && !key.erased),
  }
}
