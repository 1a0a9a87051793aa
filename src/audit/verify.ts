import { openCheckpoint, type Checkpoint, type CheckpointProblem } from './checkpoint.ts'
import type { NoteVerifier } from './note.ts'
import { createLeafList } from './verify-leaves.ts'
import { createLife } from './verify-life.ts'
import type { OutsideCount } from './verify-outside.ts'
import { problemsMax, type FileForm, type PieceReport, type Problem } from './verify-piece.ts'
import { parseProofLine } from './verify-proof-line.ts'
import { createFileTree, type FileTree } from './verify-tree.ts'

/** What an export is held against. */
export interface FileQuestion {
  readonly form: FileForm
  /** The key that the auditor holds. */
  readonly verifier: NoteVerifier
  /** The checkpoint at the end of the file: a note. CSV has none. */
  readonly note?: string | undefined
  /** A checkpoint that was kept from before: a note. */
  readonly kept?: string | undefined
  /** The name that a policy set has by its files: their text by path. */
  hashPolicySet(files: ReadonlyMap<string, string>): string
}

/** Checks an export piece by piece, in the order of the file. */
export interface FileCheck {
  /** The sizes of trees that `checkPiece` is to be told of. */
  readonly cuts: readonly number[]
  add(report: PieceReport): void
  finish(): FileVerdict
}

/** What is known of a checkpoint that was kept. */
export interface KeptVerdict {
  /** Absent where it could not be opened. */
  readonly size?: number
  /**
   * `proven`: the entries that it states are those of this log. `contradicted`: they are not. `not covered`: the file does
   * not have what it takes to tell. Else why it is no checkpoint that could be compared.
   */
  readonly status: 'proven' | 'contradicted' | 'not covered' | CheckpointProblem
  /** The entry by which an admin gave this checkpoint up when the log went on from a restored backup. */
  readonly abandonedBy?: number
}

/** What an export came to. Nothing is claimed that is not said here. */
export interface FileVerdict {
  readonly form: FileForm
  readonly entries: number
  readonly first?: number
  readonly last?: number
  /** The signed checkpoint in the file, once its signature was found good. */
  readonly checkpoint?: Checkpoint
  /**
   * What is proven of the entries: `complete`, that they are all of the log up to `provenSize`; `inclusion`, that they are in
   * the log of `provenSize` entries; `nothing`, that it was signed at all.
   */
  readonly proof: 'complete' | 'inclusion' | 'nothing'
  readonly provenSize: number
  /** Entries beyond what is proven. */
  readonly unproven: number
  readonly kept?: KeptVerdict
  /** How many entries, from the first one of the log on, were held against each other. */
  readonly life: {
    readonly entries: number
    readonly issued: number
    readonly revoked: number
    /** Of what was issued, the grants in outside tools, as they are by the last of these entries. */
    readonly outside: OutsideCount
    /** Where an admin accepted a restored backup, and how many entries the checkpoint stated that was given up by it. */
    readonly restored: readonly { readonly index: number; readonly size: number }[]
  }
  readonly policySets: number
  readonly problems: readonly Problem[]
  readonly problemsMore: number
}

export function createFileCheck({ form, verifier, note, kept: keptNote, hashPolicySet }: FileQuestion): FileCheck {
  const opened = note === undefined ? undefined : openCheckpoint(note, verifier)
  const checkpoint = typeof opened === 'object' ? opened : undefined
  const keptOpened = keptNote === undefined ? undefined : openCheckpoint(keptNote, verifier)
  const kept = typeof keptOpened === 'object' ? keptOpened : undefined
  const cuts = [checkpoint, kept].flatMap((one) => (one === undefined ? [] : [one.size]))

  const problems: Problem[] = []
  let problemsMore = 0
  const refuse = (problem: Problem): void => {
    if (problems.length < problemsMax) problems.push(problem)
    else problemsMore++
  }
  const tree = createFileTree(cuts, refuse)
  const list = checkpoint && createLeafList(checkpoint.size)
  const life = createLife(verifier.name, refuse)
  let [lines, entries, below, first, last, lastTimeMs, ended] = [0, 0, 0, Infinity, -1, -Infinity, false]
  let [proofBegun, gapsBegun] = [false, false]
  const policySets = new Set<string>()
  const setsNamed = new Map<string, number>()

  function takeProofLine(line: number, text: string): void {
    if (ended) refuse({ line, what: 'stands behind the checkpoint, which is the last line of an export' })
    const parsed = parseProofLine(text)
    if (typeof parsed === 'string') refuse({ line, what: parsed })
    else if ('gap' in parsed) {
      gapsBegun = true
      tree.addGap(parsed.gap, line)
      list?.addGap(parsed.gap)
    } else if ('leaves' in parsed) {
      if (gapsBegun) refuse({ line, what: 'stands behind a gap, where no hashes of entries belong' })
      else list?.addLeaves(parsed.leaves)
    } else if ('note' in parsed) ended = parsed.note === note
    // Of a file without a checkpoint it is told that its end is missing.
    else if (note !== undefined) {
      const hash = hashPolicySet(parsed.files)
      if (hash !== parsed.policySet) refuse({ line, what: `calls a policy set ${parsed.policySet} whose files are ${hash}` })
      policySets.add(hash)
    }
  }

  /** Within a piece it was looked at already. */
  function judgeTime({ entries: { line, index, timeMs } }: PieceReport): void {
    const [begun = lastTimeMs, at = 0, on = 0] = [timeMs[0], index[0], line[0]]
    if (begun < lastTimeMs && at >= last) refuse({ line: lines + on, index: at, what: 'has an earlier time than the entry before it' })
    lastTimeMs = Math.max(lastTimeMs, timeMs.at(-1) ?? lastTimeMs)
  }

  function count({ runs, entries: { index, said }, cases }: PieceReport): void {
    runs.start.forEach((start, i) => {
      const end = runs.end[i] ?? start
      entries += end - start
      below += Math.max(0, Math.min(end, checkpoint?.size ?? 0) - start)
      first = Math.min(first, start)
      last = Math.max(last, end - 1)
    })
    const met = cases.map(() => -1)
    said.forEach((one, i) => {
      if (one >= 0 && met[one] === -1) met[one] = index[i] ?? 0
    })
    cases.forEach(({ policySet }, i) => {
      if (policySet !== '' && !setsNamed.has(policySet)) setsNamed.set(policySet, met[i] ?? 0)
    })
  }

  return {
    cuts,
    add(report) {
      for (const problem of report.problems) refuse({ ...problem, ...(problem.line !== undefined && { line: lines + problem.line }) })
      problemsMore += report.problemsMore
      const [line] = report.runs.line
      if (proofBegun && line !== undefined) refuse({ line: lines + line, what: 'stands behind the proof, where no entry belongs' })
      else {
        tree.addRuns(report.runs, lines)
        list?.addRuns(report.runs, lines)
        life.addEntries(report, lines, tree.whole)
        judgeTime(report)
        count(report)
      }
      proofBegun ||= report.proofLines.length > 0
      for (const { line, text } of report.proofLines) takeProofLine(lines + line, text)
      lines += report.lines
    },
    finish() {
      if (typeof opened === 'string') refuse({ line: lines, what: `is a checkpoint that ${problemTexts[opened]}` })
      if (note !== undefined && !ended) refuse({ line: lines, what: 'is not the checkpoint that the file ended with when its check began' })
      if (note === undefined && proofBegun) refuse({ what: 'The file does not end with a checkpoint: its end is missing, or something stands behind it.' })
      const broken = checkpoint && findBreak(tree, checkpoint, { last, kept })
      const proven = checkpoint !== undefined && broken === undefined
      const listed = (checkpoint && list?.judge(checkpoint.root)) ?? { status: 'none' }
      // Each entry that is wrong by its hash is told first: of much else it is the cause.
      const [named, namedMore] = listed.status === 'signed' ? [listed.problems, listed.problemsMore] : [[], 0]
      if (broken !== undefined && (listed.status !== 'signed' || problems.length + named.length === 0)) refuse(broken)
      if (broken !== undefined && (listed.status === 'same' || listed.status === 'changed')) refuse({ what: notOfTheTree })
      if (proven && listed.status === 'changed') refuse({ what: notOfTheEntries })
      const keptVerdict = keptOpened === undefined ? undefined : judgeKept(tree, keptOpened, refuse)
      if (note !== undefined) {
        for (const [hash, index] of setsNamed) if (!policySets.has(hash)) refuse({ index, what: `was decided by the policy set ${hash}, which is not in the file` })
      }
      const abandoned = kept && life.abandoned.find(({ size, root }) => size === kept.size && root === Buffer.from(kept.root).toString('base64'))
      const provenSize = Math.max(proven ? checkpoint.size : 0, keptVerdict?.status === 'proven' ? (kept?.size ?? 0) : 0)
      const within = proven && provenSize === checkpoint.size ? below : Math.min(entries, provenSize)
      return {
        form,
        entries,
        ...(entries > 0 && { first, last }),
        ...(checkpoint && { checkpoint }),
        proof: provenSize === 0 ? 'nothing' : tree.whole >= provenSize ? 'complete' : 'inclusion',
        provenSize,
        unproven: entries - within,
        ...(keptVerdict && { kept: { ...keptVerdict, ...(abandoned && { abandonedBy: abandoned.index }) } }),
        life: { entries: life.looked, issued: life.issued, revoked: life.revoked, outside: life.countOutside(), restored: life.abandoned.map(({ index, size }) => ({ index, size })) },
        policySets: policySets.size,
        problems: [...named, ...problems.toSorted((a, b) => (a.line ?? Infinity) - (b.line ?? Infinity))].slice(0, problemsMax),
        problemsMore: problemsMore + namedMore + Math.max(0, named.length + problems.length - problemsMax),
      }
    },
  }
}

const problemTexts: Readonly<Record<CheckpointProblem, string>> = {
  'no checkpoint': 'cannot be read as one',
  'another log': 'is of another log than the key',
  'not signed by this key': 'is not signed by the key that you gave',
}

const notOfTheTree = 'The hashes that the file lists for its entries (leaves) are not those of the tree that was signed either: they do not tell which entry is wrong.'
const notOfTheEntries = 'The hashes that the file lists for its entries (leaves) are not theirs: the list was changed, and the entries are those that were signed.'

interface Around {
  readonly last: number
  readonly kept: Checkpoint | undefined
}

/** What is in the way of the file's having the tree of its checkpoint; `undefined` where it has. */
function findBreak(tree: FileTree, { size, root }: Checkpoint, { last, kept }: Around): Problem | undefined {
  const { missing } = tree
  if (missing !== undefined && missing.start < size) {
    const what = `stands where ${nameRange(missing.start, missing.end)} should: nothing stands for what is missing`
    return { line: missing.line, index: missing.end, what }
  }
  if (tree.size < size) {
    return { what: `The file ends with entry ${last}, and the checkpoint in it states ${size} entries: nothing stands for ${nameRange(tree.size, size)}.` }
  }
  const found = tree.rootAt(size)
  if (found !== undefined && Buffer.compare(found, root) === 0) return undefined
  const keptRoot = kept === undefined || kept.size > size ? undefined : tree.rootAt(kept.size)
  const upTo = kept !== undefined && keptRoot !== undefined && Buffer.compare(keptRoot, kept.root) === 0 ? kept.size : 0
  return { what: `The entries are not those that were signed: one or more of ${nameRange(upTo, size)}, or the hashes of what was left out, were changed.` }
}

function judgeKept(tree: FileTree, kept: Checkpoint | CheckpointProblem, refuse: (problem: Problem) => void): KeptVerdict {
  if (typeof kept === 'string') {
    refuse({ what: `The checkpoint that was kept ${problemTexts[kept]}.` })
    return { status: kept }
  }
  const { size, root } = kept
  const found = tree.rootAt(size)
  if (found === undefined) return { size, status: 'not covered' }
  if (Buffer.compare(found, root) === 0) return { size, status: 'proven' }
  refuse({ what: `The first ${size} entries are not those of the checkpoint that was kept: the log was rewritten or forked, or the file was changed.` })
  return { size, status: 'contradicted' }
}

function nameRange(start: number, end: number): string {
  return end - start === 1 ? `entry ${start}` : `the entries ${start} to ${end - 1}`
}
