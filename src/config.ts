import { isIP } from 'node:net'
import { z } from 'zod'

const source = z
  .string()
  .regex(/^(?:env:[A-Za-z_][A-Za-z0-9_]*|file:\/.+)$/, 'must be env:NAME or file:/absolute/path')
const absolutePath = z.string().regex(/^\/[^\p{Cc}]*$/u, 'must be an absolute path')
const from = (what: string) => z.strictObject({ from: source.describe(`Where ${what} comes from: env:NAME, or file:/path with mode 0600.`) })

const groups = z.array(z.string().min(1).max(256)).default([])

const issuer = z.string().refine(isOrigin, 'must be an https origin such as https://stint.example.com, without a path or a trailing slash')

const anchor = z
  .strictObject({
    file: absolutePath.optional().describe('A file to which they are appended, best on another disk.'),
    http: z
      .strictObject({
        url: z.string().refine(isAnchorUrl, 'must be an https URL without user, query and fragment').describe('Takes each one by POST as text/plain, and gives the newest by GET, or 404 or 405.'),
        token: from('a bearer token').optional().describe('Sent with each request.'),
      })
      .optional()
      .describe('An HTTP endpoint.'),
    witness: z
      .strictObject({
        url: z.string().refine(isAnchorUrl, 'must be an https URL without user, query and fragment').describe('Its submission prefix, to which /add-checkpoint is appended.'),
        key: z.string().regex(/^[^\s+]+\+[0-9a-f]{8}\+[A-Za-z0-9+/]+={0,2}$/, 'must be a verifier key, name+hash+base64').describe('Its verifier key, of Ed25519.'),
      })
      .optional()
      .describe('A witness that speaks https://c2sp.org/tlog-witness.'),
  })
  .meta({ minProperties: 1, maxProperties: 1 })
  .transform(({ file, http, witness }, context) => {
    if (file !== undefined && http === undefined && witness === undefined) return { file }
    if (http !== undefined && file === undefined && witness === undefined) return { http }
    if (witness !== undefined && file === undefined && http === undefined) return { witness }
    context.addIssue({ code: 'custom', message: 'must name one of file, http and witness' })
    return z.NEVER
  })

// The key itself, no alias: what an alias stands for can be changed.
const kmsKeyPattern = /^arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key\/[A-Za-z0-9-]{1,128}$/

const rootKeyForm = {
  from: source.optional().describe('Where 32 bytes come from, as base64 or hex: env:NAME, or file:/path with mode 0600. Make them with: openssl rand -base64 32'),
  kms: z
    .strictObject({
      key: z.string().regex(kmsKeyPattern, 'must be the ARN of a KMS key, as in arn:aws:kms:eu-west-1:111122223333:key/…, and no alias\'s').describe('The ARN of a symmetric key. Stint needs kms:Encrypt and kms:Decrypt on it, with the credentials that the AWS SDK finds by itself.'),
      endpoint: z.string().refine(isAnchorUrl, 'must be an https URL without user, query and fragment').optional().describe('In place of AWS\'s own address of the key\'s region, as for a VPC endpoint.'),
    })
    .optional()
    .describe('A key that AWS KMS keeps.'),
}
const exactlyOneForm = { oneOf: [{ required: ['from'] }, { required: ['kms'] }] }

/** What the two members say together: exactly one is there. */
function pickRootKey<T>({ from, kms }: { readonly from?: string | undefined; readonly kms?: T | undefined }, context: z.RefinementCtx) {
  if (from !== undefined && kms === undefined) return { from }
  if (kms !== undefined && from === undefined) return { kms }
  context.addIssue({ code: 'custom', message: 'must name one of from and kms' })
  return z.NEVER
}

const previousRootKey = z.strictObject(rootKeyForm).meta(exactlyOneForm).transform(pickRootKey)

const rootKey = z
  .strictObject({
    ...rootKeyForm,
    previous: previousRootKey.optional().describe('The root key that is given up: what it has wrapped is wrapped by the new one, while Stint runs. stint keys rewrap says when it can go.'),
  })
  .meta(exactlyOneForm)
  .transform(({ previous, ...form }, context) => {
    // One key has one name, by whichever address it is asked.
    const isSame = form.kms !== undefined && previous !== undefined && 'kms' in previous ? previous.kms.key === form.kms.key : JSON.stringify(previous) === JSON.stringify(form)
    if (isSame) context.addIssue({ code: 'custom', message: 'must not be its own previous' })
    return { ...pickRootKey(form, context), ...(previous && { previous }) }
  })

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
        .describe('The loopback addresses from which the proxy connects; nobody else is answered.'),
    })
    .optional()
    .describe('A proxy on this machine ends TLS; Stint then listens on loopback alone. Either this or tls is needed.'),
  database: z
    .strictObject({
      sqlite: z
        .strictObject({ file: absolutePath.describe('The database file; one Stint process at a time.') })
        .optional()
        .describe('One file, for one process.'),
      postgres: z
        .strictObject({
          url: from('the connection URL').describe('postgres://… as the role that serves. It must not own the tables.'),
          migrate_url: from('the owner\'s connection URL')
            .optional()
            .describe('postgres://… as the role that owns the tables; `stint migrate` alone reads it.'),
        })
        .optional()
        .describe('A server, for any number of processes.'),
    })
    .meta({ minProperties: 1, maxProperties: 1 })
    .transform(({ sqlite, postgres }, context) => {
      if (sqlite !== undefined && postgres === undefined) return { sqlite }
      if (postgres !== undefined && sqlite === undefined) return { postgres }
      context.addIssue({ code: 'custom', message: 'must name one of sqlite and postgres' })
      return z.NEVER
    })
    .describe('Where everything is kept: sqlite or postgres.'),
  anchors: z
    .array(anchor)
    .max(16)
    .optional()
    .describe('What keeps each checkpoint of the log outside of the database, so that an older or another one in its place is noticed. On SQLite a file beside it by default; on PostgreSQL needed. [] for none.'),
  root_key: rootKey.describe('Wraps the keys that seal every secret. Either 32 bytes from a file or from the environment, or a key of AWS KMS.'),
  policies: z
    .strictObject({
      folder: absolutePath.describe('Policy and catalog files, put in force at the first start.'),
      reload: z
        .enum(['on_change', 'never'])
        .default('on_change')
        .describe('On SQLite, whether the folder comes into force whenever it changes, and on SIGHUP. On PostgreSQL: stint policy apply.'),
    })
    .optional()
    .describe('The folder with the policy set.'),
  operators: z
    .strictObject({
      oidc: z
        .strictObject({
          issuer: z.string().refine(isOidcIssuer, 'must be the https URL of the issuer, as its discovery document has it').describe('The OpenID Connect issuer of your company.'),
          client_id: z.string().min(1).max(256).describe('The client that is registered there for Stint: public, for native applications.'),
          scopes: z.array(z.string().regex(/^[\x21\x23-\x5b\x5d-\x7e]+$/, 'must be OAuth scopes')).refine((scopes) => scopes.includes('openid'), 'must hold openid').default(['openid', 'groups']).describe('What `stint login` asks for.'),
          groups_claim: z.string().min(1).max(128).default('groups').describe('The claim of the ID token that lists the groups.'),
          roles: z
            .strictObject({
              admin: groups.describe('Groups whose members are admins.'),
              approver: groups.describe('Groups whose members are approvers.'),
              auditor: groups.describe('Groups whose members are auditors.'),
            })
            .refine((roles) => Object.values(roles).some((names) => names.length > 0), 'must name at least one group')
            .describe('Which groups have which role. Who is in several has the first of admin, approver, auditor.'),
          session_minutes: z.int().min(5).max(720).default(60).describe('How long a person stays signed in.'),
        })
        .optional()
        .describe('People sign in with the account of their company: stint login.'),
    })
    .prefault({})
    .describe('Who may operate Stint, beside the operators that it has credentials of its own for.'),
  token_keys: z
    .strictObject({ rotate_days: z.int().min(1).max(365).default(30).describe('How long a key signs tokens until the next one takes over.') })
    .prefault({})
    .describe('The keys that sign tokens.'),
  sealing_keys: z
    .strictObject({ rotate_days: z.int().min(1).max(365).default(90).describe('How long a key seals what the database keeps secret until the next one takes over; what it sealed is then sealed anew.') })
    .prefault({})
    .describe('The keys that the root key wraps, which seal secrets.'),
  rotation: z
    .strictObject({
      commands: z
        .array(
          z.strictObject({
            name: z.string().regex(/^[a-z][a-z0-9-]{0,62}$/, 'must be a name of lower-case letters, digits and dashes').describe('By which catalog files name it: rotator: { command: { name: … } }.'),
            path: absolutePath.describe('The program, without symbolic links. It and its folders must be writable by nobody but root and the user that Stint runs as.'),
            args: z.array(z.string().max(1_024).regex(/^[^\0]*$/, 'must not hold a zero byte')).max(32).default([]).describe('What it is always called with, before the step: create, set, test or retire.'),
          }),
        )
        .max(64)
        .refine((commands) => new Set(commands.map(({ name }) => name)).size === commands.length, 'must not hold a name twice')
        .default([])
        .describe('Programs on this machine that catalog files may name to replace secrets by. They run as the user that Stint runs as, and are handed the secrets on standard input.'),
    })
    .optional()
    .describe('How secrets are replaced.'),
  limits: z
    .strictObject({
      refusals_per_minute_per_address: z
        .int()
        .min(1)
        .max(1_000_000)
        .default(60)
        .describe('How often one address (IPv6: one /64) may fail to prove who it is, or send what is wrong in itself, before it has to wait.'),
      requests_per_second_per_workload: z.int().min(1).max(1_000_000).default(200).describe('How often one workload may ask; twice as often for a moment.'),
      connections_per_address: z
        .int()
        .min(1)
        .max(1_000_000)
        .default(500)
        .describe('How many connections one address (IPv6: one /64) may have open; a proxy is not counted.'),
    })
    .prefault({})
    .describe('What one caller may take up, counted by each process by itself.'),
  telemetry: z
    .strictObject({
      otlp_url: z.string().refine(isCollectorUrl, 'must be an http or https URL without user, query and fragment').optional().describe('Where OpenTelemetry traces go, by OTLP over HTTP, as in http://127.0.0.1:4318. None are made without it.'),
    })
    .prefault({})
    .describe('What Stint tells of its own running. Metrics are at /metrics.'),
  log: z
    .strictObject({ level: z.enum(['debug', 'info', 'warn', 'error']).default('info').describe('The least level that is written.') })
    .prefault({})
    .describe('The operator\'s log, JSON lines on standard error.'),
})

/** The configuration of a broker in production. */
export type Config = z.output<typeof configSchema>

/** What the schema of single options cannot see: production is reached over TLS, by one of two ways. */
export function judgeServing({ tls, proxy, listen }: Config): string[] {
  if (proxy === undefined) {
    return tls === undefined ? ['tls or proxy is missing: production is reached over TLS, which Stint or a proxy ends'] : []
  }
  const far = proxy.addresses.filter((address) => !isLoopback(address))
  return [
    ...(tls === undefined ? [] : ['tls and proxy exclude each other: name who ends TLS']),
    ...(isLoopback(listen.host) ? [] : ['listen.host must be a loopback address behind a proxy: others could reach Stint without TLS']),
    ...far.map((address) => `proxy.addresses holds ${address}, which never reaches a loopback address: give 127.0.0.1 or ::1`),
  ]
}

/** What the schema cannot see of anchors: where the database has a place beside it, and that no two are one. */
export function judgeAnchors({ anchors, database }: Config): string[] {
  if (anchors === undefined) {
    return 'sqlite' in database
      ? []
      : ['anchors is missing, for PostgreSQL has no place beside it: name a file on each machine as in anchors: [{ file: /var/lib/stint/checkpoints }], or anchors: [] if nothing is to notice a restored backup']
  }
  const places = anchors.map((one) => ('file' in one ? one.file : 'http' in one ? one.http.url : one.witness.key))
  return places.filter((place, i) => places.indexOf(place) !== i).map((place) => `anchors holds ${place} twice`)
}

function isLoopback(host: string): boolean {
  return host === '::1' || host.startsWith('127.')
}

/** OpenID Connect Core §1.2: https, without query and fragment. Plain http only on this machine, where nobody can be between. */
function isOidcIssuer(text: string): boolean {
  if (!URL.canParse(text)) return false
  const { protocol, hostname, search, hash, username } = new URL(text)
  return (protocol === 'https:' || (protocol === 'http:' && isLoopback(hostname))) && search === '' && hash === '' && username === ''
}

/** Plain http only on this machine: what keeps checkpoints must be the one that is meant. */
function isAnchorUrl(text: string): boolean {
  if (!isCollectorUrl(text)) return false
  const { protocol, hostname } = new URL(text)
  return protocol === 'https:' || isLoopback(hostname)
}

/** Credentials and parameters would be told wherever the address is. */
function isCollectorUrl(text: string): boolean {
  if (!URL.canParse(text)) return false
  const { protocol, search, hash, username, password } = new URL(text)
  return ['http:', 'https:'].includes(protocol) && search === '' && hash === '' && username === '' && password === ''
}

function isOrigin(text: string): boolean {
  return URL.canParse(text) && new URL(text).origin === text && text.startsWith('https://')
}
