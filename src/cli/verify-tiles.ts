import { findSubtrees, hashChildren, rootOf, type Subtree } from '../audit/merkle.ts'
import type { NodeRange } from '../audit/proof.ts'
import { tileWidth, type LogClient } from '../client/log.ts'

/** The hashes of a live log's tree of one size, as its tiles tell them. What is told proves nothing by itself. */
export interface TileTree {
  /** The root of the entries from `start` to before `end`, as if they were a tree. Asks for O(log n) tiles at most. */
  hashOf(range: NodeRange): Promise<Uint8Array>
  /** How many tiles have been asked for. */
  tiles(): number
}

// A tile has the hashes of one level in eight: those between are made of them.
const tileHeight = 8
const hashBytes = 32

/** The tree of that size, each tile of which is asked for once. */
export function openTileTree(log: Pick<LogClient, 'readTile'>, size: number): TileTree {
  const tiles = new Map<string, Promise<Buffer>>()

  function readTile(level: number, index: number): Promise<Buffer> {
    const hashes = Math.floor(size / tileWidth ** level)
    const key = `${level}/${index}`
    const tile = tiles.get(key) ?? log.readTile(level, index, Math.min(tileWidth, hashes - index * tileWidth))
    tiles.set(key, tile)
    return tile
  }

  async function subtreeHash({ level, index }: Subtree): Promise<Uint8Array> {
    const tileLevel = Math.floor(level / tileHeight)
    const width = 2 ** (level % tileHeight)
    const first = index * width
    const tile = await readTile(tileLevel, Math.floor(first / tileWidth))
    const at = (first % tileWidth) * hashBytes
    let hashes: Uint8Array[] = []
    for (let i = 0; i < width; i++) hashes.push(tile.subarray(at + i * hashBytes, at + (i + 1) * hashBytes))
    while (hashes.length > 1) hashes = joinPairs(hashes)
    return hashes[0] ?? rootOf([])
  }

  return {
    async hashOf({ start, end }) {
      const hashes: Uint8Array[] = []
      for (const subtree of findSubtrees(start, end)) hashes.push(await subtreeHash(subtree))
      return rootOf(hashes)
    },
    tiles: () => tiles.size,
  }
}

function joinPairs(hashes: readonly Uint8Array[]): Uint8Array[] {
  const joined: Uint8Array[] = []
  for (let i = 0; i < hashes.length; i += 2) {
    const [left, right] = [hashes[i], hashes[i + 1]]
    if (left !== undefined && right !== undefined) joined.push(hashChildren(left, right))
  }
  return joined
}
