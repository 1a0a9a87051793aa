import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import type { Io } from '../../src/cli/command.ts'
import { runCli } from '../../src/cli/main.ts'

export interface Recording {
  readonly code: number
  readonly out: string
  readonly err: string
}

export interface Surroundings {
  readonly env?: Readonly<Record<string, string | undefined>>
  readonly input?: string
  readonly columns?: number
  readonly errColumns?: number
  /** What the person at the terminal answers, to whatever is asked. */
  readonly answer?: string
}

/** Runs one command line with nothing of this machine's environment, and returns what it said. */
export async function runRecorded(args: readonly string[], surroundings: Surroundings = {}): Promise<Recording> {
  const { io, read } = createRecorder(surroundings)
  const code = await runCli(args, io)
  return { code, ...read() }
}

/** An Io that remembers what was written. */
export function createRecorder(surroundings: Surroundings = {}): { readonly io: Io; read(): { out: string; err: string } } {
  let out = ''
  let err = ''
  const io: Io = {
    out: (text) => void (out += text),
    write: async (bytes) => void (out += Buffer.from(bytes).toString()),
    err: (text) => void (err += text),
    readInput: async () => surroundings.input ?? '',
    ...(surroundings.answer !== undefined && {
      ask: async (question: string) => {
        err += question
        return surroundings.answer ?? ''
      },
    }),
    env: surroundings.env ?? {},
    columns: surroundings.columns,
    errColumns: surroundings.errColumns,
  }
  return { io, read: () => ({ out, err }) }
}

/** A folder that is removed when the test is finished. */
export function createFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'stint-cli-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}
