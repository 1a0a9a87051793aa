import { once } from 'node:events'
import { createInterface } from 'node:readline/promises'
import { isatty } from 'node:tty'
import { CommandError, type Io } from './command.ts'
import { describeWriteError } from './write-error.ts'

const inputBytesMax = 1024 * 1024

/** The Io of a real process. A reader that has gone away (`stint audit list | head`) ends the process silently. */
export function createProcessIo(host: NodeJS.Process): Io {
  let outlivesReaders = false
  for (const stream of [host.stdout, host.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EPIPE' && outlivesReaders) return
      if (error.code === 'EPIPE') host.exit()
      // The terminal was closed: nobody reads on, and what was begun is still to be finished.
      if (error.code === 'EIO') return
      if (stream !== host.stdout) throw error
      host.stderr.write(`stint: cannot write to standard output: ${describeWriteError(error)}\n`)
      host.exit(1)
    })
  }
  return {
    out: (text) => void host.stdout.write(text),
    write: (bytes) => new Promise((resolve) => void host.stdout.write(bytes, () => resolve())),
    err: (text) => void host.stderr.write(text),
    readInput: () => readAll(host.stdin),
    ...(isatty(0) && host.stderr.isTTY && { ask: (question: string) => askLine(question, host) }),
    outliveReaders: () => void (outlivesReaders = true),
    env: host.env,
    columns: host.stdout.isTTY ? host.stdout.columns : undefined,
    errColumns: host.stderr.isTTY ? host.stderr.columns : undefined,
  }
}

/** On standard error, so that a result on standard output stays alone. Empty where the input ends without an answer. */
async function askLine(question: string, { stdin, stderr }: NodeJS.Process): Promise<string> {
  const lines = createInterface({ input: stdin, output: stderr })
  try {
    return await Promise.race([lines.question(question), once(lines, 'close').then(() => '')])
  } finally {
    lines.close()
  }
}

async function readAll(input: NodeJS.ReadStream): Promise<string> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of input) {
    const buffer = Buffer.from(chunk)
    bytes += buffer.length
    if (bytes > inputBytesMax) throw new CommandError(`standard input is too large: at most ${inputBytesMax} bytes are read`)
    chunks.push(buffer)
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(chunks))
  } catch {
    throw new CommandError('standard input is not UTF-8 text')
  }
}
