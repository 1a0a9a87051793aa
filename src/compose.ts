import { applyPolicy } from './broker/apply-policy.ts'
import type { Broker, Caller } from './broker/broker.ts'
import { openKeyStore } from './broker/keys.ts'
import { createKnowledge } from './broker/knowledge.ts'
import { openLog } from './broker/open-log.ts'
import { createRefusals } from './broker/refusals.ts'
import { createTurns } from './broker/turns.ts'
import { createApp } from './http/app.ts'
import { createAuthenticator } from './identity/authenticate.ts'
import { systemClock, type Clock } from './kernel/clock.ts'
import { systemRandom, type RandomBytes } from './kernel/ids.ts'
import type { Log } from './kernel/log.ts'
import { silentMeter } from './kernel/meter.ts'
import { createDecider } from './policy/decide.ts'
import { createScheduler, type Scheduler } from './scheduler.ts'
import type { Database } from './storage/engine.ts'
import { readHead } from './storage/head.ts'
import { createLedger, type Ledger } from './storage/ledger.ts'
import { checkMigrated, migrate } from './storage/migrate.ts'
import { readPolicyFolder } from './storage/policy-folder.ts'
import { readPolicyInForce } from './storage/policy-sets.ts'
import { checkPostgres } from './storage/postgres.ts'

export interface Parts {
  readonly issuer: string
  readonly trustDomain: string
  /** Open, and closed by `close()`. */
  readonly database: Database
  readonly rootKey: Uint8Array
  readonly log: Log
  /** Loopback without TLS, Host and Origin checked, policy files put in force at each start. */
  readonly development: boolean
  readonly policyFolder?: string
  readonly clock?: Clock
  readonly random?: RandomBytes
}

export interface Composition {
  readonly broker: Broker
  readonly app: ReturnType<typeof createApp>
  readonly scheduler: Scheduler
  /** Stops the jobs, records what is counted, finishes what was begun, closes the database. */
  close(): Promise<void>
}

/** The only wiring: takes the parts that differ from one broker to another, and gives a broker that is ready to serve. */
export async function compose(parts: Parts): Promise<Composition> {
  const { issuer, trustDomain, database, log, clock = systemClock, random = systemRandom } = parts
  const caller: Caller = { actor: { kind: 'stint', id: 'start' } }

  await prepareDatabase(database)
  const ledger = createLedger({ database, clock, random, log })
  const head = await readHead(database.read)
  ledger.observe(head)
  const behindMs = head.timeMs - clock.nowMs()
  if (behindMs > 5_000) {
    log.error('the clock is behind the log: until it has caught up, proofs look expired; set the clock right', { behind_ms: behindMs })
  }
  await openLog({ ledger, database, issuer, trustDomain, log }, caller)
  const keys = await openKeyStore({ database, ledger, random, rootKey: parts.rootKey, caller })
  const broker: Broker = {
    issuer,
    trustDomain,
    database,
    ledger,
    knowledge: createKnowledge({ database, observe: ledger.observe, loadKeyring: keys.loadKeyring }),
    decider: createDecider({ slicesMax: 512, verdictsMax: 50_000 }),
    authenticate: createAuthenticator(),
    refusals: createRefusals({ ledger, clock, log }),
    turns: createTurns(),
    clock,
    random,
    log,
    meter: silentMeter,
  }
  if (parts.policyFolder !== undefined) await startPolicies(broker, caller, parts.policyFolder, parts.development)

  const scheduler = createScheduler({
    clock,
    log,
    jobs: [
      { name: 'record refusals', everyMs: 10_000, run: () => broker.refusals.flush() },
      { name: 'forget expired replay marks', everyMs: 30_000, run: () => forgetMarks(ledger) },
    ],
  })
  return {
    broker,
    app: createApp({ broker, development: parts.development }),
    scheduler,
    async close() {
      await scheduler.stop()
      await broker.refusals.flush(true)
      await ledger.close()
      await database.close()
    },
  }
}

const marksPerCommit = 2_000

/** In small commits, so that issuance is never held up for long. */
async function forgetMarks(ledger: Ledger): Promise<void> {
  while ((await ledger.forgetExpiredMarks(marksPerCommit)) === marksPerCommit);
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

/**
 * The folder's set comes into force where there is none yet, and in development at each start. Otherwise what is in force
 * stays, for a restart must not undo what an admin has applied.
 */
async function startPolicies(broker: Broker, caller: Caller, folder: string, development: boolean): Promise<void> {
  const inForce = await readPolicyInForce(broker.database.read)
  if (inForce !== undefined && !development) return
  try {
    const applied = await applyPolicy(broker, caller, await readPolicyFolder(folder))
    if (applied.changed) broker.log.info('a policy set came into force', { policy_set: applied.hash, previous: applied.previous })
  } catch (error) {
    if (inForce === undefined) throw error
    broker.log.error('the policy folder does not load; the set in force stays', { policy_set: inForce.hash, error })
  }
}
