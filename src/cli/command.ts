import { parseArgs, type ParseArgsConfig } from 'node:util'
import { nearestName } from '../kernel/nearest.ts'

/** Where a command reads and writes: the process in production, a recorder in tests. */
export interface Io {
  /** Standard output: the command's result and nothing else. */
  out(text: string): void
  /** Standard output for a result of any size: resolves once it has been taken. */
  write(bytes: Uint8Array): Promise<void>
  /** Standard error: progress, hints, warnings. */
  err(text: string): void
  /** All of standard input as UTF-8. */
  readInput(): Promise<string>
  /** Asks the person at the terminal for one line; absent where nobody is there to answer. */
  ask?(question: string): Promise<string>
  /** From now on a reader that goes away no longer ends the process: what it has begun is still to be finished. */
  outliveReaders?(): void
  readonly env: Readonly<Record<string, string | undefined>>
  /** Width of the terminal in columns; `undefined` when output goes to a file or a pipe. */
  readonly columns: number | undefined
  /** Width of the terminal that shows standard error, and so progress. */
  readonly errColumns?: number | undefined
}

/** One command or group of commands: `stint <name> …`. */
export interface Command {
  readonly name: string
  /** One line for the list of commands. */
  readonly summary: string
  /** What `--help` prints: usage, options, at least one example, ending in a newline. */
  readonly help: string
  /** Runs with the arguments after the name and returns the exit code: 0 done, 1 refused or failed, 2 wrong usage. */
  run(args: readonly string[], io: Io): Promise<number>
}

/** Wrong usage: the message says what to type instead. The process exits with 2. */
export class UsageError extends Error {
  constructor(message: string) {
    super(message)
    this.name = 'UsageError'
  }
}

/** A command that could not do its work: one clear sentence for the person. The process exits with 1. */
export class CommandError extends Error {
  constructor(message: string) {
    super(message)
    this.name = 'CommandError'
  }
}

/**
 * `util.parseArgs` in strict mode, its errors turned into a `UsageError` that names the command's help. An option that is
 * given twice and is not `multiple` is refused, for one of the two would be ignored (invariant 6).
 */
export function parseOptions<O extends NonNullable<ParseArgsConfig['options']>>(
  command: string,
  args: readonly string[],
  options: O,
) {
  try {
    const parsed = parseArgs({ args: [...args], options, allowPositionals: true, strict: true, tokens: true })
    const seen = new Set<string>()
    for (const token of parsed.tokens) {
      if (token.kind !== 'option') continue
      if (seen.has(token.name) && options[token.name]?.multiple !== true) {
        throw new Error(`Option '--${token.name}' is given twice`)
      }
      seen.add(token.name)
    }
    return parsed
  } catch (error) {
    const reason = describeParseError(error, Object.keys(options))
    throw new UsageError(`${reason}${reason.endsWith('?') ? '' : '.'} See: stint ${command} --help`)
  }
}

function describeParseError(error: unknown, known: readonly string[]): string {
  if (!(error instanceof Error)) return String(error)
  const [, unknown] = /^Unknown option '(--?[\w-]{1,40})'/.exec(error.message) ?? []
  if (unknown !== undefined) {
    const near = nearestName(unknown.replace(/^--?/, ''), known)
    const hint = near === undefined ? `The options are ${known.map((option) => `--${option}`).join(', ')}` : `Did you mean --${near}?`
    return `Unknown option '${unknown}'. ${hint}`
  }
  const [, name] = /^Option '(?:-\w, )?(--[\w-]+)[^']*' argument is ambiguous/.exec(error.message) ?? []
  // The value is not repeated: it may be a secret.
  if (name !== undefined) return `${name} has no value, or one that begins with a dash, which would be written ${name}=…`
  return error.message.replace(/\. To specify a positional.*$/s, '')
}
