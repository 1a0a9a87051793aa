import { readAuditIndex, readObject, readObjects, type Shape } from './answer.ts'
import { discoverBroker } from './discovery.ts'
import { clientError } from './errors.ts'
import { createSender, type ApiAnswer, type ApiRequest, type ConnectionOptions } from './http.ts'
import type { AgentKey } from './key.ts'
import { signProof } from './proof.ts'
import type { CreatedEnrolment, EnrolmentPage, EnrolmentQuery, EnrolmentRecord, Recorded } from './records.ts'

/** A code that an agent redeems, and the key that it registers by it. */
export interface EnrolOptions extends ConnectionOptions {
  /** `stint_enroll_…`, as an admin made it. */
  readonly code: string
  readonly key: AgentKey
  /** Milliseconds since the epoch; the machine's clock by default. */
  readonly clock?: { nowMs(): number } | undefined
}

/** What an agent needs to begin. */
export interface Enrolled {
  readonly workload: string
  /** The workload's SPIFFE ID. */
  readonly clientId: string
  /** The id of the key, which proves the workload from now on. */
  readonly kid: string
  readonly issuer: string
  /** Index of the audit entry; `undefined` where the key had been registered by this code before. */
  readonly auditIndex: number | undefined
}

/**
 * Registers the agent's key by a one-time code. After a lost answer it may be called again with the same key. Throws
 * `unauthenticated` for a code that does not hold, `conflict` for a key that cannot be taken.
 */
export async function enrolAgent({ code, key, clock, ...connection }: EnrolOptions): Promise<Enrolled> {
  if (!/^stint_enroll_[0-9a-f]{16}_[\w-]{43}$/.test(code)) {
    throw clientError('invalid_option', 'the code is malformed: it begins with stint_enroll_ and has no spaces.')
  }
  const sender = createSender(connection)
  // First, so that the code goes to nobody but the broker that it is called.
  const { issuer } = await discoverBroker(sender)
  const proof = await signProof(key, { code }, issuer, clock?.nowMs() ?? Date.now())
  const answer = await sender.send({ method: 'POST', path: '/v1/enrolments/redeem', json: { code, proof }, secrets: [code, proof] })
  const shape = { workload: 'string', client_id: 'string', kid: 'string', issuer: 'string' } as const
  const body = readObject(answer.body, shape, 'an enrolment')
  if (body['kid'] !== key.kid) throw clientError('bad_answer', 'the broker registered another key than the one that was sent.')
  return {
    workload: String(body['workload']),
    clientId: String(body['client_id']),
    kid: key.kid,
    issuer,
    auditIndex: readAuditIndex(answer.headers).audit_index,
  }
}

/** What an operator may do about enrolments: a part of `AdminClient`. */
export interface EnrolmentMethods {
  /** Makes a code; an earlier one of the workload that was not redeemed is cancelled. */
  createEnrolment(workload: string): Promise<Recorded<CreatedEnrolment>>
  listEnrolments(workload: string, query?: EnrolmentQuery): Promise<EnrolmentPage>
  cancelEnrolment(workload: string, enrolment: string): Promise<Recorded<EnrolmentRecord>>
}

/** The methods of a client that sends with an operator's credential; `pathOf` is a workload's own path. */
export function createEnrolmentMethods(
  send: (request: ApiRequest) => Promise<ApiAnswer>,
  pathOf: (workload: string) => string,
): EnrolmentMethods {
  return {
    async createEnrolment(workload) {
      const answer = await send({ method: 'POST', path: `${pathOf(workload)}/enrolments` })
      const shape = { enrolment: 'string', workload: 'string', code: 'string', expires_at: 'string' } as const
      // The shape was checked; the type states the same. So for each cast below.
      return { ...(readObject(answer.body, shape, 'an enrolment') as unknown as CreatedEnrolment), ...readAuditIndex(answer.headers) }
    },
    async listEnrolments(workload, query = {}) {
      const { body } = await send({ method: 'GET', path: `${pathOf(workload)}/enrolments`, query: { ...query } })
      const page = readObject(body, { enrolments: 'array', next: 'string?' }, 'a list of enrolments')
      const enrolments = readObjects(page['enrolments'], enrolmentShape, 'a list of enrolments') as unknown as readonly EnrolmentRecord[]
      return { enrolments, ...(typeof page['next'] === 'string' && { next: page['next'] }) }
    },
    async cancelEnrolment(workload, enrolment) {
      if (!/^[0-9a-f]{16}$/.test(enrolment)) throw clientError('invalid_option', "an enrolment's id is 16 of 0-9 and a-f.")
      const answer = await send({ method: 'DELETE', path: `${pathOf(workload)}/enrolments/${enrolment}` })
      return { ...(readObject(answer.body, enrolmentShape, 'an enrolment') as unknown as EnrolmentRecord), ...readAuditIndex(answer.headers) }
    },
  }
}

const enrolmentShape: Shape = {
  enrolment: 'string',
  workload: 'string',
  status: 'string',
  created_at: 'string',
  expires_at: 'string',
  ended_at: 'string?',
  kid: 'string?',
}
