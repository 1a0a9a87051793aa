import fc from 'fast-check'
import { expect, test } from 'vitest'
import { appendLeaf, findSubtrees, rootOf, type Frontier } from '../../src/audit/merkle.ts'
import { consistencyNodes, inclusionNodes, verifyConsistency, verifyInclusion, type NodeRange } from '../../src/audit/proof.ts'
import type { Database } from '../../src/storage/engine.ts'
import { computeRoot, hashFullTiles, insertTreeHashes, MissingHashes, readFrontier, readNode, readSubtree, readTileHashes, readTreeHead } from '../../src/storage/tree.ts'
import { naiveFrontier, naiveRoot } from '../audit/naive-tree.ts'
import { createTestDatabase, describeEngines } from '../harness.ts'
import { fillLog } from './fill.ts'

/** Stores the hashes of all full tiles of the tree as it is, as advancing a checkpoint does. */
async function storeHashes({ read, write }: Database): Promise<void> {
  const { size } = await readTreeHead(read)
  for (let level = 1; 256 ** level <= size; level++) {
    const hashes = await hashFullTiles(read, level, size)
    if (hashes.length > 0) await write(({ db }) => insertTreeHashes(db, hashes))
  }
}

/** A database that holds a log of that many entries, with the hashes above them; and their leaf hashes. */
async function makeTree(engine: 'sqlite' | 'postgres', size: number) {
  const files = await createTestDatabase(engine)
  const database = await files.open()
  const leaves = await fillLog(files, size)
  await storeHashes(database)
  return { files, database, read: database.read, leaves }
}

async function readNodes({ read }: Database, nodes: readonly NodeRange[]): Promise<Uint8Array[]> {
  const hashes: Uint8Array[] = []
  for (const node of nodes) hashes.push(await readNode(read, node))
  return hashes
}

/** The roots at all those sizes, by appending leaf after leaf. */
function rootsAt(leaves: readonly Uint8Array[], sizes: readonly number[]): Map<number, Uint8Array> {
  const roots = new Map<number, Uint8Array>()
  let frontier: Frontier = []
  for (let size = 0; size <= leaves.length; size++) {
    if (sizes.includes(size)) roots.set(size, rootOf(frontier))
    const leaf = leaves[size]
    if (leaf !== undefined) frontier = appendLeaf(frontier, size, leaf)
  }
  return roots
}

describeEngines('The tree', (engine) => {
  test('that is stored is that of its leaves, at the borders of a tile', async () => {
    const files = await createTestDatabase(engine)
    const database = await files.open()
    const { read } = database
    const leaves: Buffer[] = []
    for (const size of [0, 1, 2, 255, 256, 257, 511, 512, 513, 600]) {
      leaves.push(...(await fillLog(files, size - leaves.length)))
      const tiles = await hashFullTiles(read, 1, size)
      // Whether the new tiles are stored already makes no difference.
      expect(Buffer.from(await computeRoot(read, size, tiles))).toEqual(naiveRoot(leaves))
      await storeHashes(database)
      expect(await hashFullTiles(read, 1, size)).toEqual([])
      expect(Buffer.from(await computeRoot(read, size, []))).toEqual(naiveRoot(leaves))
      const { root, ...head } = await readTreeHead(read)
      expect([head.size, Buffer.from(root)]).toEqual([size, naiveRoot(leaves)])
      expect((await readFrontier(read, size)).map((hash) => Buffer.from(hash))).toEqual(naiveFrontier(leaves))
      if (size > 0) expect(Buffer.from(await readNode(read, { start: 0, end: size }))).toEqual(naiveRoot(leaves))
    }
    for (const [start, end] of [[0, 256], [256, 512], [0, 512], [512, 600], [512, 576], [255, 256], [256, 257]] as const) {
      expect(Buffer.from(await readNode(read, { start, end })), `${start} to ${end}`).toEqual(naiveRoot(leaves.slice(start, end)))
    }
    for (const subtree of findSubtrees(0, 600)) {
      const width = 2 ** subtree.level
      expect(Buffer.from(await readSubtree(read, subtree))).toEqual(naiveRoot(leaves.slice(subtree.index * width, (subtree.index + 1) * width)))
    }
    expect((await readTileHashes(read, 1, 0, 2)).map((hash) => Buffer.from(hash))).toEqual([naiveRoot(leaves.slice(0, 256)), naiveRoot(leaves.slice(256, 512))])
    expect(await readFrontier(read, 0)).toEqual([])
  })

  test('gives proofs of every kind that hold, at and between all sizes that it has had', async () => {
    const { database, leaves } = await makeTree(engine, 700)
    const sizes = fc.integer({ min: 1, max: 700 }).chain((size) => fc.tuple(fc.constant(size), fc.integer({ min: 1, max: size })))
    const check = async ([size, other]: readonly [number, number]) => {
      const root = naiveRoot(leaves.slice(0, size))
      const leaf = leaves[other - 1] ?? Buffer.alloc(0)
      expect(verifyInclusion(leaf, other - 1, size, await readNodes(database, inclusionNodes(other - 1, size)), root)).toBe(true)
      const earlier = { size: other, root: naiveRoot(leaves.slice(0, other)) }
      expect(verifyConsistency(earlier, { size, root }, await readNodes(database, consistencyNodes(other, size)))).toBe(true)
    }
    await fc.assert(fc.asyncProperty(sizes, check), { numRuns: engine === 'sqlite' ? 60 : 20 })
    const borders = [1, 128, 255, 256, 257, 384, 511, 512, 513, 700]
    for (const size of borders) for (const other of borders) if (other <= size) await check([size, other])
  })

  test('of more than one level of tiles gives them too, and reads few rows for it however large it is', { timeout: 60_000 }, async () => {
    const { database, leaves } = await makeTree(engine, 65_537)
    const roots = rootsAt(leaves, [65_535, 65_536, 65_537, 256, 257, 255, 1_000, 40_000])
    const rootAt = (size: number) => ({ size, root: roots.get(size) ?? Buffer.alloc(0) })
    for (const [size] of roots) expect(Buffer.from(await readNode(database.read, { start: 0, end: size }))).toEqual(Buffer.from(rootAt(size).root))
    expect(Buffer.from(await computeRoot(database.read, 65_537, []))).toEqual(Buffer.from(rootAt(65_537).root))
    const stored = await database.read.selectFrom('tree_hash').select((eb) => eb.fn.countAll<number>().as('rows')).groupBy('level').orderBy('level').execute()
    expect(stored.map(({ rows }) => Number(rows))).toEqual([256, 1])
    const rows = countRows(database)
    for (const size of [65_535, 65_536, 65_537]) {
      for (const index of [0, 255, 256, 257, 32_768, 65_279, 65_280, size - 1]) {
        const proof = await readNodes(rows.database, inclusionNodes(index, size))
        expect(verifyInclusion(leaves[index] ?? Buffer.alloc(0), index, size, proof, rootAt(size).root), `${index} of ${size}`).toBe(true)
        // Of each level of tiles at most the tile that the entry is in and the one at the right edge.
        expect(rows.take()).toBeLessThanOrEqual(2 * 2 * 256)
      }
      for (const earlier of [255, 256, 257, 1_000, 40_000, 65_535, 65_536, 65_537].filter((earlier) => earlier <= size)) {
        const proof = await readNodes(rows.database, consistencyNodes(earlier, size))
        expect(verifyConsistency(rootAt(earlier), rootAt(size), proof), `${earlier} to ${size}`).toBe(true)
        expect(rows.take()).toBeLessThanOrEqual(2 * 2 * 256)
      }
    }
  })

  test('stores a hash once, though several have hashed the same tiles', async () => {
    const files = await createTestDatabase(engine)
    const database = await files.open()
    await fillLog(files, 600)
    const { read, write } = database
    const [early, late] = [await hashFullTiles(read, 1, 300), await hashFullTiles(read, 1, 600)]
    expect([early.length, late.length]).toEqual([1, 2])
    await write(({ db }) => insertTreeHashes(db, early))
    await write(({ db }) => insertTreeHashes(db, late))
    await write(({ db }) => insertTreeHashes(db, early))
    await write(({ db }) => insertTreeHashes(db, []))
    expect(await read.selectFrom('tree_hash').select(['level', 'idx']).orderBy('idx').execute()).toEqual([{ level: 1, idx: 0 }, { level: 1, idx: 1 }])
  })

  test('says which hashes it lacks rather than give others', async () => {
    const { read } = (await makeTree(engine, 300)).database
    await expect(readTileHashes(read, 0, 299, 2)).rejects.toThrow(new MissingHashes(0, 299, 2, 1))
    await expect(readTileHashes(read, 1, 1, 1)).rejects.toThrow('the tree lacks hashes of tile level 1: of 1 from 1 on, 0 are there')
    await expect(readNode(read, { start: 256, end: 512 })).rejects.toThrow(MissingHashes)
    await expect(readFrontier(read, 301)).rejects.toThrow(MissingHashes)
  })

  test('of a large log is hashed without keeping everything else from its turn', async () => {
    const files = await createTestDatabase(engine)
    const { read } = await files.open()
    await fillLog(files, 5_000)
    let turns = 0
    const timer = setInterval(() => turns++, 0)
    await hashFullTiles(read, 1, 5_000)
    clearInterval(timer)
    expect(turns).toBeGreaterThan(5)
  })
})

/** The same database, with a count of the rows that were read from it since the count was last taken. */
function countRows(database: Database): { database: Database; take(): number } {
  let rows = 0
  const read = database.read.withPlugin({
    transformQuery: ({ node }) => node,
    transformResult: async ({ result }) => {
      rows += result.rows.length
      return result
    },
  })
  return {
    database: { ...database, read },
    take: () => {
      const taken = rows
      rows = 0
      return taken
    },
  }
}
