import { once } from 'node:events'
import { open, stat } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import type { NoteVerifier } from '../audit/note.ts'
import { createFileCheck, type FileVerdict } from '../audit/verify.ts'
import { createPieceCheck, type FileForm, type PieceReport } from '../audit/verify-piece.ts'
import { parseProofLine } from '../audit/verify-proof-line.ts'
import { CommandError, type Io } from './command.ts'
import { createProgress } from './progress.ts'
import { readPieces, type PieceOptions } from './verify-pieces.ts'
import type { PieceTask } from './verify-worker.ts'

/** What an export is held against, and how it is read. */
export interface FileOptions extends PieceOptions {
  /** The key that the auditor holds. */
  readonly verifier: NoteVerifier
  /** A checkpoint that was kept from before: a note. */
  readonly kept?: string | undefined
  /** As many as there are cores, unless given. */
  readonly workersMax?: number
}

/** Verifies an export, on all cores. Throws a `CommandError` for a file that cannot be read. */
export async function verifyFile(
  path: string,
  { verifier, kept, workersMax = availableParallelism(), pieceBytes = pieceBytesDefault, ...reading }: FileOptions,
  io: Pick<Io, 'err' | 'errColumns'>,
): Promise<FileVerdict> {
  const form = /^(?:index,|\d+,")/.test(await readStart(path)) ? 'csv' : 'jsonl'
  const note = form === 'csv' ? undefined : await readNote(path)
  // It has Cedar along, which takes its time to load: not where nothing asks for it.
  const { hashPolicyFiles } = note === undefined ? { hashPolicyFiles: () => '' } : await import('../policy/policy-set.ts')
  const check = createFileCheck({ form, verifier, note, kept, hashPolicySet: hashPolicyFiles })
  const { size } = await stat(path)
  const progress = createProgress(io)
  const startedAt = performance.now()
  let looked = 0
  const checks = startChecks(form, check.cuts, Math.min(workersMax, Math.ceil(size / (4 * pieceBytes))))
  try {
    for await (const report of checkAll(readPieces(path, { pieceBytes, ...reading }), checks.run, checks.atOnce)) {
      check.add(report)
      looked += report.lines
      progress.show(() => `${looked} lines, ${Math.round(looked / ((performance.now() - startedAt) / 1000))}/s`)
    }
  } finally {
    progress.clear()
    await checks.close()
  }
  return check.finish()
}

// Of a size that a core keeps near: what was read is hashed and walked over before it has gone from there.
const pieceBytesDefault = 1_048_576

/** The first bytes of a file, by which its kind is known. */
export async function readStart(path: string): Promise<string> {
  return readPart(path, (size) => ({ from: 0, to: Math.min(size, 256) }))
}

// A note has 64 KiB at most, and its newlines take two characters.
const noteLineBytesMax = 262_144

/** The note of the checkpoint with which an export ends, if it does. */
async function readNote(path: string): Promise<string | undefined> {
  const tail = await readPart(path, (size) => ({ from: Math.max(0, size - noteLineBytesMax), to: size }))
  const line = tail.slice(tail.lastIndexOf('\n', tail.length - 2) + 1).trimEnd()
  if (!line.startsWith('{"checkpoint":')) return undefined
  const parsed = parseProofLine(line)
  return typeof parsed === 'object' && 'note' in parsed ? parsed.note : undefined
}

async function readPart(path: string, rangeOf: (size: number) => { readonly from: number; readonly to: number }): Promise<string> {
  const file = await open(path, 'r').catch((error: unknown) => refuseFile(path, error))
  try {
    const info = await file.stat()
    if (!info.isFile()) throw new CommandError(`${path} is no file`)
    const { from, to } = rangeOf(info.size)
    const bytes = Buffer.alloc(to - from)
    const { bytesRead } = await file.read(bytes, 0, bytes.length, from)
    return bytes.toString('utf8', 0, bytesRead)
  } finally {
    await file.close()
  }
}

/** Says that a file cannot be read, and why. */
export function refuseFile(path: string, error: unknown): never {
  const code = error instanceof Error && 'code' in error ? String(error.code) : String(error)
  throw new CommandError(code === 'ENOENT' ? `there is no ${path}` : `cannot read ${path} (${code})`)
}

interface Checks {
  readonly atOnce: number
  run(bytes: Buffer<ArrayBuffer>): Promise<PieceReport>
  close(): Promise<void>
}

/** One check for each core; for a small file the one of this thread, for a worker takes its time to start. */
function startChecks(form: FileForm, cuts: readonly number[], count: number): Checks {
  if (count < 2) {
    const checkPiece = createPieceCheck()
    return { atOnce: 1, run: async (bytes) => checkPiece(bytes, form, cuts), close: async () => undefined }
  }
  const workers = Array.from({ length: count }, () => new Worker(new URL('./verify-worker.ts', import.meta.url)))
  const idle = [...workers]
  return {
    atOnce: count,
    async run(bytes) {
      const worker = idle.shift()
      if (worker === undefined) throw new Error('every worker has a piece already')
      // It throws what the worker throws.
      const answered = once(worker, 'message')
      worker.postMessage({ bytes, form, cuts } satisfies PieceTask, [bytes.buffer])
      const [report]: unknown[] = await answered
      idle.push(worker)
      // What the worker of this program posts.
      return report as PieceReport
    },
    close: async () => void (await Promise.all(workers.map((worker) => worker.terminate()))),
  }
}

/** The reports in the order of the pieces, of which `atOnce` are under way, and no more is read ahead of them. */
async function* checkAll(pieces: AsyncIterable<{ readonly bytes: Buffer<ArrayBuffer> }>, run: Checks['run'], atOnce: number): AsyncGenerator<PieceReport, void> {
  const running: Promise<PieceReport>[] = []
  for await (const { bytes } of pieces) {
    const oldest = running.length === atOnce ? running.shift() : undefined
    if (oldest !== undefined) yield await oldest
    const checked = run(bytes)
    // Told when its turn comes.
    checked.catch(() => undefined)
    running.push(checked)
  }
  for (const checked of running) yield await checked
}
