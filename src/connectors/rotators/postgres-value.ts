import { z } from 'zod'
import { Secret } from '../../kernel/secret.ts'
import { ConnectorError } from '../connector.ts'
import { formatUrl, parseRootUrl, type RootUrl, type UrlRules } from '../postgres-url.ts'

/** A user of a PostgreSQL server with its password, as a secret holds it. */
export interface PostgresValue {
  readonly root: RootUrl
  /** The same place in the same form, with another user and password. */
  withUser(user: string, password: string): Secret
}

/** As AWS Secrets Manager keeps it; other members stay as they are. */
const members = z.looseObject({
  engine: z.enum(['postgres', 'postgresql', 'aurora-postgresql']).optional(),
  username: z.string().min(1),
  password: z.string().min(1),
  host: z.string().min(1),
  port: z.union([z.int(), z.string().regex(/^[0-9]+$/)]).default(5432),
  dbname: z.string().min(1).default('postgres'),
  sslmode: z.string().optional(),
  sslrootcert: z.string().optional(),
})

/** Reads a URL postgres://user:password@host/database, or JSON. Throws `ConnectorError` that does not say back what was read. */
export function parsePostgresValue(value: Secret, rules: UrlRules): PostgresValue {
  const text = value.reveal().trim()
  if (!text.startsWith('{')) {
    return {
      root: parseRootUrl(new Secret(text), rules),
      withUser(user, password) {
        const url = new URL(text)
        url.username = encodeURIComponent(user)
        url.password = encodeURIComponent(password)
        return new Secret(url.href)
      },
    }
  }
  const json = parseMembers(text, rules)
  const { username: user, password, host, port, dbname: database, sslmode, sslrootcert } = members.parse(json)
  const query = new URLSearchParams({ ...(sslmode !== undefined && { sslmode }), ...(sslrootcert !== undefined && { sslrootcert }) })
  const url = formatUrl({ host, port: Number(port), database, user, password: new Secret(password), sslmode: undefined }).reveal()
  return {
    root: parseRootUrl(new Secret(`${url}?${query.toString()}`), rules),
    withUser: (username, password) => new Secret(JSON.stringify({ ...json, username, password })),
  }
}

function parseMembers(text: string, { tool, what = 'The value' }: UrlRules): Readonly<Record<string, unknown>> {
  const read = z.string().transform((given, context): unknown => {
    try {
      return JSON.parse(given)
    } catch {
      context.addIssue('is no JSON')
      return z.NEVER
    }
  })
  const parsed = read.safeParse(text)
  const judged = parsed.success ? members.safeParse(parsed.data) : parsed
  if (parsed.success && judged.success) return z.record(z.string(), z.unknown()).parse(parsed.data)
  // What a problem says may hold what was read: where it is says enough.
  const [path] = judged.error?.issues[0]?.path ?? []
  const place = typeof path === 'string' ? `, for its member ${path} is missing or wrong` : ''
  const publicMessage = `${what} of the tool ${tool} is neither postgres://user:password@host/database nor JSON with username, password and host${place}: an admin puts it anew.`
  throw new ConnectorError({ outcome: 'nothing_done', publicMessage })
}
