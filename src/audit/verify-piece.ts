import { isUtf8 } from 'node:buffer'
import { hash } from 'node:crypto'
import { isCsvHeader, isCsvLine } from './csv.ts'
import { canonicalJson, leafHash, type JsonObject, type JsonValue } from './encode.ts'
import { appendLeaf, findSubtrees, rootOf, type Frontier } from './merkle.ts'
import type { Case } from './verify-case.ts'
import { createEntryReader, type EntryReader, type EntryReading } from './verify-entry.ts'

/** What is wrong, and where: a line counted from 1, and the entry on it where it says which one it is. */
export interface Problem {
  readonly line?: number
  readonly index?: number
  /** Goes on from "line 5, entry 4": `has no decision`. */
  readonly what: string
}

/** Runs of entries: consecutive indexes on consecutive lines. Of many, each costs little beside its hashes. */
export interface Runs {
  /** The first index of each, the one behind its last, and the line of its first entry. */
  readonly start: Float64Array
  readonly end: Float64Array
  readonly line: Int32Array
  /** For each the roots of `findSubtrees(start, end)`, one run's behind the other's, 32 bytes each. */
  readonly roots: Uint8Array
  /** The leaf hash of each entry of each run, 32 bytes each. */
  readonly leaves: Uint8Array
}

/** What a piece of a file came to: little enough to be handed over by a worker, and all that its neighbours need. */
export interface PieceReport {
  readonly lines: number
  readonly runs: Runs
  /** For each entry that could be read, in order. */
  readonly entries: {
    readonly line: Int32Array
    readonly index: Float64Array
    readonly timeMs: Float64Array
    /** A place in `cases`, which are each sent once, or below zero the complement of one in `events`. */
    readonly said: Int32Array
    readonly grant: readonly string[]
    readonly task: readonly string[]
    readonly expiresAtMs: Float64Array
  }
  readonly cases: readonly Case[]
  readonly events: readonly JsonObject[]
  /** Lines that are no entries but prove them, as they stand there. */
  readonly proofLines: readonly { readonly line: number; readonly text: string }[]
  readonly problems: readonly Problem[]
  /** Of problems that found no room. */
  readonly problemsMore: number
}

export type FileForm = 'jsonl' | 'csv'

/** How many problems are told; the others are counted. */
export const problemsMax = 100

const newline = 0x0a
// An entry has an actor, so that its first member in canonical order begins with an a.
const letterA = 0x61
const proofLine = /^\{"(?:policy_set|leaves|gap|checkpoint)":/

/**
 * Checks the lines of a piece by themselves, and hashes them. It ends behind a line. `cuts` are sizes of trees whose roots
 * are wanted: no subtree reaches across one. Lines are counted from 1. The newlines in `bytes` are written over.
 */
export type CheckPiece = (bytes: Buffer, form: FileForm, cuts: readonly number[]) => PieceReport

/** To be made once: what it has learned of the usual entry makes it fast. */
export function createPieceCheck(): CheckPiece {
  const reader = createEntryReader()
  return (bytes, form, cuts) => checkPiece(reader, bytes, form, cuts)
}

function checkPiece(reader: EntryReader, bytes: Buffer, form: FileForm, cuts: readonly number[]): PieceReport {
  const utf8 = isUtf8(bytes)
  const problems: Problem[] = []
  let problemsMore = 0
  const proofLines: { line: number; text: string }[] = []
  const runs = createRuns(cuts)
  const facts = createFacts()
  let [line, lastIndex, lastTimeMs] = [0, -1, -Infinity]

  function refuse(what: string, index?: number): void {
    if (problems.length < problemsMax) problems.push({ line, ...(index !== undefined && { index }), what })
    else problemsMore++
  }

  function takeEntry(reading: EntryReading, leaf: Uint8Array): void {
    if ('problem' in reading) refuse(reading.problem, reading.index)
    if (reading.index === undefined) return
    // Whatever is wrong with an entry, its bytes are what the tree holds.
    runs.add(reading.index, line, leaf)
    if ('problem' in reading) return
    if (reading.timeMs < lastTimeMs && reading.index > lastIndex) refuse('has an earlier time than the entry before it', reading.index)
    lastTimeMs = Math.max(lastTimeMs, reading.timeMs)
    lastIndex = reading.index
    facts.add(line, reading)
  }

  for (let at = 0; at < bytes.length; ) {
    const found = bytes.indexOf(newline, at)
    const end = found === -1 ? bytes.length : found
    line++
    if (!utf8 && !isUtf8(bytes.subarray(at, end))) refuse('is not UTF-8 text')
    else if (form === 'csv' && end - at > csvLineBytesMax) refuse('is longer than any entry as CSV')
    else if (form === 'csv') {
      const text = bytes.toString('utf8', at, end + 1)
      const body = readCsvLine(text)
      if (line === 1 && isCsvHeader(text)) at = end + 1
      else if (body === undefined) refuse('is no entry as the log writes it to CSV')
      else takeEntry(reader.read(body, 0, body.length), leafHash(body))
    } else if (bytes[at + 2] !== letterA && proofLine.test(bytes.toString('latin1', at, Math.min(end, at + 16)))) {
      proofLines.push({ line, text: bytes.toString('utf8', at, end) })
    } else if (proofLines.length > 0) refuse('stands behind the proof, where no entry belongs')
    else takeEntry(reader.read(bytes, at, end), hashLine(bytes, at, end))
    at = end + 1
  }
  return { lines: line, runs: runs.finish(), ...facts.finish(), proofLines, problems, problemsMore }
}

/** The leaf hash of a line (RFC 6962 §2.1), without copying it: the zero takes the place of the newline before it. */
function hashLine(bytes: Buffer, start: number, end: number): Buffer {
  if (start === 0) return leafHash(bytes.subarray(start, end))
  bytes[start - 1] = 0
  return hash('sha256', bytes.subarray(start - 1, end), 'buffer')
}

/** Far more than an entry of the largest size takes. */
const csvLineBytesMax = 1024 * 1024

/** The body of the entry that this line stands for; `undefined` unless it is exactly what the log writes for that. */
function readCsvLine(line: string): Buffer | undefined {
  // Within a cell each quote is doubled: there this cannot stand, and the event is in the last one.
  const start = line.lastIndexOf(',"{""') + 2
  if (start === 1 || !line.endsWith('"\r\n')) return undefined
  try {
    // Canonical again: what a spreadsheet could take for a formula is escaped otherwise in the file.
    const body = canonicalJson(JSON.parse(line.slice(start, -3).replaceAll('""', '"')) as JsonValue)
    return isCsvLine(line, body) ? Buffer.from(body) : undefined
  } catch {
    return undefined
  }
}

/** Gathers consecutive entries, and hashes them up to the largest subtrees that need no neighbour. */
function createRuns(cuts: readonly number[]) {
  const [starts, ends, lines]: [number[], number[], number[]] = [[], [], []]
  const roots: Uint8Array[] = []
  const all: Uint8Array[] = []
  let leaves: Uint8Array[] = []
  let [start, startLine, lastLine, reached] = [-1, 0, 0, 0]

  function close(): void {
    if (leaves.length === 0) return
    const end = start + leaves.length
    for (const { level, index } of findSubtrees(start, end)) {
      const first = index * 2 ** level - start
      let frontier: Frontier = []
      for (let i = 0; i < 2 ** level; i++) frontier = appendLeaf(frontier, i, leaves[first + i] ?? new Uint8Array())
      roots.push(rootOf(frontier))
    }
    reached = Math.max(reached, end)
    starts.push(start)
    ends.push(end)
    lines.push(startLine)
    leaves = []
  }

  return {
    add(index: number, line: number, leaf: Uint8Array): void {
      // One that is out of order takes nothing along that is not.
      if (index !== start + leaves.length || line !== lastLine + 1 || start < reached || cuts.includes(index)) {
        close()
        ;[start, startLine] = [index, line]
      }
      leaves.push(leaf)
      all.push(leaf)
      lastLine = line
    },
    finish(): Runs {
      close()
      return { start: Float64Array.from(starts), end: Float64Array.from(ends), line: Int32Array.from(lines), roots: pack(roots), leaves: pack(all) }
    },
  }
}

/** In a buffer of its own: what is handed over takes the whole buffer along that it is a part of. */
function pack(hashes: readonly Uint8Array[]): Uint8Array {
  const packed = new Uint8Array(32 * hashes.length)
  hashes.forEach((hash, i) => packed.set(hash, 32 * i))
  return packed
}

/** Gathers what entries say, each case once. */
function createFacts() {
  const [line, index, timeMs, said, expiresAtMs]: [number[], number[], number[], number[], number[]] = [[], [], [], [], []]
  const [grant, task]: [string[], string[]] = [[], []]
  const cases: Case[] = []
  const events: JsonObject[] = []
  const places = new Map<Case, number>()

  function placeOf(one: Case): number {
    const known = places.get(one)
    if (known !== undefined) return known
    places.set(one, cases.length)
    return cases.push(one) - 1
  }

  return {
    add(at: number, entry: Exclude<EntryReading, { readonly problem: string }>): void {
      const asked = 'asked' in entry ? entry.asked : undefined
      line.push(at)
      index.push(entry.index)
      timeMs.push(entry.timeMs)
      said.push('asked' in entry ? placeOf(entry.asked.by) : ~(events.push(entry.event) - 1))
      grant.push(asked?.grant ?? '')
      task.push(asked?.task ?? '')
      expiresAtMs.push(asked?.expiresAtMs ?? 0)
    },
    finish() {
      return {
        entries: {
          line: Int32Array.from(line),
          index: Float64Array.from(index),
          timeMs: Float64Array.from(timeMs),
          said: Int32Array.from(said),
          grant,
          task,
          expiresAtMs: Float64Array.from(expiresAtMs),
        },
        cases,
        events,
      }
    },
  }
}
