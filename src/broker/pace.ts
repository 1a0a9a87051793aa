/** Keeps the clearing of a backlog from taking the process away from those who ask for something new. */
export interface Pace {
  /** A credential of that tool was lent by this process. */
  countLent(tool: string): void
  /** How long to rest after work at so many ends of that tool. */
  restMs(tool: string, ends: number, workedMs: number): number
}

/** A quarter of the time is for the backlog. */
const restsPerWork = 3
const restMsMax = 1_000

/** Where more is lent than ended meanwhile there is no rest: ends must keep up with mints. */
export function createPace(): Pace {
  const lent = new Map<string, number>()
  return {
    countLent(tool) {
      lent.set(tool, (lent.get(tool) ?? 0) + 1)
    },
    restMs(tool, ends, workedMs) {
      const since = lent.get(tool) ?? 0
      lent.delete(tool)
      return since >= ends ? 0 : Math.min(restsPerWork * workedMs, restMsMax)
    },
  }
}
