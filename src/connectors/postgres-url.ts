import { isIP } from 'node:net'
import { Secret } from '../kernel/secret.ts'
import { ConnectorError } from './connector.ts'

const sslModes = ['disable', 'require', 'verify-full'] as const

/** Where a PostgreSQL server is and as whom Stint speaks to it, as the URL of a tool says. */
export interface RootUrl {
  /** A DNS name or an IP address, an IPv6 one without brackets. */
  readonly host: string
  readonly port: number
  readonly database: string
  readonly user: string
  readonly password: Secret
  /** Stint itself verifies the server's certificate in every mode but `disable`. `undefined`: the URL does not say. */
  readonly sslmode: (typeof sslModes)[number] | undefined
  /** A file with the certificates by which the server's is verified, in place of the system's. */
  readonly sslrootcert: string | undefined
}

export interface UrlRules {
  readonly tool: string
  readonly privateNetwork: boolean
  /** What it is, where it is not the root URL of the tool, and by which member of the catalog file it comes. */
  readonly what?: string
  readonly member?: string
}

/**
 * Reads `postgres://user:password@host:port/database`, with `sslmode` and `sslrootcert` if need be. What is in it and cannot
 * be honoured is refused (invariant 6). Throws `ConnectorError` `nothing_done` that does not say back what was read.
 */
export function parseRootUrl(url: Secret, { tool, privateNetwork, what = 'The URL', member = 'url' }: UrlRules): RootUrl {
  const refuse = (why: string): ConnectorError =>
    new ConnectorError({ outcome: 'nothing_done', publicMessage: `${what} of the tool ${tool} ${why}: an admin puts it right where its catalog file takes \`${member}\` from.` })
  const text = url.reveal()
  if (!/^postgres(?:ql)?:\/\//.test(text) || !URL.canParse(text)) throw refuse('is not postgres://user:password@host:port/database')
  const parsed = new URL(text)
  const [host, user, password, database] = [parsed.hostname.replace(/^\[(.*)\]$/, '$1'), parsed.username, parsed.password, parsed.pathname.slice(1)].map(decode)
  if (host === undefined || user === undefined || password === undefined || database === undefined) throw refuse('has a % that begins no escape of UTF-8')
  if (host === '' || host.startsWith('/') || parsed.searchParams.has('host')) throw refuse('names no host (a Unix socket is not supported)')
  // Only in the form that psql, node-postgres and the resolver read alike: no list of hosts, nothing that is escaped.
  if (isIP(host) === 0 && !/^[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252})$/.test(host)) throw refuse('names a host that is neither one DNS name nor an IP address')
  if (user === '' || password === '') throw refuse('lacks the user or the password')
  if (database === '' || /[/?#]/.test(database)) throw refuse('lacks the database, or names one with "/", "?" or "#"')
  if ([host, user, password, database].some((part) => /\p{Cc}/u.test(part)) || parsed.hash !== '') throw refuse('has a control character or a fragment')
  const { sslmode, sslrootcert, ...others } = Object.fromEntries(parsed.searchParams)
  const [unknown] = Object.keys(others)
  if (unknown !== undefined) throw refuse(`has the parameter ${JSON.stringify(unknown.slice(0, 40))}; only sslmode and sslrootcert are supported`)
  if (parsed.searchParams.getAll('sslmode').length > 1 || parsed.searchParams.getAll('sslrootcert').length > 1) throw refuse('has a parameter twice')
  const mode = sslModes.find((known) => known === sslmode)
  if (sslmode !== undefined && mode === undefined) throw refuse(`has an sslmode that is none of ${sslModes.join(', ')}`)
  if (mode === 'disable' && !privateNetwork) throw refuse('has sslmode=disable, which needs private_network: true')
  if (sslrootcert !== undefined && !sslrootcert.startsWith('/')) throw refuse('has an sslrootcert that is not a whole path')
  return { host, port: Number(parsed.port || 5432), database, user, password: new Secret(password), sslmode: mode, sslrootcert }
}

/**
 * The URL by which a client takes a credential unmodified. The database's name is escaped as both libpq and node-postgres
 * undo it.
 */
export function formatUrl({ host, port, database, user, password, sslmode }: Omit<RootUrl, 'sslrootcert'>): Secret {
  const place = `${isIP(host) === 6 ? `[${host}]` : host}:${port}`
  const who = `${encodeURIComponent(user)}:${encodeURIComponent(password.reveal())}`
  return new Secret(`postgres://${who}@${place}/${encodeURI(database)}${sslmode === undefined ? '' : `?sslmode=${sslmode}`}`)
}

function decode(text: string): string | undefined {
  try {
    return decodeURIComponent(text)
  } catch {
    return undefined
  }
}
