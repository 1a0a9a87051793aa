import { generateKeyPairSync } from 'node:crypto'
import { expect, test } from 'vitest'
import { signCheckpoint } from '../../src/audit/checkpoint.ts'
import { hashChildren } from '../../src/audit/merkle.ts'
import { formatVerifierKey, parseVerifierKey, type NoteVerifier } from '../../src/audit/note.ts'
import { verifyLive } from '../../src/cli/verify-live.ts'
import { openTileTree } from '../../src/cli/verify-tiles.ts'
import type { LogClient } from '../../src/client/log.ts'
import { naiveLeaf, naiveRoot } from '../audit/naive-tree.ts'

const sizeMax = 66_000
const leaves = Array.from({ length: sizeMax }, (_, i) => naiveLeaf(`entry ${i}`))

/** Each level's hashes of whole subtrees, as many as there are. */
function levelsOf(hashes: readonly Uint8Array[]): Uint8Array[][] {
  const levels = [[...hashes]]
  for (let below = levels[0] ?? []; below.length > 1; below = levels.at(-1) ?? []) {
    const joined: Uint8Array[] = []
    for (let i = 0; i + 1 < below.length; i += 2) joined.push(hashChildren(below[i] ?? leaf, below[i + 1] ?? leaf))
    levels.push(joined)
  }
  return levels
}

const leaf = naiveLeaf('')
const levels = levelsOf(leaves)
const tileOf = (level: number, index: number, width: number): Buffer => {
  const hashes = (levels[level * 8] ?? []).slice(index * 256, index * 256 + width)
  expect(hashes).toHaveLength(width)
  return Buffer.concat(hashes)
}

const { privateKey, publicKey } = generateKeyPairSync('ed25519')
const name = 'stint.test/log'
const rawKey = Buffer.from(publicKey.export({ format: 'jwk' }).x ?? '', 'base64url')
const verifier = parseVerifierKey(formatVerifierKey(name, rawKey)) as NoteVerifier
const sizes = [1, 2, 3, 255, 256, 257, 300, 511, 512, 1000, 65_535, 65_536, 65_537, sizeMax]
const roots = new Map([0, ...sizes].map((size) => [size, naiveRoot(leaves.slice(0, size))]))
const noteOf = (size: number, root = roots.get(size) ?? leaf): string => {
  return signCheckpoint({ origin: name, size, root }, privateKey, verifier.keyId)
}

/** A log of that many of the leaves. */
function logOf(size: number, readTile: LogClient['readTile'] = async (...tile) => tileOf(...tile)) {
  return { origin: 'https://stint.test', readCheckpoint: async () => noteOf(size), readTile }
}

test('any part of a tree has the hash that its leaves have', async () => {
  const tree = openTileTree(logOf(sizeMax), sizeMax)
  const ranges = [[0, sizeMax], [65_536, sizeMax], [256, 512], [512, 515], [65_792, 65_800], [7, 8]] as const
  for (const [start, end] of ranges) expect(Buffer.from(await tree.hashOf({ start, end }))).toEqual(naiveRoot(leaves.slice(start, end)))
})

test.each(sizes)('a log of %i entries goes on from every smaller one, at the cost of a few tiles', async (size) => {
  for (const earlier of [0, ...sizes.filter((one) => one < size)]) {
    const { json, ok } = await verifyLive({ log: logOf(size), verifier, kept: noteOf(earlier) })
    expect([earlier, ok, json['verdict']]).toEqual([earlier, true, 'consistent'])
    expect(json['tiles']).toBeLessThanOrEqual(6)
  }
  expect(await verifyLive({ log: logOf(size), verifier, kept: noteOf(size) })).toMatchObject({ ok: true, json: { verdict: 'same' } })
})

test('a log that begins otherwise is inconsistent, whatever the sizes', async () => {
  for (const size of sizes) {
    for (const earlier of sizes.filter((one) => one <= size)) {
      const kept = noteOf(earlier, naiveLeaf('another tree'))
      const { ok, json } = await verifyLive({ log: logOf(size), verifier, kept })
      expect([earlier, size, ok, json['verdict']]).toEqual([earlier, size, false, 'inconsistent'])
    }
    const { ok, json } = await verifyLive({ log: logOf(1), verifier, kept: noteOf(size) })
    expect([ok, json['verdict']]).toEqual(size === 1 ? [true, 'same'] : [false, 'smaller'])
  }
})

test('tiles of another tree prove nothing, neither for nor against the log', async () => {
  let tiles = 0
  for (const [earlier, size] of [[1, 3], [255, 300], [256, 1000], [300, 65_537], [65_536, sizeMax], [65_537, sizeMax]] as const) {
    const asked: string[] = []
    await verifyLive({ log: logOf(size, async (...tile) => (asked.push(tile.join('/')), tileOf(...tile))), verifier, kept: noteOf(earlier) })
    for (const bad of asked) {
      const readTile: LogClient['readTile'] = async (...tile) => {
        const bytes = tileOf(...tile)
        // Whichever of its hashes is needed.
        return tile.join('/') === bad ? Buffer.from(bytes.map((byte) => byte ^ 1)) : bytes
      }
      for (const kept of [noteOf(earlier), noteOf(earlier, naiveLeaf('another tree'))]) {
        const { ok, json } = await verifyLive({ log: logOf(size, readTile), verifier, kept })
        expect([earlier, size, bad, ok, json['verdict']]).toEqual([earlier, size, bad, false, 'unproven'])
      }
      tiles++
    }
  }
  expect(tiles).toBeGreaterThan(10)
})
