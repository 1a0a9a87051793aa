import { createHash } from 'node:crypto'
import { expect, test } from 'vitest'
import { findSubtrees } from '../../src/audit/merkle.ts'
import { createTileReader } from '../../src/storage/tile-reader.ts'
import { MissingHashes, readSubtree } from '../../src/storage/tree.ts'
import { naiveRoot } from '../audit/naive-tree.ts'
import { createTestDatabase, describeEngines } from '../harness.ts'
import { tamper } from './tamper.ts'

const leafOf = (index: number) => createHash('sha256').update(String(index)).digest()
const range = (start: number, end: number) => Array.from({ length: end - start }, (_, i) => start + i)

/** A tree of so many leaves, put into a database as a broker that has signed it would have. */
async function makeTree(engine: 'sqlite' | 'postgres', size: number) {
  const files = await createTestDatabase(engine)
  const database = await files.open()
  const leaves = range(0, size).map(leafOf)
  const hex = (bytes: Buffer) => `x'${bytes.toString('hex')}'`
  const rows = leaves.map((leaf, idx) => `(${idx}, '', '', '', ${hex(leaf)})`)
  const inserts: string[] = []
  for (let at = 0; at < size; at += 8192) inserts.push(`insert into audit_event (idx, time, type, body, leaf_hash) values ${rows.slice(at, at + 8192).join()}`)
  let hashes: Buffer[] = leaves
  for (let level = 1; hashes.length >= 256; level++) {
    hashes = range(0, Math.floor(hashes.length / 256)).map((i) => naiveRoot(hashes.slice(256 * i, 256 * i + 256)))
    inserts.push(`insert into tree_hash (level, idx, hash) values ${hashes.map((hash, idx) => `(${level}, ${idx}, ${hex(hash)})`).join()}`)
  }
  await tamper(files, ...inserts)
  let reads = 0
  const read = database.read.withPlugin({ transformQuery: ({ node }) => (reads++, node), transformResult: async ({ result }) => result })
  return { database, files, read, leaves, reads: () => reads }
}

describeEngines('A tile reader', (engine) => {
  test('gives the roots of the tree, at every border of its tiles', async () => {
    const { read, leaves } = await makeTree(engine, 1025)
    const readRoot = createTileReader(read, 1025)
    const borders = [0, 1, 2, 127, 128, 129, 254, 255, 256, 257, 511, 512, 513, 767, 768, 1023, 1024, 1025]
    for (const start of borders) {
      for (const end of borders.filter((border) => border > start)) {
        for (const { level, index } of findSubtrees(start, end)) {
          const expected = naiveRoot(leaves.slice(index * 2 ** level, (index + 1) * 2 ** level))
          expect([level, index, Buffer.from(await readRoot({ level, index }))]).toEqual([level, index, expected])
        }
      }
    }
  })

  test('reads each tile once for whoever asks in order, and few for a long way', { timeout: 60_000 }, async () => {
    const size = 65_537
    const { read, reads } = await makeTree(engine, size)
    const readRoot = createTileReader(read, size)
    for (let at = 0; at < 2560; at++) await readRoot({ level: 0, index: at })
    expect(reads()).toBe(10)
    for (const { level, index } of findSubtrees(3, size)) {
      expect(Buffer.from(await readRoot({ level, index }))).toEqual(Buffer.from(await readSubtree(read, { level, index })))
    }
    const before = reads()
    const again = createTileReader(read, size)
    for (const subtree of findSubtrees(3, size)) await again(subtree)
    // Leaves, tiles, and the leaf behind the last full tile.
    expect(reads() - before).toBe(3)
    expect(Buffer.from(await again({ level: 16, index: 0 }))).toEqual(Buffer.from(await readSubtree(read, { level: 16, index: 0 })))
  })

  test('says so where a hash is missing or is none', async () => {
    const { files, read } = await makeTree(engine, 600)
    await tamper(files, "update audit_event set leaf_hash = x'00' where idx = 3", 'delete from tree_hash where idx = 1')
    const readRoot = createTileReader(read, 600)
    await expect(readRoot({ level: 0, index: 9 })).rejects.toThrow(MissingHashes)
    await expect(readRoot({ level: 8, index: 0 })).rejects.toThrow(MissingHashes)
    expect(Buffer.from(await readRoot({ level: 0, index: 599 }))).toEqual(leafOf(599))
  })
})
