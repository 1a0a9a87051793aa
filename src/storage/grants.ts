import { sql, type Kysely, type Selectable, type SelectQueryBuilder } from 'kysely'
import type { GrantFacts } from '../grant/grant.ts'
import { formatTime } from '../kernel/clock.ts'
import type { GrantTable, Schema } from './schema.ts'
import { readTime } from './time.ts'

/** A grant as stored, with whatever has ended it. */
export interface StoredGrant extends GrantFacts {
  readonly id: string
  readonly workload: string
  readonly tool: string
  /** Full names. */
  readonly actions: readonly string[]
  readonly audience: string
  readonly target?: string
  readonly task?: string
  readonly issuedIndex: number
  readonly issuedAtMs: number
}

/** Whether a row of `revocation` covers a row of `grants`: one issued before it, that fits all that it names. */
export const coversGrant = sql<boolean>`(revocation.idx > grants.issued_index
  and (revocation.workload is null or revocation.workload = grants.workload)
  and (revocation.task is null or revocation.task = grants.task)
  and (revocation.tool is null or revocation.tool = grants.tool)
  and (revocation.before_time is null or revocation.before_time > grants.issued_at))`

/**
 * The first revocation of many grants that covers a row of `grants`. It is looked up among those that came after the
 * grant: an index range as short as its life, however many grants and revocations there are.
 */
const coveredBy = sql<number | null>`(select min(revocation.idx) from revocation where ${coversGrant})`

/** The grant with this id, or `undefined`. */
export async function findGrant(db: Kysely<Schema>, id: string): Promise<StoredGrant | undefined> {
  const row = await db.selectFrom('grants').selectAll().select(coveredBy.as('covered_by')).where('id', '=', id).executeTakeFirst()
  return row === undefined ? undefined : toGrant(row, row.covered_by)
}

function toGrant(row: Selectable<GrantTable>, coveredBy: number | null): StoredGrant {
  const ends = [row.revoked_index, coveredBy].filter((index) => index !== null)
  return {
    id: row.id,
    workload: row.workload,
    tool: row.tool,
    // As Stint wrote it: a JSON list of names.
    actions: JSON.parse(row.actions) as string[],
    audience: row.audience,
    issuedIndex: row.issued_index,
    issuedAtMs: readTime(row.issued_at),
    expiresAtMs: readTime(row.expires_at),
    ...(row.target !== null && { target: row.target }),
    ...(row.task !== null && { task: row.task }),
    ...(ends.length > 0 && { revokedIndex: Math.min(...ends) }),
  }
}

/** Ends one grant, unless it has been ended before. */
export async function markGrantRevoked(tx: Kysely<Schema>, id: string, index: number): Promise<void> {
  await tx.updateTable('grants').set({ revoked_index: index }).where('id', '=', id).where('revoked_index', 'is', null).execute()
}

/** Whether anything was ever granted on a tool of this name. */
export async function hasGrants(db: Kysely<Schema>, tool: string): Promise<boolean> {
  return (await db.selectFrom('grants').select('id').where('tool', '=', tool).limit(1).executeTakeFirst()) !== undefined
}

/** What a revocation of many grants picks: grants that fit every member given. At least one is. */
export interface RevocationSelector {
  readonly workload?: string
  readonly tool?: string
  readonly task?: string
  /** Only grants issued before this instant. */
  readonly beforeMs?: number
}

/** Stores a revocation: from its commit on it covers every grant that fits and was issued before its own entry. */
export async function insertRevocation(tx: Kysely<Schema>, index: number, selector: RevocationSelector): Promise<void> {
  const row = {
    idx: index,
    workload: selector.workload ?? null,
    task: selector.task ?? null,
    tool: selector.tool ?? null,
    before_time: selector.beforeMs === undefined ? null : formatTime(selector.beforeMs),
  }
  await tx.insertInto('revocation').values(row).execute()
}

/** Of a grant whose mint failed nothing was ever alive. */
const wasMade = sql<boolean>`not exists (select 1 from credential where credential.grant_id = grants.id and credential.state = 'failed')`

/** Counting stops here: it tells people what happened, and must not cost more the more there is. */
export const countedMax = 10_000

/**
 * How many live grants the revocation of this selector and index has ended, among the first `countedMax` that fit it;
 * `more` says that there were more to look at.
 */
export async function countRevokedBy(
  db: Kysely<Schema>,
  selector: RevocationSelector,
  index: number,
  nowMs: number,
): Promise<{ readonly revoked: number; readonly more: boolean }> {
  let live = db.selectFrom('grants').selectAll().where('expires_at', '>', formatTime(nowMs)).limit(countedMax + 1)
  if (selector.workload !== undefined) live = live.where('workload', '=', selector.workload)
  if (selector.tool !== undefined) live = live.where('tool', '=', selector.tool)
  if (selector.task !== undefined) live = live.where('task', '=', selector.task)
  if (selector.beforeMs !== undefined) live = live.where('issued_at', '<', formatTime(selector.beforeMs))
  const { looked, revoked } = await db
    .selectFrom(live.as('grants'))
    .select((eb) => eb.fn.countAll<number>().as('looked'))
    .select(sql<number>`count(case when grants.revoked_index is null and ${coveredBy} = ${index} and ${wasMade} then 1 end)`.as('revoked'))
    .executeTakeFirstOrThrow()
  return { revoked: Math.min(Number(revoked), countedMax), more: Number(looked) > countedMax }
}

/**
 * How many grants are alive that were issued from an instant on and before the entry of an index, among the first
 * `countedMax` that fit and have not expired; `more` says that there were more to look at.
 */
export async function countLiveGrants(
  db: Kysely<Schema>,
  { sinceMs, beforeIndex, nowMs }: { readonly sinceMs: number; readonly beforeIndex: number; readonly nowMs: number },
): Promise<{ readonly live: number; readonly more: boolean }> {
  const unexpired = db
    .selectFrom('grants')
    .selectAll()
    .where('expires_at', '>', formatTime(nowMs))
    .where('issued_at', '>=', formatTime(sinceMs))
    .where('issued_index', '<', beforeIndex)
    .limit(countedMax + 1)
  const { looked, live } = await db
    .selectFrom(unexpired.as('grants'))
    .select((eb) => eb.fn.countAll<number>().as('looked'))
    .select(sql<number>`count(case when grants.revoked_index is null and ${coveredBy} is null then 1 end)`.as('live'))
    .executeTakeFirstOrThrow()
  return { live: Math.min(Number(live), countedMax), more: Number(looked) > countedMax }
}

/** When the last of all grants so far expires; `undefined` before the first one. */
export async function findLastExpiry(db: Kysely<Schema>): Promise<number | undefined> {
  const row = await db.selectFrom('grants').select('expires_at').orderBy('expires_at', 'desc').limit(1).executeTakeFirst()
  return row === undefined ? undefined : readTime(row.expires_at)
}

/** How many grants the workload got from this instant on; at most `countedMax` are counted. */
export async function countGrantsSince(db: Kysely<Schema>, workload: string, sinceMs: number): Promise<number> {
  const found = db
    .selectFrom('grants')
    .select('id')
    .where('workload', '=', workload)
    .where('issued_at', '>=', formatTime(sinceMs))
    .limit(countedMax)
  return countRows(db, found)
}

/** How many requests of the workload the policy denied from this instant on; at most `countedMax` are counted. */
export async function countDenialsSince(db: Kysely<Schema>, workload: string, sinceMs: number): Promise<number> {
  const found = db
    .selectFrom('audit_event')
    .select('idx as id')
    .where('type', '=', 'grant.denied')
    .where('workload', '=', workload)
    .where('time', '>=', formatTime(sinceMs))
    .limit(countedMax)
  return countRows(db, found)
}

async function countRows(db: Kysely<Schema>, found: SelectQueryBuilder<Schema, never, { id: string | number }>): Promise<number> {
  const { count } = await db.selectFrom(found.as('found')).select((eb) => eb.fn.countAll<number>().as('count')).executeTakeFirstOrThrow()
  return Number(count)
}
