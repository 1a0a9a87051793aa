import type { Kysely } from 'kysely'
import type { AuditEvent } from '../audit/event.ts'
import { formatTime } from '../kernel/clock.ts'
import { coversGrant } from './grants.ts'
import type { Schema } from './schema.ts'

/** One entry as stored: `body` is the canonical JSON whose leaf hash is in the tree. */
export interface StoredEntry {
  readonly index: number
  readonly time: string
  readonly type: string
  readonly body: string
  readonly leafHash: Uint8Array
}

export interface EntryFilter {
  readonly type?: AuditEvent['type']
  readonly workload?: string
  readonly tool?: string
  readonly grant?: string
  readonly task?: string
  readonly sinceMs?: number
  readonly untilMs?: number
  /** Only entries with a smaller index. */
  readonly before?: number
  /** Only entries with a greater index. */
  readonly after?: number
  readonly limit: number
}

/**
 * The newest entries that fit, newest first. Paging by index is stable while entries are added. Whoever asks for a
 * workload, a task or a grant also gets the revocations of many that may have ended what they ask about.
 */
export async function listEntries(db: Kysely<Schema>, filter: EntryFilter): Promise<StoredEntry[]> {
  let own = selectEntries(db, filter)
  if (filter.workload !== undefined) own = own.where('workload', '=', filter.workload)
  if (filter.tool !== undefined) own = own.where('tool', '=', filter.tool)
  if (filter.grant !== undefined) own = own.where('grant_id', '=', filter.grant)
  if (filter.task !== undefined) own = own.where('task', '=', filter.task)
  const entries = await own.execute()
  const { workload, task, grant, tool } = filter
  if (tool !== undefined || (workload === undefined && task === undefined && grant === undefined)) return entries
  // Two look-ups, each by an index, rather than one that reads every entry.
  const ends = await selectEntries(db, filter).where('idx', 'in', revocationsOf(db, { workload, task, grant })).execute()
  const byIndex = new Map([...entries, ...ends].map((entry) => [entry.index, entry]))
  return [...byIndex.values()].sort((a, b) => b.index - a.index).slice(0, filter.limit)
}

function selectEntries(db: Kysely<Schema>, filter: EntryFilter) {
  let query = db
    .selectFrom('audit_event')
    .select(['idx as index', 'time', 'type', 'body', 'leaf_hash as leafHash'])
    .orderBy('idx', 'desc')
    .limit(filter.limit)
  if (filter.type !== undefined) query = query.where('type', '=', filter.type)
  if (filter.sinceMs !== undefined) query = query.where('time', '>=', formatTime(filter.sinceMs))
  if (filter.untilMs !== undefined) query = query.where('time', '<', formatTime(filter.untilMs))
  if (filter.before !== undefined) query = query.where('idx', '<', filter.before)
  if (filter.after !== undefined) query = query.where('idx', '>', filter.after)
  return query
}

interface Concerned {
  readonly workload: string | undefined
  readonly task: string | undefined
  readonly grant: string | undefined
}

/** The revocations of many that are not known to be about other workloads, tasks and grants. */
function revocationsOf(db: Kysely<Schema>, { workload, task, grant }: Concerned) {
  let query = db.selectFrom('revocation').select('revocation.idx')
  if (workload !== undefined) query = query.where((eb) => eb.or([eb('revocation.workload', 'is', null), eb('revocation.workload', '=', workload)]))
  if (task !== undefined) query = query.where((eb) => eb.or([eb('revocation.task', 'is', null), eb('revocation.task', '=', task)]))
  if (grant === undefined) return query
  return query.where(({ exists, selectFrom }) =>
    exists(selectFrom('grants').select('grants.id').where('grants.id', '=', grant).where(coversGrant)),
  )
}
