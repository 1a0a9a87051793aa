import { z } from 'zod'
import { addWorkloadKeys, changeWorkload, registerWorkload, removeWorkloadKey, type ChangedWorkload } from '../broker/register.ts'
import { resumeWorkload, retireWorkload, suspendWorkload } from '../broker/standing.ts'
import { jwksForm } from '../identity/jwks-form.ts'
import { roles } from '../identity/operator.ts'
import { registrationSchema, updateSchema } from '../identity/registration.ts'
import { keyStatus, keyStatuses, spiffeId, stages, workloadKeyAlgorithms, workloadNamePattern, workloadStatuses, type Workload } from '../identity/workload.ts'
import { formatTime } from '../kernel/clock.ts'
import { BrokerError } from '../kernel/errors.ts'
import { findWorkload, listWorkloads } from '../storage/workloads.ts'
import { operatorCaller } from './guards.ts'
import { oneOf, searchText, shortText, wholeNumber } from './query.ts'
import { defineRoute, type Route, type RouteContext } from './route.ts'

const listQuery = z.strictObject({
  status: oneOf(workloadStatuses).optional(),
  stage: oneOf(stages).optional(),
  team: searchText(64).optional(),
  limit: wholeNumber(1, 500).optional(),
  after: z.string().regex(workloadNamePattern, 'must be the name of a workload').optional(),
})

/** Why, for whoever reads the log later. Stands in the log for ever: no secrets, no people's names. */
export const reasonSchema = shortText(500)
  .regex(/^[^\p{Cc}\p{Cs}\p{Zl}\p{Zp}]*$/u, 'must be one line of text')
  .meta({ pattern: '^[^\\u0000-\\u001f\\u007f-\\u009f\\u2028\\u2029]*$' })

const reasonBody = z.strictObject({ reason: reasonSchema.optional() })
const keysBody = z.strictObject({ jwks: z.unknown().meta({ ...jwksForm, description: 'A JWK Set with public keys.' }) })
export const workloadParams = z.strictObject({ name: z.string().regex(workloadNamePattern, 'is 1 to 63 of a-z, 0-9 and -') })
const keyParams = workloadParams.extend({ kid: z.string().regex(/^[\w-]{43}$/, 'is an RFC 7638 thumbprint of 43 characters') })

/** A workload as it is answered. */
export const workloadAnswer = z.strictObject({
  name: z.string(),
  spiffe_id: z.string(),
  environment: z.string(),
  stage: z.enum(stages),
  owner: z.strictObject({ team: z.string(), contact: z.string() }),
  purpose: z.string(),
  tags: z.array(z.string()),
  review_at: z.iso.datetime(),
  status: z.enum(workloadStatuses),
  created_at: z.iso.datetime(),
  updated_at: z.iso.datetime(),
  keys: z.array(
    z.strictObject({
      kid: z.string(),
      alg: z.enum(workloadKeyAlgorithms),
      jwk: z.record(z.string(), z.string()),
      status: z.enum(keyStatuses),
      added_at: z.iso.datetime(),
      removed_at: z.iso.datetime().optional(),
    }),
  ),
}).meta({ id: 'Workload' })
const listAnswer = z.strictObject({
  workloads: z.array(workloadAnswer),
  next: z.string().optional().describe('Pass it as after for the next page; absent on the last one.'),
})
const changed = { 200: { description: 'The workload as it is now', schema: workloadAnswer } }

export const workloadRoutes: readonly Route[] = [
  defineRoute({
    method: 'POST',
    path: '/v1/workloads',
    access: ['admin'],
    summary: 'Register a workload',
    body: { type: 'json', schema: registrationSchema, parsed: 'by the verb' },
    answers: { 201: { description: 'The workload', schema: workloadAnswer } },
    async handle(c, { body }) {
      const registered = await registerWorkload(c.get('broker'), operatorCaller(c), body)
      c.header('location', `/v1/workloads/${registered.workload.name}`)
      return answerChange(c, registered, 201)
    },
  }),
  defineRoute({
    method: 'GET',
    path: '/v1/workloads',
    access: roles,
    summary: 'List workloads by name',
    query: listQuery,
    answers: { 200: { description: 'A page of workloads', schema: listAnswer } },
    handle: (c, { query }) => answerList(c, query),
  }),
  defineRoute({
    method: 'GET',
    path: '/v1/workloads/:name',
    access: roles,
    summary: 'Show a workload',
    params: workloadParams,
    answers: { 200: { description: 'The workload', schema: workloadAnswer } },
    async handle(c, { params: { name } }) {
      const workload = await findWorkload(c.get('broker').database.read, name)
      if (workload === undefined) throw new BrokerError({ code: 'not_found', publicMessage: `There is no workload ${name}.` })
      return c.json(describe(c, workload))
    },
  }),
  defineRoute({
    method: 'PATCH',
    path: '/v1/workloads/:name',
    access: ['admin'],
    summary: 'Change a workload',
    params: workloadParams,
    body: { type: 'json', schema: updateSchema, parsed: 'by the verb' },
    answers: changed,
    handle: async (c, { params: { name }, body }) => answerChange(c, await changeWorkload(c.get('broker'), operatorCaller(c), name, body)),
  }),
  standingRoute('suspend', 'Stop a workload at once', suspendWorkload),
  standingRoute('resume', 'Let a suspended workload work again', resumeWorkload),
  standingRoute('retire', 'End a workload for good', retireWorkload),
  defineRoute({
    method: 'POST',
    path: '/v1/workloads/:name/keys',
    access: ['admin'],
    summary: 'Give a workload further keys',
    params: workloadParams,
    body: { type: 'json', schema: keysBody },
    answers: { 201: { description: 'The workload as it is now', schema: workloadAnswer } },
    handle: async (c, { params: { name }, body: { jwks } }) =>
      answerChange(c, await addWorkloadKeys(c.get('broker'), operatorCaller(c), name, jwks), 201),
  }),
  defineRoute({
    method: 'DELETE',
    path: '/v1/workloads/:name/keys/:kid',
    access: ['admin'],
    summary: 'Take a key away from a workload',
    params: keyParams,
    answers: changed,
    handle: async (c, { params: { name, kid } }) => answerChange(c, await removeWorkloadKey(c.get('broker'), operatorCaller(c), name, kid)),
  }),
]

function standingRoute(verb: string, summary: string, change: typeof suspendWorkload): Route {
  return defineRoute({
    method: 'POST',
    path: `/v1/workloads/:name/${verb}`,
    access: ['admin'],
    summary,
    params: workloadParams,
    body: { type: 'json', schema: reasonBody },
    answers: changed,
    handle: async (c, { params: { name }, body: { reason } }) => answerChange(c, await change(c.get('broker'), operatorCaller(c), name, reason)),
  })
}

async function answerList(c: RouteContext, { status, stage, team, limit = 100, after }: z.output<typeof listQuery>): Promise<Response> {
  const workloads = await listWorkloads(c.get('broker').database.read, {
    // One more than asked for tells whether there is a next page.
    limit: limit + 1,
    ...(status !== undefined && { status }),
    ...(stage !== undefined && { stage }),
    ...(team !== undefined && { team }),
    ...(after !== undefined && { after }),
  })
  const page = workloads.slice(0, limit)
  return c.json({
    workloads: page.map((workload) => describe(c, workload)),
    next: workloads.length > limit ? page.at(-1)?.name : undefined,
  })
}

export function answerChange(c: RouteContext, { workload, auditIndex }: ChangedWorkload, status: 200 | 201 = 200): Response {
  if (auditIndex !== undefined) c.header('stint-audit-index', String(auditIndex))
  return c.json(describe(c, workload), status)
}

function describe(c: RouteContext, workload: Workload) {
  const nowMs = c.get('broker').ledger.nowMs()
  return {
    name: workload.name,
    spiffe_id: spiffeId(c.get('broker').trustDomain, workload.name),
    environment: workload.environment,
    stage: workload.stage,
    owner: workload.owner,
    purpose: workload.purpose,
    tags: workload.tags,
    review_at: formatTime(workload.reviewAtMs),
    status: workload.status,
    created_at: formatTime(workload.createdAtMs),
    updated_at: formatTime(workload.updatedAtMs),
    keys: workload.keys.map((key) => ({
      kid: key.kid,
      alg: key.alg,
      jwk: key.jwk,
      // An ending one proves the workload until `removed_at`.
      status: keyStatus(key, nowMs),
      added_at: formatTime(key.addedAtMs),
      ...(key.removedAtMs !== undefined && { removed_at: formatTime(key.removedAtMs) }),
    })),
  }
}
