import type { Config } from './config.ts'
import { BrokerError } from './kernel/errors.ts'
import type { Log } from './kernel/log.ts'
import { readSecretSource, type Environment } from './kernel/secret-source.ts'
import type { Database } from './storage/engine.ts'
import { openPostgres } from './storage/postgres.ts'
import { openSqlite } from './storage/sqlite.ts'

/** A database that is open, and how to tell the operator what it throws. */
export interface OpenedDatabase {
  readonly database: Database
  /** On PostgreSQL the role by whose rights it is used. */
  readonly role?: string
  /** Turns an error of a first contact into a `config_invalid` or `unavailable` that names the option; others stay as they are. */
  explain(error: unknown): unknown
}

/**
 * Opens the database that the configuration names: as the role that serves, where a SQLite file must exist, or as the owner
 * of the tables, who makes it. Throws `config_invalid` for what cannot be a database.
 */
export function openConfiguredDatabase({ database }: Config, env: Environment, log: Log, as: 'server' | 'owner'): OpenedDatabase {
  if ('sqlite' in database) {
    const whenMissing = as === 'owner' ? 'make' : 'refuse'
    const opened = openSqlite({ file: database.sqlite.file, whenMissing, privateOnly: true })
    return { database: opened, explain: (error) => describeSilence(error, opened) }
  }
  const { url, migrate_url: migrateUrl } = database.postgres
  const ownerGiven = as === 'owner' && migrateUrl !== undefined
  const option = `database.postgres.${ownerGiven ? 'migrate_url' : 'url'}`
  const secret = readSecretSource((ownerGiven ? migrateUrl : url).from, `the database URL of ${option}`, env)
  const place = readPlace(secret.reveal(), option)
  const opened = openPostgres({
    url: secret.reveal(),
    onConnectionLost: (error) => log.warn('a database connection was lost and is replaced', { error: error.message }),
  })
  return { database: opened, role: place.role, explain: (error) => describePostgresError(error, place, as) ?? describeSilence(error, opened) }
}

/** What a connection URL says, but for its password. */
interface Place {
  /** The option that holds the URL. */
  readonly option: string
  readonly role: string
  readonly hasPassword: boolean
  readonly host: string
  readonly port: string
  readonly name: string
}

function readPlace(url: string, option: string): Place {
  const form = `${option} must be of the form postgres://user:password@host:5432/database, what is special in it percent-encoded`
  // The text is not repeated: it holds a password, wherever its mistake is.
  const refuse = (): BrokerError => new BrokerError({ code: 'config_invalid', publicMessage: form })
  if (!/^postgres(?:ql)?:\/\//.test(url) || !URL.canParse(url)) throw refuse()
  const { username, password, hostname, port, pathname, searchParams } = new URL(url)
  try {
    decodeURIComponent(password)
    const role = decodeURIComponent(username)
    const name = decodeURIComponent(pathname.slice(1))
    if (role === '') throw refuse()
    const host = searchParams.get('host') ?? decodeURIComponent(hostname)
    return {
      option,
      role,
      hasPassword: password !== '',
      host: host === '' ? 'localhost' : host,
      port: searchParams.get('port') ?? (port === '' ? '5432' : port),
      name: name === '' ? role : name,
    }
  } catch (error) {
    throw error instanceof URIError ? refuse() : error
  }
}

/** One sentence for each way in which a first contact fails; `undefined` for what is none of them. */
function describePostgresError(error: unknown, place: Place, as: 'server' | 'owner'): BrokerError | undefined {
  if (error instanceof BrokerError || !(error instanceof Error)) return undefined
  const publicMessage = explainCode('code' in error ? String(error.code) : error.message, place, as)
  return publicMessage === undefined ? undefined : new BrokerError({ code: 'config_invalid', publicMessage, cause: error })
}

function explainCode(code: string, { option, role, hasPassword, host, port, name }: Place, as: 'server' | 'owner'): string | undefined {
  // What the driver says, or else the server, where a password is wanted and the URL has none.
  if (code.startsWith('SASL: ') || (code === '28P01' && !hasPassword)) return `${option} has no password that the server accepts for the role ${role}: write one into the URL`
  switch (code) {
    case 'ECONNREFUSED':
    case 'ENOENT':
      return `nothing listens on ${host} port ${port}: start PostgreSQL there, or correct ${option}`
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return `the host ${host} is not known here (${code}): correct ${option}, or the name service of this machine`
    case 'ETIMEDOUT':
    case 'EHOSTUNREACH':
    case 'ENETUNREACH':
      return `${host} port ${port} cannot be reached (${code}): correct ${option}, or let this machine through to it`
    // https://www.postgresql.org/docs/current/errcodes-appendix.html
    case '28P01':
      return `PostgreSQL refuses the role ${role} with the password of ${option}: correct it there, or set it by ALTER ROLE`
    case '28000':
      return `PostgreSQL lets the role ${role} of ${option} not in: make the role, or allow this machine in pg_hba.conf`
    case '3D000':
      return `there is no database ${name}: make it (CREATE DATABASE, encoding UTF8), or correct ${option}`
    // Only the owner names another role: the one to which it gives rights.
    case '42704':
      return as === 'owner' ? 'there is no such role as database.postgres.url names: make it (CREATE ROLE … LOGIN PASSWORD …), then migrate again' : undefined
    case '42501':
      return as === 'owner'
        ? `the role ${role} of ${option} lacks rights on the database ${name}: make it the owner of the database, or name the owner in database.postgres.migrate_url`
        : `the role ${role} of ${option} lacks rights on the database ${name}: run \`stint migrate --config …\`, which gives them`
    default:
      return undefined
  }
}

/** What a database that does not answer throws may have no message at all, where its name stands for several addresses. */
function describeSilence(error: unknown, { isTransactionError }: Database): unknown {
  if (error instanceof BrokerError || !(error instanceof Error) || !isTransactionError(error)) return error
  const reason = error.message === '' && 'code' in error ? String(error.code) : error.message
  return new BrokerError({ code: 'unavailable', publicMessage: `the database does not answer: ${reason}`, cause: error })
}
