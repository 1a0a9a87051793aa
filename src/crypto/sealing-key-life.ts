/** From the making of a key until it seals: time for every process to have it before anything is sealed under it. */
export const sealAheadMs = 10_000

/**
 * From its first seal until what the keys before it have sealed is sealed anew: time to see, and mend, that a process cannot
 * open it, which then opens all that is older.
 */
export const resealAfterMs = 3_600_000

/** From its first seal until the keys before it may go: nobody seals under those any more, or holds a row that they sealed. */
export const replacedForMs = 2 * resealAfterMs

/**
 * How many entries the log may grow by under one key. Each seal goes with an entry, but for those that a repeated commit or
 * the sealing anew after a rotation add: so this stays well below the 2^32 seals that random nonces allow one key.
 */
export const entriesPerKeyMax = 2 ** 30

/** What the life of a sealing key is told by. */
export interface SealingKeyTimes {
  readonly version: number
  readonly sealsFromMs: number
  /** The size that the log had when it was made. */
  readonly createdIndex: number
  readonly erased: boolean
}

/** `next`: seals later. `replaced`: seals no more, and opens what is still under it. `erased`: opens nothing any more. */
export const sealingKeyStatuses = ['next', 'sealing', 'replaced', 'erased'] as const
export type SealingKeyStatus = (typeof sealingKeyStatuses)[number]

/** The place of the log and the ledger's time at which a life is looked at. */
export interface Moment {
  readonly index: number
  readonly timeMs: number
}

/** The key that seals at that time: the newest whose time has come. */
export function findSealing<K extends SealingKeyTimes>(keys: readonly K[], timeMs: number): K | undefined {
  return newestOf(keys.filter((key) => !key.erased && key.sealsFromMs <= timeMs))
}

/** The key that was made last. */
export function newestOf<K extends SealingKeyTimes>(keys: readonly K[]): K | undefined {
  return keys.toSorted((a, b) => b.version - a.version)[0]
}

/** Where the key is in its life. `keys` are all of them, itself included. */
export function sealingKeyStatus(key: SealingKeyTimes, keys: readonly SealingKeyTimes[], timeMs: number): SealingKeyStatus {
  if (key.erased) return 'erased'
  if (key.sealsFromMs > timeMs) return 'next'
  return findSealing(keys, timeMs)?.version === key.version ? 'sealing' : 'replaced'
}

/** What is to be done now so that sealing keys rotate by themselves (invariant 11). Nothing, most of the time. */
export interface DueSealingSteps<K> {
  /** A successor is to be made. */
  readonly successor: boolean
  readonly sealing: K | undefined
  /** Keys of which nothing is to be left. */
  readonly replaced: readonly K[]
  /** Whether what they sealed is to be sealed anew. */
  readonly resealable: boolean
  /** Whether they may go as soon as nothing is under them. */
  readonly erasable: boolean
}

/** Each key seals for `rotateAfterMs`, and shorter where the log grows by more than a key may seal. */
export function findDueSealingSteps<K extends SealingKeyTimes>(keys: readonly K[], { index, timeMs }: Moment, rotateAfterMs: number): DueSealingSteps<K> {
  const newest = newestOf(keys)
  const sealing = findSealing(keys, timeMs)
  return {
    successor: newest === undefined || (newest === sealing && (newest.sealsFromMs + rotateAfterMs <= timeMs || newest.createdIndex + entriesPerKeyMax <= index)),
    sealing,
    replaced: keys.filter((key) => !key.erased && sealing !== undefined && key.version < sealing.version),
    resealable: sealing !== undefined && sealing.sealsFromMs + resealAfterMs <= timeMs,
    erasable: sealing !== undefined && sealing.sealsFromMs + replacedForMs <= timeMs,
  }
}
