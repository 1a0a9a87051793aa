import { accessSync, constants, existsSync, mkdirSync, readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { createSecureContext } from 'node:tls'
import { originOf } from './audit/checkpoint.ts'
import type { SignInSettings } from './broker/sign-in.ts'
import type { Pass } from './broker/waypoints.ts'
import { compose, unlimited, type Composition, type Parts } from './compose.ts'
import type { Config } from './config.ts'
import type { Anchor } from './connectors/anchors/anchor.ts'
import { createFileAnchor } from './connectors/anchors/file.ts'
import { createHttpAnchor } from './connectors/anchors/http.ts'
import { createWitnessAnchor } from './connectors/anchors/witness.ts'
import { createKmsRootKey } from './crypto/kms-root-key.ts'
import { createRawRootKey, createRootKeyFile, readRootKey, type RootKey } from './crypto/root-key.ts'
import { createHttpServer, type HttpServerOptions } from './http/server.ts'
import { systemClock, type Clock } from './kernel/clock.ts'
import { BrokerError } from './kernel/errors.ts'
import type { Log } from './kernel/log.ts'
import { readSecretSource, type Environment } from './kernel/secret-source.ts'
import { openConfiguredDatabase } from './open-database.ts'
import { openSqlite } from './storage/sqlite.ts'

/** A broker that listens. */
export interface RunningBroker {
  readonly url: string
  readonly composition: Composition
  /** Takes no new requests, finishes those that were begun (for at most 10 s), and closes everything. */
  close(): Promise<void>
}

/** Starts a broker in production. Makes nothing up: what the configuration lacks is a `config_invalid` error. `pass` is for tests. */
export async function startProduction(config: Config, env: Environment, log: Log, clock: Clock = systemClock, pass?: Pass): Promise<RunningBroker> {
  const tls = config.tls && readTls(config.tls, env)
  const rootKeys = await openRootKeys(config, env)
  const { database, explain } = openConfiguredDatabase(config, env, log, 'server')
  const parts: Parts = {
    issuer: config.issuer,
    trustDomain: config.trust_domain,
    database,
    ...rootKeys,
    log,
    clock,
    ...(pass && { pass }),
    development: false,
    ...(config.policies && { policyFolder: { folder: config.policies.folder, follow: config.policies.reload === 'on_change' } }),
    limits: {
      refusalsPerMinutePerAddress: config.limits.refusals_per_minute_per_address,
      requestsPerSecondPerWorkload: config.limits.requests_per_second_per_workload,
    },
    ...(config.proxy && { proxies: config.proxy.addresses }),
    rotateKeysAfterDays: config.token_keys.rotate_days,
    rotateSealingKeysAfterDays: config.sealing_keys.rotate_days,
    ...(config.operators.oidc && { signIn: toSignIn(config.operators.oidc) }),
    ...(config.telemetry.otlp_url !== undefined && { otlpUrl: config.telemetry.otlp_url }),
    anchors: openAnchors(config, env, log),
    env,
    ownSecrets: listOwnSecrets(config, env),
    commands: new Map((config.rotation?.commands ?? []).map(({ name, path, args }) => [name, { path, args }])),
  }
  const listening: Listening = {
    ...config.listen,
    ...(tls && { tls }),
    ...(config.proxy && { onlyFrom: config.proxy.addresses }),
    connectionsPerAddressMax: config.limits.connections_per_address,
  }
  return startBroker(parts, listening, explain)
}

function toSignIn(oidc: NonNullable<Config['operators']['oidc']>): SignInSettings {
  const { issuer, client_id: clientId, scopes, groups_claim: groupsClaim, roles: groupsByRole, session_minutes: sessionMinutes } = oidc
  return { issuer, clientId, scopes, groupsClaim, groupsByRole, sessionMinutes }
}

/** The sources of the broker's own secrets, which no tool of the catalog may name. */
export function listOwnSecrets(config: Config, env: Environment): string[] {
  const { root_key: rootKey, tls, database, anchors = [] } = config
  return [
    ...[rootKey, ...(rootKey.previous ? [rootKey.previous] : [])].flatMap((one) => ('from' in one ? [one.from] : listAwsSources(env))),
    ...(tls ? [`file:${tls.key_file}`] : []),
    ...('postgres' in database ? [database.postgres.url.from, ...(database.postgres.migrate_url ? [database.postgres.migrate_url.from] : [])] : [`file:${database.sqlite.file}`]),
    ...anchors.flatMap((anchor) => ('http' in anchor && anchor.http.token ? [anchor.http.token.from] : [])),
  ]
}

/** Where the AWS SDK finds the credentials with which this process asks KMS: whoever has them can have the sealing keys opened. */
function listAwsSources(env: Environment): string[] {
  const variables = ['ACCESS_KEY_ID', 'SECRET_ACCESS_KEY', 'SESSION_TOKEN', 'SECURITY_TOKEN', 'CONTAINER_AUTHORIZATION_TOKEN'].map((name) => `AWS_${name}`)
  const files = ['WEB_IDENTITY_TOKEN_FILE', 'CONTAINER_AUTHORIZATION_TOKEN_FILE', 'SHARED_CREDENTIALS_FILE', 'CONFIG_FILE'].flatMap((name) => env[`AWS_${name}`] ?? [])
  return [...variables.map((name) => `env:${name}`), ...[...files, join(env['HOME'] ?? homedir(), '.aws')].map((file) => `file:${resolve(file)}`)]
}

/** Where checkpoints are kept: as the configuration says, or on SQLite in a file beside the database, which is better than nothing. */
function openAnchors({ anchors, database, trust_domain: trustDomain }: Config, env: Environment, log: Log): Anchor[] {
  const origin = originOf(trustDomain)
  if (anchors === undefined && 'sqlite' in database) {
    const file = anchorFileBeside(database.sqlite.file)
    log.warn('checkpoints are kept in a file beside the database: on another disk, or by somebody else, they survive what befalls this one, and those who can write it (anchors in the configuration)', { file })
    return [createFileAnchor({ file, origin })]
  }
  if (anchors?.length === 0) log.warn('no anchor keeps checkpoints: an older database in place of this one is not noticed (anchors in the configuration)')
  return (anchors ?? []).map((anchor) => {
    if ('file' in anchor) return createFileAnchor({ file: anchor.file, origin })
    if ('witness' in anchor) return createWitnessAnchor(anchor.witness)
    const { url, token } = anchor.http
    return createHttpAnchor({ url, ...(token && { token: readSecretSource(token.from, `the token for the anchor ${url}`, env) }) })
  })
}

function anchorFileBeside(databaseFile: string): string {
  return `${databaseFile}.checkpoints`
}

interface Tls {
  readonly cert: string
  readonly key: string
}

function readTls({ cert_file: certFile, key_file: keyFile }: NonNullable<Config['tls']>, env: Environment): Tls {
  const cert = readCertificate(certFile)
  const key = readSecretSource(`file:${keyFile}`, 'the TLS private key', env).reveal()
  try {
    createSecureContext({ cert, key })
  } catch (cause) {
    const publicMessage = `the TLS certificate ${certFile} and the key ${keyFile} must be PEM and belong together`
    throw new BrokerError({ code: 'config_invalid', publicMessage, cause })
  }
  return { cert, key }
}

function readCertificate(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (cause) {
    throw new BrokerError({ code: 'config_invalid', publicMessage: `the TLS certificate ${file} cannot be read`, cause })
  }
}

/** The root keys that the configuration names. One that AWS KMS keeps is not asked yet. */
export async function openRootKeys({ root_key: rootKey, trust_domain: trustDomain }: Config, env: Environment): Promise<Pick<Parts, 'rootKey' | 'previousRootKey'>> {
  const open = async (one: NonNullable<Config['root_key']['previous']>): Promise<RootKey> => {
    if ('kms' in one) return createKmsRootKey({ ...one.kms, trustDomain })
    const { from } = one
    return createRawRootKey(await readRootKey(from.startsWith('env:') ? { env: from.slice(4) } : { file: from.slice(5) }, env))
  }
  return { rootKey: await open(rootKey), ...(rootKey.previous && { previousRootKey: await open(rootKey.previous) }) }
}

export interface DevelopmentOptions {
  /** Where everything is kept: database, root key, the sample agent's key. */
  readonly folder: string
  readonly policyFolder: string
  readonly port: number
  readonly log: Log
  /** Where the root credentials of tools are read from, each time anew. */
  readonly env?: Environment
}

/** The trust domain of a broker in development. */
export const developmentTrustDomain = 'stint.local'

/** On loopback there are no strangers to hold off, and a test of one's own may well ask often. */
const developmentConnectionsMax = 4_000

/** Starts a broker for development: loopback without TLS, on a SQLite file, with a root key that is made when missing. */
export async function startDevelopment({ folder, policyFolder, port, log, env }: DevelopmentOptions): Promise<RunningBroker> {
  prepareFolder(folder)
  const database = join(folder, 'stint.db')
  const rootKey = createRawRootKey(await openDevelopmentRootKey(join(folder, 'root.key'), database, folder))
  const parts: Parts = {
    issuer: `http://127.0.0.1:${port}`,
    trustDomain: developmentTrustDomain,
    database: openSqlite({ file: database }),
    rootKey,
    log,
    development: true,
    policyFolder: { folder: policyFolder, follow: true },
    limits: unlimited,
    ...(env && { env }),
    ownSecrets: [`file:${join(folder, 'root.key')}`],
    anchors: [createFileAnchor({ file: anchorFileBeside(database), origin: originOf(developmentTrustDomain) })],
  }
  return startBroker(parts, { host: '127.0.0.1', port, connectionsPerAddressMax: developmentConnectionsMax })
}

function prepareFolder(folder: string): void {
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 })
    accessSync(folder, constants.R_OK | constants.W_OK | constants.X_OK)
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : String(cause)
    const why = code === 'EEXIST' || code === 'ENOTDIR' ? 'it is, or lies in, something that is no folder' : `it cannot be made or written to (${code})`
    throw new BrokerError({ code: 'config_invalid', publicMessage: `nothing can be kept in ${folder}: ${why}; give --data a folder of your own`, cause })
  }
}

/** Made at the first start alone: another key opens nothing of what an earlier one has sealed. */
async function openDevelopmentRootKey(file: string, database: string, folder: string): Promise<Uint8Array> {
  if (existsSync(file)) return readRootKey({ file }, {})
  if (!existsSync(database)) return createRootKeyFile(file)
  throw new BrokerError({ code: 'config_invalid', publicMessage: `${file} is missing: put it back, or delete ${folder} to start afresh` })
}

type Listening = { readonly host: string; readonly port: number } & Pick<HttpServerOptions, 'tls' | 'onlyFrom' | 'connectionsPerAddressMax'>

/** `explain` turns what the database throws into what the operator can act on. */
async function startBroker(
  parts: Parts,
  { host, port, ...serving }: Listening,
  explain: (error: unknown) => unknown = (error) => error,
): Promise<RunningBroker> {
  let composition: Composition
  try {
    composition = await compose(parts)
  } catch (error) {
    await parts.database.close()
    throw explain(error)
  }
  const { broker, app, door } = composition
  const server = createHttpServer({ fetch: app.fetch, door, broker, ...serving })
  try {
    await server.listen(host, port)
  } catch (error) {
    await composition.close()
    throw error
  }
  composition.scheduler.start()
  return {
    url: parts.issuer,
    composition,
    async close() {
      composition.beginDraining()
      await server.drain()
      await composition.close()
      parts.log.info('stopped')
    },
  }
}
