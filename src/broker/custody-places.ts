/** Lets one at a time have each key, in the order in which they came. */
export interface Places {
  /** Waits for the place. Returns how to leave it, or `undefined` where the signal came first. */
  enter(key: string, signal: AbortSignal): Promise<(() => void) | undefined>
}

export function createPlaces(): Places {
  /** Those who wait, for each key that somebody has. */
  const lines = new Map<string, Set<() => void>>()

  function leave(key: string, line: Set<() => void>): void {
    const [next] = line
    if (next === undefined) lines.delete(key)
    else next()
  }

  return {
    async enter(key, signal) {
      if (signal.aborted) return undefined
      const line = lines.get(key)
      if (line === undefined) {
        const own = new Set<() => void>()
        lines.set(key, own)
        return () => leave(key, own)
      }
      const entered = await new Promise<boolean>((resolve) => {
        const settle = (entered: boolean): void => {
          line.delete(call)
          signal.removeEventListener('abort', giveUp)
          resolve(entered)
        }
        const call = (): void => settle(true)
        const giveUp = (): void => settle(false)
        line.add(call)
        signal.addEventListener('abort', giveUp)
      })
      return entered ? () => leave(key, line) : undefined
    },
  }
}
