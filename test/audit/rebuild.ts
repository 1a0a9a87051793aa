import { expect } from 'vitest'
import { openCheckpoint } from '../../src/audit/checkpoint.ts'
import { appendLeaf, appendSubtree, findSubtrees, rootOf, type Frontier } from '../../src/audit/merkle.ts'
import { parseVerifierKey } from '../../src/audit/note.ts'
import { hashPolicyFiles } from '../../src/policy/policy-set.ts'
import { naiveLeaf } from './naive-tree.ts'

/** What an export says, by its text alone. */
export interface Rebuilt {
  /** The indexes of its entries. */
  readonly indexes: readonly number[]
  readonly sets: readonly string[]
  readonly gaps: readonly (readonly [number, number])[]
  /** How many entries its checkpoint has. */
  readonly size: number
}

/**
 * Rebuilds the tree from the lines of an export and holds it against the checkpoint in them: each entry and each gap in its
 * place, every policy set under its hash, the hash of every entry in the list, the kinds of lines in their order, the signature by this key. What is listed for the entries must be their hashes, unless
 * the list is said to be another.
 */
export function rebuild(text: string, verifierKey: string, listed: 'theirs' | 'another' = 'theirs'): Rebuilt {
  expect(text.endsWith('\n')).toBe(true)
  const lines = text.slice(0, -1).split('\n')
  const parsed = lines.map((line) => JSON.parse(line) as Record<string, unknown>)
  const kinds = parsed.map((line) => (typeof line['index'] === 'number' ? 'entry' : Object.keys(line).join()))
  const order = ['entry', 'policy_set,files', 'leaves', 'gap,hashes', 'checkpoint']
  expect(kinds).toEqual(kinds.toSorted((a, b) => order.indexOf(a) - order.indexOf(b)))
  expect(new Set(kinds).difference(new Set(order))).toEqual(new Set())
  expect(kinds.filter((kind) => kind === 'checkpoint')).toEqual(['checkpoint'])

  const verifier = parseVerifierKey(verifierKey)
  const checkpoint = verifier && openCheckpoint(String(parsed.at(-1)?.['checkpoint']), verifier)
  if (checkpoint === undefined || typeof checkpoint === 'string') throw new Error(`the checkpoint: ${checkpoint}`)
  const entries = new Map(lines.flatMap((line, i) => (kinds[i] === 'entry' ? [[Number(parsed[i]?.['index']), line]] : [])))
  const gaps = new Map(parsed.flatMap((line, i) => (kinds[i] === 'gap,hashes' && Array.isArray(line['gap']) ? [[Number(line['gap'][0]), line]] : [])))
  // As long as can be: a hash for each entry that the checkpoint has, in their order.
  const lists = parsed.flatMap(({ leaves }, i) => (kinds[i] === 'leaves' ? [Buffer.from(String(leaves), 'base64')] : []))
  for (const [i, list] of lists.entries()) expect([list.length % 32, list.length <= 8192, i === lists.length - 1 || list.length === 8192]).toEqual([0, true, true])
  const signed = [...entries].filter(([index]) => index < checkpoint.size)
  const theirs = Buffer.concat(signed.map(([, line]) => naiveLeaf(Buffer.from(line))))
  expect(['the list of hashes', Buffer.concat(lists).equals(theirs)]).toEqual(['the list of hashes', listed === 'theirs'])
  let frontier: Frontier = []
  const found: [number, number][] = []
  for (let at = 0; at < checkpoint.size; ) {
    const body = entries.get(at)
    if (body !== undefined) {
      frontier = appendLeaf(frontier, at, naiveLeaf(Buffer.from(body)))
      at++
      continue
    }
    // The shape was checked as far as the next lines need it: what is not there fails.
    const { gap: [start, end] = [at, at], hashes = [] } = (gaps.get(at) ?? {}) as { gap?: [number, number]; hashes?: string[] }
    const subtrees = findSubtrees(start, end)
    expect([start, hashes.length > 0, hashes.length]).toEqual([at, true, subtrees.length])
    for (const [i, subtree] of subtrees.entries()) {
      frontier = appendSubtree(frontier, at, subtree, Buffer.from(hashes[i] ?? '', 'base64'))
      at += 2 ** subtree.level
    }
    // As long as can be: no gap stands beside another.
    expect([start, found.at(-1)?.[1]]).not.toEqual([start, start])
    found.push([start, end])
  }
  expect(found.length).toBe(gaps.size)
  expect(Buffer.from(rootOf(frontier))).toEqual(Buffer.from(checkpoint.root))
  const sets = parsed.flatMap(({ policy_set: hash, files }, i) => {
    if (kinds[i] !== 'policy_set,files') return []
    expect(hashPolicyFiles(new Map(Object.entries(files as Record<string, string>)))).toBe(hash)
    return [String(hash)]
  })
  return { indexes: [...entries.keys()], sets, gaps: found, size: checkpoint.size }
}
