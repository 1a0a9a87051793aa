import { findSubtrees, hashChildren, rootOf } from './merkle.ts'

/** Leaves from `start` to before `end` that are one node of the tree: a proof holds the hash of that node. */
export interface NodeRange {
  readonly start: number
  readonly end: number
}

/** The nodes of an inclusion proof, from the leaf up (RFC 9162 §2.1.3.1). Throws `RangeError` unless `0 ≤ index < size`. */
export function inclusionNodes(index: number, size: number): NodeRange[] {
  if (!isSize(index) || !isSize(size) || index >= size) throw new RangeError(`a tree of ${size} entries has no entry ${index}`)
  const nodes: NodeRange[] = []
  for (let [start, end] = [0, size]; end - start > 1; ) {
    const middle = start + splitOf(end - start)
    nodes.unshift(index < middle ? { start: middle, end } : { start, end: middle })
    if (index < middle) end = middle
    else start = middle
  }
  return nodes
}

/**
 * The nodes of a proof that the tree of `size` goes on from the one of `earlier` (RFC 9162 §2.1.4.1). Throws `RangeError`
 * unless `0 < earlier ≤ size`.
 */
export function consistencyNodes(earlier: number, size: number): NodeRange[] {
  if (!isSize(earlier) || !isSize(size) || earlier === 0 || earlier > size) throw new RangeError(`no proof leads from ${earlier} to ${size} entries`)
  const nodes: NodeRange[] = []
  let [start, end] = [0, size]
  while (earlier !== end) {
    const middle = start + splitOf(end - start)
    nodes.unshift(earlier <= middle ? { start: middle, end } : { start, end: middle })
    if (earlier <= middle) end = middle
    else start = middle
  }
  // The node of the earlier tree itself, where its root does not say it already.
  if (start > 0) nodes.unshift({ start, end })
  return nodes
}

/** Whether the proof leads from this leaf to this root (RFC 9162 §2.1.3.2). Hashes of other than 32 bytes prove nothing. */
export function verifyInclusion(leaf: Uint8Array, index: number, size: number, proof: readonly Uint8Array[], root: Uint8Array): boolean {
  if (!isSize(index) || !isSize(size) || index >= size || ![leaf, ...proof].every(isHash)) return false
  let [first, last] = [index, size - 1]
  let node = leaf
  for (const sibling of proof) {
    if (last === 0) return false
    if (first % 2 === 1 || first === last) {
      node = hashChildren(sibling, node)
      while (first % 2 === 0 && first !== 0) [first, last] = [half(first), half(last)]
    } else node = hashChildren(node, sibling)
    ;[first, last] = [half(first), half(last)]
  }
  return last === 0 && equal(node, root)
}

/** Whether the proof shows that the later tree goes on from the earlier one (RFC 9162 §2.1.4.2). */
export function verifyConsistency(
  earlier: { readonly size: number; readonly root: Uint8Array },
  later: { readonly size: number; readonly root: Uint8Array },
  proof: readonly Uint8Array[],
): boolean {
  if (!isSize(earlier.size) || !isSize(later.size) || earlier.size > later.size) return false
  if (earlier.size === later.size) return proof.length === 0 && equal(earlier.root, later.root)
  // The empty tree is the beginning of every other.
  if (earlier.size === 0) return proof.length === 0 && equal(earlier.root, rootOf([]))
  const perfect = findSubtrees(0, earlier.size).length === 1
  const path = perfect ? [earlier.root, ...proof] : proof
  if (!path.every(isHash)) return false
  let [first, last] = [earlier.size - 1, later.size - 1]
  while (first % 2 === 1) [first, last] = [half(first), half(last)]
  const [seed, ...rest] = path
  if (seed === undefined) return false
  let [old, new_] = [seed, seed]
  for (const sibling of rest) {
    if (last === 0) return false
    if (first % 2 === 1 || first === last) {
      old = hashChildren(sibling, old)
      new_ = hashChildren(sibling, new_)
      while (first % 2 === 0 && first !== 0) [first, last] = [half(first), half(last)]
    } else new_ = hashChildren(new_, sibling)
    ;[first, last] = [half(first), half(last)]
  }
  return last === 0 && equal(old, earlier.root) && equal(new_, later.root)
}

/** The largest power of two below `size`, which is at least 2 (RFC 9162 §2.1.1). */
function splitOf(size: number): number {
  let split = 1
  while (split * 2 < size) split *= 2
  return split
}

function half(value: number): number {
  return Math.floor(value / 2)
}

function isSize(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0
}

function isHash({ length }: Uint8Array): boolean {
  return length === 32
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0
}
