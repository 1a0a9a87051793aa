import { createHash } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { consistencyNodes, inclusionNodes, verifyConsistency, verifyInclusion, type NodeRange } from '../../src/audit/proof.ts'
import { naiveRoot } from './naive-tree.ts'

const leafOf = (i: number) => createHash('sha256').update(`leaf ${i}`).digest()
const leaves = Array.from({ length: 1_000 }, (_, i) => leafOf(i))

const known = new Map<string, Buffer>()

/** The root of the leaves from `start` to before `end`. */
function rangeRoot(start: number, end: number): Buffer {
  const name = `${start}-${end}`
  const root = known.get(name) ?? naiveRoot(leaves.slice(start, end))
  known.set(name, root)
  return root
}

const rootOfSize = (size: number) => rangeRoot(0, size)
const hashesOf = (nodes: readonly NodeRange[]) => nodes.map(({ start, end }) => rangeRoot(start, end))

/** Cheaper than what the test runner makes of two lists of bytes. */
const same = (a: readonly Buffer[], b: readonly Buffer[]) => a.length === b.length && Buffer.concat(a).equals(Buffer.concat(b))

function split(size: number): number {
  let k = 1
  while (k * 2 < size) k *= 2
  return k
}

/** RFC 6962 §2.1.1 word for word: `PATH(m, D[start:end])`. */
function naivePath(m: number, start: number, end: number): Buffer[] {
  const n = end - start
  if (n === 1) return []
  const k = split(n)
  return m < k ? [...naivePath(m, start, start + k), rangeRoot(start + k, end)] : [...naivePath(m - k, start + k, end), rangeRoot(start, start + k)]
}

/** RFC 6962 §2.1.2 word for word: `SUBPROOF(m, D[start:end], b)`. */
function naiveSubproof(m: number, start: number, end: number, whole: boolean): Buffer[] {
  const n = end - start
  if (m === n) return whole ? [] : [rangeRoot(start, end)]
  const k = split(n)
  return m <= k ? [...naiveSubproof(m, start, start + k, whole), rangeRoot(start + k, end)] : [...naiveSubproof(m - k, start + k, end, false), rangeRoot(start, start + k)]
}

/** The proof with one thing wrong, in every way there is. */
function* spoil(proof: readonly Uint8Array[]): Generator<[string, Uint8Array[]]> {
  for (const [i, hash] of proof.entries()) {
    const changed = Buffer.from(hash)
    changed[i % 32] = (changed[i % 32] ?? 0) ^ (1 << (i % 8))
    yield [`hash ${i} changed`, proof.with(i, changed)]
    yield [`hash ${i} dropped`, proof.toSpliced(i, 1)]
    yield [`hash ${i} twice`, proof.toSpliced(i, 0, hash)]
    yield [`hash ${i} cut`, proof.with(i, hash.subarray(0, 31))]
    yield [`hash ${i} empty`, proof.with(i, Buffer.alloc(0))]
    yield [`hash ${i} with a byte more`, proof.with(i, Buffer.concat([hash, Buffer.alloc(1)]))]
    for (const [j, other] of proof.entries()) if (j > i) yield [`hashes ${i} and ${j} swapped`, proof.with(i, other).with(j, hash)]
  }
  yield ['one more at the end', [...proof, leafOf(-1)]]
  yield ['one more at the start', [leafOf(-1), ...proof]]
}

describe('An inclusion proof', () => {
  test('is that of the definition, and holds, for every entry of every size up to 70', () => {
    for (let size = 1; size <= 70; size++) {
      for (let index = 0; index < size; index++) {
        const proof = hashesOf(inclusionNodes(index, size))
        expect(same(proof, naivePath(index, 0, size)), `${index} of ${size}`).toBe(true)
        expect(verifyInclusion(leafOf(index), index, size, proof, rootOfSize(size)), `${index} of ${size}`).toBe(true)
      }
    }
  })

  test('holds for sizes that were picked at random', () => {
    const sizes = fc.integer({ min: 71, max: leaves.length }).chain((size) => fc.tuple(fc.constant(size), fc.integer({ min: 0, max: size - 1 })))
    fc.assert(
      fc.property(sizes, ([size, index]) => {
        const proof = hashesOf(inclusionNodes(index, size))
        expect(proof).toEqual(naivePath(index, 0, size))
        expect(verifyInclusion(leafOf(index), index, size, proof, rootOfSize(size))).toBe(true)
        expect([...spoil(proof)].filter(([, wrong]) => verifyInclusion(leafOf(index), index, size, wrong, rootOfSize(size)))).toEqual([])
      }),
      { numRuns: 25 },
    )
  })

  test('with anything wrong is refused', () => {
    const accepted: string[] = []
    for (let size = 1; size <= 20; size++) {
      for (let index = 0; index < size; index++) {
        const right = { leaf: leafOf(index), index, size, proof: hashesOf(inclusionNodes(index, size)), root: rootOfSize(size) }
        const verify = (over: { leaf?: Uint8Array; index?: number; size?: number; proof?: readonly Uint8Array[]; root?: Uint8Array }) => {
          const { leaf, proof, root, ...at } = { ...right, ...over }
          return verifyInclusion(leaf, at.index, at.size, proof, root)
        }
        const refuse = (what: string, over: Parameters<typeof verify>[0]) => void (verify(over) && accepted.push(`${index} of ${size}: ${what}`))
        expect(verify({})).toBe(true)
        for (const [what, proof] of spoil(right.proof)) refuse(what, { proof })
        for (let other = 0; other < 24; other++) {
          if (other !== index) refuse(`as ${other}`, { index: other })
          if (other !== index) refuse(`with leaf ${other}`, { leaf: leafOf(other) })
          // Another size alone may well give the same root: which size a root is of, the checkpoint says, which is signed.
          if (other !== size) refuse(`in ${other}`, { size: other, root: rootOfSize(other) })
          if (other !== size) refuse(`under the root of ${other}`, { root: rootOfSize(other) })
        }
        for (const none of [-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53]) {
          refuse(`index ${none}`, { index: none })
          refuse(`size ${none}`, { size: none })
        }
        refuse('a cut leaf', { leaf: leafOf(index).subarray(0, 31) })
        refuse('an empty root', { root: Buffer.alloc(0) })
      }
    }
    expect(accepted).toEqual([])
  })

  test.for<[number, number]>([
    [0, 0],
    [1, 1],
    [5, 3],
    [-1, 3],
    [0.5, 3],
    [Number.NaN, 3],
    [0, Number.NaN],
    [0, -1],
    [0, 2 ** 53],
  ])('of entry %s in a tree of %s is none', ([index, size]) => {
    expect(() => inclusionNodes(index, size)).toThrow(RangeError)
  })
})

describe('A consistency proof', () => {
  test('is that of the definition, and holds, for every pair of sizes up to 70', () => {
    for (let size = 1; size <= 70; size++) {
      for (let earlier = 1; earlier <= size; earlier++) {
        const proof = hashesOf(consistencyNodes(earlier, size))
        expect(same(proof, naiveSubproof(earlier, 0, size, true)), `${earlier} to ${size}`).toBe(true)
        expect(verifyConsistency({ size: earlier, root: rootOfSize(earlier) }, { size, root: rootOfSize(size) }, proof), `${earlier} to ${size}`).toBe(true)
      }
    }
  })

  test('holds for sizes that were picked at random', () => {
    const sizes = fc.integer({ min: 71, max: leaves.length }).chain((size) => fc.tuple(fc.integer({ min: 1, max: size }), fc.constant(size)))
    fc.assert(
      fc.property(sizes, ([from, to]) => {
        const proof = hashesOf(consistencyNodes(from, to))
        const [earlier, later] = [{ size: from, root: rootOfSize(from) }, { size: to, root: rootOfSize(to) }]
        expect(proof).toEqual(naiveSubproof(from, 0, to, true))
        expect(verifyConsistency(earlier, later, proof)).toBe(true)
        expect([...spoil(proof)].filter(([, wrong]) => verifyConsistency(earlier, later, wrong))).toEqual([])
      }),
      { numRuns: 25 },
    )
  })

  test('with anything wrong is refused', () => {
    const accepted: string[] = []
    const state = (size: number, root: Uint8Array = rootOfSize(size)) => ({ size, root })
    for (let size = 1; size <= 20; size++) {
      for (let earlier = 1; earlier <= size; earlier++) {
        const proof = hashesOf(consistencyNodes(earlier, size))
        const refuse = (what: string, ...given: Parameters<typeof verifyConsistency>) => void (verifyConsistency(...given) && accepted.push(`${earlier} to ${size}: ${what}`))
        for (const [what, wrong] of spoil(proof)) refuse(what, state(earlier), state(size), wrong)
        for (let other = 1; other < 24; other++) {
          if (other !== earlier) refuse(`from ${other}`, state(other), state(size), proof)
          if (other !== earlier) refuse(`from the root of ${other}`, state(earlier, rootOfSize(other)), state(size), proof)
          if (other !== size) refuse(`to ${other}`, state(earlier), state(other), proof)
          if (other !== size) refuse(`to the root of ${other}`, state(earlier), state(size, rootOfSize(other)), proof)
        }
        for (const none of [-1, 0.5, Number.NaN, 2 ** 53]) {
          refuse(`from ${none}`, state(none, rootOfSize(earlier)), state(size), proof)
          refuse(`to ${none}`, state(earlier), state(none, rootOfSize(size)), proof)
        }
      }
    }
    expect(accepted).toEqual([])
  })

  test('from the empty tree is empty, and from a larger one there is none', () => {
    const [nothing, three] = [{ size: 0, root: rootOfSize(0) }, { size: 3, root: rootOfSize(3) }]
    expect(verifyConsistency(nothing, three, [])).toBe(true)
    expect(verifyConsistency(nothing, nothing, [])).toBe(true)
    expect(verifyConsistency(nothing, three, [leafOf(0)])).toBe(false)
    expect(verifyConsistency({ size: 0, root: leafOf(0) }, three, [])).toBe(false)
    expect(verifyConsistency(three, nothing, [])).toBe(false)
    for (const [earlier, size] of [[0, 3], [4, 3], [-1, 3], [0.5, 3], [1, Number.NaN], [1, 2 ** 53]] as const) {
      expect(() => consistencyNodes(earlier, size)).toThrow(RangeError)
    }
  })
})

describe('In trees that no machine has', () => {
  // All leaves are alike, so that the root of a range depends on how many leaves it has and on nothing else.
  const perfect: Buffer[] = [leafOf(0)]
  for (let level = 1; level <= 53; level++) perfect.push(naiveRoot([perfect[level - 1] ?? Buffer.alloc(0), perfect[level - 1] ?? Buffer.alloc(0)]))

  function rootOfAlike(count: number): Buffer {
    if (count === 1) return perfect[0] ?? Buffer.alloc(0)
    const k = split(count)
    const level = Math.round(Math.log2(k))
    return naiveRoot([perfect[level] ?? Buffer.alloc(0), rootOfAlike(count - k)])
  }
  const alike = (nodes: readonly NodeRange[]) => nodes.map(({ start, end }) => rootOfAlike(end - start))

  const sizes = [2 ** 31, 2 ** 32, 2 ** 40, 2 ** 49, 2 ** 52].flatMap((size) => [size - 1, size, size + 1])
  test.each(sizes)('of %s entries, proofs hold too', (size) => {
    for (const index of [0, 1, 2 ** 30, Math.floor(size / 2), size - 2, size - 1]) {
      const proof = alike(inclusionNodes(index, size))
      expect(verifyInclusion(leafOf(0), index, size, proof, rootOfAlike(size)), `${index}`).toBe(true)
      expect(verifyInclusion(leafOf(1), index, size, proof, rootOfAlike(size)), `${index}`).toBe(false)
    }
    for (const earlier of [1, 2, 3, 2 ** 30, Math.floor(size / 3), size - 1, size]) {
      const proof = alike(consistencyNodes(earlier, size))
      const states = [{ size: earlier, root: rootOfAlike(earlier) }, { size, root: rootOfAlike(size) }] as const
      expect(verifyConsistency(...states, proof), `from ${earlier}`).toBe(true)
      const later = { size: size + 2, root: rootOfAlike(size + 2) }
      expect(verifyConsistency(states[1], later, alike(consistencyNodes(size, size + 2))), `from ${size}`).toBe(true)
      expect(verifyConsistency({ ...states[0], root: leafOf(1) }, states[1], proof), `from ${earlier}`).toBe(false)
    }
  })
})
