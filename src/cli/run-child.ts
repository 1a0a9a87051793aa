import { spawn, type ChildProcess } from 'node:child_process'
import { constants } from 'node:os'
import { printable } from './terminal.ts'

/** How long a command that was told to end may take for it, before it is killed. */
const graceMs = 5_000

/** Those that ask for an end come before those that only tell something. */
const passedOn = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2'] as const
/** A terminal sends these to every process of the group by itself: passed on as well, they would arrive twice. */
const fromTerminal: readonly NodeJS.Signals[] = ['SIGINT', 'SIGHUP', 'SIGQUIT']
/** A program may take Ctrl-C for something else than the wish that it ends, as a shell does, but not these. */
const final: readonly NodeJS.Signals[] = ['SIGTERM', 'SIGHUP']

/** The exit code by which a shell says that a signal ended a command (POSIX XCU §2.8.2). */
export function exitCodeOfSignal(signal: NodeJS.Signals): number {
  return 128 + (constants.signals[signal] ?? 0)
}

/** What a command is run with. */
export interface ChildOptions {
  readonly file: string
  readonly args: readonly string[]
  readonly env: Readonly<Record<string, string | undefined>>
  /** Told why the command cannot be run, in one sentence. */
  onFailure(message: string): void
}

/**
 * Runs a command on this process's own standard streams, and passes signals on to it, until it ends: resolves to its exit code,
 * 128 and more for a signal, 126 or 127 where it cannot be run. It does not outlive this process, unless that is killed.
 */
export async function runChild(options: ChildOptions): Promise<number> {
  let child: ChildProcess
  let timer: NodeJS.Timeout | undefined
  const onTerminal = process.stdin.isTTY || process.stdout.isTTY || process.stderr.isTTY
  const pass = (signal: NodeJS.Signals): void => {
    if (!onTerminal || !fromTerminal.includes(signal)) child.kill(signal)
    if (final.includes(signal)) timer ??= setTimeout(() => child.kill('SIGKILL'), graceMs)
  }
  const killAtExit = (): void => void child.kill('SIGKILL')
  try {
    child = spawn(options.file, options.args, { stdio: 'inherit', env: { ...options.env } })
    for (const signal of passedOn) process.on(signal, pass)
    process.on('exit', killAtExit)
    return await new Promise<number>((resolve, reject) => {
      // Later ones are of signals that it cannot be sent, as where it runs as somebody else: it runs on all the same.
      child.on('error', (error) => (child.pid === undefined ? reject(error) : undefined))
      child.once('exit', (code, signal) => resolve(signal === null ? (code ?? 1) : exitCodeOfSignal(signal)))
    })
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : ''
    options.onFailure(`cannot run ${printable(options.file)}: ${reasons[code] ?? code}`)
    return code === 'ENOENT' ? 127 : 126
  } finally {
    clearTimeout(timer)
    process.off('exit', killAtExit)
    for (const signal of passedOn) process.off(signal, pass)
  }
}

const reasons: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such command',
  EACCES: 'it is no program, or may not be run',
  E2BIG: 'its arguments and environment are too large',
}
