import { BrokerError } from '../kernel/errors.ts'

/** Lets work of the same key run one after the other, in the order in which it came; different keys do not wait. */
export interface Turns {
  /** Runs `work` when its turn has come. Throws `unavailable` when too much of this key is waiting already. */
  take<R>(key: string, work: () => Promise<R>): Promise<R>
}

interface Line {
  waiting: number
  last: Promise<unknown>
}

export function createTurns({ waitingMax = 1_000 } = {}): Turns {
  const lines = new Map<string, Line>()
  return {
    async take(key, work) {
      const line = lines.get(key) ?? { waiting: 0, last: Promise.resolve() }
      if (line.waiting >= waitingMax) {
        throw new BrokerError({
          code: 'unavailable',
          publicMessage: 'Too many requests of this workload are waiting; nothing was issued. Try again shortly.',
        })
      }
      lines.set(key, line)
      line.waiting++
      const mine = line.last.then(work)
      // One that fails does not stop those behind it.
      line.last = mine.catch(() => undefined)
      try {
        return await mine
      } finally {
        line.waiting--
        if (line.waiting === 0) lines.delete(key)
      }
    },
  }
}
