import { z } from 'zod'
import { redeemEnrolment } from '../broker/enrol.ts'
import { cancelEnrolment, createEnrolment } from '../broker/enrolments.ts'
import { enrolmentIdPattern, enrolmentStatus, enrolmentStatuses, type Enrolment } from '../identity/enrolment.ts'
import { roles } from '../identity/operator.ts'
import { spiffeId } from '../identity/workload.ts'
import { formatTime } from '../kernel/clock.ts'
import { BrokerError } from '../kernel/errors.ts'
import { findEnrolment, listEnrolments } from '../storage/enrolments.ts'
import { findWorkload } from '../storage/workloads.ts'
import { operatorCaller } from './guards.ts'
import { wholeNumber } from './query.ts'
import { defineRoute, type Route, type RouteContext } from './route.ts'
import { workloadParams } from './workloads.ts'

const enrolmentId = z.string().regex(enrolmentIdPattern, 'is the id of an enrolment, 16 of 0-9 and a-f')
const enrolmentParams = workloadParams.extend({ id: enrolmentId })

const listQuery = z.strictObject({ limit: wholeNumber(1, 500).optional(), after: enrolmentId.optional() })

const createdAnswer = z.strictObject({
  enrolment: z.string(),
  workload: z.string(),
  code: z.string().describe('Shown this once: only its hash is kept. For the agent, which redeems it.'),
  expires_at: z.iso.datetime(),
})
const enrolmentAnswer = z.strictObject({
  enrolment: z.string(),
  workload: z.string(),
  status: z.enum(enrolmentStatuses),
  created_at: z.iso.datetime(),
  expires_at: z.iso.datetime(),
  ended_at: z.iso.datetime().optional(),
  kid: z.string().optional().describe('The key that was registered by it.'),
})
const listAnswer = z.strictObject({
  enrolments: z.array(enrolmentAnswer),
  next: z.string().optional().describe('Pass it as after for the next page; absent on the last one.'),
})

const text = (what: string) =>
  z.string(`must be text: ${what}`).min(1, 'must not be empty').max(8192, 'must be at most 8192 characters')

const redemptionBody = z.strictObject({
  code: text('the code').describe('As it was given to the agent, stint_enroll_….'),
  proof: text('a compact JWS').describe(
    'Signed with the new key: {typ: stint-enrolment+jwt, alg, jwk}, {aud: the issuer, iat, exp, jti, code_sha256: base64url SHA-256 of the code}.',
  ),
})
const redeemedAnswer = z.strictObject({
  workload: z.string(),
  client_id: z.string(),
  kid: z.string(),
  issuer: z.url(),
  token_endpoint: z.url(),
})

export const enrolmentRoutes: readonly Route[] = [
  defineRoute({
    method: 'POST',
    path: '/v1/workloads/:name/enrolments',
    access: ['admin'],
    summary: 'Make a one-time code with which an agent registers a key of its own',
    params: workloadParams,
    answers: { 201: { description: 'The code; an earlier one that was not redeemed is cancelled', schema: createdAnswer } },
    async handle(c, { params: { name } }) {
      const { enrolment, code, auditIndex } = await createEnrolment(c.get('broker'), operatorCaller(c), name)
      c.header('stint-audit-index', String(auditIndex))
      return c.json({ enrolment: enrolment.id, workload: name, code: code.reveal(), expires_at: formatTime(enrolment.expiresAtMs) }, 201)
    },
  }),
  defineRoute({
    method: 'GET',
    path: '/v1/workloads/:name/enrolments',
    access: roles,
    summary: 'List the enrolments of a workload, the newest first',
    params: workloadParams,
    query: listQuery,
    answers: { 200: { description: 'A page of enrolments, without their codes', schema: listAnswer } },
    handle: (c, { params: { name }, query }) => answerList(c, name, query),
  }),
  defineRoute({
    method: 'DELETE',
    path: '/v1/workloads/:name/enrolments/:id',
    access: ['admin'],
    summary: 'Cancel a code that was not redeemed',
    params: enrolmentParams,
    answers: { 200: { description: 'The enrolment as it is now', schema: enrolmentAnswer } },
    async handle(c, { params: { name, id } }) {
      const { enrolment, auditIndex } = await cancelEnrolment(c.get('broker'), operatorCaller(c), name, id)
      if (auditIndex !== undefined) c.header('stint-audit-index', String(auditIndex))
      return c.json(describe(c, enrolment))
    },
  }),
  defineRoute({
    method: 'POST',
    path: '/v1/enrolments/redeem',
    access: 'anyone',
    summary: 'Register a key by a one-time code, as the agent that holds it',
    body: { type: 'json', schema: redemptionBody },
    answers: {
      200: { description: 'What the agent needs to begin; the same again for the same key while the code would have lived', schema: redeemedAnswer },
    },
    async handle(c, { body }) {
      const broker = c.get('broker')
      const { workload, kid, auditIndex } = await redeemEnrolment(broker, body, c.get('requestId'))
      if (auditIndex !== undefined) c.header('stint-audit-index', String(auditIndex))
      return c.json({
        workload: workload.name,
        client_id: spiffeId(broker.trustDomain, workload.name),
        kid,
        issuer: broker.issuer,
        token_endpoint: `${broker.issuer}/oauth2/token`,
      })
    },
  }),
]

async function answerList(c: RouteContext, name: string, { limit = 100, after }: z.output<typeof listQuery>): Promise<Response> {
  const { read } = c.get('broker').database
  if ((await findWorkload(read, name)) === undefined) {
    throw new BrokerError({ code: 'not_found', publicMessage: `There is no workload ${name}.` })
  }
  const last = after === undefined ? undefined : await findEnrolment(read, after)
  if (after !== undefined && last?.workload !== name) {
    throw new BrokerError({ code: 'invalid_input', publicMessage: `after names no enrolment of ${name}.` })
  }
  // One more than asked for tells whether there is a next page.
  const enrolments = await listEnrolments(read, name, { limit: limit + 1, ...(last !== undefined && { after: last }) })
  const page = enrolments.slice(0, limit)
  return c.json({
    enrolments: page.map((enrolment) => describe(c, enrolment)),
    next: enrolments.length > limit ? page.at(-1)?.id : undefined,
  })
}

function describe(c: RouteContext, enrolment: Enrolment) {
  const { id, workload, createdAtMs, expiresAtMs, endedAtMs, kid } = enrolment
  return {
    enrolment: id,
    workload,
    status: enrolmentStatus(enrolment, c.get('broker').ledger.nowMs()),
    created_at: formatTime(createdAtMs),
    expires_at: formatTime(expiresAtMs),
    ...(endedAtMs !== undefined && { ended_at: formatTime(endedAtMs) }),
    ...(kid !== undefined && { kid }),
  }
}
