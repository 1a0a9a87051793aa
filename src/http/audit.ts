import { z } from 'zod'
import { eventFields, type AuditEventType } from '../audit/event.ts'
import { workloadNamePattern } from '../identity/workload.ts'
import { listEntries } from '../storage/audit-events.ts'
import type { StoredEntry } from '../storage/audit-windows.ts'
import { instant, oneOf, searchText, wholeNumber } from './query.ts'
import { defineRoute, type Route } from './route.ts'

// The keys of an object that is exhaustive over the union: none of them is anything else.
const eventTypes = Object.keys(eventFields) as AuditEventType[]

/** What entries are searched and exported by. */
export const entryFilter = {
  type: oneOf(eventTypes).optional(),
  workload: z.string().regex(workloadNamePattern, 'must be the name of a workload').optional(),
  tool: searchText(64).optional(),
  grant: searchText(64).optional(),
  task: searchText(128).optional(),
}

/** An index of the log in a query. */
export const entryIndex = wholeNumber(0, Number.MAX_SAFE_INTEGER)

const auditQuery = z
  .strictObject({
    ...entryFilter,
    since: instant.optional(),
    until: instant.optional(),
    before: entryIndex.optional(),
    after: entryIndex.optional(),
    limit: wholeNumber(1, 1000).optional(),
  })
  .refine(({ since, until }) => since === undefined || until === undefined || since <= until, { path: ['since'], message: 'must not be later than until' })
  .refine(({ after, before }) => after === undefined || before === undefined || after <= before, { path: ['after'], message: 'must not be beyond before' })

const auditAnswer = z.strictObject({
  entries: z.array(
    z.strictObject({
      index: z.int(),
      time: z.iso.datetime(),
      type: z.string(),
      event: z.record(z.string(), z.unknown()),
      leaf_hash: z.string().regex(/^[0-9a-f]{64}$/),
    }),
  ),
  next: z.int().optional().describe('Pass it as before for the next page, also where this one is short or empty; absent on the last one.'),
  tree_size: z.int(),
})

export const auditRoutes: readonly Route[] = [
  defineRoute({
    method: 'GET',
    path: '/v1/audit',
    access: ['admin', 'auditor'],
    summary: 'Search the log, the newest entries first',
    query: auditQuery,
    answers: { 200: { description: 'A page of entries', schema: auditAnswer } },
    async handle(c, { query: { since, until, limit = 100, ...filter } }) {
      const { entries, next, treeSize } = await listEntries(c.get('broker').database.read, {
        ...given(filter),
        ...(since !== undefined && { sinceMs: since }),
        ...(until !== undefined && { untilMs: until }),
        limit,
      })
      const rest = JSON.stringify({ next, tree_size: treeSize }).slice(1)
      return c.body(`{"entries":[${entries.map(formatEntry).join(',')}],${rest}`, 200, { 'content-type': 'application/json' })
    },
  }),
]

/** The members that were sent. */
export function given<T extends object>(parsed: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  // What is left has no undefined values.
  return Object.fromEntries(Object.entries(parsed).filter(([, value]) => value !== undefined)) as ReturnType<typeof given<T>>
}

/** The event goes in as it is stored, which is JSON: a page of large ones is not to be parsed and written anew. */
function formatEntry({ index, time, type, body, leafHash }: StoredEntry): string {
  const [head, hash] = [JSON.stringify({ index, time, type }).slice(0, -1), Buffer.from(leafHash).toString('hex')]
  return `${head},"event":${body},"leaf_hash":"${hash}"}`
}
