import { appendSubtree, findSubtrees, rootOf, type Frontier } from './merkle.ts'
import type { Problem, Runs } from './verify-piece.ts'

/** The tree of a file: rebuilt from the entries that it holds, and from the hashes that stand for those that it lacks. */
export interface FileTree {
  /** `linesBefore` is the number of lines before the piece of the file that these are of. */
  addRuns(runs: Runs, linesBefore: number): void
  /** `hashes` stand for the entries from `start` to before `end`, as `findSubtrees` names them. */
  addGap(gap: { readonly start: number; readonly end: number; readonly hashes: readonly Uint8Array[] }, line: number): void
  /** How many entries of the log are known from the first one on, be it by themselves or by a gap's hashes. */
  readonly size: number
  /** How many of those, from the first one on, are in the file themselves. */
  readonly whole: number
  /** The root of the tree when it had so many entries, if that was one of the sizes to look out for. */
  rootAt(size: number): Uint8Array | undefined
  /** What the file goes on with behind entries that it lacks and has no hashes for. */
  readonly missing: { readonly start: number; readonly end: number; readonly line: number } | undefined
}

/** A tree that is told of runs and gaps in the order of the file, and remembers its root at the sizes of `watched`. */
export function createFileTree(watched: readonly number[], refuse: (problem: Problem) => void): FileTree {
  let frontier: Frontier = []
  let [size, whole, reached, passed] = [0, 0, 0, 0]
  let [gaps, lost] = [false, false]
  const roots = new Map<number, Uint8Array>()
  // Behind entries that are missing: until the gaps' hashes come, which stand at the end of the file.
  let waiting: Waiting[] = []

  function note(): void {
    if (watched.includes(size)) roots.set(size, rootOf(frontier))
  }

  function append(start: number, end: number, hashAt: (i: number) => Uint8Array): void {
    findSubtrees(start, end).forEach((subtree, i) => {
      frontier = appendSubtree(frontier, size, subtree, hashAt(i))
      size += 2 ** subtree.level
      note()
    })
  }

  /** Appends what waits, as far as it goes on from there. */
  function drain(): void {
    let done = 0
    for (const pack of waiting) {
      if (!appendRuns(pack)) break
      done++
    }
    if (done > 0) waiting = waiting.slice(done)
  }

  /** Whether all of them could be appended. */
  function appendRuns(pack: Waiting): boolean {
    const { start, end, roots: hashes } = pack.runs
    for (; pack.next < start.length; pack.next++) {
      const [from, to] = [start[pack.next] ?? 0, end[pack.next] ?? 0]
      if (from > size) return false
      const before = pack.hashes
      // What stands there out of order was refused, and is no part of the tree; nor is what a gap stands for already.
      if (from === size) append(from, to, (i) => hashes.subarray(32 * (before + i), 32 * (before + i + 1)))
      else if (from >= passed) {
        const line = pack.linesBefore + (pack.runs.line[pack.next] ?? 0)
        refuse({ line, index: from, what: 'stands in the place of what a gap has the hashes of: nothing shows that it was signed' })
      }
      passed = Math.max(passed, to)
      if (!gaps) whole = size
      pack.hashes += findSubtrees(from, to).length
    }
    return true
  }

  note()
  return {
    addRuns(runs, linesBefore) {
      runs.start.forEach((start, i) => {
        const line = linesBefore + (runs.line[i] ?? 0)
        if (start < reached) refuse({ line, index: start, what: `stands behind entry ${reached - 1}: out of order, or a second time` })
        reached = Math.max(reached, runs.end[i] ?? 0)
      })
      const pack = { runs, linesBefore, next: 0, hashes: 0 }
      if (waiting.length > 0 || !appendRuns(pack)) waiting.push(pack)
    },
    addGap({ start, end, hashes }, line) {
      drain()
      if (start !== size) {
        // Nor does any that comes behind the first that does not fit.
        if (!lost) refuse({ line, what: `has hashes for the entries from ${start} on, where those from ${size} on are missing` })
        lost = true
        return
      }
      if (hashes.length !== findSubtrees(start, end).length) {
        refuse({ line, what: `has ${hashes.length} hashes for the entries ${start} to ${end - 1}, which is not their number` })
        return
      }
      gaps = true
      append(start, end, (i) => hashes[i] ?? new Uint8Array())
      drain()
    },
    get size() {
      return size
    },
    get whole() {
      return whole
    },
    rootAt: (at) => roots.get(at),
    get missing() {
      const [pack] = waiting
      if (pack === undefined) return undefined
      return { start: size, end: pack.runs.start[pack.next] ?? 0, line: pack.linesBefore + (pack.runs.line[pack.next] ?? 0) }
    },
  }
}

/** Runs of which the first `next` are in the tree, with as many `hashes`. */
interface Waiting {
  readonly runs: Runs
  readonly linesBefore: number
  next: number
  hashes: number
}
