import { readObject, readObjects, type Shape } from './answer.ts'
import type { EndedGrant, GrantPage, GrantQuery, GrantRecord, Revocation, RevocationResult } from './grant-records.ts'
import type { ApiAnswer, ApiRequest } from './http.ts'
import { encodeSegment } from './path.ts'

/** What an operator may do about grants: a part of `AdminClient`. */
export interface GrantMethods {
  revokeGrants(revocation: Revocation): Promise<RevocationResult>
  /** The grants whose credential lives in an outside tool. */
  listGrants(query?: GrantQuery): Promise<GrantPage>
  getGrant(grant: string): Promise<GrantRecord>
  /** Tries again to end a grant that is stuck. */
  retryGrant(grant: string, reason: string): Promise<EndedGrant>
  /** Takes it upon this operator that a grant which is stuck may live in its tool. */
  writeOffGrant(grant: string, reason: string): Promise<EndedGrant>
}

const path = '/v1/grants'
/** The broker waits for the tools before it answers, and no longer than that. */
export const endingMsMax = 45_000

/** The methods of a client that sends with an operator's credential. */
export function createGrantMethods(send: (request: ApiRequest) => Promise<ApiAnswer>): GrantMethods {
  const unstick = async (grant: string, verb: string, reason: string): Promise<EndedGrant> => {
    return readEndedGrant((await send({ method: 'POST', path: `${pathOfGrant(grant)}/${verb}`, json: { reason }, timeoutMsDefault: endingMsMax })).body)
  }
  return {
    async revokeGrants(revocation) {
      const { body } = await send({ method: 'POST', path: '/v1/revocations', json: revocation, timeoutMsDefault: endingMsMax })
      const shape = { revoked: 'number', more: 'boolean', already_ended: 'number', grants: 'array', audit_index: 'number?' } as const
      const result = readObject(body, shape, 'a revocation')
      // The shape was checked; the type states the same. So for each cast below.
      return { ...result, grants: readEndedGrants(result['grants']) } as unknown as RevocationResult
    },
    async listGrants(query = {}) {
      const { body } = await send({ method: 'GET', path, query: { ...query } })
      const page = readObject(body, { grants: 'array', next: 'string?' }, 'a list of grants')
      const grants = readObjects(page['grants'], {}, 'a list of grants').map(readGrant)
      return { grants, ...(typeof page['next'] === 'string' && { next: page['next'] }) }
    },
    getGrant: async (grant) => readGrant((await send({ method: 'GET', path: pathOfGrant(grant) })).body),
    retryGrant: (grant, reason) => unstick(grant, 'retry', reason),
    writeOffGrant: (grant, reason) => unstick(grant, 'write-off', reason),
  }
}

/** The path of one grant. Throws `invalid_option` for an id that could be none. */
export function pathOfGrant(grant: string): string {
  return `${path}/${encodeSegment(grant, "the grant's id")}`
}

const endsShape: Shape = { effect: 'string', delay_seconds: 'number?', meaning: 'string' }
const grantShape: Shape = {
  grant: 'string',
  workload: 'string',
  tool: 'string',
  actions: 'list of strings',
  target: 'string?',
  task: 'string?',
  state: 'string',
  issued_at: 'string',
  expires_at: 'string',
  ends: 'object',
  reference: 'string?',
  may_live_until: 'string?',
  tries: 'number?',
  next_try_at: 'string?',
  problem: 'string?',
  ended_at: 'string?',
}

/** A grant in an answer, as it is. */
export function readGrant(body: unknown): GrantRecord {
  const grant = readObject(body, grantShape, 'a grant')
  readObject(grant['ends'], endsShape, "a grant's end")
  return grant as unknown as GrantRecord
}

const endedShape: Shape = {
  grant: 'string',
  workload: 'string',
  tool: 'string',
  outcome: 'string',
  effect: 'string',
  until: 'string?',
  effective_by: 'string?',
  problem: 'string?',
  audit_index: 'number?',
}

/** What became of one grant, in an answer, as it is. */
export function readEndedGrant(body: unknown): EndedGrant {
  return readObject(body, endedShape, 'what became of a grant') as unknown as EndedGrant
}

/** The same for a list of them. */
export function readEndedGrants(list: unknown): readonly EndedGrant[] {
  return readObjects(list, endedShape, 'what became of the grants') as unknown as readonly EndedGrant[]
}
