import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'

/** How a process ended, and the last that it said. */
export interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly out: string
  readonly err: string
}

/** A process of the product, outside of any test runner: whoever starts it ends it, or it ends with this process. */
export interface Child {
  readonly process: ChildProcess
  readonly pid: number
  readonly ended: Promise<Ended>
  hasEnded(): boolean
  /** What it has said lately, on both streams. */
  said(): string
  /** Resolves with `true` once it has said this, with `false` where it ends before. */
  until(text: string): Promise<boolean>
  /** Sends the signal, unless it has ended, and waits for the end. */
  stop(signal: NodeJS.Signals): Promise<Ended>
}

/** The `stint` program, as it is installed. */
export const stintProgram = fileURLToPath(new URL('../../scripts/stint.mjs', import.meta.url))

const textMax = 64 * 1024

export interface Start {
  readonly args: readonly string[]
  readonly cwd: string
  readonly env?: Readonly<Record<string, string>>
  /** Whether it can be sent messages. */
  readonly ipc?: boolean
}

/** Runs a script in this Node, with nothing of this process's environment but the path. */
export function startChild(script: string, { args, cwd, env = {}, ipc = false }: Start): Child {
  const child = spawn(process.execPath, [script, ...args], {
    cwd,
    env: { PATH: process.env['PATH'], ...env },
    stdio: ['ignore', 'pipe', 'pipe', ...(ipc ? (['ipc'] as const) : [])],
    // Ctrl-C in a terminal reaches its whole group: how this one ends is for whoever started it to say.
    detached: true,
  })
  const { pid, stdout, stderr } = child
  if (pid === undefined || stdout === null || stderr === null) throw new Error(`${script} could not be started`)
  const texts = { out: '', err: '' }
  // What it says is kept for whoever has to find out why it failed: the end of it.
  stdout.on('data', (piece) => (texts.out = (texts.out + String(piece)).slice(-textMax)))
  stderr.on('data', (piece) => (texts.err = (texts.err + String(piece)).slice(-textMax)))
  // Whatever becomes of this process, it leaves none behind.
  const kill = (): void => void child.kill('SIGKILL')
  process.once('exit', kill)
  let over = false
  const ended = once(child, 'close').then(([code, signal]): Ended => {
    over = true
    process.off('exit', kill)
    return { code: code as number | null, signal: signal as NodeJS.Signals | null, ...texts }
  })
  return {
    process: child,
    pid,
    ended,
    hasEnded: () => over || child.exitCode !== null || child.signalCode !== null,
    said: () => texts.out + texts.err,
    async until(text) {
      while (!texts.out.includes(text) && !texts.err.includes(text)) {
        if (over) return false
        await Promise.race([once(stdout, 'data'), once(stderr, 'data'), ended])
      }
      return true
    },
    async stop(signal) {
      if (child.exitCode === null && child.signalCode === null) child.kill(signal)
      return ended
    },
  }
}
