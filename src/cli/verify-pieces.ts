import { open } from 'node:fs/promises'
import { CommandError } from './command.ts'

/** Whole lines of a file. */
export interface Piece {
  readonly bytes: Buffer<ArrayBuffer>
  /** Where in the file it begins, in bytes. */
  readonly offset: number
}

export interface PieceOptions {
  /** About how many bytes a piece has; more where a line is longer. */
  readonly pieceBytes?: number
  readonly lineBytesMax?: number
}

const newline = 0x0a

/** A file in pieces that end with a line, each in memory of its own. Throws a `CommandError` for a line without an end. */
export async function* readPieces(path: string, { pieceBytes = 4_194_304, lineBytesMax = 134_217_728 }: PieceOptions = {}): AsyncGenerator<Piece, void> {
  const file = await open(path, 'r').catch((error: unknown) => {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error)
    throw new CommandError(`cannot read ${path} (${code})`)
  })
  try {
    let offset = 0
    let rest = Buffer.alloc(0)
    for (;;) {
      // As much again as is there already: a line of any length is copied a few times, not once for each piece of it.
      const bytes = Buffer.allocUnsafeSlow(rest.length + Math.max(pieceBytes, rest.length))
      rest.copy(bytes)
      const { bytesRead } = await file.read(bytes, rest.length, bytes.length - rest.length)
      const filled = bytes.subarray(0, rest.length + bytesRead)
      const end = bytesRead === 0 ? filled.length : filled.lastIndexOf(newline) + 1
      // Before the piece is given away, perhaps to another thread.
      rest = Buffer.from(filled.subarray(end))
      if (end > 0) yield { bytes: filled.subarray(0, end), offset }
      if (bytesRead === 0) return
      offset += end
      if (rest.length > lineBytesMax) throw new CommandError(`${path} has a line of more than ${lineBytesMax} bytes: it is no export`)
    }
  } finally {
    await file.close()
  }
}
