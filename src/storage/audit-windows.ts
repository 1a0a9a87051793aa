import { sql, type ExpressionBuilder, type Kysely } from 'kysely'
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

/** What the tree has of an entry. */
export type StoredLeaf = Pick<StoredEntry, 'index' | 'leafHash'>

/**
 * What entries are about: they fit every member given. Whoever asks for a workload, a task or a grant also gets the
 * revocations of many that may have ended what they ask about; who names a tool as well, those of that tool.
 */
export interface EntryFilter {
  readonly type?: AuditEvent['type']
  readonly workload?: string
  readonly tool?: string
  readonly grant?: string
  readonly task?: string
}

/** The indexes between these two, both excluded. */
export interface IndexRange {
  readonly after: number
  readonly before: number
}

export type Direction = 'asc' | 'desc'

/** What one look at the log gave: the entries that fit, in the direction of reading, and the range that is left to look at. */
export interface EntryWindow {
  readonly entries: readonly StoredEntry[]
  readonly rest: IndexRange | undefined
}

/**
 * Looks at the next `looked` entries of the range, at most: a bounded piece of work however long the log is and however few
 * entries fit, since on SQLite a statement holds up everything else. Whoever wants more yields and goes on with `rest`.
 */
export async function readWindow(
  db: Kysely<Schema>,
  filter: EntryFilter,
  range: IndexRange,
  direction: Direction,
  looked: number,
): Promise<EntryWindow> {
  return lookAt(db, filter, range, direction, looked, 'body')
}

/** As `readWindow`, the oldest first, where nothing but the leaves of the tree is wanted: no body is read. */
export async function readLeaves(
  db: Kysely<Schema>,
  filter: EntryFilter,
  range: IndexRange,
  looked: number,
): Promise<{ readonly leaves: readonly StoredLeaf[]; readonly rest: IndexRange | undefined }> {
  const { entries, rest } = await lookAt(db, filter, range, 'asc', looked, 'type')
  return { leaves: entries, rest }
}

/** What is read of an entry that fits. */
type Content = 'body' | 'type'

async function lookAt(
  db: Kysely<Schema>,
  filter: EntryFilter,
  range: IndexRange,
  direction: Direction,
  looked: number,
  content: Content,
): Promise<EntryWindow> {
  const sources = [await readOwn(db, filter, range, direction, looked, content)]
  if (mayBeEnded(filter)) sources.push(await readRevocations(db, filter, range, direction, looked, content))
  // A source that gave as many as were asked for may have more behind its last one, and nobody has looked beyond that.
  const ends = sources.filter((rows) => rows.length === looked).flatMap((rows) => rows.at(-1)?.index ?? [])
  const ascending = direction === 'asc'
  const reached = ends.length === 0 ? undefined : ascending ? Math.min(...ends) : Math.max(...ends)
  const byIndex = new Map<number, StoredEntry>()
  for (const { body, ...row } of sources.flat()) {
    const seen = reached === undefined || (ascending ? row.index <= reached : row.index >= reached)
    if (seen && body !== null) byIndex.set(row.index, { ...row, body })
  }
  const entries = [...byIndex.values()].sort((a, b) => (ascending ? a.index - b.index : b.index - a.index))
  if (reached === undefined) return { entries, rest: undefined }
  return { entries, rest: ascending ? { ...range, after: reached } : { ...range, before: reached } }
}

/** An entry that was looked at, with the content that was asked for as its body; without one where it does not fit. */
type LookedAt = Omit<StoredEntry, 'body'> & { readonly body: string | null }

const columns = { grant: 'grant_id', task: 'task', workload: 'workload', tool: 'tool', type: 'type' } as const
// Those that fit fewer entries first: each is the beginning of an index that goes on with the entry's own.
const members = ['grant', 'task', 'workload', 'tool', 'type'] as const

/**
 * The entries of one member's index, in order. What else must fit stands in no WHERE clause, where it could lead the
 * planner to another index, of which it would have to read any number of entries to find this many.
 */
async function readOwn(
  db: Kysely<Schema>,
  filter: EntryFilter,
  range: IndexRange,
  direction: Direction,
  looked: number,
  content: Content,
): Promise<LookedAt[]> {
  const [leader, ...others] = members.filter((member) => filter[member] !== undefined)
  const fits = (eb: ExpressionBuilder<Schema, 'audit_event'>) => eb.and(others.map((member) => eb(columns[member], '=', filter[member] ?? '')))
  let query = db
    .selectFrom('audit_event')
    .select(['idx as index', 'time', 'type', 'leaf_hash as leafHash'])
    .select((eb) => eb.case().when(fits(eb)).then(eb.ref(content)).end().as('body'))
    .where('idx', '>', range.after)
    .where('idx', '<', range.before)
    .orderBy('idx', direction)
    .limit(looked)
  if (leader !== undefined) query = query.where(columns[leader], '=', filter[leader] ?? '')
  return query.execute()
}

/** Whether revocations of many belong to what is asked for, beside those that fit by what they name. */
function mayBeEnded({ type, workload, grant, task }: EntryFilter): boolean {
  return (type ?? 'grants.revoked') === 'grants.revoked' && [workload, grant, task].some((member) => member !== undefined)
}

/** The revocations of many, of which those fit that are not known to be about other workloads, tasks and grants. */
async function readRevocations(
  db: Kysely<Schema>,
  { workload, tool, task, grant }: EntryFilter,
  range: IndexRange,
  direction: Direction,
  looked: number,
  content: Content,
): Promise<LookedAt[]> {
  const concerns = (eb: ExpressionBuilder<Schema, 'revocation' | 'audit_event'>) => {
    const conditions = [
      ...(workload === undefined ? [] : [eb.or([eb('revocation.workload', 'is', null), eb('revocation.workload', '=', workload)])]),
      ...(tool === undefined ? [] : [eb('revocation.tool', '=', tool)]),
      ...(task === undefined ? [] : [eb.or([eb('revocation.task', 'is', null), eb('revocation.task', '=', task)])]),
    ]
    if (grant === undefined) return eb.and(conditions)
    return eb.and([...conditions, eb.exists(eb.selectFrom('grants').select('grants.id').where('grants.id', '=', grant).where(coversGrant))])
  }
  return db
    .selectFrom('revocation')
    .innerJoin('audit_event', 'audit_event.idx', 'revocation.idx')
    .select(['revocation.idx as index', 'audit_event.time', 'audit_event.type', 'audit_event.leaf_hash as leafHash'])
    .select((eb) => eb.case().when(concerns(eb)).then(eb.ref(`audit_event.${content}`)).end().as('body'))
    .where('revocation.idx', '>', range.after)
    .where('revocation.idx', '<', range.before)
    .orderBy('revocation.idx', direction)
    .limit(looked)
    .execute()
}

/**
 * The index of the first entry at or after this instant in a log of `size` entries; `size` where there is none. Searched
 * for over the indexes, for the ledger's time never runs backwards (invariant 12).
 */
export async function findIndexAt(db: Kysely<Schema>, atMs: number, size: number): Promise<number> {
  const at = formatTime(atMs)
  let [low, high] = [0, size]
  while (low < high) {
    const middle = Math.floor((low + high) / 2)
    // The next one that there is: of a log that somebody has taken entries from, the rest can be found all the same.
    const next = await db
      .selectFrom('audit_event')
      .select(['idx', sql<number>`case when time >= ${at} then 1 else 0 end`.as('reached')])
      .where('idx', '>=', middle)
      .where('idx', '<', high)
      .orderBy('idx')
      .limit(1)
      .executeTakeFirst()
    if (next === undefined || next.reached === 1) high = middle
    else low = next.idx + 1
  }
  return low
}
