import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { AuditEvent } from '../../src/audit/event.ts'
import { readConfig } from '../../src/cli/serve.ts'
import type { Broker } from '../../src/broker/broker.ts'
import { advanceCheckpoint } from '../../src/broker/checkpoints.ts'
import { issueToken } from '../../src/broker/issue.ts'
import { createFirstOperator } from '../../src/broker/operators.ts'
import { registerWorkload } from '../../src/broker/register.ts'
import { compose, unlimited } from '../../src/compose.ts'
import { formatTime } from '../../src/kernel/clock.ts'
import { newId, type RandomBytes } from '../../src/kernel/ids.ts'
import { createLog } from '../../src/kernel/log.ts'
import { openRootKeys } from '../../src/main.ts'
import { openConfiguredDatabase } from '../../src/open-database.ts'
import { createAsserter, type Signer } from './bodies.ts'
import { lendExpired, type Backlog } from './seed-backlog.ts'
import { publicPartOf, trustDomain } from './signers.ts'

/** What a database is to hold before a broker serves from it. */
export interface Seed {
  readonly configFile: string
  /** A JSON file of signers, and the team of each, by turns. */
  readonly signersFile: string
  readonly teams: readonly string[]
  /** How many entries the log is to have at least. */
  readonly entries: number
  /** What the grants of these entries are for. */
  readonly scope: string
  readonly backlog?: Backlog
}

type Issued = Extract<AuditEvent, { type: 'grant.issued' }>

const caller = { actor: { kind: 'stint', id: 'bench' } } as const
const dayMs = 86_400_000
/** As many as the ledger's queue takes. */
const atOnce = 5_000

/**
 * Puts the policy folder in force, registers the workloads and fills the log, by the same verbs as a broker that serves.
 * Gives the credential of an admin.
 */
async function seed({ configFile, signersFile, teams, entries, scope, backlog }: Seed): Promise<string> {
  const config = readConfig(configFile)
  const log = createLog((line) => process.stderr.write(line), 'info', () => formatTime(Date.now()))
  const { broker, close } = await compose({
    issuer: config.issuer,
    trustDomain,
    database: openConfiguredDatabase(config, process.env, log, 'sqlite' in config.database ? 'owner' : 'server').database,
    ...(await openRootKeys(config, process.env)),
    log,
    development: false,
    ...(config.policies && { policyFolder: { folder: config.policies.folder, follow: false } }),
    limits: unlimited,
    random: createPool(randomBytes),
  })
  // Of our own making.
  const signers = JSON.parse(readFileSync(signersFile, 'utf8')) as Signer[]
  await inChunks(signers.length, (i) => register(broker, signers[i], teams[i % teams.length]))
  const missing = entries - (await advanceCheckpoint(broker)).size
  if (missing > 0) {
    const model = await issueModel(broker, signers, scope)
    await inChunks(missing, () => recordGrant(broker, model))
  }
  if (backlog !== undefined) await lendExpired(broker, signers, backlog)
  await advanceCheckpoint(broker)
  const { credential } = await createFirstOperator(broker, caller, 'bench')
  await close()
  return credential.reveal()
}

/** Draws random bytes in large pieces, for a million entries want some each. */
function createPool(draw: RandomBytes): RandomBytes {
  let pool = draw(0)
  let at = 0
  return (length) => {
    if (at + length > pool.length) {
      pool = draw(Math.max(65_536, length))
      at = 0
    }
    at += length
    return pool.subarray(at - length, at)
  }
}

async function inChunks(count: number, act: (i: number) => Promise<unknown>): Promise<void> {
  for (let first = 0; first < count; first += atOnce) {
    await Promise.all(Array.from({ length: Math.min(atOnce, count - first) }, (_, i) => act(first + i)))
  }
}

async function register(broker: Broker, signer: Signer | undefined, team: string | undefined): Promise<void> {
  if (signer === undefined || team === undefined) throw new Error('a workload needs a key and a team')
  await registerWorkload(broker, caller, {
    name: signer.clientId.slice(`spiffe://${trustDomain}/`.length),
    environment: 'bench',
    stage: 'production',
    owner: { team, contact: 'oncall:bench' },
    purpose: 'Asks for tokens as fast as it can',
    tags: [],
    review_at: formatTime(Date.now() + 90 * dayMs),
    jwks: { keys: [{ ...publicPartOf(signer.jwk), alg: 'ES256' }] },
  })
}

/** Gets one token as any workload does, and gives its entry as the model of those that fill the log. */
async function issueModel(broker: Broker, [signer]: readonly Signer[], scope: string): Promise<Issued> {
  if (signer === undefined) throw new Error('a log is filled in the name of a workload: there is none')
  const assertion = createAsserter(signer, broker.issuer)()
  const { auditIndex } = await issueToken(broker, { assertion }, { scope }, newId('req', Date.now(), broker.random))
  const { body } = await broker.database.read.selectFrom('audit_event').select('body').where('idx', '=', auditIndex).executeTakeFirstOrThrow()
  const { index: _index, time: _time, salt: _salt, v: _version, ...event } = JSON.parse(body) as Record<string, unknown>
  // What was just recorded as the issue of a token.
  return event as unknown as Issued
}

/** One more entry like the model, with its grant. */
async function recordGrant(broker: Broker, model: Issued): Promise<void> {
  const nowMs = broker.ledger.nowMs()
  const id = newId('grant', nowMs, broker.random)
  const { workload, tool, audience } = model
  const expiresAt = formatTime((Math.floor(nowMs / 1000) + model.ttl_seconds) * 1000)
  await broker.ledger.append({
    grant: { id, workload, tool, actions: JSON.stringify(model.actions), target: null, task: null, audience, expires_at: expiresAt },
    events: [{ ...model, grant: id, request_id: newId('req', nowMs, broker.random), expires_at: expiresAt }],
  })
}

if (import.meta.main) {
  const [, , order = ''] = process.argv
  // Of our own making.
  process.stdout.write(await seed(JSON.parse(order) as Seed))
}
