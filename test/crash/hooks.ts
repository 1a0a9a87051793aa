import type { Waypoint } from '../../src/broker/waypoints.ts'

/** Where a broker is to die: when it passes that point for the n-th time from now on, at once or a little later; of many grants at once, or of one. */
export interface Death {
  readonly point: Waypoint
  readonly times: number
  readonly ofMany?: boolean
  readonly afterMs?: number
}

/**
 * `offMs`: the clock is off by so many milliseconds from now on, for a test moves no machine's clock. `death`: instead of the
 * one before. `tick`: runs every job that is due.
 */
export type Order = { readonly offMs: number } | { readonly death: Death } | 'tick'

/** What it says on standard error before it dies; the point follows. */
export const lastWords = 'dies at '
