import { sql, type Kysely, type Selectable } from 'kysely'
import type { Effect } from '../connectors/connector.ts'
import { grantStates, isOver, nextState, type GrantState, type GrantStep } from '../grant/grant.ts'
import { formatTime } from '../kernel/clock.ts'
import type { CredentialTable, Schema } from './schema.ts'
import { readTime } from './time.ts'

/** Why a credential ends. */
export type EndCause = 'revoked' | 'expired' | 'undone'

/** What a grant has made in an outside system, as stored. */
export interface StoredCredential {
  readonly grant: string
  readonly tool: string
  readonly workload: string
  /** The kind of its connector. */
  readonly connector: string
  readonly policySet: string
  readonly state: GrantState
  readonly cause?: EndCause
  readonly effect: Effect
  readonly owner?: string
  readonly leaseUntilMs?: number
  readonly dueAtMs?: number
  readonly tries: number
  readonly reference?: string
  readonly handle?: { readonly ciphertext: string; readonly version: number }
  readonly diesAtMs?: number
  /** How long the tool takes to carry out its end. */
  readonly delaySeconds?: number
  readonly problem?: string
  readonly endedAtMs?: number
}

/** The place that a handle is sealed for. */
export function handlePlace(grant: string): { readonly table: string; readonly row: string } {
  return { table: 'credential', row: grant }
}

/** The intent of a mint: from its commit on something may live outside (invariant 2). */
export interface Intent {
  readonly grant: string
  readonly tool: string
  readonly workload: string
  readonly connector: string
  readonly policySet: string
  readonly effect: Effect
  readonly owner: string
  readonly leaseUntilMs: number
  /** Where it is denied once it is over, and until when that has to be at the latest. */
  readonly denying?: { readonly list: string; readonly untilMs: number }
  readonly delaySeconds?: number
}

export async function insertIntent(tx: Kysely<Schema>, intent: Intent): Promise<void> {
  const lease = formatTime(intent.leaseUntilMs)
  await tx
    .insertInto('credential')
    .values({
      grant_id: intent.grant,
      tool: intent.tool,
      workload: intent.workload,
      connector: intent.connector,
      policy_set: intent.policySet,
      state: 'minting',
      cause: null,
      effect: intent.effect,
      owner: intent.owner,
      lease_until: lease,
      due_at: lease,
      tries: 0,
      reference: null,
      handle: null,
      handle_version: null,
      token_hash: null,
      dies_at: null,
      deny_list: intent.denying?.list ?? null,
      deny_until: intent.denying === undefined ? null : formatTime(intent.denying.untilMs),
      delay_seconds: intent.delaySeconds ?? null,
      problem: null,
      ended_at: null,
    })
    .execute()
}

/** The credential of this grant, or `undefined` for one that Stint signed itself. */
export async function findCredential(db: Kysely<Schema>, grant: string): Promise<StoredCredential | undefined> {
  const row = await db.selectFrom('credential').selectAll().where('grant_id', '=', grant).executeTakeFirst()
  return row && toCredential(row)
}

/** The newest grant under which a bearer token was lent, by the token's hash: an upstream may answer the same one twice. */
export async function findGrantOfToken(db: Kysely<Schema>, tokenHash: string): Promise<string | undefined> {
  return (await db.selectFrom('credential').select('grant_id').where('token_hash', '=', tokenHash).orderBy('grant_id', 'desc').executeTakeFirst())?.grant_id
}

/** What changes beside the state. Times in milliseconds; `undefined` leaves a column as it is, `null` clears it. */
export interface CredentialChange {
  readonly cause?: EndCause
  readonly owner?: string | null
  readonly leaseUntilMs?: number | null
  readonly dueAtMs?: number | null
  readonly tries?: number
  readonly reference?: string
  readonly handle?: { readonly ciphertext: string; readonly version: number } | null
  readonly tokenHash?: string | null
  readonly diesAtMs?: number
  /** Kept only where there is a list that denies it. */
  readonly denyUntilMs?: number
  readonly problem?: string | null
  readonly endedAtMs?: number
}

/**
 * Takes a credential one step further, with what changes beside: the only place that sets a state. Returns the new state, or
 * `undefined` where the step has no place in the credential's state; then nothing is changed.
 */
export async function stepCredential(
  tx: Kysely<Schema>,
  { grant, state }: Pick<StoredCredential, 'grant' | 'state'>,
  step: GrantStep,
  change: CredentialChange = {},
): Promise<GrantState | undefined> {
  const next = nextState(state, step)
  if (next === undefined) return undefined
  // Nothing looks at what is over, and nobody needs what could end it.
  const last: CredentialChange = isOver(next) ? { dueAtMs: null, owner: null, leaseUntilMs: null, handle: null } : {}
  const { numUpdatedRows } = await tx
    .updateTable('credential')
    .set({ state: next, ...toColumns({ ...change, ...last }) })
    .where('grant_id', '=', grant)
    .where('state', '=', state)
    .executeTakeFirstOrThrow()
  return numUpdatedRows === 1n ? next : undefined
}

/** Changes what is known of a credential beside its state. */
export async function noteCredential(tx: Kysely<Schema>, grant: string, change: CredentialChange): Promise<void> {
  await tx.updateTable('credential').set(toColumns(change)).where('grant_id', '=', grant).execute()
}

function toColumns(change: CredentialChange): Partial<CredentialTable> {
  const time = (ms: number | null) => (ms === null ? null : formatTime(ms))
  return {
    ...(change.cause !== undefined && { cause: change.cause }),
    ...(change.owner !== undefined && { owner: change.owner }),
    ...(change.leaseUntilMs !== undefined && { lease_until: time(change.leaseUntilMs) }),
    ...(change.dueAtMs !== undefined && { due_at: time(change.dueAtMs) }),
    ...(change.tries !== undefined && { tries: change.tries }),
    ...(change.reference !== undefined && { reference: change.reference }),
    ...(change.handle !== undefined && { handle: change.handle?.ciphertext ?? null, handle_version: change.handle?.version ?? null }),
    ...(change.tokenHash !== undefined && { token_hash: change.tokenHash }),
    ...(change.diesAtMs !== undefined && { dies_at: formatTime(change.diesAtMs) }),
    ...(change.denyUntilMs !== undefined && { deny_until: formatTime(change.denyUntilMs) }),
    ...(change.problem !== undefined && { problem: change.problem }),
    ...(change.endedAtMs !== undefined && { ended_at: formatTime(change.endedAtMs) }),
  }
}

export interface CredentialFilter {
  readonly state?: GrantState | undefined
  readonly tool?: string | undefined
  readonly workload?: string | undefined
  /** Only grants after this one: the last id of the page before. */
  readonly after?: string | undefined
  readonly limit: number
}

/** A page of grants whose credential lives outside, by id. */
export async function listCredentials(db: Kysely<Schema>, { state, tool, workload, after, limit }: CredentialFilter): Promise<{ readonly ids: string[]; readonly next?: string }> {
  let query = db.selectFrom('credential').select('grant_id').orderBy('grant_id').limit(limit + 1)
  if (state !== undefined) query = query.where('state', '=', state)
  if (tool !== undefined) query = query.where('tool', '=', tool)
  if (workload !== undefined) query = query.where('workload', '=', workload)
  if (after !== undefined) query = query.where('grant_id', '>', after)
  const found = (await query.execute()).map((row) => row.grant_id)
  const ids = found.slice(0, limit)
  const next = found.length > limit ? ids.at(-1) : undefined
  return { ids, ...(next !== undefined && { next }) }
}

/** How many credentials are in each state that is not over, and how many of them should have ended before `lateMs`. */
export async function countCredentials(db: Kysely<Schema>, lateMs: number): Promise<{ readonly state: GrantState; readonly count: number; readonly late: number }[]> {
  const rows = await db
    .selectFrom('credential')
    .select('state')
    .select((eb) => eb.fn.countAll<number>().as('count'))
    .select(sql<number>`count(case when due_at <= ${formatTime(lateMs)} then 1 end)`.as('late'))
    .where('state', 'in', grantStates.filter((state) => !isOver(state)))
    .groupBy('state')
    .execute()
  return rows.map((row) => ({ state: toState(row.state), count: Number(row.count), late: Number(row.late) }))
}

function toState(text: string): GrantState {
  const state = grantStates.find((one) => one === text)
  if (state === undefined) throw new Error(`the database holds ${JSON.stringify(text)} where a grant's state should be`)
  return state
}

function toCredential(row: Selectable<CredentialTable>): StoredCredential {
  return {
    grant: row.grant_id,
    tool: row.tool,
    workload: row.workload,
    connector: row.connector,
    policySet: row.policy_set,
    state: toState(row.state),
    // Written by `stepCredential` and `insertIntent` alone, from values of these types.
    effect: row.effect as Effect,
    ...(row.cause !== null && { cause: row.cause as EndCause }),
    ...(row.owner !== null && { owner: row.owner }),
    ...(row.lease_until !== null && { leaseUntilMs: readTime(row.lease_until) }),
    ...(row.due_at !== null && { dueAtMs: readTime(row.due_at) }),
    tries: row.tries,
    ...(row.reference !== null && { reference: row.reference }),
    ...(row.handle !== null && row.handle_version !== null && { handle: { ciphertext: row.handle, version: row.handle_version } }),
    ...(row.dies_at !== null && { diesAtMs: readTime(row.dies_at) }),
    ...(row.delay_seconds !== null && { delaySeconds: row.delay_seconds }),
    ...(row.problem !== null && { problem: row.problem }),
    ...(row.ended_at !== null && { endedAtMs: readTime(row.ended_at) }),
  }
}
