import { createHash } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { leafHash } from '../../src/audit/encode.ts'
import { appendLeaf, decodeFrontier, encodeFrontier, rootOf, type Frontier } from '../../src/audit/merkle.ts'
import { naiveFrontier, naiveRoot } from './naive-tree.ts'

function leafOf(i: number): Buffer {
  return createHash('sha256').update(`leaf ${i}`).digest()
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex')
}

// The eight leaves and the roots after each of them that Certificate Transparency's implementations test themselves with.
const leaves = ['', '00', '10', '2021', '3031', '40414243', '5051525354555657', '606162636465666768696a6b6c6d6e6f']
const roots = [
  '6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d',
  'fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125',
  'aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77',
  'd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7',
  '4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4',
  '76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef',
  'ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c',
  '5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328',
]

describe('The Merkle tree', () => {
  test('has the roots that others compute', () => {
    let frontier: Frontier = []
    for (const [i, leaf] of leaves.entries()) {
      frontier = appendLeaf(frontier, i, leafHash(Buffer.from(leaf, 'hex')))
      expect(hex(rootOf(frontier))).toBe(roots[i])
    }
  })

  test('of nothing is the hash of nothing', () => {
    expect(hex(rootOf([]))).toBe('e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855')
  })

  test('equals the definition for every size up to 300', () => {
    let frontier: Frontier = []
    const all: Buffer[] = []
    for (let size = 0; size <= 300; size++) {
      expect(hex(rootOf(frontier)), `root of ${size}`).toBe(hex(naiveRoot(all)))
      expect(frontier.map(hex), `frontier of ${size}`).toEqual(naiveFrontier(all).map(hex))
      expect(decodeFrontier(encodeFrontier(frontier), size).map(hex)).toEqual(frontier.map(hex))
      const before = frontier
      const copy = before.map(hex)
      frontier = appendLeaf(before, size, leafOf(size))
      all.push(leafOf(size))
      expect(before.map(hex), 'what was there is not changed').toEqual(copy)
    }
  })

  test('goes on where it was left, at sizes that no 32-bit integer holds', () => {
    const size = 2 ** 40 - 1
    const frontier = Array.from({ length: 40 }, (_, i) => leafOf(i))
    expect(decodeFrontier(encodeFrontier(frontier), size)).toHaveLength(40)
    const next = appendLeaf(frontier, size, leafOf(99))
    expect(next).toHaveLength(1)
    expect(appendLeaf(next, size + 1, leafOf(1))).toHaveLength(2)
  })

  test.for<[string, number, number]>([
    ['too few hashes', 32, 3],
    ['too many hashes', 64, 4],
    ['hashes for an empty tree', 32, 0],
    ['none for a tree of one', 0, 1],
    ['a byte too many', 33, 1],
    ['half a hash more', 48, 1],
    ['a cut hash', 31, 1],
  ])('refuses a head that is damaged: %s', ([, bytes, size]) => {
    expect(() => decodeFrontier(Buffer.alloc(bytes), size)).toThrow('the log head is damaged')
  })

  test('refuses to append to a frontier that does not fit', () => {
    expect(() => appendLeaf([], 1, leafOf(0))).toThrow('does not fit size 1')
  })
})
