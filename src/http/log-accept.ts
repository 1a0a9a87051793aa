import { z } from 'zod'
import { acceptRestored } from '../broker/accept-restored.ts'
import type { AnchorState } from '../broker/anchor.ts'
import { formatTime } from '../kernel/clock.ts'
import { readHead } from '../storage/head.ts'
import { operatorCaller } from './guards.ts'
import { shortText } from './query.ts'
import { defineRoute, type Route } from './route.ts'
import { reasonSchema } from './workloads.ts'

const abandonedSchema = z.strictObject({
  anchor: shortText(2048),
  size: z.int().min(0),
  root: shortText(64).optional().describe('Base64; absent where a witness told only the size.'),
})

const acceptBody = z.strictObject({
  reason: reasonSchema,
  abandoned: z.array(abandonedSchema).min(1).max(64).describe('All checkpoints that hold the log, as GET /v1/log/anchors shows them.'),
})

const anchorsAnswer = z.strictObject({
  log_size: z.int(),
  held: z.boolean().describe('Whether nothing is issued until an admin has accepted the log as it is.'),
  anchors: z.array(
    z.strictObject({
      anchor: z.string(),
      kind: z.enum(['file', 'http', 'witness']),
      kept_size: z.int().optional().describe('The newest checkpoint of this log that it is known to have.'),
      behind_entries: z.int(),
      failure: z.string().optional().describe('Why it could not be kept to, at the last try.'),
      contradiction: z
        .strictObject({
          size: z.int(),
          root: z.string().optional(),
          why: z.string(),
          kept_at: z.iso.datetime().optional().describe('By the clock of the anchor.'),
        })
        .optional()
        .describe('What it has of a log that is not this one.'),
    }),
  ),
})

const acceptedAnswer = z.strictObject({
  log_size: z.int().describe('The number of entries from which the log goes on.'),
  abandoned: z.array(z.strictObject({ anchor: z.string(), size: z.int(), root: z.string().optional() })),
  proofs_from: z.iso.datetime().describe('Assertions and ID tokens that were signed before are refused.'),
  kid: z.string().describe('The key that signs tokens from now on; no other is accepted.'),
  ended_sessions: z.int(),
  cancelled_enrolments: z.int(),
  audit_index: z.int(),
})

export const logAcceptRoutes: readonly Route[] = [
  defineRoute({
    method: 'GET',
    path: '/v1/log/anchors',
    access: ['admin', 'auditor'],
    summary: 'Where checkpoints are kept outside of the database, and whether they are of this log',
    answers: { 200: { description: 'As this process found them', schema: anchorsAnswer } },
    async handle(c) {
      const { database, ledger, anchoring } = c.get('broker')
      const { size } = await readHead(database.read)
      return c.json({ log_size: size, held: ledger.held !== undefined, anchors: anchoring.listStates().map(showAnchor) })
    },
  }),
  defineRoute({
    method: 'POST',
    path: '/v1/log/accept',
    access: ['admin'],
    summary: 'Accept that the log goes on without checkpoints that anchors have, as after a restored backup',
    body: { type: 'json', schema: acceptBody },
    answers: { 200: { description: 'What was accepted, and what has ended with it', schema: acceptedAnswer } },
    async handle(c, { body: { reason, abandoned } }) {
      const given = abandoned.map(({ root, ...rest }) => ({ ...rest, ...(root !== undefined && { root }) }))
      const accepted = await acceptRestored(c.get('broker'), operatorCaller(c), { reason, abandoned: given })
      c.header('stint-audit-index', String(accepted.auditIndex))
      return c.json({
        log_size: accepted.size,
        abandoned: accepted.abandoned,
        proofs_from: formatTime(accepted.proofsFromMs),
        kid: accepted.kid,
        ended_sessions: accepted.endedSessions,
        cancelled_enrolments: accepted.cancelledEnrolments,
        audit_index: accepted.auditIndex,
      })
    },
  }),
]

function showAnchor({ name, kind, keptSize, behindEntries, failure, contradiction }: AnchorState) {
  return {
    anchor: name,
    kind,
    ...(keptSize !== undefined && { kept_size: keptSize }),
    behind_entries: behindEntries,
    ...(failure !== undefined && { failure }),
    ...(contradiction !== undefined && {
      contradiction: {
        size: contradiction.size,
        ...(contradiction.root !== undefined && { root: contradiction.root }),
        why: contradiction.why,
        ...(contradiction.atMs !== undefined && { kept_at: formatTime(contradiction.atMs) }),
      },
    }),
  }
}
