import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))))

/** How a process is started: a script in the Node that runs this. */
export interface Start {
  readonly script: string
  readonly args: readonly string[]
  readonly nodeOptions?: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  /** Where its standard error goes, and for one that serves its output as well. */
  readonly logFile: string
}

/** A process that serves until it is stopped. */
export interface Server {
  readonly pid: number
  /** Whether it is still there. */
  readonly running: boolean
  /** Stands still, so that it takes nothing from what is measured meanwhile. */
  pause(): void
  resume(): void
  /** Ends it in order. */
  stop(): Promise<void>
}

/** The processes of one run, so that none is left behind however it ends. */
export interface Children {
  /** Starts a process, and waits until `isReady` is true. Throws with its last words where it ends before, or takes too long. */
  serve(start: Start, isReady: () => Promise<boolean>): Promise<Server>
  /** Runs a process to its end and gives its standard output; `onStart` is told its id. Throws with its last words where it fails. */
  run(start: Start, onStart?: (pid: number) => void): Promise<string>
  /** Ends all that are left; nothing is started any more. */
  stopAll(): Promise<void>
  /** Kills all that are left, at once. */
  killAll(): void
}

const readyMsMax = 120_000

export function createChildren(): Children {
  const left = new Set<ChildProcess>()
  let ended = false

  function launch({ script, args, nodeOptions = [], env = {}, logFile }: Start, output: 'pipe' | 'log'): ChildProcess {
    if (ended) throw new Error('the run is ending')
    const log = openSync(logFile, 'a', 0o600)
    const child = spawn(process.execPath, [...nodeOptions, script, ...args], {
      cwd: root,
      env: { ...process.env, NODE_ENV: 'production', ...env },
      stdio: ['ignore', output === 'pipe' ? 'pipe' : log, log],
    })
    closeSync(log)
    left.add(child)
    child.once('exit', () => left.delete(child))
    return child
  }

  async function stop(child: ChildProcess): Promise<void> {
    if (!left.has(child)) return
    const exited = once(child, 'exit')
    child.kill('SIGCONT')
    child.kill('SIGTERM')
    const timer = setTimeout(() => child.kill('SIGKILL'), 15_000)
    await exited
    clearTimeout(timer)
  }

  return {
    async serve(start, isReady) {
      const child = launch(start, 'log')
      const beganMs = performance.now()
      while (!(await isReady().catch(() => false))) {
        if (!left.has(child)) throw new Error(`${describe(start)} ended before it was ready: ${lastWords(start.logFile)}`)
        if (performance.now() - beganMs > readyMsMax) throw new Error(`${describe(start)} is not ready: ${lastWords(start.logFile)}`)
        await new Promise((resolve) => setTimeout(resolve, 50))
      }
      return {
        pid: child.pid ?? 0,
        get running() {
          return left.has(child)
        },
        pause: () => void child.kill('SIGSTOP'),
        resume: () => void child.kill('SIGCONT'),
        stop: () => stop(child),
      }
    },
    async run(start, onStart) {
      const child = launch(start, 'pipe')
      if (child.pid !== undefined) onStart?.(child.pid)
      const [pieces, [code, signal]] = await Promise.all([child.stdout?.toArray() ?? [], once(child, 'exit')])
      const output = Buffer.concat(pieces).toString()
      if (code !== 0) throw new Error(`${describe(start)} ended with ${String(code ?? signal)}: ${output.slice(0, 1_500)} ${lastWords(start.logFile)}`)
      return output
    },
    async stopAll() {
      ended = true
      await Promise.all([...left].map(stop))
    },
    killAll() {
      ended = true
      for (const child of left) child.kill('SIGKILL')
    },
  }
}

function describe({ script, args }: Start): string {
  return `${script.slice(root.length + 1)} ${(args[0] ?? '').slice(0, 40)}`
}

function lastWords(logFile: string): string {
  return readFileSync(logFile, 'utf8').slice(-1_500)
}
