import { spawn, type ChildProcessByStdio } from 'node:child_process'
import { once } from 'node:events'
import type { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { onTestFinished } from 'vitest'

const main = fileURLToPath(new URL('../src/cli/main.ts', import.meta.url))

/** The command by which a shell runs the program. */
export const shellCommand = `'${process.execPath}' '${main}'`

export interface Surroundings {
  readonly cwd: string
  readonly env?: Readonly<Record<string, string>>
}

/** How a run of the program ended, and what it said. */
export interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly out: string
  readonly err: string
}

/** The program as a process of its own; killed when the test is finished. */
export interface Program {
  readonly child: ChildProcessByStdio<null, Readable, Readable>
  /** What it has said so far, on both streams. */
  said(): { readonly out: string; readonly err: string }
  /** Resolves once one of the streams holds this text. Throws with all that was said where the program ends before. */
  until(text: string): Promise<void>
  readonly ended: Promise<Ended>
  /** Sends the signal and waits for the end. */
  stop(signal?: NodeJS.Signals): Promise<Ended>
}

/** Starts `stint …` with nothing of this process's environment but the path. */
export function startProgram(args: readonly string[], { cwd, env = {} }: Surroundings): Program {
  const child = spawn(process.execPath, [main, ...args], {
    cwd,
    env: { PATH: process.env['PATH'], ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const texts = { out: '', err: '' }
  child.stdout.on('data', (piece) => (texts.out += String(piece)))
  child.stderr.on('data', (piece) => (texts.err += String(piece)))
  const ended = once(child, 'close').then(([code, signal]): Ended => ({ code, signal, ...texts }))
  onTestFinished(async () => {
    child.kill('SIGKILL')
    await ended
  })
  return {
    child,
    said: () => ({ ...texts }),
    async until(text) {
      while (!texts.out.includes(text) && !texts.err.includes(text)) {
        if (child.exitCode !== null || child.signalCode !== null) {
          throw new Error(`the program ended without ${JSON.stringify(text)}: ${JSON.stringify(await ended)}`)
        }
        await Promise.race([once(child.stdout, 'data'), once(child.stderr, 'data'), ended])
      }
    },
    ended,
    stop(signal = 'SIGTERM') {
      child.kill(signal)
      return ended
    },
  }
}

/** Runs `stint …` to its end. */
export function runProgram(args: readonly string[], surroundings: Surroundings): Promise<Ended> {
  return startProgram(args, surroundings).ended
}

/** Runs a script in a shell, in which `npx stint` is the program under test. */
export async function runShell(script: string, { cwd, env = {} }: Surroundings): Promise<Ended> {
  const child = spawn('/bin/sh', ['-c', script.replaceAll('npx stint', shellCommand)], {
    cwd,
    env: { PATH: process.env['PATH'], ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const [out, err, [code, signal]] = await Promise.all([child.stdout.toArray(), child.stderr.toArray(), once(child, 'close')])
  return { code, signal, out: Buffer.concat(out).toString(), err: Buffer.concat(err).toString() }
}
