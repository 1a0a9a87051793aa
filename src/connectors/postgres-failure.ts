import pg from 'pg'
import { ConnectorError } from './connector.ts'
import type { RootUrl } from './postgres-url.ts'

/** The five characters of SQLSTATE of an error, or of what caused it; empty where it is not the server's answer. */
export function sqlState(error: unknown): string {
  if (error instanceof ConnectorError) return error.cause === undefined ? '' : sqlState(error.cause)
  return error instanceof pg.DatabaseError ? (error.code ?? '') : ''
}

/** Whether the server has said that the connection is over, or nothing at all. A refusal of our own is no loss. */
export function isLost(error: unknown): boolean {
  if (error instanceof ConnectorError && error.cause === undefined) return false
  return /^(?:|08...|57P..)$/.test(sqlState(error))
}

/**
 * Whether the same thing, done again from its beginning, may well succeed: a deadlock, a conflict with another transaction, or
 * a row of a catalog that somebody else was changing, which PostgreSQL calls an internal error.
 */
export function isConflict(error: unknown): boolean {
  return /^(?:40...|XX000|23505)$/.test(sqlState(error))
}

/** What went wrong with a server, in a sentence for the caller. A `ConnectorError` stays as it is. */
export function describeFailure(error: unknown, root: RootUrl, outcome: 'nothing_done' | 'unknown'): ConnectorError {
  if (error instanceof ConnectorError) return error
  const server = `PostgreSQL at ${root.host}:${root.port}`
  const fail = (publicMessage: string, retryAfterSeconds?: number): ConnectorError =>
    new ConnectorError({ outcome, publicMessage, cause: error, ...(retryAfterSeconds !== undefined && { retryAfterSeconds }) })
  const state = sqlState(error)
  if (state.startsWith('28')) return fail(`${server} does not let the root role ${root.user} in: an admin puts its right password into the tool's URL, or lets it in (pg_hba.conf).`)
  if (state === '3D000') return fail(`${server} has no database ${root.database}: an admin puts the right one into the tool's URL.`)
  if (state === '53300') return fail(`${server} has no connection left for the root role ${root.user}: an admin raises max_connections, or the role's connection limit, and keeps places for it (reserved_connections).`, 2)
  if (state === '42501') return fail(`The root role ${root.user} lacks a right on ${server} (${quoteAnswer(error)}): \`stint tool check\` says which.`)
  if (state === '42601') return fail(`${server} does not understand what it was asked: Stint needs PostgreSQL 16 or later.`)
  if (state === '25006') return fail(`${server} is read-only: an admin points the tool's URL at the primary.`)
  if (state === '53100' || state === '53200') return fail(`${server} has run out of disk or memory (${quoteAnswer(error)}).`, 30)
  if (state === '57014') return fail(`${server} did not come to the end of a statement in the time that it has: it is worth another try.`, 1)
  if (state === '55P03' || isConflict(error)) return fail(`${server} was kept from it by somebody else's lock for too long: it is worth another try.`, 1)
  if (state.startsWith('57P')) return fail(`${server} is being stopped or started.`, 5)
  if (state !== '') return fail(`${server} refused (${state}: ${quoteAnswer(error)}).`)
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  if (/CERT|SELF_SIGNED|UNABLE_TO_|ERR_TLS|ERR_SSL|HOSTNAME/.test(code)) {
    return fail(`${server} could not prove who it is (${code}): an admin gives it a certificate for that name, or names its issuer by sslrootcert in the tool's URL.`)
  }
  const message = error instanceof Error ? error.message : ''
  if (/^The server does not support SSL|establishing an SSL connection/.test(message)) return fail(`${server} does not speak TLS: an admin turns it on, or, within a private network, puts sslmode=disable into the tool's URL.`)
  if (/^SASL|^Password|authentication/i.test(message)) return fail(`${server} and the root role ${root.user} could not prove to each other who they are: an admin sets its password anew, with password_encryption = scram-sha-256.`)
  if (/^E[A-Z]+$/.test(code)) return fail(`${server} cannot be reached (${code}): an admin sees whether it runs, and whether Stint may connect to it.`, 5)
  return fail(`${server} did not answer, or the connection broke.`, 5)
}

/** What the server said, which may hold names that an agent chose: on one line, and not long. */
export function quoteAnswer(error: unknown): string {
  const said = error instanceof ConnectorError ? error.cause : error
  if (!(said instanceof Error)) return ''
  const detail = said instanceof pg.DatabaseError && said.detail !== undefined ? `: ${said.detail}` : ''
  return `${said.message}${detail}`.replaceAll(/[\p{Cc}\p{Cf}\u2028\u2029]+/gu, ' ').slice(0, 300)
}
