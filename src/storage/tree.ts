import type { Kysely } from 'kysely'
import { appendSubtree, findSubtrees, rootOf, type Frontier, type Subtree } from '../audit/merkle.ts'
import type { NodeRange } from '../audit/proof.ts'
import type { Schema } from './schema.ts'

/** Hashes in one full tile (https://c2sp.org/tlog-tiles), and the width of a level of tiles: 8 levels of the tree. */
export const tileWidth = 256
const levelsPerTile = 8

/**
 * Consecutive hashes of a tile level: at level 0 of leaves, at level L of perfect subtrees of 256^L leaves. Throws if one
 * is missing, as above what `storeTreeHashes` has reached.
 */
export async function readTileHashes(db: Kysely<Schema>, level: number, start: number, count: number): Promise<Uint8Array[]> {
  const rows =
    level === 0
      ? await db.selectFrom('audit_event').select(['idx', 'leaf_hash as hash']).where('idx', '>=', start).where('idx', '<', start + count).orderBy('idx').execute()
      : await db.selectFrom('tree_hash').select(['idx', 'hash']).where('level', '=', level).where('idx', '>=', start).where('idx', '<', start + count).orderBy('idx').execute()
  if (rows.length !== count || rows.some(({ idx }, i) => idx !== start + i)) {
    throw new Error(`the tree lacks hashes of tile level ${level} from ${start}: ${rows.length} of ${count} are there`)
  }
  return rows.map(({ hash }) => hash)
}

/** The root of a perfect subtree, by reading at most 256 hashes. */
export async function readSubtree(db: Kysely<Schema>, { level, index }: Subtree): Promise<Uint8Array> {
  const tileLevel = Math.floor(level / levelsPerTile)
  const count = 2 ** (level % levelsPerTile)
  return foldHashes(await readTileHashes(db, tileLevel, index * count, count))
}

/** The hash of a node of the tree, be it perfect or at the right edge. */
export async function readNode(db: Kysely<Schema>, { start, end }: NodeRange): Promise<Uint8Array> {
  const roots: Uint8Array[] = []
  for (const subtree of findSubtrees(start, end)) roots.push(await readSubtree(db, subtree))
  return rootOf(roots)
}

/** The frontier of the tree as it was at that size. */
export async function readFrontier(db: Kysely<Schema>, size: number): Promise<Frontier> {
  const roots: Uint8Array[] = []
  for (const subtree of findSubtrees(0, size)) roots.push(await readSubtree(db, subtree))
  return roots
}

/** A hash of a full tile, to be stored. */
export interface TreeHash {
  readonly level: number
  readonly idx: number
  readonly hash: Uint8Array
}

/** The next tiles of a level that are full in a tree of this size and whose hash is not stored yet, hashed: at most `max`. */
export async function hashFullTiles(db: Kysely<Schema>, level: number, size: number, max: number): Promise<TreeHash[]> {
  const { stored } = await db
    .selectFrom('tree_hash')
    .select((eb) => eb.fn.coalesce(eb.fn.max('idx'), eb.lit(-1)).as('stored'))
    .where('level', '=', level)
    .executeTakeFirstOrThrow()
  const first = Number(stored) + 1
  const full = Math.min(Math.floor(size / tileWidth ** level), first + max)
  const hashes: TreeHash[] = []
  for (let idx = first; idx < full; idx++) {
    hashes.push({ level, idx, hash: foldHashes(await readTileHashes(db, level - 1, idx * tileWidth, tileWidth)) })
  }
  return hashes
}

/** Stores hashes of full tiles. Another process may have stored the same. */
export async function insertTreeHashes(tx: Kysely<Schema>, hashes: readonly TreeHash[]): Promise<void> {
  for (const { level, idx, hash } of hashes) {
    const there = await tx.selectFrom('tree_hash').select('hash').where('level', '=', level).where('idx', '=', idx).executeTakeFirst()
    if (there === undefined) await tx.insertInto('tree_hash').values({ level, idx, hash: Buffer.from(hash) }).execute()
  }
}

/** The root over a power of two of consecutive hashes. */
function foldHashes(hashes: readonly Uint8Array[]): Uint8Array {
  let frontier: Frontier = []
  hashes.forEach((hash, index) => {
    frontier = appendSubtree(frontier, index, { level: 0, index }, hash)
  })
  return rootOf(frontier)
}
