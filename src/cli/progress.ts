import type { Io } from './command.ts'
import { truncate } from './terminal.ts'

/** One line on standard error that is written over as work goes on; nothing where nobody watches. */
export interface Progress {
  /** Shows the text, unless one was shown a moment ago. */
  show(describe: () => string): void
  /** Takes the line away. */
  clear(): void
}

export function createProgress({ err, errColumns }: Pick<Io, 'err' | 'errColumns'>, everyMs = 500): Progress {
  let shownAt = -Infinity
  let shown = false
  return {
    show(describe) {
      if (errColumns === undefined || performance.now() - shownAt < everyMs) return
      err(`\r${truncate(describe(), errColumns - 1)}\u001b[K`)
      shownAt = performance.now()
      shown = true
    },
    clear() {
      if (shown) err('\r\u001b[K')
      shown = false
    },
  }
}
