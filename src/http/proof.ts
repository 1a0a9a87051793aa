import { z } from 'zod'
import { findProvingCheckpoint, proveExport } from '../broker/prove-export.ts'
import { entryFilter, entryIndex, given } from './audit.ts'
import { answerPages, mayExport } from './export.ts'
import { operatorCaller } from './guards.ts'
import { defineRoute, type Route, type RouteContext } from './route.ts'

const proofQuery = z.strictObject({
  ...entryFilter,
  first: entryIndex.describe('stint-export-first of the export.'),
  last: z
    .string()
    .regex(/^(?:\d{1,16}|-1)$/, 'must be a whole number from -1')
    .transform(Number)
    .meta({ type: 'integer', minimum: -1, maximum: Number.MAX_SAFE_INTEGER, pattern: undefined })
    .describe('stint-export-last of the export: one less than first where it is empty.'),
})

export const proofRoutes: readonly Route[] = [
  defineRoute({
    method: 'GET',
    path: '/v1/audit/proof',
    access: mayExport,
    summary: 'Prove an export',
    query: proofQuery,
    answers: {
      200: {
        description:
          'Lines to go behind the entries of an export as JSON Lines with the same filters: the policy sets that were in force, the hashes of its entries, the hashes of what the export leaves out of the tree, and the signed checkpoint. Complete if the last line is the checkpoint.',
        type: 'application/jsonl',
        schema: z.string(),
      },
    },
    errors: ['not_found'],
    async handle(c, { query }) {
      const broker = c.get('broker')
      const { first, last, ...filter } = query
      if (c.req.method === 'HEAD') {
        setProofHeaders(c, await findProvingCheckpoint(broker, { first, last }))
        return c.body(null)
      }
      const { checkpoint, readPages, end } = await proveExport(broker, operatorCaller(c), { first, last, ...given(filter) })
      setProofHeaders(c, checkpoint)
      return answerPages(c, 'a proof', { readPages, end, begin: '', format: (lines: string) => lines })
    },
  }),
]

function setProofHeaders(c: RouteContext, { size }: { readonly size: number }): void {
  c.header('content-type', 'application/jsonl')
  c.header('stint-checkpoint-size', String(size))
}
