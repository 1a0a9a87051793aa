import { z } from 'zod'
import { listRotationStatus, rotateNow, rotationKinds, showRotation, type RotationStatus } from '../broker/rotations.ts'
import { formatTime } from '../kernel/clock.ts'
import { operatorCaller } from './guards.ts'
import { defineRoute, type Route } from './route.ts'
import { reasonSchema } from './workloads.ts'

const rotationParams = z.strictObject({ name: z.string().regex(/^[a-z][a-z0-9-]{0,62}$/, 'is 1 to 63 of a-z, 0-9 and -') })
const rotateBody = z.strictObject({
  leaked: z
    .boolean({ error: 'must be true or false' })
    .optional()
    .describe('The version in force may be in wrong hands: it opens nothing any more as soon as the next one is in force, whoever holds it.'),
  reason: reasonSchema.optional(),
})

const rotationAnswer = z.strictObject({
  name: z.string().describe("A tool's name for its secret; signing-keys; sealing-keys; of a root credential where it comes from."),
  kind: z.enum(rotationKinds),
  tool: z.string().optional(),
  every_seconds: z.int().optional().describe('Absent where nothing is replaced by schedule.'),
  state: z
    .enum(['idle', 'running', 'waiting', 'failed', 'unmanaged'])
    .describe('waiting: it is tried again, or waits for somebody. failed: the last run came to nothing, and what was in force still is. unmanaged: Stint does not replace it.'),
  id: z.string().optional().describe('The run that is ordered or under way.'),
  step: z.enum(['order', 'create', 'set', 'test', 'finish', 'abandon']).optional().describe('What is done next of it.'),
  reason: z.enum(['schedule', 'revocation', 'leak', 'request']).optional().describe('Why it runs.'),
  last_id: z.string().optional().describe('The last run that came to an end.'),
  last_outcome: z.enum(['finished', 'failed']).optional(),
  last_at: z.iso.datetime().optional().describe('Since when the version in force is; of a root credential that an admin handed over, since when Stint has it.'),
  version: z.string().optional().describe('The version in force, as far as it was seen.'),
  retires_at: z.iso.datetime().optional().describe('When the version before is to open nothing any more.'),
  next_at: z.iso.datetime().optional().describe('When the next version is due, by schedule or because somebody ordered it.'),
  overdue: z.boolean(),
  overdue_since: z.iso.datetime().optional(),
  problem: z.string().optional(),
  tries: z.int().optional().describe('Of the step that failed last.'),
  try_at: z.iso.datetime().optional().describe('When it is tried, or looked at, again.'),
})

const begunAnswer = rotationAnswer.extend({
  ordered: z.string().optional().describe('The run that does what was asked for; absent for keys, which are replaced by the time of this answer.'),
  audit_index: z.int(),
})

export const rotationRoutes: readonly Route[] = [
  defineRoute({
    method: 'GET',
    path: '/v1/rotations',
    access: ['admin', 'auditor'],
    summary: 'What lives long, when it was replaced, when it is replaced next, and what Stint does not replace',
    answers: { 200: { description: 'Keys, then secrets by name, then root credentials by tool', schema: z.strictObject({ rotations: z.array(rotationAnswer) }) } },
    async handle(c) {
      const rotations = await listRotationStatus(c.get('broker'))
      return c.json({ rotations: rotations.map(describe) })
    },
  }),
  defineRoute({
    method: 'GET',
    path: '/v1/rotations/:name',
    access: ['admin', 'auditor'],
    summary: 'How one rotation stands',
    params: rotationParams,
    answers: { 200: { description: 'The rotation', schema: rotationAnswer } },
    async handle(c, { params: { name } }) {
      return c.json(describe(await showRotation(c.get('broker'), name)))
    },
  }),
  defineRoute({
    method: 'POST',
    path: '/v1/rotations/:name',
    access: ['admin'],
    summary: 'Replace a long-lived secret now',
    errors: ['conflict'],
    params: rotationParams,
    body: { type: 'json', schema: rotateBody },
    answers: { 202: { description: 'It is ordered, and goes on by itself; how it stands now', schema: begunAnswer } },
    async handle(c, { params: { name }, body: { leaked = false, reason } }) {
      const broker = c.get('broker')
      const { id, auditIndex } = await rotateNow(broker, operatorCaller(c), name, { leaked, ...(reason !== undefined && { reason }) })
      c.header('stint-audit-index', String(auditIndex))
      return c.json({ ...describe(await showRotation(broker, name)), ...(id !== undefined && { ordered: id }), audit_index: auditIndex }, 202)
    },
  }),
]

function describe(status: RotationStatus): z.output<typeof rotationAnswer> {
  const { name, kind, tool, everySeconds, state, run, last, lastAtMs, version, retiresAtMs, nextAtMs, overdueSinceMs, problem, tries, tryAtMs } = status
  return {
    name,
    kind,
    ...(tool !== undefined && { tool }),
    ...(everySeconds !== undefined && { every_seconds: everySeconds }),
    state,
    ...(run !== undefined && { id: run.id, step: run.step, reason: run.reason }),
    ...(last !== undefined && { last_id: last.id, last_outcome: last.outcome }),
    ...(lastAtMs !== undefined && { last_at: formatTime(lastAtMs) }),
    ...(version !== undefined && { version }),
    ...(retiresAtMs !== undefined && { retires_at: formatTime(retiresAtMs) }),
    ...(nextAtMs !== undefined && { next_at: formatTime(nextAtMs) }),
    overdue: overdueSinceMs !== undefined,
    ...(overdueSinceMs !== undefined && { overdue_since: formatTime(overdueSinceMs) }),
    ...(problem !== undefined && { problem }),
    ...(tries !== undefined && { tries }),
    ...(tryAtMs !== undefined && { try_at: formatTime(tryAtMs) }),
  }
}
