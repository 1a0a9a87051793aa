import { z } from 'zod'
import {
  createOperator,
  lifetimeDaysMax,
  revokeOperator,
  rotateOperator,
  type ChangedOperator,
  type IssuedCredential,
  type Lifetime,
} from '../broker/operators.ts'
import { operatorNamePattern, operatorStatus, operatorStatuses, roles } from '../identity/operator.ts'
import { formatTime } from '../kernel/clock.ts'
import { BrokerError } from '../kernel/errors.ts'
import { findOperatorByName, listOperators, type StoredOperator } from '../storage/operators.ts'
import { operatorCaller } from './guards.ts'
import { instant, oneOf, wholeNumber } from './query.ts'
import { defineRoute, type Route, type RouteContext } from './route.ts'
import { reasonSchema } from './workloads.ts'

const nameRule = '1 to 63 of a-z, 0-9, dots, dashes and underscores, and begins with a letter or a digit'
const nameSchema = z.string({ error: 'must be a name' }).regex(operatorNamePattern, `must be ${nameRule}`)
const operatorParams = z.strictObject({ name: z.string().regex(operatorNamePattern, `is ${nameRule}`) })
const listQuery = z.strictObject({
  status: oneOf(operatorStatuses).optional(),
  role: oneOf(roles).optional(),
  limit: wholeNumber(1, 500).optional(),
  after: nameSchema.optional(),
})

const daysRule = `must be a whole number from 1 to ${lifetimeDaysMax}`
const lifetimeFields = {
  expires_at: instant.optional().describe('When the credential expires; instead of valid_days.'),
  valid_days: z.int({ error: daysRule }).min(1, daysRule).max(lifetimeDaysMax, daysRule).optional().describe('Days until the credential expires.'),
}
// The same as the refinement, for the API document.
const oneLifetimeForm = { not: { required: ['expires_at', 'valid_days'] } }
const createBody = z.strictObject({ name: nameSchema, role: oneOf(roles), ...lifetimeFields }).refine(isOneLifetime, 'takes expires_at or valid_days, not both').meta(oneLifetimeForm)
const rotateBody = z.strictObject(lifetimeFields).refine(isOneLifetime, 'takes expires_at or valid_days, not both').meta(oneLifetimeForm)
const revokeBody = z.strictObject({ reason: reasonSchema.optional() })

const operatorAnswer = z.strictObject({
  name: z.string(),
  id: z.string().describe('The public part of the credential, by which the log names the operator.'),
  role: z.enum(roles),
  status: z.enum(operatorStatuses),
  created_at: z.iso.datetime(),
  expires_at: z.iso.datetime().optional().describe('Absent where the credential does not expire.'),
  revoked_at: z.iso.datetime().optional(),
})
const issuedAnswer = operatorAnswer.extend({ credential: z.string().describe('Shown this once: only its hash is kept.') })
const listAnswer = z.strictObject({
  operators: z.array(operatorAnswer),
  next: z.string().optional().describe('Pass it as after for the next page; absent on the last one.'),
})
const callerAnswer = z.strictObject({
  id: z.string(),
  name: z.string(),
  role: z.enum(roles),
  session: z.string().optional().describe('The sign-in, for a person who signed in.'),
  expires_at: z.iso.datetime().optional().describe('Absent where the credential does not expire.'),
})

export const operatorRoutes: readonly Route[] = [
  defineRoute({
    method: 'GET',
    path: '/v1/operator',
    access: roles,
    summary: 'Whose credential this is, and until when',
    answers: { 200: { description: 'The operator who asks', schema: callerAnswer } },
    async handle(c) {
      const { id, name, role, session, expiresAtMs } = c.get('operator')
      return c.json({ id, name, role, ...(session !== undefined && { session }), ...(expiresAtMs !== undefined && { expires_at: formatTime(expiresAtMs) }) })
    },
  }),
  defineRoute({
    method: 'POST',
    path: '/v1/operator/rotate',
    access: roles,
    summary: 'Replace the credential that this is; the new one expires when this one would have',
    answers: { 200: { description: 'The operator, with the new credential', schema: issuedAnswer } },
    async handle(c) {
      const { name, session } = c.get('operator')
      if (session !== undefined) {
        throw new BrokerError({ code: 'conflict', publicMessage: 'You signed in, and a sign-in has no credential to rotate: end it, and sign in again.' })
      }
      return answerIssued(c, await rotateOperator(c.get('broker'), operatorCaller(c), name))
    },
  }),
  defineRoute({
    method: 'POST',
    path: '/v1/operators',
    access: ['admin'],
    summary: 'Make an operator with a credential of its own',
    body: { type: 'json', schema: createBody },
    answers: { 201: { description: 'The operator, with its credential', schema: issuedAnswer } },
    async handle(c, { body: { name, role, ...lifetime } }) {
      const issued = await createOperator(c.get('broker'), operatorCaller(c), { name, role, ...toLifetime(lifetime) })
      c.header('location', `/v1/operators/${name}`)
      return answerIssued(c, issued, 201)
    },
  }),
  defineRoute({
    method: 'GET',
    path: '/v1/operators',
    access: ['admin', 'auditor'],
    summary: 'List operators by name',
    query: listQuery,
    answers: { 200: { description: 'A page of operators', schema: listAnswer } },
    handle: (c, { query }) => answerList(c, query),
  }),
  defineRoute({
    method: 'GET',
    path: '/v1/operators/:name',
    access: ['admin', 'auditor'],
    summary: 'Show an operator',
    params: operatorParams,
    answers: { 200: { description: 'The operator', schema: operatorAnswer } },
    async handle(c, { params: { name } }) {
      const operator = await findOperatorByName(c.get('broker').database.read, name)
      if (operator === undefined) throw new BrokerError({ code: 'not_found', publicMessage: `There is no operator ${name}.` })
      return c.json(describe(c, operator))
    },
  }),
  defineRoute({
    method: 'POST',
    path: '/v1/operators/:name/rotate',
    access: ['admin'],
    summary: "Replace an operator's credential; the old one ends at once",
    params: operatorParams,
    body: { type: 'json', schema: rotateBody },
    answers: { 200: { description: 'The operator, with the new credential', schema: issuedAnswer } },
    handle: async (c, { params: { name }, body }) =>
      answerIssued(c, await rotateOperator(c.get('broker'), operatorCaller(c), name, toLifetime(body).lifetime)),
  }),
  defineRoute({
    method: 'POST',
    path: '/v1/operators/:name/revoke',
    access: ['admin'],
    summary: 'End an operator for good',
    params: operatorParams,
    body: { type: 'json', schema: revokeBody },
    answers: { 200: { description: 'The operator as it is now', schema: operatorAnswer } },
    async handle(c, { params: { name }, body: { reason } }) {
      const revoked = await revokeOperator(c.get('broker'), operatorCaller(c), name, reason)
      setAuditIndex(c, revoked)
      return c.json(describe(c, revoked.operator))
    },
  }),
]

interface LifetimeFields {
  readonly expires_at?: unknown
  readonly valid_days?: unknown
}

function isOneLifetime({ expires_at: expiresAt, valid_days: validDays }: LifetimeFields): boolean {
  return expiresAt === undefined || validDays === undefined
}

function toLifetime({ expires_at: untilMs, valid_days: days }: { expires_at?: number | undefined; valid_days?: number | undefined }): { lifetime?: Lifetime } {
  if (untilMs !== undefined) return { lifetime: { untilMs } }
  return days === undefined ? {} : { lifetime: { days } }
}

async function answerList(c: RouteContext, { status, role, limit = 100, after }: z.output<typeof listQuery>): Promise<Response> {
  const { database, ledger } = c.get('broker')
  const filter = {
    // One more than asked for tells whether there is a next page.
    limit: limit + 1,
    ...(status !== undefined && { status }),
    ...(role !== undefined && { role }),
    ...(after !== undefined && { after }),
  }
  const operators = await listOperators(database.read, filter, ledger.nowMs())
  const page = operators.slice(0, limit)
  return c.json({
    operators: page.map((operator) => describe(c, operator)),
    next: operators.length > limit ? page.at(-1)?.name : undefined,
  })
}

function answerIssued(c: RouteContext, issued: IssuedCredential, status: 200 | 201 = 200): Response {
  setAuditIndex(c, issued)
  return c.json({ ...describe(c, issued.operator), credential: issued.credential.reveal() }, status)
}

function setAuditIndex(c: RouteContext, { auditIndex }: ChangedOperator): void {
  if (auditIndex !== undefined) c.header('stint-audit-index', String(auditIndex))
}

/** Member by member, so that the hash stays inside. */
function describe(c: RouteContext, operator: StoredOperator) {
  const { name, id, role, createdAtMs, expiresAtMs, revokedAtMs } = operator
  return {
    name,
    id,
    role,
    status: operatorStatus(operator, c.get('broker').ledger.nowMs()),
    created_at: formatTime(createdAtMs),
    ...(expiresAtMs !== undefined && { expires_at: formatTime(expiresAtMs) }),
    ...(revokedAtMs !== undefined && { revoked_at: formatTime(revokedAtMs) }),
  }
}
