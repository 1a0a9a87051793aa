/** Numbers that look random and are the same again for the same seed. */
export interface Random {
  /** At least 0, below 1. */
  next(): number
  /** A whole number from 0 to before `end`. */
  below(end: number): number
  pick<T>(from: readonly T[]): T | undefined
  /** Yes, so often in 1. */
  chance(share: number): boolean
  /** Between two numbers above 0, each order of magnitude as often as the next. */
  between(least: number, most: number): number
}

/** Marsaglia's xorshift over 32 bits: for choosing what a test does, and for nothing else. */
export function createRandom(seed: number): Random {
  let state = (seed ^ 0x9e3779b9) >>> 0 || 1
  const next = (): number => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    state >>>= 0
    return state / 2 ** 32
  }
  // What is close to the seed shows in the first ones.
  for (let i = 0; i < 16; i++) next()
  return {
    next,
    below: (end) => Math.floor(next() * end),
    pick: (from) => from[Math.floor(next() * from.length)],
    chance: (share) => next() < share,
    between: (least, most) => least * (most / least) ** next(),
  }
}
