import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { CommandError } from './command.ts'

const bytesMax = 64 * 1024

/**
 * The text of a file that holds a secret; `undefined` when there is no such file. Refuses a file that anybody but its
 * owner can read or change: whoever can has the secret already. `what` names its content in messages.
 */
export function readPrivateFile(path: string, what: string): string | undefined {
  let descriptor: number
  try {
    // Not blocking: a named pipe in its place must be refused, not waited for. Links are followed, since secrets are
    // often mounted as links; what counts is the file that was opened.
    descriptor = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : ''
    if (code === 'ENOENT') return undefined
    throw new CommandError(`cannot read ${what} ${path}: ${code === 'EACCES' ? 'this user may not (EACCES)' : code}`)
  }
  try {
    const { mode, uid, size } = fstatSync(descriptor, { bigint: false })
    if ((mode & constants.S_IFMT) !== constants.S_IFREG) throw new CommandError(`${what} ${path} is not a regular file`)
    const self = process.getuid?.()
    // On Windows there is no such mode; access lists in the user's own folder do this work.
    if (self !== undefined) {
      if ((mode & 0o077) !== 0) {
        const remedy = `run chmod 600 ${path}, or better replace the secret, then try again`
        throw new CommandError(`other users can use ${what} ${path}: ${remedy}`)
      }
      if (uid !== self && uid !== 0) throw new CommandError(`${what} ${path} belongs to another user`)
    }
    if (size > bytesMax) throw new CommandError(`${what} ${path} is too large: at most ${bytesMax} bytes are read`)
    const buffer = Buffer.alloc(bytesMax + 1)
    let length = 0
    for (let read = -1; read !== 0 && length < buffer.length; length += read) {
      read = readSync(descriptor, buffer, length, buffer.length - length, null)
    }
    if (length > bytesMax) throw new CommandError(`${what} ${path} is too large: at most ${bytesMax} bytes are read`)
    return buffer.toString('utf8', 0, length)
  } finally {
    closeSync(descriptor)
  }
}
