import { hash } from 'node:crypto'

/**
 * The roots of the perfect subtrees that make up a Merkle tree (RFC 6962 §2.1), largest first: as many as the tree's
 * size has one-bits. It is all that an append needs, so that appending costs O(log n) at most and one hash on average.
 */
export type Frontier = readonly Uint8Array[]

/** The frontier after one more leaf. `size` is the number of leaves before it. */
export function appendLeaf(frontier: Frontier, size: number, leaf: Uint8Array): Frontier {
  return appendSubtree(frontier, size, { level: 0, index: size }, leaf)
}

/** A perfect subtree: the leaves from `index · 2^level`, `2^level` of them. */
export interface Subtree {
  readonly level: number
  readonly index: number
}

/**
 * The frontier after the leaves of a perfect subtree, of which only the root is known. `size` is the number of leaves
 * before it. Throws `RangeError` if the subtree does not begin there.
 */
export function appendSubtree(frontier: Frontier, size: number, { level, index }: Subtree, root: Uint8Array): Frontier {
  if (index * 2 ** level !== size) throw new RangeError(`subtree ${index} of level ${level} does not begin at leaf ${size}`)
  const next = [...frontier]
  let node = root
  for (let rest = index; rest % 2 === 1; rest = Math.floor(rest / 2)) {
    const left = next.pop()
    if (left === undefined) throw new Error(`a frontier of ${frontier.length} hashes does not fit size ${size}`)
    node = hashChildren(left, node)
  }
  next.push(node)
  return next
}

/** The largest perfect subtrees that together have the leaves from `start` to before `end`, in order: O(log n) of them. */
export function findSubtrees(start: number, end: number): Subtree[] {
  const subtrees: Subtree[] = []
  for (let at = start; at < end; ) {
    let level = 0
    while (at % 2 ** (level + 1) === 0 && at + 2 ** (level + 1) <= end) level++
    subtrees.push({ level, index: at / 2 ** level })
    at += 2 ** level
  }
  return subtrees
}

/** The tree's root: SHA-256 of nothing for the empty tree (RFC 6962 §2.1). */
export function rootOf(frontier: Frontier): Uint8Array {
  let root = frontier.at(-1)
  if (root === undefined) return hash('sha256', '', 'buffer')
  for (let i = frontier.length - 2; i >= 0; i--) {
    const left = frontier[i]
    if (left !== undefined) root = hashChildren(left, root)
  }
  return root
}

/** The frontier's hashes one after another, 32 bytes each, as the head's row keeps them. */
export function encodeFrontier(frontier: Frontier): Buffer {
  return Buffer.concat(frontier)
}

/** Reads `encodeFrontier`'s bytes. Throws if they do not fit the size: the head's row is then damaged. */
export function decodeFrontier(bytes: Uint8Array, size: number): Frontier {
  const frontier: Uint8Array[] = []
  for (let at = 0; at < bytes.length; at += 32) frontier.push(bytes.subarray(at, at + 32))
  let ones = 0
  for (let rest = size; rest > 0; rest = Math.floor(rest / 2)) ones += rest % 2
  if (bytes.length % 32 !== 0 || frontier.length !== ones) {
    throw new Error(`the log head is damaged: ${bytes.length} bytes of frontier do not fit ${size} entries`)
  }
  return frontier
}

const nodeInput = Buffer.alloc(65, 1)

/** RFC 6962 §2.1 inner node: SHA-256 of `0x01 ‖ left ‖ right`. Throws `RangeError` unless both are of 32 bytes. */
export function hashChildren(left: Uint8Array, right: Uint8Array): Buffer {
  if (left.length !== 32 || right.length !== 32) throw new RangeError(`nodes have 32 bytes, not ${left.length} and ${right.length}`)
  // One buffer for every call: filled and hashed without a turn of the event loop in between.
  nodeInput.set(left, 1)
  nodeInput.set(right, 33)
  return hash('sha256', nodeInput, 'buffer')
}
