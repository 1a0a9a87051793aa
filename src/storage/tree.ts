import { setImmediate as yieldTurn } from 'node:timers/promises'
import type { Kysely } from 'kysely'
import { appendLeaf, appendSubtree, decodeFrontier, findSubtrees, rootOf, type Frontier, type Subtree } from '../audit/merkle.ts'
import type { NodeRange } from '../audit/proof.ts'
import { tileWidth } from '../audit/tile.ts'
import type { Schema } from './schema.ts'

export { tileWidth }
/** A tile has the hashes of so many levels of the tree above each other: 256 is 2^8. */
const levelsPerTile = 8

/** The tree as the log's head states it, twice over: `root` ought to be that of the frontier. */
export interface TreeHead {
  readonly size: number
  readonly root: Uint8Array
  readonly frontier: Frontier
}

export async function readTreeHead(db: Kysely<Schema>): Promise<TreeHead> {
  const { size, root, frontier } = await db.selectFrom('log_head').select(['size', 'root', 'frontier']).executeTakeFirstOrThrow()
  return { size, root, frontier: decodeFrontier(frontier, size) }
}

/** Hashes of the tree that ought to be stored are not. */
export class MissingHashes extends Error {
  constructor(level: number, start: number, count: number, found: number) {
    super(`the tree lacks hashes of tile level ${level}: of ${count} from ${start} on, ${found} are there`)
    this.name = 'MissingHashes'
  }
}

/**
 * Consecutive hashes of a tile level: at level 0 of leaves, at level L of perfect subtrees of 256^L leaves. Throws
 * `MissingHashes` unless all are there, as they are up to the size of the newest checkpoint.
 */
export async function readTileHashes(db: Kysely<Schema>, level: number, start: number, count: number): Promise<Uint8Array[]> {
  const rows =
    level === 0
      ? await db.selectFrom('audit_event').select(['idx', 'leaf_hash as hash']).where('idx', '>=', start).where('idx', '<', start + count).orderBy('idx').execute()
      : await db.selectFrom('tree_hash').select(['idx', 'hash']).where('level', '=', level).where('idx', '>=', start).where('idx', '<', start + count).orderBy('idx').execute()
  const sound = rows.filter(({ idx, hash }, i) => idx === start + i && hash.length === 32).length
  if (sound < count) throw new MissingHashes(level, start, count, sound)
  return rows.map(({ hash }) => hash)
}

/** The root of a perfect subtree, by reading at most 128 hashes. */
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

/** The tiles of a level that are full in a tree of this size and whose hash is not stored yet, hashed. */
export async function hashFullTiles(db: Kysely<Schema>, level: number, size: number): Promise<TreeHash[]> {
  const first = await countStored(db, level)
  const full = Math.floor(size / tileWidth ** level)
  const hashes: TreeHash[] = []
  for (let idx = first; idx < full; idx++) {
    hashes.push({ level, idx, hash: foldHashes(await readTileHashes(db, level - 1, idx * tileWidth, tileWidth)) })
    // Of a log that has no hashes yet there may be very many, and SQLite answers within the turn of the event loop.
    await yieldTurn()
  }
  return hashes
}

/**
 * The root of the tree of that size, made of the hashes that are stored, of those that are to be (`hashFullTiles` of level
 * 1, which must go on from the stored ones), and of the leaves behind them.
 */
export async function computeRoot(db: Kysely<Schema>, size: number, tiles: readonly TreeHash[]): Promise<Uint8Array> {
  const full = Math.floor(size / tileWidth) * tileWidth
  let at = full - tiles.length * tileWidth
  let frontier = await readFrontier(db, at)
  for (const { idx, hash } of tiles) {
    frontier = appendSubtree(frontier, at, { level: levelsPerTile, index: idx }, hash)
    at += tileWidth
  }
  const leaves = size === full ? [] : await readTileHashes(db, 0, full, size - full)
  for (const leaf of leaves) frontier = appendLeaf(frontier, at++, leaf)
  return rootOf(frontier)
}

/** Stores consecutive hashes of one level, but for those that another process has stored meanwhile. */
export async function insertTreeHashes(tx: Kysely<Schema>, hashes: readonly TreeHash[]): Promise<void> {
  const level = hashes[0]?.level ?? 0
  const stored = await countStored(tx, level)
  const fresh = hashes.filter(({ idx }) => idx >= stored)
  if (fresh.length > 0) await tx.insertInto('tree_hash').values(fresh.map(({ idx, hash }) => ({ level, idx, hash: Buffer.from(hash) }))).execute()
}

/** How many hashes of a level are stored: they are without a gap. */
async function countStored(db: Kysely<Schema>, level: number): Promise<number> {
  const last = await db.selectFrom('tree_hash').select('idx').where('level', '=', level).orderBy('idx', 'desc').limit(1).executeTakeFirst()
  return last === undefined ? 0 : last.idx + 1
}

/** The root over a power of two of consecutive hashes. */
export function foldHashes(hashes: readonly Uint8Array[]): Uint8Array {
  let frontier: Frontier = []
  hashes.forEach((hash, index) => {
    frontier = appendSubtree(frontier, index, { level: 0, index }, hash)
  })
  return rootOf(frontier)
}
