import { z } from 'zod'
import { applyPolicy } from '../broker/apply-policy.ts'
import { roles } from '../identity/operator.ts'
import { isRecord, type JsonRecord } from '../identity/strict-json.ts'
import { formatTime } from '../kernel/clock.ts'
import { BrokerError } from '../kernel/errors.ts'
import { policyBytesMax, policyMembersMax } from './body.ts'
import { operatorCaller } from './guards.ts'
import { defineRoute, type Route } from './route.ts'

const policyBody = z.strictObject({
  // A record would leave out a file that is called __proto__ and apply the rest.
  files: z
    .custom<JsonRecord>(isRecord, 'must be an object of texts by file name')
    .transform((files, context) => {
      const texts = Object.entries(files).flatMap(([path, text]) => (typeof text === 'string' ? [[path, text] as const] : []))
      if (texts.length === Object.keys(files).length) return new Map(texts)
      context.addIssue({ code: 'custom', message: 'must be an object of texts by file name' })
      return z.NEVER
    })
    .meta({ type: 'object', additionalProperties: { type: 'string' }, description: 'The text of each file by its path within the folder.' }),
  expected: z.string().regex(/^[0-9a-f]{64}$/, 'must be the hash of a policy set, or null for none').nullable().optional(),
})

const hash = z.string().regex(/^[0-9a-f]{64}$/)
const inForceAnswer = z.strictObject({
  hash,
  in_force_since: z.iso.datetime(),
  cedar_version: z.string(),
  policies: z.int(),
  tools: z.int(),
  audit_index: z.int(),
})
const appliedAnswer = z.strictObject({ hash, previous: hash.nullable(), changed: z.boolean(), audit_index: z.int() })

export const policyRoutes: readonly Route[] = [
  defineRoute({
    method: 'GET',
    path: '/v1/policy',
    access: roles,
    summary: 'The policy set in force',
    errors: ['not_found'],
    answers: { 200: { description: 'Its hash and size', schema: inForceAnswer } },
    async handle(c) {
      const { knowledge } = c.get('broker')
      const { policySet, policyInForce: inForce } = await knowledge.refresh()
      if (inForce === undefined || policySet === undefined) {
        throw new BrokerError({ code: 'not_found', publicMessage: 'No policy set is in force yet: apply one with `stint policy apply`.' })
      }
      return c.json({
        hash: inForce.hash,
        in_force_since: formatTime(inForce.sinceMs),
        cedar_version: policySet.cedarVersion,
        policies: policySet.policies.length,
        tools: policySet.catalog.size,
        audit_index: inForce.eventIndex,
      })
    },
  }),
  defineRoute({
    method: 'PUT',
    path: '/v1/policy',
    access: ['admin'],
    summary: 'Put a policy set in force, as a whole or not at all',
    errors: ['policy_invalid'],
    body: { type: 'json', schema: policyBody, bytesMax: policyBytesMax, membersMax: policyMembersMax },
    answers: { 200: { description: 'What is in force now', schema: appliedAnswer } },
    async handle(c, { body: { files, expected } }) {
      const applied = await applyPolicy(
        c.get('broker'),
        operatorCaller(c),
        files,
        expected === undefined ? undefined : { expected: expected ?? undefined },
      )
      if (applied.changed) c.header('stint-audit-index', String(applied.auditIndex))
      return c.json({
        hash: applied.hash,
        previous: applied.previous ?? null,
        changed: applied.changed,
        audit_index: applied.auditIndex,
      })
    },
  }),
]
