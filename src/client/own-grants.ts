import { randomUUID } from 'node:crypto'
import { readObject } from './answer.ts'
import { clientError, StintError } from './errors.ts'
import type { CompletedTask, EndedGrant, GrantRecord, GrantRequest, LentGrant, ProlongedGrant } from './grant-records.ts'
import { endingMsMax, pathOfGrant, readEndedGrant, readEndedGrants, readGrant } from './grants.ts'
import type { ApiAnswer, ApiRequest } from './http.ts'
import { readLentGrant, readProlongedGrant } from './lent-grant.ts'

/** What an agent may do about its own grants: a part of `AgentClient`. */
export interface OwnGrantMethods {
  /**
   * Gets a credential. Where the answer is lost it asks once more by the same key, which ends what the first request gave:
   * nobody would hold that.
   */
  requestGrant(request: GrantRequest): Promise<LentGrant>
  /** Lets a grant go on: the same credential for longer, or a new one where the tool makes none last longer. */
  renewGrant(grant: string, options?: { readonly ttlSeconds?: number | undefined }): Promise<LentGrant | ProlongedGrant>
  /** Ends a grant: what is not needed any more. The answer says what became of it, as the API shows it. */
  giveBackGrant(grant: string): Promise<EndedGrant>
  /** How a grant stands, as the API shows it. */
  showGrant(grant: string): Promise<GrantRecord>
  /** Ends everything that was granted to this workload under the task, also what is being made at this moment. */
  completeTask(task: string): Promise<CompletedTask>
}

/** Sends a request with a fresh proof in its headers. */
export type SendProven = (request: ApiRequest) => Promise<ApiAnswer>

/** The tool may take 20 seconds, and as long again to end what an earlier request gave. */
const mintingMsMax = 55_000

/** The methods of a client that proves itself with each request. */
export function createOwnGrantMethods(send: SendProven): OwnGrantMethods {
  return {
    async requestGrant(request) {
      const asked = describeRequest(request)
      try {
        return readLentGrant(await send(asked))
      } catch (error) {
        if (!isLost(error)) throw error
        return readLentGrant(await send(asked).catch((second: unknown) => explainLost(second)))
      }
    },
    async renewGrant(grant, { ttlSeconds } = {}) {
      checkTtl(ttlSeconds)
      const answer = await send({ method: 'POST', path: `${pathOfGrant(grant)}/renew`, json: { ttl_seconds: ttlSeconds }, timeoutMsDefault: mintingMsMax })
      return answer.status === 201 ? readLentGrant(answer) : readProlongedGrant(answer)
    },
    giveBackGrant: async (grant) => readEndedGrant((await send({ method: 'DELETE', path: pathOfGrant(grant), timeoutMsDefault: endingMsMax })).body),
    showGrant: async (grant) => readGrant((await send({ method: 'GET', path: pathOfGrant(grant) })).body),
    async completeTask(task) {
      const { body } = await send({ method: 'POST', path: `/v1/tasks/${encodeTask(task)}/complete`, timeoutMsDefault: endingMsMax })
      const { grants, audit_index: index } = readObject(body, { grants: 'array', audit_index: 'number?' }, 'a completed task')
      return { grants: readEndedGrants(grants), ...(typeof index === 'number' && { audit_index: index }) }
    },
  }
}

function describeRequest({ tool, actions, target, ttlSeconds, task, reason, idempotencyKey = randomUUID() }: GrantRequest): ApiRequest {
  if (actions.length === 0) throw clientError('invalid_option', 'name at least one action: tool:verb, or the verb alone.')
  // What else stood in it would be repeated by fetch, which refuses the header.
  if (!/^[\x21-\x7e]{1,255}$/.test(idempotencyKey)) {
    throw clientError('invalid_option', 'idempotencyKey must be 1 to 255 printable ASCII characters without spaces.')
  }
  checkTtl(ttlSeconds)
  return {
    method: 'POST',
    path: '/v1/grants',
    json: { tool, actions, target, ttl_seconds: ttlSeconds, task, reason },
    headers: { 'idempotency-key': idempotencyKey },
    timeoutMsDefault: mintingMsMax,
  }
}

function checkTtl(ttlSeconds: number | undefined): void {
  if (ttlSeconds === undefined || (Number.isSafeInteger(ttlSeconds) && ttlSeconds >= 1)) return
  throw clientError('invalid_option', 'ttlSeconds must be a whole number of seconds, at least 1.')
}

/** A task's name may have slashes, which are the path's own. Empty and dot segments, which none has, would vanish on the way. */
function encodeTask(task: string): string {
  const segments = task.split('/')
  if (segments.every((segment) => segment !== '' && segment !== '.' && segment !== '..')) return segments.map(encodeURIComponent).join('/')
  throw clientError('invalid_option', 'no task has that name: between slashes it has no empty part, no single and no double dot.')
}

/** Whether the request may have been carried out although no answer came. */
function isLost(error: unknown): boolean {
  if (!(error instanceof StintError)) return false
  // A proxy says these where it lost the broker's answer.
  return error.code === 'connection_failed' || error.code === 'timed_out' || (error.code === 'bad_answer' && (error.status === 502 || error.status === 504))
}

function explainLost(second: unknown): never {
  if (!(second instanceof StintError) || isLost(second)) throw second
  const message = `${second.message} (The answer to a first request was lost: if that gave anything, it ends at its own time.)`
  throw new StintError({ ...second, message, cause: second })
}
