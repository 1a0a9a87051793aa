import { randomUUID } from 'node:crypto'
import { closeSync, fsyncSync, linkSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { CommandError, UsageError } from './command.ts'
import { describeWriteError } from './write-error.ts'

/**
 * Writes a file that did not exist. It appears as a whole, and its content is on the disk before this returns. Throws a
 * `CommandError` that says what is in the way; what is there is left as it is.
 */
export function writeNewFile(path: string, text: string, mode: number): void {
  const unfinished = `${path}.${randomUUID()}`
  try {
    // 'wx' is O_CREAT|O_EXCL: follows no link that somebody has put there.
    const descriptor = openSync(unfinished, 'wx', mode)
    try {
      writeFileSync(descriptor, text)
      fsyncSync(descriptor)
    } finally {
      closeSync(descriptor)
    }
    // Unlike a rename, a link neither overwrites a file nor follows a link.
    linkSync(unfinished, path)
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined
    if (code === 'EEXIST') throw new CommandError(`${path} exists already and is left as it is: choose another name`)
    throw new CommandError(`cannot write ${path}: ${code === 'ENOENT' ? 'its folder does not exist' : describeWriteError(error)}`)
  } finally {
    rmSync(unfinished, { force: true })
  }
}

/** The file that `--output` names, if it was given. */
export function readOutput(output: string | undefined): string | undefined {
  if (output === '') throw new UsageError('--output is empty: give it the name of a file.')
  return output
}
