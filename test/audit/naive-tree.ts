import { createHash } from 'node:crypto'

/** RFC 6962 §2.1 word for word, recursive and slow: what the source's incremental form is measured against. */
export function naiveRoot(leafHashes: readonly Uint8Array[]): Buffer {
  const [first] = leafHashes
  if (first === undefined) return createHash('sha256').digest()
  if (leafHashes.length === 1) return Buffer.from(first)
  const k = largestPowerBelow(leafHashes.length)
  const [left, right] = [naiveRoot(leafHashes.slice(0, k)), naiveRoot(leafHashes.slice(k))]
  return createHash('sha256').update(Buffer.of(1)).update(left).update(right).digest()
}

/** The roots of the perfect subtrees from left to right. */
export function naiveFrontier(leafHashes: readonly Uint8Array[]): Buffer[] {
  if (leafHashes.length === 0) return []
  const k = largestPowerBelow(leafHashes.length + 1)
  return [naiveRoot(leafHashes.slice(0, k)), ...naiveFrontier(leafHashes.slice(k))]
}

export function naiveLeaf(body: string | Uint8Array): Buffer {
  return createHash('sha256').update(Buffer.of(0)).update(body).digest()
}

function largestPowerBelow(n: number): number {
  let k = 1
  while (k * 2 < n) k *= 2
  return k
}
