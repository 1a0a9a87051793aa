import { z } from 'zod'
import { eventFields, type AuditEventType } from '../audit/event.ts'
import { workloadNamePattern } from '../identity/workload.ts'
import { listEntries } from '../storage/audit-events.ts'
import { readHead } from '../storage/head.ts'
import { instant, oneOf, searchText, wholeNumber } from './query.ts'
import { defineRoute, type Route } from './route.ts'

// The keys of an object that is exhaustive over the union: none of them is anything else.
const eventTypes = Object.keys(eventFields) as AuditEventType[]

const auditQuery = z.strictObject({
  type: oneOf(eventTypes).optional(),
  workload: z.string().regex(workloadNamePattern, 'must be the name of a workload').optional(),
  tool: searchText(64).optional(),
  grant: searchText(64).optional(),
  task: searchText(128).optional(),
  since: instant.optional(),
  until: instant.optional(),
  before: wholeNumber(0, Number.MAX_SAFE_INTEGER).optional(),
  after: wholeNumber(0, Number.MAX_SAFE_INTEGER).optional(),
  limit: wholeNumber(1, 1000).optional(),
})

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
  next: z.int().optional().describe('Pass it as before for the next page; absent on the last one.'),
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
      const { read } = c.get('broker').database
      const given = Object.fromEntries(Object.entries(filter).filter(([, value]) => value !== undefined))
      const entries = await listEntries(read, {
        ...given,
        ...(since !== undefined && { sinceMs: since }),
        ...(until !== undefined && { untilMs: until }),
        limit: limit + 1,
      })
      const page = entries.slice(0, limit)
      return c.json({
        entries: page.map(({ index, time, type, body, leafHash }) => ({
          index,
          time,
          type,
          event: JSON.parse(body) as unknown,
          leaf_hash: Buffer.from(leafHash).toString('hex'),
        })),
        // The last entry of this page: pass it as `before` for the next one.
        next: entries.length > limit ? page.at(-1)?.index : undefined,
        tree_size: (await readHead(read)).size,
      })
    },
  }),
]
