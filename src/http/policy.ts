import { z } from 'zod'
import { applyPolicy } from '../broker/apply-policy.ts'
import { formatTime } from '../kernel/clock.ts'
import { BrokerError } from '../kernel/errors.ts'
import { readPolicyInForce } from '../storage/policy-sets.ts'
import { policyBytesMax, readJson } from './body.ts'
import { operatorCaller } from './guards.ts'
import { parseInput } from './query.ts'
import type { Route } from './route.ts'

const policyBody = z.strictObject({
  files: z.record(z.string().max(255), z.string()),
  expected: z.string().nullable().optional(),
})

export const policyRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: '/v1/policy',
    access: 'admin',
    async handle(c) {
      const { database, knowledge } = c.get('broker')
      const inForce = await readPolicyInForce(database.read)
      const { policySet } = await knowledge.refresh()
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
  },
  {
    method: 'PUT',
    path: '/v1/policy',
    access: 'admin',
    bodyBytesMax: policyBytesMax,
    async handle(c) {
      const { files, expected } = parseInput(policyBody, await readJson(c))
      const applied = await applyPolicy(
        c.get('broker'),
        operatorCaller(c),
        new Map(Object.entries(files)),
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
  },
]
