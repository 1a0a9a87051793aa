import { constants, type Stats } from 'node:fs'
import { open, type FileHandle } from 'node:fs/promises'
import { dirname } from 'node:path'
import { parseCheckpoint } from '../../audit/checkpoint.ts'
import { parseNote } from '../../audit/note.ts'
import { BrokerError } from '../../kernel/errors.ts'
import { AnchorFailure, type KeepingAnchor } from './anchor.ts'

export interface FileAnchorOptions {
  readonly file: string
  /** Of the log that is kept in it: tells its own beginning, torn by a crash, from a file of something else. */
  readonly origin: string
}

// What is appended at once is within, and the newest note before it: one has less than 700 bytes.
const tailBytes = 64 * 1024
const pieceMax = 64

/**
 * A file, mode 0600, to which checkpoints are appended: whole notes with an empty line between them. It is opened anew each
 * time, so that a disk may come and go. What a crash left unfinished at its end is passed over and marked.
 */
export function createFileAnchor({ file, origin }: FileAnchorOptions): KeepingAnchor {
  async function readTail(handle: FileHandle): Promise<{ readonly text: string; readonly whole: boolean; readonly stats: Stats }> {
    const stats = await handle.stat()
    judgeFile(file, stats)
    const from = Math.max(0, stats.size - tailBytes)
    const buffer = Buffer.alloc(stats.size - from)
    let length = 0
    for (let read = -1; read !== 0 && length < buffer.length; length += read) {
      read = (await handle.read(buffer, length, buffer.length - length, from + length)).bytesRead
    }
    return { text: buffer.toString('utf8', 0, length), whole: from === 0, stats }
  }

  /**
   * The note that was appended last, which is the newest: a smaller one behind a larger one is of a log that was restored, and
   * accepted. Throws `config_invalid` for a file that holds something else.
   */
  function findLast(text: string, whole: boolean): string | undefined {
    // A crash may leave zeros for what was not on the disk yet. What is before them was whole, if it ends; no note has any.
    const pieces = text.split(/\0+/)
    for (let i = pieces.length - 1; i >= 0; i--) {
      const note = findLastIn(pieces[i] ?? '', whole && i === 0)
      if (note !== undefined) return note
    }
    const unfinished = whole && (`${origin}\n`.startsWith(text) || text.startsWith(`${origin}\n`) || /^\0*$/.test(text))
    if (unfinished) return undefined
    throw refuse(`${file}, where checkpoints are to be kept, holds something else: name a file of its own in anchors`)
  }

  /** What the disk throws is the anchor's failure. */
  async function explain<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (error) {
      throw error instanceof BrokerError ? error : new AnchorFailure(`${file}: ${error instanceof Error ? error.message : String(error)}`, error)
    }
  }

  return {
    kind: 'file',
    name: `file ${file}`,
    pieceMax,
    last: () =>
      explain(async () => {
        const handle = await openFile(file)
        if (handle === undefined) return undefined
        try {
          const { text, whole, stats } = await readTail(handle)
          const note = findLast(text, whole)
          return note === undefined ? undefined : { note, atMs: Math.ceil(stats.mtimeMs) }
        } finally {
          await handle.close()
        }
      }),
    keep: (notes) =>
      explain(async () => {
        const there = await openFile(file)
        const handle = there ?? (await open(file, constants.O_RDWR | constants.O_APPEND | constants.O_CREAT | constants.O_EXCL, 0o600))
        try {
          const { text, whole } = await readTail(handle)
          findLast(text, whole)
          // So marked, the end of a note that a crash has cut short can never be taken for a whole one.
          const mend = text === '' || text.endsWith('\n') ? '' : ' (cut short)\n'
          const begin = text === '' ? '' : '\n'
          await handle.appendFile(`${mend}${begin}${notes.join('\n')}`)
          await handle.sync()
        } finally {
          await handle.close()
        }
        if (there === undefined) await syncFolder(dirname(file))
      }),
  }
}

/** The last note of a text. What comes first in one that has lost its beginning is no whole one. */
function findLastIn(text: string, whole: boolean): string | undefined {
  // Notes and the two parts of each are apart by an empty line.
  const parts = text.split(/\n{2,}/).slice(whole ? 0 : 1)
  const ends = text.endsWith('\n')
  for (let i = parts.length - 1; i > 0; i--) {
    const signatures = parts[i] ?? ''
    // A line that does not end is not all of it, whatever it says.
    if (i === parts.length - 1 && !ends) continue
    const note = `${parts[i - 1] ?? ''}\n\n${signatures.trimEnd()}\n`
    const signed = parseNote(note)
    if (signed !== undefined && parseCheckpoint(signed.text) !== undefined) return note
  }
  return undefined
}

/** The file, or `undefined` where there is none in a folder that is there. */
async function openFile(file: string): Promise<FileHandle | undefined> {
  try {
    // Links are followed, and what is judged is the opened file. O_NONBLOCK: a pipe in its place is refused, not waited for.
    return await open(file, constants.O_RDWR | constants.O_APPEND | constants.O_NONBLOCK)
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : String(cause)
    if (code === 'ENOENT') {
      await (await openFolder(dirname(file))).close()
      return undefined
    }
    if (['EACCES', 'EISDIR', 'EROFS', 'ENXIO', 'ENOTDIR', 'ELOOP'].includes(code)) {
      throw refuse(`${file}, where checkpoints are to be kept, cannot be read and written (${code}): correct anchors, or the file's mode`, cause)
    }
    throw cause
  }
}

async function openFolder(folder: string): Promise<FileHandle> {
  try {
    return await open(folder, constants.O_RDONLY | constants.O_DIRECTORY)
  } catch (cause) {
    throw refuse(`there is no folder ${folder} for the checkpoints that anchors keeps in it: make it, or correct anchors`, cause)
  }
}

/** So that a new file's name survives a crash as its content does. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await openFolder(folder)
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** Who can write to it can take back what was kept. Reading it is nobody's harm: it holds no secret. */
function judgeFile(file: string, { mode, uid }: Stats): void {
  if ((mode & constants.S_IFMT) !== constants.S_IFREG) throw refuse(`${file}, where checkpoints are to be kept, is not a regular file`)
  const user = process.getuid?.()
  // Windows has neither owners nor modes of this kind.
  if (user === undefined) return
  if ((mode & 0o022) !== 0) throw refuse(`${file}, where checkpoints are kept, can be written by others: run chmod 600 ${file}, and look at what it holds`)
  if (uid !== user && uid !== 0) throw refuse(`${file}, where checkpoints are kept, belongs to another user: give it to the user that runs this`)
}

function refuse(publicMessage: string, cause?: unknown): BrokerError {
  return new BrokerError({ code: 'config_invalid', publicMessage, cause })
}
