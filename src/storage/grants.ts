import { sql, type Kysely, type Selectable } from 'kysely'
import type { GrantFacts } from '../grant/grant.ts'
import { formatTime } from '../kernel/clock.ts'
import type { GrantTable, Schema } from './schema.ts'
import { readTime } from './time.ts'

/** A grant as stored, with whatever has ended it. */
export interface StoredGrant extends GrantFacts {
  readonly id: string
  readonly workload: string
  readonly tool: string
  readonly audience: string
  readonly task?: string
  readonly issuedIndex: number
}

/**
 * The first revocation of many grants that covers a row of `grants`. It is looked up among those that came after the
 * grant: an index range as short as its life, however many grants and revocations there are.
 */
const coveredBy = sql<number | null>`(select min(r.idx) from revocation r
  where r.idx > grants.issued_index
    and (r.workload is null or r.workload = grants.workload)
    and (r.task is null or r.task = grants.task)
    and (r.before_time is null or r.before_time > grants.issued_at))`

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
    audience: row.audience,
    issuedIndex: row.issued_index,
    expiresAtMs: readTime(row.expires_at),
    ...(row.task !== null && { task: row.task }),
    ...(ends.length > 0 && { revokedIndex: Math.min(...ends) }),
  }
}

/** Ends one grant, unless it has been ended before. */
export async function markGrantRevoked(tx: Kysely<Schema>, id: string, index: number): Promise<void> {
  await tx.updateTable('grants').set({ revoked_index: index }).where('id', '=', id).where('revoked_index', 'is', null).execute()
}

/** What a revocation of many grants picks: grants that fit every member given. At least one is. */
export interface RevocationSelector {
  readonly workload?: string
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
    before_time: selector.beforeMs === undefined ? null : formatTime(selector.beforeMs),
  }
  await tx.insertInto('revocation').values(row).execute()
}

/** How many grants fit the selector and are alive at this instant, as far as single revocations go. */
export async function countLiveGrants(db: Kysely<Schema>, selector: RevocationSelector, nowMs: number): Promise<number> {
  let query = db
    .selectFrom('grants')
    .select((eb) => eb.fn.countAll<number>().as('count'))
    .where('expires_at', '>', formatTime(nowMs))
    .where('revoked_index', 'is', null)
    .where(coveredBy, 'is', null)
  if (selector.workload !== undefined) query = query.where('workload', '=', selector.workload)
  if (selector.task !== undefined) query = query.where('task', '=', selector.task)
  if (selector.beforeMs !== undefined) query = query.where('issued_at', '<', formatTime(selector.beforeMs))
  return Number((await query.executeTakeFirstOrThrow()).count)
}

/** How many grants the workload got from this instant on. */
export async function countGrantsSince(db: Kysely<Schema>, workload: string, sinceMs: number): Promise<number> {
  const { count } = await db
    .selectFrom('grants')
    .select((eb) => eb.fn.countAll<number>().as('count'))
    .where('workload', '=', workload)
    .where('issued_at', '>=', formatTime(sinceMs))
    .executeTakeFirstOrThrow()
  return Number(count)
}

/** How many requests of the workload the policy denied from this instant on. */
export async function countDenialsSince(db: Kysely<Schema>, workload: string, sinceMs: number): Promise<number> {
  const { count } = await db
    .selectFrom('audit_event')
    .select((eb) => eb.fn.countAll<number>().as('count'))
    .where('type', '=', 'grant.denied')
    .where('workload', '=', workload)
    .where('time', '>=', formatTime(sinceMs))
    .executeTakeFirstOrThrow()
  return Number(count)
}
