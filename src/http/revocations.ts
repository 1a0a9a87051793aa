import { z } from 'zod'
import { revokeGrants } from '../broker/revoke.ts'
import { workloadNamePattern } from '../identity/workload.ts'
import { operatorCaller } from './guards.ts'
import { taskName } from './grants.ts'
import { describeRevoked, revokedGrantAnswer } from './grant-answers.ts'
import { instant, searchText } from './query.ts'
import { defineRoute, type Route } from './route.ts'
import { reasonSchema } from './workloads.ts'

// The same as the refinements below, for the API document.
const selecting = ['workload', 'owner', 'tool', 'task', 'before'].map((member) => ({ required: [member] }))

const revocationBody = z
  .strictObject({
    grant: z.string().regex(/^grant_[0-9a-z]{26}$/, 'must be the id of a grant, as in a token\'s jti').optional(),
    workload: z.string().regex(workloadNamePattern, 'must be the name of a workload').optional(),
    owner: searchText(64).optional().describe('A team: all of its workloads.'),
    tool: z.string().regex(/^[a-z][a-z0-9-]{0,62}$/, 'must be the name of a tool').optional(),
    task: taskName.optional(),
    before: instant.optional(),
    suspend: z.literal(true).optional().describe('With workload alone: everything of it, now, and it is suspended.'),
    reason: reasonSchema.optional(),
  })
  .refine(({ grant, workload, owner, tool, task, before }) => [grant, workload, owner, tool, task, before].some((member) => member !== undefined), {
    message: 'must name at least one of grant, workload, owner, tool, task and before',
  })
  .refine(({ grant, workload, owner, tool, task, before }) => grant === undefined || [workload, owner, tool, task, before].every((member) => member === undefined), {
    message: 'must name a grant alone, or any of workload, owner, tool, task and before',
  })
  .refine(({ suspend, workload, owner, tool, task, before }) => suspend === undefined || (workload !== undefined && [owner, tool, task, before].every((member) => member === undefined)), {
    message: 'must name a workload, and nothing else, to suspend it',
  })
  .meta({
    oneOf: [
      { required: ['grant'], not: { anyOf: [...selecting, { required: ['suspend'] }] } },
      { required: ['workload', 'suspend'], not: { anyOf: ['grant', 'owner', 'tool', 'task', 'before'].map((member) => ({ required: [member] })) } },
      { anyOf: selecting, not: { anyOf: [{ required: ['grant'] }, { required: ['suspend'] }] } },
    ],
  })

const revocationAnswer = z.strictObject({
  revoked: z.int(),
  more: z.boolean().describe('There are more than were counted; all of them are revoked.'),
  already_ended: z.int(),
  grants: z.array(revokedGrantAnswer).describe('What became of each, the newest first, 1,000 at most.'),
  audit_index: z.int().optional(),
})

export const revocationRoutes: readonly Route[] = [
  defineRoute({
    method: 'POST',
    path: '/v1/revocations',
    access: ['admin'],
    summary: 'Revoke a grant, or all grants of a workload, a team, a tool, a task or a time',
    errors: ['not_found'],
    body: { type: 'json', schema: revocationBody },
    answers: { 200: { description: 'How many were revoked, and how it shows', schema: revocationAnswer } },
    async handle(c, { body: { grant, workload, owner, tool, task, before, suspend, reason } }) {
      const target =
        grant !== undefined
          ? { grant }
          : {
              ...(workload !== undefined && { workload }),
              ...(owner !== undefined && { owner }),
              ...(tool !== undefined && { tool }),
              ...(task !== undefined && { task }),
              ...(suspend === true && { suspend }),
              ...(before !== undefined && { beforeMs: before }),
            }
      const report = await revokeGrants(c.get('broker'), operatorCaller(c), target, reason)
      if (report.auditIndex !== undefined) c.header('stint-audit-index', String(report.auditIndex))
      return c.json({
        revoked: report.revoked,
        more: report.more,
        already_ended: report.alreadyEnded,
        grants: report.grants.map(describeRevoked),
        audit_index: report.auditIndex,
      })
    },
  }),
]
