import { createHash } from 'node:crypto'
import { clientError } from './errors.ts'
import { cutOff, silenceMsMax, waitToRetry, type ExportOptions } from './export.ts'
import type { ApiStream, Sender } from './http.ts'
import type { AuditProofQuery, ProofLines } from './log-records.ts'

// A policy set has at most 16 MiB of text, of which JSON may make six times as much.
const lineBytesMax = 128 * 1024 * 1024
const newline = 0x0a

/**
 * The proof of an export, whole lines as they arrive. A lost connection is taken up again from the start of the proof, which
 * is the same each time: what was given already is passed over. Throws `StintError` when that does not help, `not_found`
 * where the broker gives no proof.
 */
export async function* proveExport(sender: Sender, bearer: string, query: AuditProofQuery, options: ExportOptions): AsyncGenerator<ProofLines, void> {
  const given = createHash('sha256')
  let givenBytes = 0
  for (let failures = 0; ; ) {
    try {
      const stream = await sender.open({ method: 'GET', path: '/v1/audit/proof', query: { ...query }, bearer, timeoutMsDefault: silenceMsMax })
      const size = readSize(stream)
      let lastLine: Buffer = Buffer.alloc(0)
      for await (const { bytes, line } of passOver(readWholeLines(stream), givenBytes, given.copy().digest())) {
        lastLine = line
        if (bytes.length === 0) continue
        given.update(bytes)
        givenBytes += bytes.length
        failures = 0
        yield { bytes, checkpoint_size: size, ...readReached(line) }
      }
      if (!lastLine.subarray(0, checkpointBegin.length).equals(checkpointBegin)) throw cutOff('the proof ended before its checkpoint')
      return
    } catch (error) {
      await waitToRetry(error, ++failures, options)
    }
  }
}

const checkpointBegin = Buffer.from('{"checkpoint":')

/** The lines behind the first `count` bytes, which must have that SHA-256; with each the last line of what arrived. */
async function* passOver(arriving: AsyncIterable<Buffer>, count: number, digest: Buffer): AsyncGenerator<{ readonly bytes: Buffer; readonly line: Buffer }, void> {
  const passed = createHash('sha256')
  let rest = count
  for await (const lines of arriving) {
    const [old, bytes] = [lines.subarray(0, rest), lines.subarray(rest)]
    passed.update(old)
    rest -= old.length
    if (old.length > 0 && rest === 0 && !passed.copy().digest().equals(digest)) {
      throw clientError('bad_answer', 'the broker proves the export differently from a moment ago: ask for the proof again.')
    }
    yield { bytes, line: lines.subarray(lines.lastIndexOf(newline, -2) + 1) }
  }
}

/** Cuts what arrives behind the last whole line of each piece. */
async function* readWholeLines({ pieces }: ApiStream): AsyncGenerator<Buffer, void> {
  let held: Uint8Array[] = []
  let heldBytes = 0
  for await (const piece of pieces) {
    const end = piece.lastIndexOf(newline) + 1
    if (end > 0) {
      yield Buffer.concat([...held, piece.subarray(0, end)])
      held = []
      heldBytes = 0
    }
    held.push(piece.subarray(end))
    heldBytes += piece.length - end
    if (heldBytes > lineBytesMax) throw clientError('bad_answer', 'the proof has a line without an end: it cannot be used.')
  }
  if (heldBytes > 0) throw cutOff('the proof ended in the middle of a line')
}

function readSize({ headers }: ApiStream): number {
  const value = headers.get('stint-checkpoint-size') ?? ''
  if (/^\d{1,15}$/.test(value)) return Number(value)
  throw clientError('bad_answer', "the broker's answer is no proof: it has no stint-checkpoint-size. Is the URL a Stint broker's?")
}

function readReached(line: Buffer): { reached?: number } {
  const [, end] = /^\{"gap":\[\d{1,15},(\d{1,15})\]/.exec(line.subarray(0, 64).toString('latin1')) ?? []
  return end === undefined ? {} : { reached: Number(end) }
}
