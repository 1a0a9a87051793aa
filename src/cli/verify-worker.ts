import { parentPort } from 'node:worker_threads'
import { createPieceCheck, type FileForm } from '../audit/verify-piece.ts'

/** A piece of a file, and how to look at it. */
export interface PieceTask {
  readonly bytes: Uint8Array
  readonly form: FileForm
  readonly cuts: readonly number[]
}

const port = parentPort
if (port === null) throw new Error('this runs in a worker')

const checkPiece = createPieceCheck()

port.on('message', ({ bytes, form, cuts }: PieceTask) => {
  port.postMessage(checkPiece(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength), form, cuts))
})
