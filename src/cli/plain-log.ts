import { BrokerError } from '../kernel/errors.ts'
import type { Log, LogFields } from '../kernel/log.ts'
import type { Io } from './command.ts'
import { formatProblem, problemsOf } from './failure.ts'
import { printable, printableLines } from './terminal.ts'

/** The operator's log for a person at a terminal, on standard error: sentences, warnings and errors alone. */
export function createPlainLog(io: Io): Log {
  const write = (message: string, fields: LogFields = {}): void => io.err(`${printable(message)}${describeFields(fields)}\n`)
  return { debug: () => undefined, info: () => undefined, warn: write, error: write }
}

function describeFields({ error, problems, ...facts }: LogFields): string {
  const told = Object.entries(facts).map(([name, value]) => `${name} ${typeof value === 'string' ? value : String(JSON.stringify(value))}`)
  return `${told.length === 0 ? '' : ` (${printable(told.join(', '))})`}${describeProblems(problems)}${describeError(error)}`
}

/** Problems that stand in the log as text, one a line. */
function describeProblems(problems: unknown): string {
  return Array.isArray(problems) ? `:\n${problems.map((problem) => printable(String(problem))).join('\n')}` : ''
}

/** What is wrong with files, a problem a line; an error that nobody foresaw with its stack. */
function describeError(error: unknown): string {
  if (error === undefined) return ''
  if (error instanceof BrokerError) {
    const problems = problemsOf(error)
    if (problems.length === 0) return `: ${printableLines(error.publicMessage)}`
    return `:\n${problems.map(formatProblem).join('\n')}`
  }
  return error instanceof Error ? `: ${printableLines(error.stack ?? error.message)}` : `: ${printable(String(error))}`
}
