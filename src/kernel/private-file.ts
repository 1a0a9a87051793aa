import { closeSync, constants, fstatSync, openSync, readSync, type Stats } from 'node:fs'
import { BrokerError } from './errors.ts'

const bytesMax = 64 * 1024

/**
 * The bytes of a file that holds a secret, at most 64 KiB. `what` names its content in messages, as in `the root key`.
 * Throws `config_invalid` for a file that is missing, that is not a regular one of this user or of root, or that anybody
 * else can read or change: whoever can has the secret already.
 */
export function readPrivateFile(path: string, what: string): Buffer {
  const descriptor = openPrivateFile(path, what)
  try {
    judgeOwnership(fstatSync(descriptor), path, what)
    const buffer = Buffer.alloc(bytesMax + 1)
    let length = 0
    for (let read = -1; read !== 0 && length < buffer.length; length += read) {
      read = readSync(descriptor, buffer, length, buffer.length - length, null)
    }
    if (length > bytesMax) throw refuse(`${path} is too large to hold ${what}: at most ${bytesMax} bytes are read`)
    return buffer.subarray(0, length)
  } finally {
    closeSync(descriptor)
  }
}

function openPrivateFile(path: string, what: string): number {
  try {
    // Links are followed, since secrets are often mounted as links; what is judged is the opened file, so that it cannot
    // be exchanged in between. O_NONBLOCK: a pipe in its place must be refused, not waited for.
    return openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : String(cause)
    if (code === 'ENOENT') throw refuse(`there is no file ${path}, which should hold ${what}: create it, with mode 0600`, cause)
    throw refuse(`${path}, which should hold ${what}, cannot be read (${code})`, cause)
  }
}

function judgeOwnership({ mode, uid }: Stats, path: string, what: string): void {
  if ((mode & constants.S_IFMT) !== constants.S_IFREG) throw refuse(`${path}, which should hold ${what}, is not a regular file`)
  const user = process.getuid?.()
  // Windows has neither owners nor modes of this kind; access lists in the user's own folder do this work.
  if (user === undefined) return
  if ((mode & 0o077) !== 0) {
    const found = (mode & 0o777).toString(8).padStart(4, '0')
    throw refuse(`${path} holds ${what} and has mode ${found}, so that others can use it: run chmod 600 ${path}, or better replace the secret`)
  }
  if (uid !== user && uid !== 0) throw refuse(`${path} holds ${what} and belongs to another user: give it to the user that runs this`)
}

function refuse(publicMessage: string, cause?: unknown): BrokerError {
  return new BrokerError({ code: 'config_invalid', publicMessage, cause })
}
