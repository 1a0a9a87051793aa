import { BrokerError } from '../kernel/errors.ts'
import { StintError, type Problem } from '../client/errors.ts'
import { CommandError, UsageError, type Io } from './command.ts'
import { printable, printableLines } from './terminal.ts'

/** Tells the person on standard error what went wrong, and returns the exit code: 2 for wrong usage, else 1. */
export function reportFailure(error: unknown, io: Io): number {
  if (error instanceof UsageError || error instanceof CommandError) {
    io.err(`stint: ${printableLines(error.message)}\n`)
  } else if (error instanceof StintError) {
    io.err(`stint: ${printable(error.message)}\n${listProblems(error.message, error.problems)}${describeAnswer(error)}`)
  } else if (error instanceof BrokerError) {
    io.err(`stint: ${printableLines(error.publicMessage)}\n${listProblems(error.publicMessage, problemsOf(error))}`)
  } else {
    const message = error instanceof Error ? error.message : String(error)
    io.err(`stint: ${printableLines(message)}\n`)
  }
  if (io.env['STINT_DEBUG'] === '1' && error instanceof Error) io.err(`${printableLines(error.stack ?? '')}\n`)
  return error instanceof UsageError ? 2 : 1
}

/** `file:line:column message (did you mean …?)`, or `field: message`. */
export function formatProblem(problem: Problem): string {
  const { file, line, column, path, message, suggestion } = problem
  const place = file === undefined ? path : [file, line, column].filter((part) => part !== undefined).join(':')
  const prefix = place === undefined || place === '' ? '' : `${place}${file === undefined ? ':' : ''} `
  return printable(`${prefix}${message}${suggestion === undefined ? '' : ` (did you mean ${suggestion}?)`}`)
}

/** One problem a line; nothing where the only one is what the sentence above has just said. */
function listProblems(sentence: string, problems: readonly Problem[]): string {
  const [first, ...others] = problems
  const said = first !== undefined && first.suggestion === undefined && sentence.includes(first.message)
  if (said && others.length === 0) return ''
  return problems.map((problem) => `  ${formatProblem(problem)}\n`).join('')
}

/** What helps when the broker itself has failed or asks to wait. */
function describeAnswer(error: StintError): string {
  const wait = error.retryAfterSeconds === undefined ? '' : `  try again in ${error.retryAfterSeconds} s\n`
  const failed = error.status !== undefined && error.status >= 500 && error.requestId !== undefined
  return wait + (failed ? `  request ${printable(error.requestId ?? '')}: the broker's log tells more under this id\n` : '')
}

/** The problems that an error carries, one for each thing that is wrong; none where it carries none. */
export function problemsOf(error: BrokerError): readonly Problem[] {
  const problems: unknown = error.extra?.['problems']
  if (!Array.isArray(problems)) return []
  // Stint's own problems, in one of the two forms that Problem describes.
  return problems.filter((problem): problem is Problem => typeof problem?.message === 'string')
}
