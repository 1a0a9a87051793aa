/** How often each latency was seen: counts by microseconds. */
export type Histogram = ReadonlyMap<number, number>

/** Adds histograms up, as of several load generators that ran at the same time. */
export function mergeHistograms(histograms: readonly Histogram[]): Histogram {
  const sum = new Map<number, number>()
  for (const histogram of histograms) {
    for (const [us, count] of histogram) sum.set(us, (sum.get(us) ?? 0) + count)
  }
  return sum
}

/** The smallest latency, in microseconds, that at least this share (0 to 1) of all was not above. Throws for an empty histogram. */
export function percentileOf(histogram: Histogram, share: number): number {
  const sorted = [...histogram].sort(([a], [b]) => a - b)
  const total = sorted.reduce((sum, [, count]) => sum + count, 0)
  let seen = 0
  for (const [us, count] of sorted) {
    seen += count
    if (seen >= share * total) return us
  }
  throw new RangeError('there are no latencies')
}

/** The middle of the values, or the mean of the two in the middle. Throws for none. */
export function medianOf(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const [low, high] = [sorted[Math.floor((sorted.length - 1) / 2)], sorted[Math.floor(sorted.length / 2)]]
  if (low === undefined || high === undefined) throw new RangeError('there are no values')
  return (low + high) / 2
}

/** A figure of several rounds. */
export interface Spread {
  readonly median: number
  readonly min: number
  readonly max: number
}

/** The median of the rounds, and between what they lie. */
export function spreadOf(values: readonly number[]): Spread {
  return { median: medianOf(values), min: Math.min(...values), max: Math.max(...values) }
}

/**
 * How much one case differs from another: the median of the rounds' own ratios, for the two were measured right after one
 * another in each round, and what disturbs the machine disturbs both.
 */
export function ratioOf(values: readonly number[], base: readonly number[]): Spread {
  const count = Math.min(values.length, base.length)
  return spreadOf(values.slice(0, count).map((value, round) => value / (base[round] ?? Number.NaN)))
}
