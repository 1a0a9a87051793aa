import { describe, expect, test } from 'vitest'
import { leafHash } from '../../src/audit/encode.ts'
import { appendLeaf, findSubtrees, rootOf, type Frontier } from '../../src/audit/merkle.ts'
import { createFileCheck, type FileVerdict } from '../../src/audit/verify.ts'
import { createPieceCheck } from '../../src/audit/verify-piece.ts'
import { parseProofLine } from '../../src/audit/verify-proof-line.ts'
import { hashPolicyFiles } from '../../src/policy/policy-set.ts'
import { createLogKey, formatProof, generateLog } from './generated-log.ts'

const key = createLogKey()
const bodies = [...generateLog(600)]
const size = bodies.length
const leaves = bodies.map((body) => leafHash(Buffer.from(body)))
const foldLeaves = (some: readonly Uint8Array[]): Uint8Array => rootOf(some.reduce((before: Frontier, leaf, i) => appendLeaf(before, i, leaf), []))
const note = key.sign({ size, root: foldLeaves(leaves) })

/** An export of the entries that are held, as the broker gives it. */
function exportOf(held: (index: number) => boolean = () => true): string[] {
  const [set = '', ...rest] = formatProof(note, leaves.filter((_, i) => held(i))).trimEnd().split('\n')
  const checkpoint = rest.pop() ?? ''
  const gaps: string[] = []
  for (let start = 0; start < size; ) {
    let end = start
    while (end < size && !held(end)) end++
    const hashes = findSubtrees(start, end).map(({ level, index }) => Buffer.from(foldLeaves(leaves.slice(index * 2 ** level, (index + 1) * 2 ** level))).toString('base64'))
    if (end > start) gaps.push(JSON.stringify({ gap: [start, end], hashes }))
    start = end + 1
  }
  return [...bodies.filter((_, i) => held(i)), set, ...rest, ...gaps, checkpoint]
}

function verify(lines: readonly string[], { piece = lines.length, kept }: { readonly piece?: number; readonly kept?: string } = {}): FileVerdict {
  const last = lines.at(-1) ?? ''
  const found = last.startsWith('{"checkpoint":') ? (JSON.parse(last) as { checkpoint: string }).checkpoint : undefined
  const check = createFileCheck({ form: 'jsonl', verifier: key.verifier, note: found, kept, hashPolicySet: hashPolicyFiles })
  const checkPiece = createPieceCheck()
  for (let at = 0; at < lines.length; at += piece) {
    check.add(checkPiece(Buffer.from(lines.slice(at, at + piece).map((line) => `${line}\n`).join('')), 'jsonl', check.cuts))
  }
  return check.finish()
}

/** An edit that contradicts nothing else. */
const edit = (text: string): string => text.replace(/"salt":"./, (salt) => salt.slice(0, -1) + (salt.endsWith('A') ? 'B' : 'A'))
const renumber = (text: string, index: number): string => text.replace(/"index":\d+/, `"index":${index}`)
const isLeaves = (line: string): boolean => line.startsWith('{"leaves":')
const other = 'is not the entry that was signed: its hash is another'

describe('An export with the hashes of its entries', () => {
  const whole = exportOf()
  const heldOfPart = (index: number): boolean => index % 10 === 3 || (index > 70 && index < 400)
  const part = exportOf(heldOfPart)
  const partOf = (index: number): number => part.indexOf(bodies[index] ?? '')

  test('is right as it was written, in pieces of any size', () => {
    for (const piece of [1, 7, 300, 1000]) {
      expect(verify(whole, { piece })).toMatchObject({ proof: 'complete', entries: size, provenSize: size, unproven: 0, problems: [] })
      expect(verify(part, { piece })).toMatchObject({ proof: 'inclusion', provenSize: size, unproven: 0, problems: [] })
    }
    expect(verify(exportOf(() => false))).toMatchObject({ entries: 0, problems: [] })
  })

  test('that goes on beyond its checkpoint lists what the checkpoint has', () => {
    const [first = '', ...rest] = formatProof(key.sign({ size: 300, root: foldLeaves(leaves.slice(0, 300)) }), leaves.slice(0, 300)).trimEnd().split('\n')
    const held = [...bodies, first, ...rest]
    for (const piece of [1, 250, 1000]) expect(verify(held, { piece })).toMatchObject({ provenSize: 300, unproven: size - 300, problems: [] })
    expect(verify(held.with(299, edit(held[299] ?? ''))).problems).toEqual([{ line: 300, index: 299, what: other }])
  })

  const cases: [string, string[], object[]][] = [
    ['an edit', whole.with(60, edit(bodies[60] ?? '')), [{ line: 61, index: 60, what: other }]],
    ['the first', whole.with(0, (bodies[0] ?? '').replace('https://', 'http://')), [{ line: 1, index: 0, what: other }]],
    ['the last', whole.with(size - 1, edit(bodies[size - 1] ?? '')), [{ line: size, index: size - 1, what: other }]],
    ['three edits', [255, 256, 511].reduce((lines, i) => lines.with(i, edit(bodies[i] ?? '')), whole), [255, 256, 511].map((index) => ({ line: index + 1, index, what: other }))],
    ['an edit of a part', part.with(partOf(373), edit(bodies[373] ?? '')), [{ line: partOf(373) + 1, index: 373, what: other }]],
    ['an entry removed', whole.toSpliced(60, 1), [{ index: 60, what: 'is missing' }]],
    ['ten entries removed', whole.toSpliced(250, 10), [{ index: 250, what: 'is missing, and so are those behind it, up to entry 259' }]],
    ['the end removed', whole.toSpliced(size - 2, 2), [{ index: size - 2, what: `is missing, and so are those behind it, up to entry ${size - 1}` }]],
    ['the beginning removed', whole.toSpliced(0, 1), [{ index: 0, what: 'is missing' }]],
    ['two swapped', whole.with(60, bodies[61] ?? '').with(61, bodies[60] ?? ''), [{ line: 62, index: 60, what: 'stands behind entry 61: out of order, or a second time' }]],
    ['an entry twice', whole.toSpliced(60, 0, bodies[60] ?? ''), [{ line: 62, index: 60, what: 'stands behind entry 60: out of order, or a second time' }]],
    [
      'another in its place, and itself behind it',
      whole.toSpliced(60, 0, edit(bodies[60] ?? '')),
      [{ line: 61, index: 60, what: other }, { line: 62, index: 60, what: 'stands behind entry 60: out of order, or a second time' }],
    ],
    ['an index', whole.with(60, renumber(bodies[60] ?? '', 61)), [{ line: 61, index: 61, what: other }, { index: 60, what: 'is missing' }]],
    ['no entry at all', whole.with(60, 'x'), [{ index: 60, what: 'is missing' }, { line: 61, what: 'is no entry: it is not one object of canonical JSON (RFC 8785)' }]],
    ['an entry of a part removed', part.toSpliced(partOf(43), 1), [{ index: 43, what: 'is missing' }]],
    ['an entry of the log put into a part', part.toSpliced(partOf(53), 0, bodies[50] ?? ''), [{ line: partOf(53) + 1, index: 50, what: expect.stringContaining('was put in') }]],
    ['another rest of the log', whole.toSpliced(580, 20, ...bodies.slice(580).map(edit)), Array.from({ length: 4 }, (_, i) => ({ line: 581 + i, index: 580 + i, what: other }))],
  ]
  test.each(cases)('names the entry: %s', (_, lines, named) => {
    const { problems, proof } = verify(lines)
    // Whatever else it leads to, such as a grant without a workload, comes behind.
    expect(problems.slice(0, named.length)).toEqual(named)
    expect(problems.map(({ what }) => what).join()).not.toMatch(/leaves|one or more of/)
    for (const piece of [1, 97]) expect(verify(lines, { piece })).toMatchObject({ problems, proof })
  })

  test('names each edited entry, and no other, wherever it is', () => {
    for (const [lines, indexes] of [[whole, bodies.map((_, i) => i)], [part, bodies.flatMap((_, i) => (heldOfPart(i) ? [i] : []))]] as const) {
      for (const [at, index] of indexes.entries()) {
        if (at % 23 !== 5) continue
        expect(verify(lines.with(at, edit(bodies[index] ?? ''))).problems).toEqual([{ line: at + 1, index, what: other }])
      }
    }
  })

  test('names it also where a hundred other things do not fit any more', () => {
    // Nobody has applied this policy set: each grant of the log is without one.
    const at = bodies.findIndex((body) => body.includes('"type":"policy.applied"'))
    const { problems, problemsMore } = verify(whole.with(at, (bodies[at] ?? '').replace(/"policy_set":"./, '"policy_set":"0')))
    expect(problems[0]).toEqual({ line: at + 1, index: at, what: other })
    expect([problems.length, problemsMore > 100]).toEqual([100, true])
    const every = verify([...bodies.map(edit), ...whole.slice(size)])
    expect([every.problems.length, every.problems.every(({ what }) => what === other), every.problemsMore]).toEqual([100, true, size - 100])
  })

  test('and what is put in beside another entry is named as well', () => {
    const verdict = verify(part.toSpliced(partOf(53), 0, bodies[52] ?? ''))
    expect(verdict.problems[0]).toEqual({ line: partOf(53) + 1, index: 52, what: expect.stringContaining('was put in') })
    expect(verdict.problems.map(({ index }) => index)).not.toContain(53)
  })

  test('names it also beside a checkpoint that was kept', () => {
    const kept = key.sign({ size: 100, root: foldLeaves(leaves.slice(0, 100)) })
    expect(verify(whole.with(300, edit(bodies[300] ?? '')), { kept })).toMatchObject({ kept: { status: 'proven' }, problems: [{ line: 301, index: 300, what: other }] })
  })
})

// The hashes of the tree are public: whoever changes an entry can have a gap prove what it was.
describe('An entry in the place of which a gap stands', () => {
  const held = (index: number): boolean => index % 10 === 3
  const what = 'stands in the place of what a gap has the hashes of: nothing shows that it was signed'

  test.each(['with', 'without'])('is never called proven, %s a list of hashes', (listed) => {
    const linesOf = (fits: (index: number) => boolean): string[] => exportOf(fits).filter((line) => listed === 'with' || !isLeaves(line))
    // Line 6 is that of entry 53.
    const put = linesOf(held).toSpliced(5, 0, edit(bodies[50] ?? ''))
    const hidden = linesOf((index) => held(index) && index !== 53).toSpliced(5, 0, edit(bodies[53] ?? ''))
    for (const [index, lines] of [[50, put], [53, hidden]] as const) {
      for (const piece of [1, 1000]) {
        const { problems } = verify(lines, { piece })
        expect(problems).toContainEqual({ line: 6, index, what })
        // With a list of a hash less it is named twice, and nothing else is.
        expect(new Set(problems.map((problem) => problem.index))).toEqual(new Set([index]))
      }
    }
  })
})

describe('A list of hashes that was changed', () => {
  const whole = exportOf()
  const at = whole.findIndex(isLeaves)
  const flip = (line: string): string => line.replace(/"leaves":"./, (text) => text.slice(0, -1) + (text.endsWith('A') ? 'B' : 'A'))
  const theirs = { what: expect.stringContaining('are not theirs: the list was changed, and the entries are those that were signed') }
  const noHelp = { what: expect.stringContaining('they do not tell which entry is wrong') }
  const unnamed = { what: expect.stringContaining('one or more of the entries 0 to') }

  const cases: [string, string[], object[]][] = [
    ['one hash', whole.with(at + 1, flip(whole[at + 1] ?? '')), [theirs]],
    ['a line removed', whole.toSpliced(at + 1, 1), [theirs]],
    ['the last line removed', whole.toSpliced(at + 2, 1), [theirs]],
    ['a line twice', whole.toSpliced(at, 0, whole[at] ?? ''), [theirs]],
    ['a line more behind the last', whole.toSpliced(at + 3, 0, whole[at] ?? ''), [theirs]],
    ['two lines swapped', whole.with(at, whole[at + 1] ?? '').with(at + 1, whole[at] ?? ''), [theirs]],
    ['an entry and its hash', [...bodies.with(60, edit(bodies[60] ?? '')), ...whole.slice(size, at), ...formatProof(note, leaves.with(60, leafHash(Buffer.from(edit(bodies[60] ?? ''))))).split('\n').slice(1, -1)], [unnamed, noHelp]],
    ['an entry and another hash', whole.with(60, edit(bodies[60] ?? '')).with(at, flip(whole[at] ?? '')), [unnamed, noHelp]],
    ['an entry, and no list', whole.with(60, edit(bodies[60] ?? '')).filter((line) => !isLeaves(line)), [unnamed]],
    ['an entry removed, and its hash', [...bodies.toSpliced(60, 1), ...whole.slice(size, at), ...formatProof(note, leaves.toSpliced(60, 1)).split('\n').slice(1, -1)], [{ line: 61, index: 61, what: 'stands where entry 60 should: nothing stands for what is missing' }, noHelp]],
  ]
  test.each(cases)('is found out: %s', (_, lines, problems) => {
    expect(verify(lines).problems).toEqual(problems)
    for (const piece of [1, 97]) expect(verify(lines, { piece }).problems).toEqual(problems)
  })

  test('and so is a list that is none', () => {
    const line = whole[at] ?? ''
    const none = 'is no list of hashes: it has leaves, 1 to 256 hashes of 32 bytes as base64, and nothing else'
    const long = JSON.stringify({ leaves: Buffer.alloc(32 * 257).toString('base64') })
    for (const wrong of ['{"leaves":""}', '{"leaves":"AAAA"}', '{"leaves":"', line.slice(0, -1), `${line} `, line.replace('"}', '","x":1}'), line.replace('"}', '\\n"}'), line.replace('"}', '=="}'), long]) {
      expect(parseProofLine(wrong), wrong.slice(-40)).toBe(none)
    }
    expect(verify(whole.with(at, '{"leaves":""}')).problems).toEqual([{ line: at + 1, what: none }, theirs])
    expect(verify(whole.with(at, '{"leaves":[]}')).problems).toContainEqual({ line: at + 1, what: expect.stringContaining('is no policy set and no checkpoint') })
    const few = exportOf((index) => index > 6)
    const gapLess = few.map((line) => line.replace(/^(\{"gap":\[0,7\],"hashes":\["[^"]+"),"[^"]+"/, '$1'))
    expect(verify(gapLess.with(3, edit(gapLess[3] ?? ''))).problems).toContainEqual({ line: few.length - 1, what: 'has 2 hashes for the entries 0 to 6, which is not their number' })
    const part = exportOf((index) => index < 300)
    const [list = '', gap = ''] = part.slice(-3)
    expect(verify([...part.slice(0, -3), gap, list, ...part.slice(-1)]).problems).toEqual([{ line: part.length - 1, what: 'stands behind a gap, where no hashes of entries belong' }, theirs])
  })
})

test('An export without its end says that it has no checkpoint, and not that its policy sets are wrong', () => {
  const whole = exportOf()
  const ends = 'The file does not end with a checkpoint: its end is missing, or something stands behind it.'
  for (const behind of [1, 2, 4]) expect(verify(whole.slice(0, -behind)), `${behind}`).toMatchObject({ proof: 'nothing', problems: [{ what: ends }] })
  expect(verify(whole.slice(0, size)).problems).toEqual([])
  expect(verify([...whole, bodies[5] ?? '']).problems).toContainEqual({ what: ends })
})
