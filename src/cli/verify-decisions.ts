import { once } from 'node:events'
import { stat } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import { cedarVersion } from '../policy/cedar.ts'
import type { Io } from './command.ts'
import { createProgress } from './progress.ts'
import { readPieces, type PieceOptions } from './verify-pieces.ts'
import { createReplayer, problemsMax, type DecisionProblem, type PolicySetPlaces, type ReplayReport } from './verify-replay.ts'
import type { Section } from './verify-report.ts'

/** Replays whole lines. */
type Replay = (bytes: Buffer<ArrayBuffer>) => ReplayReport | Promise<ReplayReport>

/**
 * Makes every decision that an export in JSON Lines records again, by the policy sets in the file. Throws a `CommandError`
 * for a file that cannot be read. Not ok where one comes out otherwise, and where one cannot be made again.
 */
export async function verifyDecisions(file: string, io: Pick<Io, 'err' | 'errColumns'>, options: PieceOptions = {}): Promise<Section> {
  const { places, isExport } = await findPolicySets(file, options)
  if (!isExport) {
    const line = 'Only an export as JSON Lines has what it takes to make decisions again: the whole entries, and the policy sets behind them.'
    return { title: 'decisions', ok: false, lines: [line], json: { decisions: 0 } }
  }
  const total = createTotal()
  const progress = createProgress(io)
  const startedAt = performance.now()
  const { replays, close } = await startReplays(file, places, options)
  try {
    for await (const report of replayAll(readPieces(file, options), replays)) {
      total.add(report)
      progress.show(() => {
        const { decisions } = total.report()
        return `${decisions} decisions, ${Math.round(decisions / ((performance.now() - startedAt) / 1000))}/s`
      })
    }
  } finally {
    progress.clear()
    await close()
  }
  return describeReplay(total.report())
}

const policySetLine = /^\{"policy_set":"([0-9a-f]{64})","files":\{/
const policySetPrefix = Buffer.from('{"policy_set":"')
const newline = 0x0a

/** Where the policy sets stand. A large one is not read before it is needed. */
async function findPolicySets(file: string, options: PieceOptions): Promise<{ places: PolicySetPlaces; isExport: boolean }> {
  const places = new Map<string, { offset: number; length: number }>()
  let isExport = true
  for await (const { bytes, offset } of readPieces(file, options)) {
    if (offset === 0) isExport = !/^(?:index,|\d+,"|\s*\{\s*"receipt"\s*:)/.test(bytes.toString('latin1', 0, 100))
    for (let start = bytes.indexOf(policySetPrefix); start !== -1; start = bytes.indexOf(policySetPrefix, start + 1)) {
      if (start > 0 && bytes[start - 1] !== newline) continue
      const end = bytes.indexOf(newline, start)
      const length = (end === -1 ? bytes.length : end) - start
      const [, hash] = policySetLine.exec(bytes.toString('latin1', start, start + 100)) ?? []
      if (hash !== undefined && !places.has(hash)) places.set(hash, { offset: offset + start, length })
    }
  }
  return { places, isExport }
}

/** One replay for each core; for a small file the one of this thread, for a worker takes its time to start. */
async function startReplays(file: string, places: PolicySetPlaces, { pieceBytes = 4_194_304 }: PieceOptions): Promise<{ replays: Replay[]; close(): Promise<void> }> {
  const pieces = Math.ceil((await stat(file)).size / pieceBytes)
  const count = Math.min(availableParallelism(), pieces)
  if (count < 2) return { replays: [createReplayer(file, places)], close: async () => undefined }
  const workers = Array.from({ length: count }, () => {
    return new Worker(new URL('./verify-replay-worker.ts', import.meta.url), { workerData: { file, places } })
  })
  return {
    replays: workers.map((worker): Replay => async (bytes) => {
      // It throws what the worker throws.
      const answered = once(worker, 'message')
      worker.postMessage(bytes, [bytes.buffer])
      const [report]: unknown[] = await answered
      // What the worker of this program posts.
      return report as ReplayReport
    }),
    close: async () => void (await Promise.all(workers.map((worker) => worker.terminate()))),
  }
}

/** The reports in the order of the pieces; each replay has one piece at a time, and nothing is read ahead of them. */
async function* replayAll(pieces: AsyncIterable<{ readonly bytes: Buffer<ArrayBuffer> }>, replays: readonly Replay[]): AsyncGenerator<ReplayReport, void> {
  const running: Promise<ReplayReport>[] = []
  let next = 0
  for await (const { bytes } of pieces) {
    // The one whose turn it is has the oldest piece of those that are under way.
    const oldest = running.length === replays.length ? running.shift() : undefined
    if (oldest !== undefined) yield await oldest
    const replayed = Promise.resolve(replays[next++ % replays.length]?.(bytes) ?? Promise.reject(new Error('there is nothing to replay with')))
    // Told when its turn comes.
    replayed.catch(() => undefined)
    running.push(replayed)
  }
  for (const replayed of running) yield await replayed
}

/** Adds up reports of consecutive lines. */
function createTotal() {
  const problems: DecisionProblem[] = []
  const notReplayed = new Map<string, { decisions: number; index: number }>()
  const sums = { lines: 0, decisions: 0, same: 0, sameElsewhere: 0, wrong: 0 }
  return {
    add(report: ReplayReport): void {
      for (const problem of report.problems) if (problems.length < problemsMax) problems.push({ ...problem, line: sums.lines + problem.line })
      for (const name of ['lines', 'decisions', 'same', 'sameElsewhere', 'wrong'] as const) sums[name] += report[name]
      for (const [why, { decisions, index }] of Object.entries(report.notReplayed)) {
        const before = notReplayed.get(why)
        notReplayed.set(why, { decisions: (before?.decisions ?? 0) + decisions, index: before?.index ?? index })
      }
    },
    report: () => ({ ...sums, problems, notReplayed }),
  }
}

function describeReplay({ decisions, same, sameElsewhere, wrong, problems, notReplayed }: ReturnType<ReturnType<typeof createTotal>['report']>): Section {
  const skipped = [...notReplayed].map(([why, { decisions: count, index }]) => ({ why, decisions: count, first_index: index }))
  const lines = [
    decisions === 0 ? 'No decision is recorded in this file.' : `${same} of ${countOf(decisions, 'decision')} ${same === 1 ? 'comes out as it is' : 'come out as they are'} recorded, by the policy sets in the file.`,
    ...(decisions === 0 ? [] : ['What the policy was told, of workloads, times and counts, is taken from the entries.']),
    ...(sameElsewhere === 0 ? [] : [`${sameElsewhere} of them are said to be of another version of Cedar than this program's, ${cedarVersion}, and are the same by both.`]),
    ...problems.map(describeProblem),
    ...(wrong === 0 ? [] : [`${countOf(wrong, 'entry', 'entries')} wrong in all.`]),
    ...skipped.map(({ why, decisions: count, first_index: index }) => `${countOf(count, 'decision')} not made again, the first in entry ${index}: ${why}.`),
  ]
  const json = { decisions, same, same_by_another_cedar: sameElsewhere, wrong, problems, not_replayed: skipped, cedar_version: cedarVersion }
  return { title: 'decisions', ok: wrong === 0 && skipped.length === 0, lines, json }
}

function describeProblem({ line, index, what, path, recorded, replayed }: DecisionProblem): string {
  const place = index === undefined ? `line ${line}` : `line ${line}, entry ${index}`
  return path === undefined ? `${place}: ${what}` : `${place}: ${path} is ${showValue(recorded)}, and comes out as ${showValue(replayed)}`
}

function showValue(value: unknown): string {
  return value === undefined ? 'not there' : JSON.stringify(value).slice(0, 200)
}

function countOf(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`
}
