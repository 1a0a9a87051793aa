import type { Kysely } from 'kysely'
import type { Subtree } from '../audit/merkle.ts'
import type { Schema } from './schema.ts'
import { foldHashes, MissingHashes, readTileHashes, tileWidth } from './tree.ts'

/** Gives the root of a perfect subtree, 32 bytes. */
export type ReadRoot = (subtree: Subtree) => Promise<Uint8Array>

/**
 * Reads roots in the tree of that size, which has been signed. The last tile of each level is remembered, so that whoever
 * asks in the order of the leaves reads each tile once, 256 hashes at most. What it gives throws `MissingHashes`.
 */
export function createTileReader(db: Kysely<Schema>, size: number): ReadRoot {
  const remembered = new Map<number, { readonly tile: number; readonly hashes: readonly Uint8Array[] }>()

  async function readTile(level: number, tile: number): Promise<readonly Uint8Array[]> {
    const last = remembered.get(level)
    if (last?.tile === tile) return last.hashes
    const start = tile * tileWidth
    const count = Math.min(tileWidth, Math.floor(size / tileWidth ** level) - start)
    const hashes = await readTileHashes(db, level, start, count)
    const sound = hashes.filter((hash) => hash.length === 32).length
    if (sound < count) throw new MissingHashes(level, start, count, sound)
    remembered.set(level, { tile, hashes })
    return hashes
  }

  return async ({ level, index }) => {
    const count = 2 ** (level % 8)
    const first = index * count
    const hashes = await readTile(Math.floor(level / 8), Math.floor(first / tileWidth))
    return foldHashes(hashes.slice(first % tileWidth, (first % tileWidth) + count))
  }
}
