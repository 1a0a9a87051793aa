import { isIP } from 'node:net'
import { parseDocument } from 'yaml'
import { z } from 'zod'
import { BrokerError } from './kernel/errors.ts'
import { nearestName } from './kernel/nearest.ts'

const source = z
  .string()
  .regex(/^(?:env:[A-Za-z_][A-Za-z0-9_]*|file:\/.+)$/, 'must be env:NAME or file:/absolute/path')
const absolutePath = z.string().regex(/^\//, 'must be an absolute path')
const from = (what: string) => z.strictObject({ from: source.describe(`Where ${what} comes from: env:NAME, or file:/path with mode 0600.`) })

const issuer = z.string().refine(isOrigin, 'must be an https origin such as https://stint.example.com, without a path or a trailing slash')

/** Every option of `stint.yaml`. The descriptions are what `stint config` prints. */
export const configSchema = z.strictObject({
  issuer: issuer.describe('The address under which everybody reaches Stint: the OAuth issuer, and the audience of client assertions.'),
  trust_domain: z
    .string()
    .regex(/^[a-z0-9](?:[a-z0-9._-]{0,253}[a-z0-9])?$/, 'must be a SPIFFE trust domain: lower-case letters, digits, dots, dashes')
    .describe('The SPIFFE trust domain: a workload is spiffe://<trust domain>/<name>. Never change it later.'),
  listen: z
    .strictObject({
      host: z.string().refine((host) => isIP(host) !== 0, 'must be an IP address').default('127.0.0.1').describe('The IP address to listen on.'),
      port: z.int().min(1).max(65_535).default(7846).describe('The TCP port to listen on.'),
    })
    .prefault({})
    .describe('Where Stint listens.'),
  tls: z
    .strictObject({
      cert_file: absolutePath.describe('PEM certificate chain.'),
      key_file: absolutePath.describe('PEM private key, mode 0600.'),
    })
    .optional()
    .describe('Stint serves TLS itself. Either this or proxy is needed.'),
  proxy: z
    .strictObject({
      addresses: z
        .array(z.string().refine((host) => isIP(host) !== 0, 'must be an IP address'))
        .min(1)
        .describe('The IP addresses from which the proxy connects; nobody else is answered.'),
    })
    .optional()
    .describe('A proxy on this machine ends TLS; Stint then listens on loopback alone. Either this or tls is needed.'),
  database: z
    .union([
      z.strictObject({
        sqlite: z
          .strictObject({ file: absolutePath.describe('The database file; one Stint process at a time.') })
          .describe('One file, for one process.'),
      }),
      z.strictObject({
        postgres: z
          .strictObject({
            url: from('the connection URL').describe('postgres://… as the role that serves. It must not own the tables.'),
            migrate_url: from('the owner\'s connection URL')
              .optional()
              .describe('postgres://… as the role that owns the tables; `stint migrate` alone reads it.'),
          })
          .describe('A server, for any number of processes.'),
      }),
    ])
    .describe('Where everything is kept: sqlite or postgres.'),
  root_key: from('the root key').describe('32 bytes, as base64 or hex, that wrap every sealed secret. Make it with: openssl rand -base64 32'),
  policies: z
    .strictObject({ folder: absolutePath.describe('Policy and catalog files, put in force at the first start. Later: stint policy apply.') })
    .optional()
    .describe('The first policy set.'),
  log: z
    .strictObject({ level: z.enum(['debug', 'info', 'warn', 'error']).default('info').describe('The least level that is written.') })
    .prefault({})
    .describe('The operator\'s log, JSON lines on standard error.'),
})

/** The configuration of a broker in production. */
export type Config = z.output<typeof configSchema>

/**
 * Parses `stint.yaml`. Throws `config_invalid` that names every problem: what is unknown is refused, with the nearest
 * known name. `file` is for the messages.
 */
export function parseConfig(text: string, file: string): Config {
  const document = parseDocument(text, { uniqueKeys: true, merge: false })
  const [syntax] = document.errors
  if (syntax !== undefined) throw invalid(file, [syntax.message])
  const parsed = configSchema.safeParse(document.toJS({ maxAliasCount: 0 }))
  if (!parsed.success) throw invalid(file, parsed.error.issues.flatMap((issue) => describeIssue(issue)))
  const problems = judgeServing(parsed.data)
  if (problems.length > 0) throw invalid(file, problems)
  return parsed.data
}

function describeIssue(issue: z.core.$ZodIssue, above: readonly PropertyKey[] = []): string[] {
  const path = [...above, ...issue.path].map(String).join('.')
  if (issue.code === 'invalid_union') {
    // The alternatives of the one union: the one whose own member was given says what is wrong with it.
    const closest = [...issue.errors].sort((a, b) => depth(b) - depth(a))[0] ?? []
    return closest.flatMap((inner) => describeIssue(inner, [...above, ...issue.path]))
  }
  if (issue.code === 'unrecognized_keys') {
    const known = optionNames()
    return issue.keys.map((key) => {
      const nearest = nearestName(key, known)
      return `${path === '' ? '' : `${path}.`}${key} is not an option${nearest === undefined ? '' : `; did you mean ${nearest}?`}`
    })
  }
  if (issue.code === 'invalid_type' && issue.input === undefined) return [`${path} is missing`]
  return [`${path} ${issue.message.replace(/^Invalid input: /, 'is invalid: ')}`]
}

function depth(issues: readonly z.core.$ZodIssue[]): number {
  return Math.max(0, ...issues.map((issue) => issue.path.length))
}

/** What the schema of single options cannot see: production is reached over TLS, by one of two ways. */
function judgeServing({ tls, proxy, listen }: Config): string[] {
  if (tls === undefined && proxy === undefined) return ['tls or proxy is missing: production is reached over TLS, which Stint or a proxy ends']
  if (tls !== undefined && proxy !== undefined) return ['tls and proxy exclude each other: name who ends TLS']
  if (proxy !== undefined && !isLoopback(listen.host)) return ['listen.host must be a loopback address behind a proxy: others could reach Stint without TLS']
  return []
}

export function isLoopback(host: string): boolean {
  return host === '::1' || host.startsWith('127.')
}

function isOrigin(text: string): boolean {
  return URL.canParse(text) && new URL(text).origin === text && text.startsWith('https://')
}

/** One option as `stint config` shows it. */
export interface ConfigOption {
  /** As in `listen.port`. */
  readonly path: string
  readonly type: string
  readonly required: boolean
  readonly default?: unknown
  readonly description: string
}

/** All options, in the order of the schema. */
export function listOptions(): ConfigOption[] {
  return listProperties(configJsonSchema(), '')
}

/** The options as JSON Schema 2020-12, for editors. */
export function configJsonSchema(): JsonSchema {
  return z.toJSONSchema(configSchema, { io: 'input', unrepresentable: 'any' }) as JsonSchema
}

export interface JsonSchema {
  readonly type?: string
  readonly description?: string
  readonly default?: unknown
  readonly enum?: readonly unknown[]
  readonly items?: JsonSchema
  readonly properties?: Readonly<Record<string, JsonSchema>>
  readonly required?: readonly string[]
  readonly anyOf?: readonly JsonSchema[]
}

function listProperties(schema: JsonSchema, prefix: string): ConfigOption[] {
  const alternatives = schema.anyOf ?? [schema]
  return alternatives.flatMap(({ properties = {}, required = [] }) =>
    Object.entries(properties).flatMap(([name, property]) => {
      const path = `${prefix}${name}`
      const option: ConfigOption = {
        path,
        type: typeOf(property),
        required: required.includes(name) && alternatives.length === 1,
        description: property.description ?? '',
        ...(property.default !== undefined && typeof property.default !== 'object' && { default: property.default }),
      }
      return [option, ...listProperties(property, `${path}.`)]
    }),
  )
}

function typeOf({ type, enum: values, items, anyOf }: JsonSchema): string {
  if (values !== undefined) return values.join(' | ')
  if (items !== undefined) return `list of ${items.type ?? 'values'}`
  return anyOf === undefined ? (type ?? 'any') : 'object'
}

function optionNames(): string[] {
  return [...new Set(listOptions().flatMap((option) => option.path.split('.')))]
}

function invalid(file: string, problems: readonly string[]): BrokerError {
  return new BrokerError({
    code: 'config_invalid',
    publicMessage: `${file}: ${problems.join('; ')}. \`stint config\` lists every option.`,
    extra: { problems },
  })
}
