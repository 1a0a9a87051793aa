import { createAnchoring } from './broker/anchor.ts'
import type { Broker, Caller } from './broker/broker.ts'
import { openLogKey } from './broker/checkpoint-key.ts'
import { advanceCheckpoint, createSeenCheckpoint, InconsistentTree } from './broker/checkpoints.ts'
import { createExportPlaces } from './broker/export-audit.ts'
import { openKeyStore } from './broker/keys.ts'
import { takeOverClaims } from './broker/claim.ts'
import { readFigures } from './broker/figures.ts'
import { createKnowledge } from './broker/knowledge.ts'
import { openLog } from './broker/open-log.ts'
import { createRefusals } from './broker/refusals.ts'
import { createPace } from './broker/pace.ts'
import { createPolicyFolder, type PolicyFolderOptions } from './broker/reload-policy.ts'
import type { SignInSettings } from './broker/sign-in.ts'
import { createCustody } from './broker/custody.ts'
import { createDenyLists } from './broker/deny-lists.ts'
import { createSealedVersions } from './broker/sealed-versions.ts'
import { createSecretReader } from './broker/secrets.ts'
import { createTools, instanceOf, type Tools } from './broker/tools.ts'
import { takeOverRotations } from './broker/rotate.ts'
import { createTurns } from './broker/turns.ts'
import { createUnrecordedEndings } from './broker/unrecorded.ts'
import { createWebIdentities } from './broker/web-identity.ts'
import type { Pass } from './broker/waypoints.ts'
import { connectors as builtInConnectors } from './connectors/registry.ts'
import type { Connector } from './connectors/connector.ts'
import type { Anchor } from './connectors/anchors/anchor.ts'
import type { ToolContext } from './connectors/connector.ts'
import { createIssuerKeys } from './crypto/issuer-keys.ts'
import type { RootKey } from './crypto/root-key.ts'
import { createApp, type AppOptions } from './http/app.ts'
import { createTokenDoor, type Door } from './http/token-door.ts'
import { createAuthenticator } from './identity/authenticate.ts'
import { systemClock, type Clock } from './kernel/clock.ts'
import { newId, systemRandom, type RandomBytes } from './kernel/ids.ts'
import type { Log } from './kernel/log.ts'
import type { Environment } from './kernel/secret-source.ts'
import { createSignatureThread } from './kernel/signature-thread.ts'
import type { Tracer } from './kernel/tracer.ts'
import { readVersion } from './kernel/version.ts'
import { createRateLimit } from './kernel/rate-limit.ts'
import { createDecider } from './policy/decide.ts'
import { jobsOf } from './jobs.ts'
import { createScheduler, type Scheduler } from './scheduler.ts'
import type { Database } from './storage/engine.ts'
import { readHead } from './storage/head.ts'
import { createLedger } from './storage/ledger.ts'
import { checkMigrated, migrate } from './storage/migrate.ts'
import { checkPostgres } from './storage/postgres.ts'
import { createMetrics } from './telemetry/metrics.ts'
import { traceParts } from './telemetry/traced.ts'

export interface Parts {
  readonly issuer: string
  readonly trustDomain: string
  /** Open, and closed by `close()`. */
  readonly database: Database
  /** Wraps the sealing keys, and those that the previous one has wrapped. */
  readonly rootKey: RootKey
  readonly previousRootKey?: RootKey
  readonly log: Log
  /** Loopback without TLS, Host and Origin checked, policy files put in force at each start. */
  readonly development: boolean
  readonly policyFolder?: Pick<PolicyFolderOptions, 'folder' | 'follow' | 'settleMs'>
  /** What one caller may take up of this process. */
  readonly limits: Limits
  /** The addresses of the proxy whose word for where a request comes from is taken; nobody's without it. */
  readonly proxies?: readonly string[]
  /** How long a key signs tokens until the next one takes over; 30 days by default. */
  readonly rotateKeysAfterDays?: number
  /** How long a key seals until the next one takes over; 90 days by default. */
  readonly rotateSealingKeysAfterDays?: number
  /** How people sign in with the account of their company, where they may. */
  readonly signIn?: SignInSettings
  /** Where OpenTelemetry traces go; none are made without it. */
  readonly otlpUrl?: string
  /** Keep the log's checkpoints outside of the database; none without it. */
  readonly anchors?: readonly Anchor[]
  /** Where the root credentials of tools are read from: the process's own environment by default. */
  readonly env?: Environment
  /** Sources, as in a catalog, that are this broker's own and no tool's. */
  readonly ownSecrets?: readonly string[]
  /** The programs that rotators may run on this machine; none by default. */
  readonly commands?: ToolContext['commands']
  /** What opens tools; for tests that bring their own. */
  readonly connectors?: readonly Connector[]
  /** Told of each step of lending, ending and rotating, for tests that stop a broker there. */
  readonly pass?: Pass
  readonly clock?: Clock
  readonly random?: RandomBytes
}

export interface Limits {
  /** How often one address may fail to prove who it is, at once and per minute. */
  readonly refusalsPerMinutePerAddress: number
  /** How often one workload may ask; twice as often for a moment. */
  readonly requestsPerSecondPerWorkload: number
}

/** As good as no limits. */
export const unlimited: Limits = { refusalsPerMinutePerAddress: 1_000_000, requestsPerSecondPerWorkload: 1_000_000 }

/** Of how many callers it is known at least what they have left of their limit; some 10 MB when all are. */
const limitedCallersMin = 50_000

export interface Composition {
  readonly broker: Broker
  readonly app: ReturnType<typeof createApp>
  /** The short way to the token endpoint, for a server to ask before the app. */
  readonly door: Door
  readonly scheduler: Scheduler
  /** From now on the broker says that it is not ready; it answers all the same. */
  beginDraining(): void
  /** Stops the jobs, records what is counted, finishes what was begun, closes the database. */
  close(): Promise<void>
}

/** The only wiring: takes the parts that differ from one broker to another, and gives a broker that is ready to serve. */
export async function compose(parts: Parts): Promise<Composition> {
  const { issuer, trustDomain, database, log, clock = systemClock, random = systemRandom } = parts
  const caller: Caller = { actor: { kind: 'stint', id: 'start' } }

  await prepareDatabase(database)
  const metrics = createMetrics({ version: readVersion(), readFigures: () => readFigures(broker) })
  const { meter } = metrics
  const tracer = parts.otlpUrl === undefined ? undefined : await openTracer(parts.otlpUrl, clock, log)
  const ledger = createLedger({ database, clock, random, log, meter })
  const head = await readHead(database.read)
  ledger.observe(head)
  const behindMs = head.timeMs - clock.nowMs()
  if (behindMs > 5_000) {
    log.error('the clock is behind the log: until it has caught up, proofs look expired; set the clock right', { behind_ms: behindMs })
  }
  await openLog({ ledger, database, issuer, trustDomain, log }, caller)
  const signatures = createSignatureThread()
  const keys = await openKeyStore({ database, ledger, random, root: parts.rootKey, previous: parts.previousRootKey, caller, signatures })
  const { sealingKeys } = keys
  const { sealer } = sealingKeys
  const checkpointKey = await openLogKey({ database, ledger, sealer, trustDomain, caller })
  const decider = createDecider({ slicesMax: 512, verdictsMax: 50_000 })
  const authenticate = createAuthenticator({ signatures })
  const knowledge = createKnowledge({ database, observe: ledger.observe, loadKeyring: keys.loadKeyring })
  const policyFolder =
    parts.policyFolder &&
    createPolicyFolder({ ...parts.policyFolder, broker: { ledger, database, knowledge, log, meter }, applyAtStart: parts.development })
  const anchoring = createAnchoring({ database, ledger, checkpointKey, log, meter }, parts.anchors ?? [])
  const secrets = { database, sealer }
  const custody = createCustody({ ...secrets, ledger, random, log })
  const denyLists = createDenyLists({ database, ledger, knowledge, random, log, meter, tools: () => tools })
  const tools: Tools = createTools({
    database,
    connectors: parts.connectors ?? builtInConnectors,
    context: {
      instance: instanceOf(await readFirstLeaf(database)),
      nowMs: ledger.nowMs,
      readSecret: createSecretReader({ ...secrets, env: parts.env ?? process.env, own: parts.ownSecrets ?? [] }),
      commands: parts.commands ?? new Map(),
      log,
      custody,
      denyLists,
      sealedVersions: createSealedVersions({ ...secrets, ledger }),
      signWebIdentity: createWebIdentities({ issuer, knowledge, ledger, random }),
    },
  })
  let draining = false
  const broker: Broker = {
    issuer,
    trustDomain,
    database,
    ledger,
    knowledge,
    decider,
    authenticate,
    sealer,
    sealingKeys,
    checkpointKey,
    seenCheckpoint: createSeenCheckpoint(),
    anchoring,
    ...(policyFolder && { policyFolder }),
    tools,
    denyLists,
    unrecorded: createUnrecordedEndings(),
    sweeping: new Map(),
    rotating: { runs: new Map() },
    pace: createPace(),
    processId: newId('process', clock.nowMs(), random),
    pass: parts.pass ?? (() => undefined),
    rotateKeysAfterMs: (parts.rotateKeysAfterDays ?? 30) * 86_400_000,
    rotateSealingKeysAfterMs: (parts.rotateSealingKeysAfterDays ?? 90) * 86_400_000,
    refusals: createRefusals({ ledger, clock, log, meter }),
    turns: createTurns(),
    exports: createExportPlaces(),
    workloadLimit: createRateLimit({
      clock,
      perSecond: parts.limits.requestsPerSecondPerWorkload,
      burst: 2 * parts.limits.requestsPerSecondPerWorkload,
      callersMin: limitedCallersMin,
    }),
    clock,
    random,
    log,
    meter,
    metrics,
    ...(tracer && { tracer, ...traceParts({ ledger, decider, authenticate }, tracer) }),
    isDraining: () => draining,
    ...(parts.signIn && { companyIssuer: { ...parts.signIn, keys: createIssuerKeys({ issuer: parts.signIn.issuer, clock }) } }),
  }
  // Before anything is committed, signed or served: this may be a restored backup.
  await anchoring.compare()
  if (ledger.held === undefined) await signAtStart(broker)
  const policiesStarted = ledger.held === undefined
  if (policiesStarted) await takeOverClaims(broker).catch((error: unknown) => log.warn('ends that were under way go on when their leases are over', { error }))
  if (policiesStarted) await takeOverRotations(broker).catch((error: unknown) => log.warn('rotations that were under way go on when their leases are over', { error }))
  if (policiesStarted) await policyFolder?.start()
  const scheduler = createScheduler({ clock, log, meter, jobs: jobsOf(broker, { custody, policiesStarted }) })
  const serving: AppOptions = {
    broker,
    development: parts.development,
    proxies: parts.proxies ?? [],
    refusalLimit: createRateLimit({
      clock,
      perSecond: parts.limits.refusalsPerMinutePerAddress / 60,
      burst: parts.limits.refusalsPerMinutePerAddress,
      callersMin: limitedCallersMin,
    }),
  }
  return {
    broker,
    app: createApp(serving),
    door: createTokenDoor(serving),
    scheduler,
    beginDraining() {
      draining = true
    },
    async close() {
      draining = true
      await scheduler.stop()
      await Promise.all([...broker.sweeping.values(), ...broker.rotating.runs.values()])
      await broker.refusals.flush(true)
      await custody.close()
      await denyLists.close()
      await keepLast(broker)
      await ledger.close()
      await tools.close()
      await database.close()
      await signatures.close()
      metrics.close()
      await tracer?.close()
    },
  }
}

/** The hash of the log's first entry, which is there as soon as the log is open. */
async function readFirstLeaf({ read }: Database): Promise<Uint8Array> {
  return (await read.selectFrom('audit_event').select('leaf_hash').where('idx', '=', 0).executeTakeFirstOrThrow()).leaf_hash
}

/** So that there is a checkpoint as soon as anybody can ask. A tree that contradicts an earlier one holds the ledger; the broker starts, to be looked at. */
async function signAtStart(broker: Broker): Promise<void> {
  try {
    await advanceCheckpoint(broker)
  } catch (error) {
    if (!(error instanceof InconsistentTree)) throw error
    broker.log.error('nothing is issued', { error })
  }
}

/** So that what was committed last is signed and kept elsewhere, too. What cannot be is so after the next start. */
async function keepLast(broker: Broker): Promise<void> {
  if (broker.ledger.halted !== undefined || broker.ledger.failing) return
  try {
    await advanceCheckpoint(broker)
    await broker.anchoring.close()
  } catch (error) {
    broker.log.warn('the last checkpoint was not kept: it is signed and kept after the next start', { error })
  }
}

/** Loaded only where traces are wanted: it is large, and takes a third of a second. */
async function openTracer(url: string, clock: Clock, log: Log): Promise<Tracer> {
  const { createTracer } = await import('./telemetry/tracing.ts')
  return createTracer({ url, version: readVersion(), clock, log })
}

/** SQLite migrates at start, for one process has it alone; PostgreSQL by another role, beforehand. */
async function prepareDatabase(database: Database): Promise<void> {
  if (database.engine === 'sqlite') {
    await migrate(database.maintenance, 'sqlite')
    return
  }
  await checkMigrated(database.read, 'postgres')
  await checkPostgres(database.read)
}
