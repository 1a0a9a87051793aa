import { z } from 'zod'
import { revokeGrants } from '../broker/revoke.ts'
import { taskPattern } from '../grant/request.ts'
import { workloadNamePattern } from '../identity/workload.ts'
import { operatorCaller } from './guards.ts'
import { instant } from './query.ts'
import { defineRoute, type Route } from './route.ts'
import { reasonSchema } from './workloads.ts'

// The same as the refinements below, for the API document.
const selecting = ['workload', 'task', 'before'].map((member) => ({ required: [member] }))

const revocationBody = z
  .strictObject({
    grant: z.string().regex(/^grant_[0-9a-z]{26}$/, 'must be the id of a grant, as in a token\'s jti').optional(),
    workload: z.string().regex(workloadNamePattern, 'must be the name of a workload').optional(),
    task: z.string().regex(taskPattern, 'must be the name of a task, as tokens can be asked for').optional(),
    before: instant.optional(),
    reason: reasonSchema.optional(),
  })
  .refine(({ grant, workload, task, before }) => [grant, workload, task, before].some((member) => member !== undefined), {
    message: 'must name at least one of grant, workload, task and before',
  })
  .refine(({ grant, workload, task, before }) => grant === undefined || [workload, task, before].every((member) => member === undefined), {
    message: 'must name a grant alone, or any of workload, task and before',
  })
  .meta({ oneOf: [{ required: ['grant'], not: { anyOf: selecting } }, { anyOf: selecting, not: { required: ['grant'] } }] })

const revocationAnswer = z.strictObject({
  revoked: z.int(),
  more: z.boolean().describe('There are more than were counted; all of them are revoked.'),
  already_ended: z.int(),
  effect: z.literal('introspection'),
  audit_index: z.int().optional(),
})

export const revocationRoutes: readonly Route[] = [
  defineRoute({
    method: 'POST',
    path: '/v1/revocations',
    access: ['admin'],
    summary: 'Revoke a grant, or all grants of a workload, a task or a time',
    errors: ['not_found'],
    body: { type: 'json', schema: revocationBody },
    answers: { 200: { description: 'How many were revoked, and how it shows', schema: revocationAnswer } },
    async handle(c, { body: { grant, workload, task, before, reason } }) {
      const target =
        grant !== undefined
          ? { grant }
          : {
              ...(workload !== undefined && { workload }),
              ...(task !== undefined && { task }),
              ...(before !== undefined && { beforeMs: before }),
            }
      const report = await revokeGrants(c.get('broker'), operatorCaller(c), target, reason)
      if (report.auditIndex !== undefined) c.header('stint-audit-index', String(report.auditIndex))
      // Whoever asks is told at once; whoever verifies a token offline waits for its expiry (invariant 8).
      return c.json({
        revoked: report.revoked,
        more: report.more,
        already_ended: report.alreadyEnded,
        effect: 'introspection',
        audit_index: report.auditIndex,
      })
    },
  }),
]
