import { appendLeaf, appendSubtree, findSubtrees, rootOf, type Frontier } from './merkle.ts'
import { problemsMax, type Problem, type Runs } from './verify-piece.ts'

/**
 * The leaf hashes that a file lists for its entries, in their order. With what the gaps say they make a tree of their own:
 * where that is the one that was signed, and the file's entries do not make it, each entry that is wrong can be named.
 */
export interface LeafList {
  /** Entries, in the order of the file, before any hash is listed. `linesBefore` is the number of lines before their piece. */
  addRuns(runs: Runs, linesBefore: number): void
  /** Listed hashes, 32 bytes each, before any gap. */
  addLeaves(leaves: Uint8Array): void
  /** What stands for the entries from `start` to before `end`, as `findSubtrees` names them. */
  addGap(gap: { readonly start: number; readonly end: number; readonly hashes: readonly Uint8Array[] }): void
  judge(root: Uint8Array): LeafVerdict
}

/**
 * `none`: the file lists nothing. `same`: it lists the hashes of its entries. `signed`: it does not, and the tree that was
 * signed has what it lists, so that the entries are what is wrong. `changed`: it does not, and neither has that tree.
 */
export type LeafVerdict =
  | { readonly status: 'none' | 'same' | 'changed' }
  | { readonly status: 'signed'; readonly problems: readonly Problem[]; readonly problemsMore: number }

interface Segment {
  readonly start: number
  readonly end: number
  /** Where in the list its first hash is. */
  readonly place: number
}

const hashBytes = 32

/**
 * A list for the tree of `size` entries; others in the file are passed over. It keeps the 32 bytes of each entry until the
 * list is found to be the same, and costs no hash unless it is another.
 */
export function createLeafList(size: number): LeafList {
  let packs: { readonly runs: Runs; readonly linesBefore: number }[] = []
  const held = eachRun()
  let unmatched: Uint8Array = new Uint8Array()
  // What is listed: as many bytes as the entries begin with, then these.
  let matchedBytes = 0
  const others: Uint8Array[] = []
  let [isListed, isSame] = [false, true]
  let other: ReturnType<typeof createListedTree> | undefined

  function* eachRun(): Generator<{ readonly start: number; readonly end: number; readonly line: number; readonly leaves: Uint8Array }, void> {
    for (const { runs, linesBefore } of packs) {
      let from = 0
      for (const [i, start] of runs.start.entries()) {
        const end = runs.end[i] ?? start
        const leaves = runs.leaves.subarray(from, from + hashBytes * (end - start))
        from += leaves.length
        if (start < size) yield { start, end, line: linesBefore + (runs.line[i] ?? 0), leaves }
      }
    }
  }

  /** Whether the entries that were not matched yet have bytes to match. */
  function reachUnmatched(): boolean {
    while (unmatched.length === 0) {
      const next = held.next()
      if (next.done === true) return false
      unmatched = next.value.leaves
    }
    return true
  }

  function match(leaves: Uint8Array): boolean {
    for (let at = 0; at < leaves.length; ) {
      if (!reachUnmatched()) return false
      const count = Math.min(unmatched.length, leaves.length - at)
      if (Buffer.compare(unmatched.subarray(0, count), leaves.subarray(at, at + count)) !== 0) return false
      unmatched = unmatched.subarray(count)
      at += count
    }
    return true
  }

  /** Once all that is listed is known: its tree, unless it has nothing to say. */
  function complete(): ReturnType<typeof createListedTree> | undefined {
    if (!isListed || other !== undefined) return other
    if (isSame && !reachUnmatched()) {
      packs = []
      return undefined
    }
    isSame = false
    const listed = new Uint8Array(matchedBytes + others.reduce((sum, { length }) => sum + length, 0))
    let at = 0
    for (const { leaves } of eachRun()) {
      if (at === matchedBytes) break
      listed.set(leaves.subarray(0, matchedBytes - at), at)
      at = Math.min(matchedBytes, at + leaves.length)
    }
    for (const leaves of others) {
      listed.set(leaves, at)
      at += leaves.length
    }
    other = createListedTree(listed)
    return other
  }

  function nameWrong({ listed, segments }: ReturnType<typeof createListedTree>): LeafVerdict {
    const problems: Problem[] = []
    let problemsMore = 0
    const tell = (problem: Problem): void => {
      if (problems.length < problemsMax) problems.push(problem)
      else problemsMore++
    }
    const seen = new Uint8Array(listed.length / hashBytes)
    for (const { start, end, line, leaves } of eachRun()) {
      for (let i = 0; i < end - start; i++) {
        const index = start + i
        const place = findPlace(segments, index)
        const leaf = leaves.subarray(hashBytes * i, hashBytes * (i + 1))
        if (place === undefined) tell({ line: line + i, index, what: 'was put in: the file has the hash of what it was exported without in its place' })
        else {
          seen[place] = 1
          if (Buffer.compare(leaf, leafAt(listed, place)) !== 0) tell({ line: line + i, index, what: 'is not the entry that was signed: its hash is another' })
        }
      }
    }
    for (const { start, end, place } of segments) {
      for (let index = start; index < end; ) {
        const first = index
        while (index < end && seen[place + index - start] === 0) index++
        if (index === first) index++
        else tell({ index: first, what: index === first + 1 ? 'is missing' : `is missing, and so are those behind it, up to entry ${index - 1}` })
      }
    }
    return { status: 'signed', problems, problemsMore }
  }

  return {
    addRuns: (runs, linesBefore) => void packs.push({ runs, linesBefore }),
    addLeaves(leaves) {
      isListed = true
      isSame &&= match(leaves)
      if (isSame) matchedBytes += leaves.length
      else others.push(leaves)
    },
    addGap: (gap) => complete()?.addGap(gap),
    judge(root) {
      const tree = complete()
      if (tree === undefined) return { status: isListed ? 'same' : 'none' }
      return tree.hasRoot(size, root) ? nameWrong(tree) : { status: 'changed' }
    },
  }
}

/** The tree of listed hashes, each at the index that the gaps leave for it. */
function createListedTree(listed: Uint8Array) {
  const segments: Segment[] = []
  let frontier: Frontier = []
  let [size, taken, fits] = [0, 0, true]

  /** Takes the hashes of the entries up to that index from the list. */
  function takeUpTo(end: number): void {
    fits &&= end >= size && taken + end - size <= listed.length / hashBytes
    if (!fits || end === size) return
    segments.push({ start: size, end, place: taken })
    for (; size < end; size++) frontier = appendLeaf(frontier, size, leafAt(listed, taken++))
  }

  return {
    listed,
    segments,
    addGap({ start, end, hashes }: Parameters<LeafList['addGap']>[0]): void {
      takeUpTo(start)
      const subtrees = findSubtrees(start, end)
      fits &&= hashes.length === subtrees.length
      if (!fits) return
      subtrees.forEach((subtree, i) => {
        frontier = appendSubtree(frontier, size, subtree, hashes[i] ?? new Uint8Array())
        size += 2 ** subtree.level
      })
    },
    hasRoot(end: number, root: Uint8Array): boolean {
      takeUpTo(end)
      return fits && taken === listed.length / hashBytes && Buffer.compare(rootOf(frontier), root) === 0
    },
  }
}

function leafAt(listed: Uint8Array, place: number): Uint8Array {
  return listed.subarray(hashBytes * place, hashBytes * (place + 1))
}

/** Where in the list the hash of this index is: the segments are in its order. */
function findPlace(segments: readonly Segment[], index: number): number | undefined {
  let [low, high] = [0, segments.length]
  while (low < high) {
    const middle = Math.floor((low + high) / 2)
    if ((segments[middle]?.end ?? 0) <= index) low = middle + 1
    else high = middle
  }
  const segment = segments[low]
  return segment === undefined || index < segment.start ? undefined : segment.place + index - segment.start
}
