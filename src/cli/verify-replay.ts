import { closeSync, openSync, readSync } from 'node:fs'
import type { JsonObject, JsonValue } from '../audit/encode.ts'
import { cedarVersion } from '../policy/cedar.ts'
import { createDecider } from '../policy/decide.ts'
import { createLru } from '../policy/lru.ts'
import { hashPolicyFiles, loadPolicySet, type PolicySet } from '../policy/policy-set.ts'
import { decidedTypes, replayDecision, type Mismatch } from '../policy/replay.ts'

/** Where in the file the line of each policy set stands, by hash. */
export type PolicySetPlaces = ReadonlyMap<string, { readonly offset: number; readonly length: number }>

/** One thing that is wrong with one line. */
export interface DecisionProblem extends Partial<Mismatch> {
  /** 1-based, within what was replayed. */
  readonly line: number
  readonly index?: number
  readonly what: string
}

/** Decisions that nobody can say anything about, for one reason. */
export interface NotReplayed {
  readonly decisions: number
  /** The entry of the first one. */
  readonly index: number
}

/** What the decisions of some lines came to. */
export interface ReplayReport {
  readonly lines: number
  readonly decisions: number
  /** Decisions that came out as they are recorded. */
  readonly same: number
  /** Of them, those that another version of Cedar than this program's is said to have made. */
  readonly sameElsewhere: number
  readonly problems: readonly DecisionProblem[]
  /** Decisions and lines with problems, also those that found no room in the list. */
  readonly wrong: number
  /** By why. */
  readonly notReplayed: Readonly<Record<string, NotReplayed>>
}

/** How many problems are told; the others are counted. */
export const problemsMax = 100

// Of what a file names without end.
const reasonsMax = 100
const nameLengthMax = 80
// A set that returns later is loaded again.
const setsInMemoryMax = 4
const newline = 0x0a
// What proves the entries of an export stands behind them.
const proofLine = /^\{"(?:policy_set|leaves|gap|checkpoint)":/
const judged = /^decision\.(?:verdict|approvals_needed|reasons|reasons_more|errors)|^(?:type|audience|connector)$/

/** What replays the decisions of whole lines of a file: reads a policy set when a decision needs it, and remembers verdicts. */
export function createReplayer(file: string, places: PolicySetPlaces): (lines: Buffer) => ReplayReport {
  const decider = createDecider({ slicesMax: 1000, verdictsMax: 20_000 })
  const sets = createLru<string, { set: PolicySet } | { problem: string }>(setsInMemoryMax)

  function setOf(hash: string): { set: PolicySet } | { problem: string } {
    const known = sets.get(hash)
    if (known !== undefined) return known
    const found = readPolicySet(file, hash, places)
    sets.set(hash, found)
    return found
  }

  return (lines) => {
    const report = { lines: 0, decisions: 0, same: 0, wrong: 0, sameElsewhere: 0, notReplayed: createReasons() }
    const problems: DecisionProblem[] = []
    const refuse = (...found: DecisionProblem[]): void => {
      report.wrong++
      problems.push(...found.slice(0, problemsMax - problems.length))
    }
    const skip = (why: string, index: number): void => {
      const key = why in report.notReplayed || Object.keys(report.notReplayed).length < reasonsMax ? why : 'of other reasons'
      const before = report.notReplayed[key]
      report.notReplayed[key] = { decisions: (before?.decisions ?? 0) + 1, index: before?.index ?? index }
    }

    for (const text of splitLines(lines)) {
      const line = ++report.lines
      if (proofLine.test(text)) continue
      const entry = parseEntry(text)
      if (entry === undefined) {
        refuse({ line, what: 'is no entry' })
        continue
      }
      const { index, decision } = entry
      if (decision === undefined && !decidedTypes.includes(entry['type'])) continue
      report.decisions++
      const hash = memberOf(decision, 'policy_set')
      if (typeof hash !== 'string') {
        refuse({ line, index, what: 'records no policy set by which it was decided' })
        continue
      }
      const found = setOf(hash)
      if ('problem' in found) {
        skip(`the policy set ${hash.slice(0, nameLengthMax)} ${found.problem}`, index)
        continue
      }
      const mismatches = replayDecision(decider, found.set, entry)
      const version = String(memberOf(decision, 'cedar_version')).slice(0, nameLengthMax)
      const isElsewhere = version !== cedarVersion
      if (mismatches.length === 0) {
        report.same++
        if (isElsewhere) report.sameElsewhere++
      } else if (isElsewhere && mismatches.every(({ path }) => judged.test(path))) {
        skip(`Cedar ${version} is said to have decided otherwise than ${cedarVersion} does here: use a version of Stint that has it`, index)
      } else refuse(...mismatches.map((mismatch) => ({ line, index, what: 'does not come out as it is recorded', ...mismatch })))
    }
    return { ...report, problems }
  }
}

/** Reads and loads the policy set of that name from the file; what is called by a hash that is not its own is not used. */
function readPolicySet(file: string, hash: string, places: PolicySetPlaces): { set: PolicySet } | { problem: string } {
  const place = places.get(hash)
  if (place === undefined) return { problem: 'is not in the file' }
  const bytes = Buffer.alloc(place.length)
  const descriptor = openSync(file, 'r')
  try {
    for (let at = 0; at < bytes.length; ) {
      const read = readSync(descriptor, bytes, at, bytes.length - at, place.offset + at)
      if (read === 0) break
      at += read
    }
  } finally {
    closeSync(descriptor)
  }
  const files = readFiles(bytes)
  if (files === undefined || hashPolicyFiles(files) !== hash) return { problem: 'is in the file, but its texts do not have that hash' }
  const loaded = loadPolicySet(files)
  if ('set' in loaded) return loaded
  return { problem: `is not one that this version of Stint can load: ${loaded.problems[0]?.message ?? ''}` }
}

function readFiles(line: Buffer): Map<string, string> | undefined {
  const files = memberOf(parse(line.toString()), 'files')
  if (typeof files !== 'object' || files === null) return undefined
  const texts = Object.entries(files)
  return texts.every((pair): pair is [string, string] => typeof pair[1] === 'string') ? new Map(texts) : undefined
}

function* splitLines(bytes: Buffer): Generator<string> {
  for (let start = 0; start < bytes.length; ) {
    const found = bytes.indexOf(newline, start)
    const end = found === -1 ? bytes.length : found
    yield bytes.toString('utf8', start, end)
    start = end + 1
  }
}

function parseEntry(text: string): (JsonObject & { readonly index: number }) | undefined {
  const value = parse(text)
  // Whatever JSON.parse makes of an object is one.
  return typeof memberOf(value, 'index') === 'number' ? (value as JsonObject & { readonly index: number }) : undefined
}

function parse(text: string): JsonValue | undefined {
  try {
    return JSON.parse(text) as JsonValue
  } catch {
    return undefined
  }
}

function memberOf(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null && Object.hasOwn(value, name) ? (value as Readonly<Record<string, unknown>>)[name] : undefined
}

/** Without a prototype, for the keys are what a file says. */
function createReasons(): Record<string, NotReplayed> {
  return Object.create(null) as Record<string, NotReplayed>
}
