import { sql, type Kysely, type Selectable } from 'kysely'
import { formatTime } from '../kernel/clock.ts'
import type { DenyListTable, Schema } from './schema.ts'
import { readTime } from './time.ts'

/** A place in which sessions are denied that a tool cannot end. */
export interface StoredDenyList {
  readonly id: string
  /** Through which it was written last, and the policy set that describes it. */
  readonly tool: string
  readonly policySet: string
  /** Who writes it, until the lease is over. */
  readonly owner?: string
  readonly leaseUntilMs?: number
  readonly cutOffBeforeMs?: number
  readonly lookAtMs?: number
  readonly writtenAtMs?: number
  readonly problem?: string
}

export async function findDenyList(db: Kysely<Schema>, id: string): Promise<StoredDenyList | undefined> {
  const row = await db.selectFrom('deny_list').selectAll().where('id', '=', id).executeTakeFirst()
  return row && toDenyList(row)
}

/** Lists that somebody has to look at by now and that nobody writes, by id. */
export async function findDueDenyLists(db: Kysely<Schema>, nowMs: number): Promise<string[]> {
  const now = formatTime(nowMs)
  const rows = await db
    .selectFrom('deny_list')
    .select('id')
    .where('look_at', '<=', now)
    .where((eb) => eb.or([eb('lease_until', 'is', null), eb('lease_until', '<=', now)]))
    .orderBy('id')
    .execute()
  return rows.map(({ id }) => id)
}

/** Stores a list as it is from now on. */
export async function putDenyList(tx: Kysely<Schema>, list: StoredDenyList): Promise<void> {
  const time = (ms: number | undefined) => (ms === undefined ? null : formatTime(ms))
  const row = {
    tool: list.tool,
    policy_set: list.policySet,
    owner: list.owner ?? null,
    lease_until: time(list.leaseUntilMs),
    cut_off_before: time(list.cutOffBeforeMs),
    look_at: time(list.lookAtMs),
    written_at: time(list.writtenAtMs),
    problem: list.problem ?? null,
  }
  await tx.insertInto('deny_list').values({ id: list.id, ...row }).onConflict((conflict) => conflict.column('id').doUpdateSet(row)).execute()
}

/** Takes every list from whoever was writing it, and has it looked at now: that process is gone. Returns how many there were. */
export async function releaseDenyLists(tx: Kysely<Schema>, nowMs: number): Promise<number> {
  const { numUpdatedRows } = await tx.updateTable('deny_list').set({ owner: null, lease_until: null, look_at: formatTime(nowMs) }).where('owner', 'is not', null).executeTakeFirstOrThrow()
  return Number(numUpdatedRows)
}

/** A grant that is over while its session may live. `confirmed`: it was denied already. */
export interface Denied {
  readonly grant: string
  readonly confirmed: boolean
}

/** The grants that a list has to deny now, by id: what is over, or is to be, and was not dead for sure by then. */
export async function findDenied(db: Kysely<Schema>, list: string, nowMs: number): Promise<Denied[]> {
  const rows = await db
    .selectFrom('credential')
    .select(['grant_id', 'ended_at'])
    .where('deny_list', '=', list)
    .where('deny_until', '>', formatTime(nowMs))
    .where('state', 'not in', ['minting', 'active', 'failed'])
    // What has died by itself takes up no place.
    .where((eb) => eb.or([eb('ended_at', 'is', null), eb('dies_at', 'is', null), eb('ended_at', '<', eb.ref('dies_at'))]))
    .orderBy('grant_id')
    .execute()
  return rows.map(({ grant_id: grant, ended_at: endedAt }) => ({ grant, confirmed: endedAt !== null }))
}

/** Grants that nobody could deny and that nobody tries to end any more, although their sessions are dead for sure. */
export async function findDeadStuck(db: Kysely<Schema>, nowMs: number, max: number): Promise<string[]> {
  const rows = await db.selectFrom('credential').select('grant_id').where('state', '=', 'stuck').where('deny_until', '<=', formatTime(nowMs)).orderBy('grant_id').limit(max).execute()
  return rows.map(({ grant_id: grant }) => grant)
}

/** Until when the sessions of these grants may have to be denied; what is not there was never minted here, or is lost. */
export async function findDenyTimes(db: Kysely<Schema>, grants: readonly string[]): Promise<ReadonlyMap<string, number>> {
  const times = new Map<string, number>()
  for (let at = 0; at < grants.length; at += 500) {
    const rows = await db.selectFrom('credential').select(['grant_id', 'deny_until']).where('grant_id', 'in', grants.slice(at, at + 500)).execute()
    for (const { grant_id: grant, deny_until: until } of rows) times.set(grant, until === null ? 0 : readTime(until))
  }
  return times
}

/** The tool of a grant, as the policy set describes it under which it was made. */
export async function findToolOf(db: Kysely<Schema>, grant: string): Promise<{ readonly tool: string; readonly policySet: string } | undefined> {
  const row = await db.selectFrom('credential').select(['tool', 'policy_set']).where('grant_id', '=', grant).executeTakeFirst()
  return row && { tool: row.tool, policySet: row.policy_set }
}

/** A list, with a tool through which it is written and a policy set that describes that. */
export interface DenyPlace {
  readonly list: string
  readonly tool: string
  readonly policySet: string
}

/** The lists on which grants of this tool may have to be denied. */
export async function findPlacesOf(db: Kysely<Schema>, tool: string, nowMs: number): Promise<DenyPlace[]> {
  const rows = await db
    .selectFrom('credential')
    .select((eb) => ['deny_list', eb.fn.max('policy_set').as('policy_set')])
    .where('tool', '=', tool)
    .where('deny_list', 'is not', null)
    .where('deny_until', '>', formatTime(nowMs))
    .groupBy('deny_list')
    .orderBy('deny_list')
    .execute()
  return rows.flatMap(({ deny_list: list, policy_set: policySet }) => (list === null ? [] : [{ list, tool, policySet }]))
}

/** The tools whose grants may have to be denied on these lists, by name. */
export async function findToolsOn(db: Kysely<Schema>, lists: readonly string[], nowMs: number): Promise<string[]> {
  if (lists.length === 0) return []
  const rows = await db.selectFrom('credential').select('tool').distinct().where('deny_list', 'in', lists).where('deny_until', '>', formatTime(nowMs)).orderBy('tool').execute()
  return rows.map(({ tool }) => tool)
}

/** How many grants of these tools live, outside of Stint, and were not ordered to end. */
export async function countAlive(db: Kysely<Schema>, tools: readonly string[]): Promise<number> {
  if (tools.length === 0) return 0
  const { count } = await db
    .selectFrom('credential')
    .innerJoin('grants', 'grants.id', 'credential.grant_id')
    .select((eb) => eb.fn.countAll<number>().as('count'))
    .where('credential.tool', 'in', tools)
    .where('credential.due_at', 'is not', null)
    .where('credential.state', 'in', ['minting', 'active'])
    .where('grants.revoked_index', 'is', null)
    .executeTakeFirstOrThrow()
  return Number(count)
}

/** How many grants each list has to deny now, with the tool through which it was written last. */
export async function countDenied(db: Kysely<Schema>, nowMs: number): Promise<{ readonly list: string; readonly tool: string; readonly denied: number }[]> {
  const rows = await db
    .selectFrom('deny_list')
    .leftJoin('credential', (join) =>
      join
        .onRef('credential.deny_list', '=', 'deny_list.id')
        .on('credential.deny_until', '>', formatTime(nowMs))
        .on('credential.state', 'not in', ['minting', 'active', 'failed']),
    )
    .select(['deny_list.id', 'deny_list.tool'])
    .select(sql<number>`count(credential.grant_id)`.as('denied'))
    .groupBy(['deny_list.id', 'deny_list.tool'])
    .execute()
  return rows.map(({ id, tool, denied }) => ({ list: id, tool, denied: Number(denied) }))
}

function toDenyList(row: Selectable<DenyListTable>): StoredDenyList {
  return {
    id: row.id,
    tool: row.tool,
    policySet: row.policy_set,
    ...(row.owner !== null && { owner: row.owner }),
    ...(row.lease_until !== null && { leaseUntilMs: readTime(row.lease_until) }),
    ...(row.cut_off_before !== null && { cutOffBeforeMs: readTime(row.cut_off_before) }),
    ...(row.look_at !== null && { lookAtMs: readTime(row.look_at) }),
    ...(row.written_at !== null && { writtenAtMs: readTime(row.written_at) }),
    ...(row.problem !== null && { problem: row.problem }),
  }
}
