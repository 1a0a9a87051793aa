import { sql, type Kysely } from 'kysely'
import { formatTime } from '../kernel/clock.ts'
import { coversGrant, type RevocationSelector } from './grants.ts'
import type { Schema } from './schema.ts'
import { readTime } from './time.ts'

/** The tools of which somebody has to look at a credential by now. */
export async function listDueTools(db: Kysely<Schema>, nowMs: number): Promise<string[]> {
  // From one tool to the next by the index, however much of each is due: a DISTINCT reads all of it, twice a second.
  const { rows } = await sql<{ tool: string }>`
    with recursive listed(tool) as (
      select min(tool) from credential where due_at is not null
      union all
      select (select min(next.tool) from credential next where next.due_at is not null and next.tool > listed.tool) from listed where listed.tool is not null)
    select tool from listed
    where tool is not null and exists (select 1 from credential due where due.tool = listed.tool and due.due_at <= ${formatTime(nowMs)})`.execute(db)
  return rows.map(({ tool }) => tool)
}

/**
 * Makes every end that somebody has claimed due now: whoever claimed it is gone. Returns how many there were. A mint that was
 * revoked while it was being made has the lease of the mint, and no try to end it yet: it may still be at work in the tool.
 */
export async function releaseClaims(tx: Kysely<Schema>, nowMs: number): Promise<number> {
  const { numUpdatedRows } = await tx
    .updateTable('credential')
    .set({ owner: null, lease_until: null, due_at: formatTime(nowMs) })
    .where('state', '=', 'ending')
    .where('owner', 'is not', null)
    .where('tries', '>', 0)
    .executeTakeFirstOrThrow()
  return Number(numUpdatedRows)
}

/**
 * Makes the ends of a tool's credentials due now that wait for something in the tool: it has come. Those that somebody is
 * ending at this moment are left to him; he finds that they are due again, should he have asked too early.
 */
export async function wakeEnds(tx: Kysely<Schema>, tool: string, timeMs: number): Promise<void> {
  await waking(tx, timeMs).where('tool', '=', tool).execute()
}

/** The same for the credentials of one kind of connector that have one of these references, whichever tool they are of. */
export async function wakeHolders(tx: Kysely<Schema>, connector: string, references: readonly string[], timeMs: number): Promise<void> {
  if (references.length > 0) await waking(tx, timeMs).where('connector', '=', connector).where('reference', 'in', references).execute()
}

function waking(tx: Kysely<Schema>, timeMs: number) {
  return tx.updateTable('credential').set({ due_at: formatTime(timeMs) }).where('state', '=', 'ending').where('due_at', '>', formatTime(timeMs))
}

/** Whether something that a tool's credential was lent by is to be ended by a revocation, and is not yet. */
export async function hasRevokedEnds(db: Kysely<Schema>, tool: string): Promise<boolean> {
  const query = db.selectFrom('credential').select('grant_id').where('tool', '=', tool).where('due_at', 'is not', null)
  return (await query.where('state', '=', 'ending').where('cause', '=', 'revoked').where('reference', 'is not', null).limit(1).executeTakeFirst()) !== undefined
}

/** Whether a tool has ever lent something, or is about to: whatever has become of the grant, what it opened may be open still. */
export async function hasLent(db: Kysely<Schema>, tool: string): Promise<boolean> {
  return (await db.selectFrom('grants').select('id').where('tool', '=', tool).limit(1).executeTakeFirst()) !== undefined
}

/** When the last grant of a tool is over whose credential is being made or lives; `undefined` where there is none. */
export async function findLastEnd(db: Kysely<Schema>, tool: string): Promise<number | undefined> {
  const row = await db
    .selectFrom('credential')
    .innerJoin('grants', 'grants.id', 'credential.grant_id')
    .select((eb) => eb.fn.max('grants.expires_at').as('last'))
    .where('credential.tool', '=', tool)
    .where('credential.due_at', 'is not', null)
    .where('credential.state', 'in', ['minting', 'active'])
    .executeTakeFirst()
  // Without a row of its own there is one all the same, which says nothing.
  const last: string | null | undefined = row?.last
  return last == null ? undefined : readTime(last)
}

/** Where a look at what is due came to. */
export interface DueCursor {
  readonly grant: string
  /** As it is stored. */
  readonly dueAt: string
}

/** Grants of a tool whose credential somebody has to look at by now, the longest waiting first, or those after an earlier look. */
export async function findDue(db: Kysely<Schema>, tool: string, nowMs: number, max: number, after?: DueCursor): Promise<DueCursor[]> {
  let query = db
    .selectFrom('credential')
    .select(['grant_id', 'due_at'])
    .where('tool', '=', tool)
    .where('due_at', '<=', formatTime(nowMs))
    .orderBy('due_at')
    .orderBy('grant_id')
    .limit(max)
  if (after !== undefined) query = query.where(sql<boolean>`(due_at, grant_id) > (${after.dueAt}, ${after.grant})`)
  const rows = await query.execute()
  return rows.flatMap(({ grant_id: grant, due_at: dueAt }) => (dueAt === null ? [] : [{ grant, dueAt }]))
}

/** Grants that are being minted or active, and that the revocation of this index and selector covers. */
export async function findCovered(db: Kysely<Schema>, index: number, { workload, tool, task }: RevocationSelector, max: number): Promise<string[]> {
  let query = db
    .selectFrom('credential')
    .innerJoin('grants', 'grants.id', 'credential.grant_id')
    .innerJoin('revocation', (join) => join.on('revocation.idx', '=', index))
    .select('credential.grant_id')
    // A task has few grants, and all that live may be many: SQLite, which cannot know that, is kept from the index of states.
    .where(task === undefined ? 'credential.state' : sql<string>`coalesce(credential.state, '')`, 'in', ['minting', 'active'])
    .where(coversGrant)
    .limit(max)
  if (task !== undefined) query = query.where('grants.task', '=', task)
  if (task !== undefined && workload !== undefined) query = query.where('grants.workload', '=', workload)
  if (task === undefined && workload !== undefined) query = query.where('credential.workload', '=', workload)
  // What lives is due at some time: that is what the index of a tool has.
  if (tool !== undefined) query = query.where('credential.tool', '=', tool).where('credential.due_at', 'is not', null)
  return (await query.execute()).map((row) => row.grant_id)
}

/**
 * What the revocation covers and has ended already, but for what it waits for in its tool: a version of a secret goes on being
 * good after the grants by which it was lent. Each version once.
 */
export async function findWaiting(db: Kysely<Schema>, index: number, { workload, tool, task }: RevocationSelector): Promise<{ readonly tool: string; readonly reference: string }[]> {
  let query = db
    .selectFrom('rotation')
    .innerJoin('credential', 'credential.tool', 'rotation.name')
    .innerJoin('grants', 'grants.id', 'credential.grant_id')
    .innerJoin('revocation', (join) => join.on('revocation.idx', '=', index))
    .select(['credential.tool', 'credential.reference'])
    .distinct()
    .where('rotation.every_seconds', 'is not', null)
    // What waits is due at some time: that is what the index of a tool has.
    .where('credential.due_at', 'is not', null)
    .where('credential.state', '=', 'ending')
    .where('credential.reference', 'is not', null)
    .where(coversGrant)
  if (task !== undefined) query = query.where('grants.task', '=', task)
  if (workload !== undefined) query = query.where('credential.workload', '=', workload)
  if (tool !== undefined) query = query.where('rotation.name', '=', tool)
  return (await query.execute()).flatMap((row) => (row.reference === null ? [] : [{ tool: row.tool, reference: row.reference }]))
}

/** Grants that are being minted or active, and whose workload may not work any more. */
export async function findOfStopped(db: Kysely<Schema>, max: number): Promise<string[]> {
  const rows = await db
    .selectFrom('credential')
    .select('grant_id')
    .where('state', 'in', ['minting', 'active'])
    .where('workload', 'in', (eb) => eb.selectFrom('workload').select('name').where('status', '<>', 'active'))
    .limit(max)
    .execute()
  return rows.map((row) => row.grant_id)
}

/** Revocations of many grants whose index is above this one, in order. */
export async function listRevocationsAfter(db: Kysely<Schema>, index: number, max: number): Promise<(RevocationSelector & { readonly index: number })[]> {
  const rows = await db.selectFrom('revocation').selectAll().where('idx', '>', index).orderBy('idx').limit(max).execute()
  return rows.map((row) => ({
    index: row.idx,
    ...(row.workload !== null && { workload: row.workload }),
    ...(row.tool !== null && { tool: row.tool }),
    ...(row.task !== null && { task: row.task }),
    ...(row.before_time !== null && { beforeMs: readTime(row.before_time) }),
  }))
}

/** The index of the last revocation of many that all credentials know of. */
export async function readCarried(db: Kysely<Schema>): Promise<number> {
  return (await db.selectFrom('sweep').select('revocations_carried').executeTakeFirstOrThrow()).revocations_carried
}

export async function writeCarried(tx: Kysely<Schema>, index: number): Promise<void> {
  await tx.updateTable('sweep').set({ revocations_carried: index }).where('revocations_carried', '<', index).execute()
}
