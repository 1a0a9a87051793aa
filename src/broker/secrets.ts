import { realpathSync } from 'node:fs'
import { normalize } from 'node:path'
import type { Kysely } from 'kysely'
import { ConnectorError, type ToolContext } from '../connectors/connector.ts'
import { sealedSecretKind, writeReference } from '../connectors/secret-reference.ts'
import { BrokerError } from '../kernel/errors.ts'
import { readSecretSource, type Environment } from '../kernel/secret-source.ts'
import { isSameSecret, Secret } from '../kernel/secret.ts'
import type { Catalog } from '../policy/catalog.ts'
import type { SealedSecretConfig } from '../policy/kinds/sealed-secret.ts'
import type { Schema } from '../storage/schema.ts'
import { hasLent, wakeHolders } from '../storage/due-credentials.ts'
import { wakeRotation } from '../storage/rotations.ts'
import { eraseVersion, findCustody, findSecret, findStages, insertVersion, moveVersion, nextVersion, putCustody, secretPlace, type SecretStage, type StoredSecret } from '../storage/secrets.ts'
import { causedBy, type Broker, type Caller } from './broker.ts'
import { commit } from './commit.ts'

/** The largest secret that an admin can hand over, in bytes of UTF-8. */
export const secretBytesMax = 64 * 1024

export interface SecretReaderOptions extends Pick<Broker, 'database' | 'sealer'> {
  readonly env: Environment
  /**
   * Sources of the broker's own secrets, of files also a folder with all in it: no tool may name them, for who writes a
   * catalog could have them sent anywhere.
   */
  readonly own?: readonly string[]
}

/**
 * Makes the function that reads a tool's root credential, each time anew, so that a replaced one is used from then on. It
 * throws a `ConnectorError` (`nothing_done`) that says what an admin does.
 */
export function createSecretReader({ database, sealer, env, own = [] }: SecretReaderOptions): ToolContext['readSecret'] {
  return async (source, what) => {
    try {
      if (source.startsWith('sealed:')) return await readSealed({ database, sealer }, source.slice('sealed:'.length), what)
      // Looked at anew each time: links can be changed, as they are whenever a mounted secret is replaced.
      const reserved = [...own.flatMap(identify), ...kernels]
      if (identify(source).some((one) => reserved.some((other) => one === other || one.startsWith(`${other}/`)))) throw unusable(`${source} is the broker's own: ${what} must be kept elsewhere`)
      return readSecretSource(source, what, env)
    } catch (error) {
      if (error instanceof ConnectorError) throw error
      if (error instanceof BrokerError) throw unusable(error.publicMessage, error)
      throw unusable(`the database could not be read for ${what}: try again shortly`, error)
    }
  }
}

/** The kernel's files show this process itself, its environment too. */
const kernels: readonly string[] = ['file:/proc', 'file:/sys', 'file:/dev']

/** What tells a source from others: a file by its path as it is written, and by where that leads now. */
function identify(source: string): string[] {
  if (!source.startsWith('file:')) return [source]
  const path = normalize(source.slice('file:'.length))
  try {
    return [`file:${path}`, `file:${realpathSync(path)}`]
  } catch {
    // What is not there is told of when it is read.
    return [`file:${path}`]
  }
}

async function readSealed({ database, sealer }: Pick<Broker, 'database' | 'sealer'>, name: string, what: string): Promise<Secret> {
  const secret = await findSecret(database.read, name)
  if (secret === undefined) throw missingSecret(name, what)
  const custody = await findCustody(database.read, name)
  if (custody?.state === 'used_up') throw needsReconnection(custody.tool, name)
  return openSecret({ sealer }, secret)
}

/** The newest version of a sealed secret, opened. Throws `ConnectorError` where the sealing key is not the one that sealed it, or is not to be had now. */
export function openSecret({ sealer }: Pick<Broker, 'sealer'>, { name, version, sealed }: StoredSecret): Secret {
  try {
    return new Secret(Buffer.from(sealer.open(sealed, secretPlace(name, version))).toString('utf8'))
  } catch (cause) {
    if (cause instanceof BrokerError && cause.code === 'unavailable') {
      throw unusable(`the sealed secret ${name} is under the sealing key of version ${sealed.version}, which this process cannot open at the moment (${cause.detail})`, cause, retryLockedSeconds)
    }
    throw unusable(`the sealed secret ${name} cannot be opened: an admin puts it anew, with stint secret put ${name}`, cause)
  }
}

/** Nobody has handed over this secret. */
export function missingSecret(name: string, what: string): ConnectorError {
  return unusable(`there is no sealed secret ${name}, which must hold ${what}: an admin puts it, with stint secret put ${name}`)
}

/** The secret opens nothing any more, or nobody knows whether it does. */
export function needsReconnection(tool: string, name: string, init?: Pick<ConnectorError, 'outcome' | 'cause'>): ConnectorError {
  return new ConnectorError({
    outcome: 'nothing_done',
    ...init,
    publicMessage: `The tool ${tool} needs reconnection: its refresh token is used up, or may be. An admin puts a fresh one: stint secret put ${name}`,
  })
}

/** After so many seconds a process that lacks a sealing key has tried again to load it. */
const retryLockedSeconds = 5

function unusable(reason: string, cause?: unknown, retryAfterSeconds?: number): ConnectorError {
  const publicMessage = `The tool's root credential cannot be used: an admin sees why with stint tool check.`
  return new ConnectorError({ outcome: 'nothing_done', publicMessage, adminMessage: `The tool's root credential cannot be used: ${reason}.`, ...(retryAfterSeconds !== undefined && { retryAfterSeconds }), ...(cause !== undefined && { cause }) })
}

/** A secret that was put, as far as it may be shown. */
export interface PutSecret extends Pick<StoredSecret, 'name' | 'version' | 'createdAtMs'> {
  readonly auditIndex: number
}

/**
 * Seals a secret as the version of its name that is in use, and erases the one before and one that was to be the next: whoever
 * puts a secret says what it is from now on. Where a tool's rotation can tell the system behind it that the one before opens
 * nothing any more, that one is kept until this is done. A tool that waited for the secret is connected again.
 */
export async function putSecret(broker: Pick<Broker, 'ledger' | 'sealer' | 'knowledge'>, caller: Caller, name: string, value: Secret): Promise<PutSecret> {
  const { policySet } = await broker.knowledge.refresh()
  const tool = policySet && findRotating(policySet.catalog, name)
  const { result, index } = await commit(broker, {
    async apply(tx, { timeMs }) {
      const [{ current }, custody] = [await findStages(tx, name), await findCustody(tx, name)]
      // Of a secret that a tool uses up, the same one again says that it is still good.
      if (custody === undefined && current !== undefined && holds(broker, current, value)) throw refuseSame(name)
      const stored = await sealNext(broker, tx, name, value, timeMs, tool !== undefined && (await hasLent(tx, tool)))
      if (tool !== undefined) await wakeRotation(tx, tool, timeMs)
      // Whoever is using the old one finds that it is not theirs any more, and does not put its successor in this one's place.
      if (custody !== undefined) await putCustody(tx, { name, tool: custody.tool, state: 'ready' })
      return {
        result: { name, version: stored.version, createdAtMs: timeMs },
        // No decision reads secrets.
        raisesEpoch: false,
        events: [{ type: 'secret.stored', ...causedBy(caller), ...describeStored(stored) }],
      }
    },
  })
  return { ...result, auditIndex: index }
}

/** Whether a version has that very value; of one that cannot be opened any more nobody knows. */
function holds(broker: Pick<Broker, 'sealer'>, stored: StoredSecret, value: Secret): boolean {
  try {
    return isSameSecret(openSecret(broker, stored), value)
  } catch {
    return false
  }
}

/** Grants that lent it would be taken for over, and what they lent is good as before. */
function refuseSame(name: string): BrokerError {
  return new BrokerError({ code: 'conflict', publicMessage: `The secret ${name} has this very value: nothing was replaced. An admin changes it where it is used, and puts the new one.` })
}

/** The tool whose rotation replaces this secret. */
function findRotating(catalog: Catalog, name: string): string | undefined {
  return [...catalog.values()].find(({ connector, config }) => {
    if (connector !== sealedSecretKind) return false
    // The schema of the kind has parsed it.
    const { secret, rotation } = config as SealedSecretConfig
    return secret === name && rotation !== undefined
  })?.name
}

/** A version that was stored, and the ones that were erased for it. */
export interface SealedVersion extends StoredSecret {
  readonly stage: Exclude<SecretStage, 'previous'>
  readonly erases: readonly number[]
}

/**
 * Stores a value as the version of its secret that is in use, in place of the one before and of one that was to be the next.
 * `keeps`: the one before is kept as a previous one, for somebody has yet to make it useless.
 */
export async function sealNext(broker: Pick<Broker, 'sealer'>, tx: Kysely<Schema>, name: string, value: Secret, timeMs: number, keeps = false): Promise<SealedVersion> {
  const { current, pending } = await findStages(tx, name)
  const erases = [keeps ? undefined : current, pending].filter((one) => one !== undefined).map(({ version }) => version)
  await eraseVersions(tx, name, erases, timeMs)
  if (keeps && current !== undefined) await moveVersion(tx, current, 'previous')
  return { ...(await sealVersion(broker, tx, { name, value, timeMs, stage: 'current' })), erases }
}

/** Stores a value as the next version of its secret, sealed for its row, in a stage in which there is none. */
export async function sealVersion(
  { sealer }: Pick<Broker, 'sealer'>,
  tx: Kysely<Schema>,
  { name, value, timeMs, stage, rotation }: { readonly name: string; readonly value: Secret; readonly timeMs: number; readonly stage: SealedVersion['stage']; readonly rotation?: string },
): Promise<SealedVersion> {
  const version = await nextVersion(tx, name)
  const stored = { name, version, sealed: sealer.seal(value.reveal(), secretPlace(name, version)), createdAtMs: timeMs, ...(rotation !== undefined && { rotation }) }
  await insertVersion(tx, stored, stage)
  return { ...stored, stage, erases: [] }
}

/** Erases versions of a secret, and has the ends of grants looked at that waited for that. */
export async function eraseVersions(tx: Kysely<Schema>, name: string, versions: readonly number[], timeMs: number): Promise<void> {
  for (const version of versions) await eraseVersion(tx, { name, version })
  await wakeHolders(tx, sealedSecretKind, versions.map((version) => writeReference(name, String(version))), timeMs)
}

/** What the log says of a version that was stored. */
export function describeStored({ name, version, stage, rotation, erases }: SealedVersion) {
  return { secret: name, version, stage, ...(rotation !== undefined && { rotation }), ...(erases.length > 0 && { erases }) }
}
