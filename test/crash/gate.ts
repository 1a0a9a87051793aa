/** Lets many repeat what they do while it is open, and knows when all of them have come to rest. */
export interface Gate {
  /** Repeats the step whenever the gate is open. */
  run(step: () => Promise<void>): void
  open(): void
  isOpen(): boolean
  /** Resolves once every one of them waits. */
  close(): Promise<void>
  /** For good. */
  end(): Promise<void>
}

export function createGate(): Gate {
  const runners: Promise<void>[] = []
  let waiting: (() => void)[] = []
  let working = 0
  let state: 'open' | 'closed' | 'ended' = 'closed'
  let atRest: (() => void) | undefined

  const isOpen = (): boolean => state === 'open'

  async function repeat(step: () => Promise<void>): Promise<void> {
    for (;;) {
      while (isOpen()) await step()
      working--
      if (working === 0) atRest?.()
      if (state === 'ended') return
      await new Promise<void>((resolve) => waiting.push(resolve))
      working++
    }
  }
  function wake(): void {
    const woken = waiting
    waiting = []
    for (const resolve of woken) resolve()
  }
  return {
    run(step) {
      working++
      runners.push(repeat(step))
    },
    open() {
      state = 'open'
      wake()
    },
    isOpen,
    async close() {
      state = 'closed'
      if (working > 0) await new Promise<void>((resolve) => (atRest = resolve))
    },
    async end() {
      state = 'ended'
      wake()
      await Promise.all(runners)
    },
  }
}
