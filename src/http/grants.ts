import { hash } from 'node:crypto'
import { z } from 'zod'
import { completeTask, giveBackGrant } from '../broker/give-back.ts'
import type { Broker } from '../broker/broker.ts'
import { issueGrant } from '../broker/issue.ts'
import { lookAtGrant, lookAtOwnGrant } from '../broker/look.ts'
import { renewGrant, type Prolonged } from '../broker/renew.ts'
import type { Granted } from '../broker/request.ts'
import { retryEnd, writeOff } from '../broker/stuck.ts'
import { grantStates } from '../grant/grant.ts'
import { taskForm, taskLengthMax, taskPattern } from '../grant/request.ts'
import { workloadNamePattern } from '../identity/workload.ts'
import { listCredentials } from '../storage/credentials.ts'
import { agentCredentials, namedOn } from './agents.ts'
import { describeGrant, describeGranted, describeProlonged, describeRevoked, givenBackAnswer, grantAnswer, grantedAnswer, prolongedAnswer, revokedGrantAnswer, unstuckAnswer } from './grant-answers.ts'
import { operatorCaller } from './guards.ts'
import { oneOf, searchText, shortText, wholeNumber } from './query.ts'
import { defineRoute, type Route, type RouteContext } from './route.ts'
import { reasonSchema } from './workloads.ts'

export const grantIdPattern = /^grant_[0-9a-z]{26}$/
const grantParams = z.strictObject({ grant: z.string().regex(grantIdPattern, 'is grant_ and 26 of 0-9 and a-z') })
export const taskName = z.string().max(taskLengthMax, `must be a name of ${taskForm}`).regex(taskPattern, `must be a name of ${taskForm}`)
const taskParams = z.strictObject({ task: taskName })

const action = shortText(128).regex(/^[a-z][a-z0-9-]*(?::[a-z][a-z0-9_.-]*)?$|^[a-z][a-z0-9_.-]*$/, 'must be an action: tool:verb, or the verb alone')
const ttlSeconds = z.int('must be a whole number of seconds').min(1, 'must be at least 1').max(86_400, 'must be at most 86400')
const grantBody = z.strictObject({
  tool: shortText(63).describe('A tool of the catalog.'),
  actions: z.array(action).min(1, 'must name at least one action').max(32, 'must name at most 32 actions').describe('Full names as in warehouse:read, or the verbs alone.'),
  target: shortText(1_024).optional().describe('The one object within the tool that the work is about.'),
  ttl_seconds: ttlSeconds.optional().describe('How long; the tool\'s default without it.'),
  task: taskName.optional().describe('Your own name for the piece of work: completing it ends all that was granted under it.'),
  reason: reasonSchema.optional().describe('Why, for whoever reads the log.'),
})
const grantHeaders = z.object({
  'idempotency-key': z
    .string()
    .regex(/^[\x21-\x7e]{1,255}$/, 'must be 1 to 255 printable ASCII characters without spaces, such as a UUID')
    .optional()
    .describe('Names the request, so that it may be sent again: what it gave before is ended first. Kept 24 hours.'),
})
const renewBody = z.strictObject({ ttl_seconds: ttlSeconds.optional() })

const listQuery = z.strictObject({
  state: oneOf(grantStates).optional(),
  tool: searchText(63).optional(),
  workload: z.string().regex(workloadNamePattern, 'must be the name of a workload').optional(),
  limit: wholeNumber(1, 500).optional(),
  after: z.string().regex(grantIdPattern, 'must be the id of a grant').optional(),
})
const listAnswer = z.strictObject({ grants: z.array(grantAnswer), next: z.string().optional().describe('Pass it as after for the next page; absent on the last one.') })

const renewRoute = { method: 'POST', path: '/v1/grants/:grant/renew' } as const
const releaseRoute = { method: 'DELETE', path: '/v1/grants/:grant' } as const
const showRoute = { method: 'GET', path: '/v1/grants/:grant' } as const

export const grantRoutes: readonly Route[] = [
  defineRoute({
    method: 'POST',
    path: '/v1/grants',
    access: 'agent',
    summary: 'Get a credential for some actions on a tool',
    errors: ['invalid_target', 'denied', 'idempotency_mismatch', 'tool_failed', 'tool_unavailable'],
    headers: grantHeaders,
    body: { type: 'json', schema: grantBody },
    answers: { 201: { description: 'The credential, this once', schema: grantedAnswer } },
    async handle(c, { headers, body }) {
      const broker = c.get('broker')
      const { tool, actions, target, ttl_seconds: ttlSeconds, task, reason } = body
      const wish = {
        tool,
        actions,
        ...(target !== undefined && { target }),
        ...(ttlSeconds !== undefined && { ttlSeconds }),
        ...(task !== undefined && { task }),
        ...(reason !== undefined && { reason }),
      }
      const key = headers['idempotency-key']
      const idempotencyKey = key === undefined ? undefined : { key, bodyHash: hash('sha256', JSON.stringify([tool, actions, target, ttlSeconds, task, reason]), 'hex') }
      const granted = await issueGrant(broker, agentCredentials(c), wish, { requestId: c.get('requestId'), ...(idempotencyKey && { idempotencyKey }) })
      return answerGranted(c, broker, granted)
    },
  }),
  defineRoute({
    ...showRoute,
    access: { agentOr: ['admin', 'approver', 'auditor'] },
    summary: 'See how a grant stands, as its workload or as an operator',
    params: grantParams,
    answers: { 200: { description: 'The grant, without its credential', schema: grantAnswer } },
    async handle(c, { params: { grant } }) {
      const broker = c.get('broker')
      const isOperator = c.get('operator') !== undefined
      return c.json(describeGrant(isOperator ? await lookAtGrant(broker, grant) : await lookAtOwnGrant(broker, agentCredentials(c), grant, namedOn(showRoute, c))))
    },
  }),
  defineRoute({
    method: 'GET',
    path: '/v1/grants',
    access: ['admin', 'auditor'],
    summary: 'List the grants whose credential lives in an outside tool',
    query: listQuery,
    answers: { 200: { description: 'By id, which is by time', schema: listAnswer } },
    async handle(c, { query: { limit = 100, ...filter } }) {
      const broker = c.get('broker')
      const { ids, next } = await listCredentials(broker.database.read, { ...filter, limit })
      const grants = await Promise.all(ids.map((id) => lookAtGrant(broker, id)))
      return c.json({ grants: grants.map(describeGrant), next })
    },
  }),
  defineRoute({
    ...renewRoute,
    access: 'agent',
    summary: 'Let a grant go on, if the policy allows the same again',
    errors: ['denied', 'tool_failed', 'tool_unavailable', 'invalid_target'],
    params: grantParams,
    body: { type: 'json', schema: renewBody },
    answers: {
      200: { description: 'The same credential, for longer', schema: prolongedAnswer },
      201: { description: 'A new credential that goes on from it, where the tool makes none last longer', schema: grantedAnswer },
    },
    async handle(c, { params: { grant }, body: { ttl_seconds: ttlSeconds } }) {
      const broker = c.get('broker')
      const renewed = await renewGrant(broker, agentCredentials(c), grant, ttlSeconds, namedOn(renewRoute, c))
      return 'prolonged' in renewed ? answerProlonged(c, renewed) : answerGranted(c, broker, renewed)
    },
  }),
  defineRoute({
    ...releaseRoute,
    access: 'agent',
    summary: 'Give a grant back',
    params: grantParams,
    answers: { 200: { description: 'What became of it', schema: revokedGrantAnswer.extend({ audit_index: z.int().optional() }) } },
    async handle(c, { params: { grant } }) {
      const { grants, auditIndex } = await giveBackGrant(c.get('broker'), agentCredentials(c), grant, namedOn(releaseRoute, c))
      const [one] = grants
      if (one === undefined) throw new Error('a grant that was given back is not there')
      if (auditIndex !== undefined) c.header('stint-audit-index', String(auditIndex))
      return c.json({ ...describeRevoked(one), audit_index: auditIndex })
    },
  }),
  defineRoute({
    method: 'POST',
    path: '/v1/tasks/:task{.+}/complete',
    access: 'agent',
    summary: 'Complete a task: everything that was granted to you under it ends',
    params: taskParams,
    answers: { 200: { description: 'What became of each grant', schema: givenBackAnswer } },
    async handle(c, { params: { task } }) {
      const { grants, auditIndex } = await completeTask(c.get('broker'), agentCredentials(c), task, c.get('requestId'))
      if (auditIndex !== undefined) c.header('stint-audit-index', String(auditIndex))
      return c.json({ grants: grants.map(describeRevoked), audit_index: auditIndex })
    },
  }),
  defineRoute({
    method: 'POST',
    path: '/v1/grants/:grant/retry',
    access: ['admin'],
    summary: 'Try again to end a grant that is stuck',
    params: grantParams,
    body: { type: 'json', schema: z.strictObject({ reason: reasonSchema }) },
    answers: { 200: { description: 'What became of it', schema: unstuckAnswer } },
    async handle(c, { params: { grant }, body: { reason } }) {
      const { grant: one, auditIndex } = await retryEnd(c.get('broker'), operatorCaller(c), grant, reason)
      c.header('stint-audit-index', String(auditIndex))
      return c.json({ ...describeRevoked(one), audit_index: auditIndex })
    },
  }),
  defineRoute({
    method: 'POST',
    path: '/v1/grants/:grant/write-off',
    access: ['admin'],
    summary: 'Take it upon yourself that a grant which is stuck may live in its tool',
    params: grantParams,
    body: { type: 'json', schema: z.strictObject({ reason: reasonSchema }) },
    answers: { 200: { description: 'It is written off', schema: unstuckAnswer } },
    async handle(c, { params: { grant }, body: { reason } }) {
      const { grant: one, auditIndex } = await writeOff(c.get('broker'), operatorCaller(c), grant, reason)
      c.header('stint-audit-index', String(auditIndex))
      return c.json({ ...describeRevoked(one), audit_index: auditIndex })
    },
  }),
]

function answerGranted(c: RouteContext, broker: Broker, granted: Granted): Response {
  c.header('stint-audit-index', String(granted.auditIndex))
  const sent = (c.env as { readonly outgoing?: NodeJS.EventEmitter } | undefined)?.outgoing
  sent?.once('finish', () => void broker.pass('answer_sent', granted.grant))
  return c.json(describeGranted(granted), 201)
}

function answerProlonged(c: RouteContext, prolonged: Prolonged): Response {
  c.header('stint-audit-index', String(prolonged.auditIndex))
  return c.json(describeProlonged(prolonged))
}
