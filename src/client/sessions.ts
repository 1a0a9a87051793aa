import { readAuditIndex, readObject, readObjects, type Shape } from './answer.ts'
import { clientError } from './errors.ts'
import { createSender, type ApiAnswer, type ApiRequest, type ConnectionOptions } from './http.ts'
import type { BegunSession, Recorded, SessionPage, SessionQuery, SessionRecord, SignIn } from './records.ts'

/** The way in for people who have an account at the company issuer. */
export interface SignInClient {
  /** The broker's origin. */
  readonly origin: string
  /** Where to get an ID token. Throws `not_found` where this broker names no issuer. */
  getSignIn(): Promise<SignIn>
  /** Exchanges an ID token, which serves once, for a session. */
  beginSession(idToken: string): Promise<Recorded<BegunSession>>
}

/** Makes a client for somebody who has no credential yet. Throws `invalid_option` at once for options that cannot work. */
export function createSignInClient(options: ConnectionOptions): SignInClient {
  const sender = createSender(options)
  return {
    origin: sender.origin,
    async getSignIn() {
      const { body } = await sender.send({ method: 'GET', path: '/v1/sign-in' })
      const shape = { issuer: 'string', client_id: 'string', scopes: 'list of strings' } as const
      // The shape was checked; the type states the same. So for each cast below.
      return readObject(body, shape, 'the way to sign in') as unknown as SignIn
    },
    async beginSession(idToken) {
      const answer = await sender.send({
        method: 'POST',
        path: '/v1/sessions',
        json: { id_token: idToken },
        secrets: [idToken],
        timeoutMsDefault: signInTimeoutMs,
      })
      const session = readObject(answer.body, { ...sessionShape, credential: 'string' }, 'a session') as unknown as BegunSession
      return { ...session, ...readAuditIndex(answer.headers) }
    },
  }
}

// The broker may have to ask the company issuer for its keys first.
const signInTimeoutMs = 30_000

/** What an operator may do about sessions: a part of `AdminClient`. */
export interface SessionMethods {
  /** Ends the session whose credential this client has. */
  endOwnSession(): Promise<Recorded<SessionRecord>>
  listSessions(query?: SessionQuery): Promise<SessionPage>
  endSession(session: string, reason?: string): Promise<Recorded<SessionRecord>>
  /** Ends all sessions of one person, and returns how many. */
  endSessionsOf(subject: string, reason?: string): Promise<number>
}

/** The methods of a client that sends with an operator's credential. */
export function createSessionMethods(send: (request: ApiRequest) => Promise<ApiAnswer>): SessionMethods {
  return {
    endOwnSession: async () => readSession(await send({ method: 'DELETE', path: '/v1/session' })),
    async listSessions(query = {}) {
      const { body } = await send({ method: 'GET', path: '/v1/sessions', query: { ...query } })
      const page = readObject(body, { sessions: 'array', next: 'string?' }, 'a list of sessions')
      const sessions = readObjects(page['sessions'], sessionShape, 'a list of sessions') as unknown as readonly SessionRecord[]
      return { sessions, ...(typeof page['next'] === 'string' && { next: page['next'] }) }
    },
    async endSession(session, reason) {
      if (!/^[0-9a-f]{16}$/.test(session)) throw clientError('invalid_option', "a session's id is 16 of 0-9 and a-f.")
      return readSession(await send({ method: 'POST', path: `/v1/sessions/${session}/end`, json: { reason } }))
    },
    async endSessionsOf(subject, reason) {
      const { body } = await send({ method: 'POST', path: '/v1/sessions/end', json: { subject, reason } })
      return Number(readObject(body, { ended: 'number' }, 'the end of sessions')['ended'])
    },
  }
}

const sessionShape: Shape = {
  session: 'string',
  subject: 'string',
  issuer: 'string',
  role: 'string',
  status: 'string',
  created_at: 'string',
  expires_at: 'string',
  ended_at: 'string?',
}

function readSession(answer: ApiAnswer): Recorded<SessionRecord> {
  return { ...(readObject(answer.body, sessionShape, 'a session') as unknown as SessionRecord), ...readAuditIndex(answer.headers) }
}
