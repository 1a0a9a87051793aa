import { z } from 'zod'
import { endSession, endSessionsOf, type ChangedSession } from '../broker/sessions.ts'
import { beginSession, requireCompanyIssuer } from '../broker/sign-in.ts'
import { idTokenCharactersMax, subjectPattern } from '../identity/id-token.ts'
import { roles } from '../identity/operator.ts'
import { formatTime } from '../kernel/clock.ts'
import { BrokerError } from '../kernel/errors.ts'
import { listSessions, sessionStatuses, type SessionStatus, type StoredSession } from '../storage/sessions.ts'
import { operatorCaller } from './guards.ts'
import { oneOf, shortText, wholeNumber } from './query.ts'
import { defineRoute, type Route, type RouteContext } from './route.ts'
import { reasonSchema } from './workloads.ts'

const sessionPattern = /^[0-9a-f]{16}$/
const subject = z.string({ error: 'must be a subject' }).regex(subjectPattern, 'must be a subject, as the list of sessions shows it')

const beginBody = z.strictObject({ id_token: shortText(idTokenCharactersMax).describe('An ID token of the company issuer, of the last ten minutes, not used before.') })
const sessionParams = z.strictObject({ id: z.string().regex(sessionPattern, 'is 16 of 0-9 and a-f') })
const endBody = z.strictObject({ reason: reasonSchema.optional() })
const endAllBody = z.strictObject({ subject, reason: reasonSchema.optional() })
const listQuery = z.strictObject({
  subject: subject.optional(),
  status: oneOf(sessionStatuses).optional(),
  limit: wholeNumber(1, 500).optional(),
  after: z.string().regex(sessionPattern, 'must be the id of a session').optional(),
})

const signInAnswer = z.strictObject({
  issuer: z.string().describe('The OpenID Connect issuer of the company.'),
  client_id: z.string().describe('The public client that is registered there for this broker.'),
  scopes: z.array(z.string()).describe('What to ask it for.'),
})
const sessionAnswer = z.strictObject({
  session: z.string().regex(sessionPattern),
  subject: z.string().describe("The issuer's name for the person, by reference: the log names them oidc: and this."),
  issuer: z.string(),
  role: z.enum(roles),
  status: z.enum(sessionStatuses),
  created_at: z.iso.datetime(),
  expires_at: z.iso.datetime(),
  ended_at: z.iso.datetime().optional(),
})
const begunAnswer = sessionAnswer.extend({ credential: z.string().describe('Given this once: only its hash is kept.') })
const listAnswer = z.strictObject({
  sessions: z.array(sessionAnswer),
  next: z.string().optional().describe('Pass it as after for the next page; absent on the last one.'),
})

export const sessionRoutes: readonly Route[] = [
  defineRoute({
    method: 'GET',
    path: '/v1/sign-in',
    access: 'anyone',
    summary: 'Where people sign in to operate this broker',
    errors: ['not_found'],
    answers: { 200: { description: 'The company issuer, and the client to ask it as', schema: signInAnswer } },
    async handle(c) {
      const { issuer, clientId, scopes } = requireCompanyIssuer(c.get('broker'))
      return c.json({ issuer, client_id: clientId, scopes })
    },
  }),
  defineRoute({
    method: 'POST',
    path: '/v1/sessions',
    access: 'anyone',
    summary: 'Begin a session with an ID token of the company issuer',
    errors: ['not_found', 'forbidden'],
    body: { type: 'json', schema: beginBody },
    answers: { 201: { description: 'The session, with its credential', schema: begunAnswer } },
    async handle(c, { body: { id_token: idToken } }) {
      const { session, credential, auditIndex } = await beginSession(c.get('broker'), idToken, c.get('requestId'))
      c.header('stint-audit-index', String(auditIndex))
      return c.json({ ...describe(c, session), credential: credential.reveal() }, 201)
    },
  }),
  defineRoute({
    method: 'DELETE',
    path: '/v1/session',
    access: roles,
    summary: 'End the session whose credential this is',
    errors: ['not_found'],
    answers: { 200: { description: 'The session as it is now', schema: sessionAnswer } },
    async handle(c) {
      const { session } = c.get('operator')
      if (session === undefined) {
        throw new BrokerError({ code: 'not_found', publicMessage: 'This credential is an operator\'s own and no session: rotate or revoke it instead.' })
      }
      return answerChange(c, await endSession(c.get('broker'), operatorCaller(c), session))
    },
  }),
  defineRoute({
    method: 'GET',
    path: '/v1/sessions',
    access: ['admin', 'auditor'],
    summary: 'List sessions, the newest first',
    errors: ['not_found'],
    query: listQuery,
    answers: { 200: { description: 'A page of sessions', schema: listAnswer } },
    handle: (c, { query }) => answerList(c, query),
  }),
  defineRoute({
    method: 'POST',
    path: '/v1/sessions/end',
    access: ['admin'],
    summary: 'End all sessions of one person',
    errors: ['not_found'],
    body: { type: 'json', schema: endAllBody },
    answers: { 200: { description: 'How many were live', schema: z.strictObject({ ended: z.int() }) } },
    async handle(c, { body: { subject, reason } }) {
      requireCompanyIssuer(c.get('broker'))
      return c.json({ ended: await endSessionsOf(c.get('broker'), operatorCaller(c), subject, reason) })
    },
  }),
  defineRoute({
    method: 'POST',
    path: '/v1/sessions/:id/end',
    access: ['admin'],
    summary: 'End a session',
    params: sessionParams,
    body: { type: 'json', schema: endBody },
    answers: { 200: { description: 'The session as it is now', schema: sessionAnswer } },
    async handle(c, { params: { id }, body: { reason } }) {
      requireCompanyIssuer(c.get('broker'))
      return answerChange(c, await endSession(c.get('broker'), operatorCaller(c), id, reason))
    },
  }),
]

async function answerList(c: RouteContext, { subject, status, limit = 100, after }: z.output<typeof listQuery>): Promise<Response> {
  requireCompanyIssuer(c.get('broker'))
  const { database, ledger } = c.get('broker')
  const filter = {
    // One more than asked for tells whether there is a next page.
    limit: limit + 1,
    ...(subject !== undefined && { subject }),
    ...(status !== undefined && { status }),
    ...(after !== undefined && { after }),
  }
  const sessions = await listSessions(database.read, filter, ledger.nowMs())
  const page = sessions.slice(0, limit)
  return c.json({
    sessions: page.map((session) => describe(c, session)),
    next: sessions.length > limit ? page.at(-1)?.id : undefined,
  })
}

function answerChange(c: RouteContext, { session, auditIndex }: ChangedSession): Response {
  if (auditIndex !== undefined) c.header('stint-audit-index', String(auditIndex))
  return c.json(describe(c, session))
}

/** Member by member, so that the hash stays inside. */
function describe(c: RouteContext, session: StoredSession) {
  const { id, subject, issuer, role, createdAtMs, expiresAtMs, endedAtMs } = session
  return {
    session: id,
    subject,
    issuer,
    role,
    status: statusOf(session, c.get('broker').ledger.nowMs()),
    created_at: formatTime(createdAtMs),
    expires_at: formatTime(expiresAtMs),
    ...(endedAtMs !== undefined && { ended_at: formatTime(endedAtMs) }),
  }
}

function statusOf({ endedAtMs, expiresAtMs }: StoredSession, nowMs: number): SessionStatus {
  if (endedAtMs !== undefined) return 'ended'
  return expiresAtMs <= nowMs ? 'expired' : 'live'
}
