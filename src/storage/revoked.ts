import { sql, type Kysely } from 'kysely'
import { grantState, type GrantState } from '../grant/grant.ts'
import { formatTime } from '../kernel/clock.ts'
import { findCredential, type StoredCredential } from './credentials.ts'
import { coversGrant, findGrant, type RevocationSelector, type StoredGrant } from './grants.ts'
import type { Schema } from './schema.ts'

/** A grant that a revocation looks at, with what it has made outside. */
export interface TouchedGrant {
  readonly grant: StoredGrant
  readonly credential?: StoredCredential
  readonly state: GrantState
}

/** One grant as a revocation has left it. */
export async function findTouched(db: Kysely<Schema>, id: string, nowMs: number): Promise<TouchedGrant | undefined> {
  const [grant, credential] = [await findGrant(db, id), await findCredential(db, id)]
  if (grant === undefined) return undefined
  return { grant, ...(credential && { credential }), state: grantState(grant, nowMs, credential?.state) }
}

/** The ids of grants that fit and whose time is not over, or whose credential is not ended, the newest first; at most `max`. */
export async function listTouched(db: Kysely<Schema>, selectors: readonly RevocationSelector[], nowMs: number, max: number): Promise<string[]> {
  const ids = new Set<string>()
  for (const selector of selectors) {
    const fitting = () => {
      let query = db.selectFrom('grants').select('grants.id').orderBy('grants.issued_index', 'desc').limit(max)
      if (selector.workload !== undefined) query = query.where('grants.workload', '=', selector.workload)
      if (selector.tool !== undefined) query = query.where('grants.tool', '=', selector.tool)
      if (selector.task !== undefined) query = query.where('grants.task', '=', selector.task)
      if (selector.beforeMs !== undefined) query = query.where('grants.issued_at', '<', formatTime(selector.beforeMs))
      return query
    }
    const open = db.selectFrom('credential').select('grant_id').where(sql<boolean>`(due_at is not null or state = 'stuck')`)
    const unexpired = await fitting().where('grants.expires_at', '>', formatTime(nowMs)).execute()
    const lingering = await fitting().where('grants.expires_at', '<=', formatTime(nowMs)).where('grants.id', 'in', open).execute()
    for (const { id } of [...unexpired, ...lingering]) if (ids.size < max) ids.add(id)
  }
  return [...ids]
}

/** Whether anything of this task of a workload is alive, or being made or ended. */
export async function isTaskOpen(db: Kysely<Schema>, workload: string, task: string, nowMs: number): Promise<boolean> {
  const covered = sql<boolean>`exists (select 1 from revocation where ${coversGrant})`
  const row = await db
    .selectFrom('grants')
    .leftJoin('credential', 'credential.grant_id', 'grants.id')
    .select('grants.id')
    .where('grants.workload', '=', workload)
    .where('grants.task', '=', task)
    .where((eb) =>
      eb.or([
        sql<boolean>`(credential.due_at is not null or credential.state = 'stuck')`,
        eb.and([eb('credential.grant_id', 'is', null), eb('grants.expires_at', '>', formatTime(nowMs)), eb('grants.revoked_index', 'is', null), eb.not(covered)]),
      ]),
    )
    .limit(1)
    .executeTakeFirst()
  return row !== undefined
}
