import { createHash } from 'node:crypto'
import { naiveLeaf } from '../audit/naive-tree.ts'

/** A Merkle tree (RFC 6962 §2.1) that grows by bodies and knows the root of each of its earlier sizes. */
export interface KeptTree {
  readonly size: number
  /** Adds an entry and returns its leaf hash. */
  append(body: string): Buffer
  /** The root of the first entries; `size` at most. */
  rootAt(size: number): Buffer
  /** The roots of the perfect subtrees, left to right, as the log's head keeps them. */
  frontier(): Buffer
}

/** By the definition, and not by the source's own way, but for the perfect subtrees, of which each is hashed once. */
export function createKeptTree(): KeptTree {
  /** By level: the roots of the perfect subtrees of so many leaves, from the left. */
  const levels: Buffer[][] = [[]]
  const at = (level: number, index: number): Buffer => {
    const node = levels[level]?.[index]
    if (node === undefined) throw new RangeError(`the tree has no subtree ${index} of level ${level}`)
    return node
  }
  function rootOf(start: number, end: number): Buffer {
    const level = Math.floor(Math.log2(end - start))
    if (2 ** level === end - start) return at(level, start / 2 ** level)
    const middle = start + 2 ** level
    return hashPair(rootOf(start, middle), rootOf(middle, end))
  }
  const size = (): number => levels[0]?.length ?? 0
  return {
    get size() {
      return size()
    },
    append(body) {
      const leaf = naiveLeaf(body)
      let node = leaf
      for (let level = 0; ; level++) {
        const row = (levels[level] ??= [])
        row.push(node)
        const left = row.at(-2)
        if (row.length % 2 === 1 || left === undefined) return leaf
        node = hashPair(left, node)
      }
    },
    rootAt: (end) => (end === 0 ? createHash('sha256').digest() : rootOf(0, end)),
    frontier() {
      const roots: Buffer[] = []
      let start = 0
      for (let level = levels.length; level >= 0; level--) {
        if (Math.floor(size() / 2 ** level) % 2 === 0) continue
        roots.push(at(level, start / 2 ** level))
        start += 2 ** level
      }
      return Buffer.concat(roots)
    },
  }
}

function hashPair(left: Buffer, right: Buffer): Buffer {
  return createHash('sha256').update(Buffer.of(1)).update(left).update(right).digest()
}
