import { redactSecrets } from './redact.ts'

export type LogLevel = 'debug' | 'info' | 'warn' | 'error'

/** Structured operator log. Fields must never hold a secret; a `Secret` prints itself redacted. */
export interface Log {
  debug(message: string, fields?: LogFields): void
  info(message: string, fields?: LogFields): void
  warn(message: string, fields?: LogFields): void
  error(message: string, fields?: LogFields): void
}

export type LogFields = Readonly<Record<string, unknown>>

const rank: Record<LogLevel, number> = { debug: 0, info: 1, warn: 2, error: 3 }

/**
 * Writes one JSON object a line through `write`; levels below `minimum` are dropped. Never throws for what it is given: a
 * line that JSON cannot hold is written without its fields.
 */
export function createLog(write: (line: string) => void, minimum: LogLevel, nowIso: () => string): Log {
  function at(level: LogLevel) {
    return (message: string, fields?: LogFields): void => {
      if (rank[level] < rank[minimum]) return
      // Spread twice: first, so that they begin the line, and last, so that no field passes for them.
      const own = { time: nowIso(), level, message }
      let line: string
      try {
        line = JSON.stringify({ ...own, ...fields, ...own }, replaceError)
      } catch {
        line = JSON.stringify({ ...own, fields: 'cannot be printed' })
      }
      write(`${redactSecrets(line)}\n`)
    }
  }
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') }
}

/** An error's name, message and stack instead of the `{}` that JSON makes of it; its cause likewise. */
function replaceError(_key: string, value: unknown): unknown {
  if (!(value instanceof Error)) return typeof value === 'bigint' ? value.toString() : value
  return { name: value.name, message: value.message, stack: value.stack, cause: value.cause }
}
