import type { Kysely } from 'kysely'
import type { AuditEvent } from '../audit/event.ts'
import { formatTime } from '../kernel/clock.ts'
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

/** The newest entries that fit, newest first. Paging by index is stable while entries are added. */
export async function listEntries(db: Kysely<Schema>, filter: EntryFilter): Promise<StoredEntry[]> {
  let query = db
    .selectFrom('audit_event')
    .select(['idx as index', 'time', 'type', 'body', 'leaf_hash as leafHash'])
    .orderBy('idx', 'desc')
    .limit(filter.limit)
  if (filter.type !== undefined) query = query.where('type', '=', filter.type)
  if (filter.workload !== undefined) query = query.where('workload', '=', filter.workload)
  if (filter.tool !== undefined) query = query.where('tool', '=', filter.tool)
  if (filter.grant !== undefined) query = query.where('grant_id', '=', filter.grant)
  if (filter.task !== undefined) query = query.where('task', '=', filter.task)
  if (filter.sinceMs !== undefined) query = query.where('time', '>=', formatTime(filter.sinceMs))
  if (filter.untilMs !== undefined) query = query.where('time', '<', formatTime(filter.untilMs))
  if (filter.before !== undefined) query = query.where('idx', '<', filter.before)
  if (filter.after !== undefined) query = query.where('idx', '>', filter.after)
  return query.execute()
}
