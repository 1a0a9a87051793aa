import { randomUUID } from 'node:crypto'
import { createAgent, type Agent } from './agents.ts'
import { report, stateOf, type Change, type HeldToken } from './book.ts'
import { cameToNothing, type Answer, type Request } from './http.ts'
import { policyFiles } from './policies.ts'
import { count, settle, type Loading } from './workload-steps.ts'

/** The one admin's side: its changes come one after another, so that the state they lead to is known. */
export interface Admin {
  readonly credential: string
  /** Workloads that it suspends and resumes; nobody works as them. `undefined` while an answer is missing. */
  readonly standing: Map<string, 'active' | 'suspended' | undefined>
}

/** Registers a workload, and returns the agent that may work from then on. */
export async function register(loading: Loading, admin: Admin, name: string, agent = createAgent(name)): Promise<Agent | undefined> {
  const registration = {
    name,
    environment: 'test',
    stage: 'pilot',
    owner: { team: 'support', contact: 'oncall:support' },
    purpose: 'Works until the broker is killed',
    tags: [],
    review_at: new Date(loading.nowMs() + 300 * 86_400_000).toISOString(),
    jwks: agent.jwks,
  }
  const answer = await change(loading, admin, `workload.registered ${name}`, { method: 'POST', path: '/v1/workloads', json: registration })
  return answer?.status === 201 ? agent : undefined
}

/** Suspends a workload that is active, or lets one work again that is suspended. */
export async function turnStanding(loading: Loading, admin: Admin, name: string): Promise<void> {
  const before = admin.standing.get(name)
  if (before === undefined) return
  const [verb, type, after] = before === 'active' ? (['suspend', 'workload.suspended', 'suspended'] as const) : (['resume', 'workload.resumed', 'active'] as const)
  const reason = randomUUID()
  admin.standing.set(name, undefined)
  const answer = await change(loading, admin, `${type} ${reason}`, { method: 'POST', path: `/v1/workloads/${name}/${verb}`, json: { reason } })
  if (answer?.status === 200) admin.standing.set(name, after)
}

/** Puts another policy set in force. */
export async function applyPolicy(loading: Loading, admin: Admin): Promise<void> {
  const answer = await send(loading, admin, { method: 'PUT', path: '/v1/policy', json: { files: policyFiles(randomUUID()) } })
  if (answer?.status !== 200) return
  // Only the answer tells its name in the log.
  const done = loading.book.ask(`policy.applied ${String(answer.body['hash'])}`)
  done.told = 'done'
  done.index = Number(answer.headers['stint-audit-index'])
}

/** Replaces the key that signs tokens; with `now` every token that an earlier one has signed ends. */
export async function rotateKeys(loading: Loading, admin: Admin, now: boolean): Promise<void> {
  const { book } = loading
  const reason = randomUUID()
  // Only a later look at the log resolves it.
  if (now) book.keysUnsure = true
  // 409: an earlier rotation is under way.
  const answer = await change(loading, admin, `key.created ${reason}`, { method: 'POST', path: '/v1/signing-keys/rotate', json: { now, reason } }, [409])
  if (!now || answer?.status !== 200) return
  // As the answer is made of: its members are in the API document.
  for (const { kid } of answer.body['replaces'] as { kid: string }[]) book.endedKids.add(kid)
}

/** Revokes by the task one token that no holder gives back. */
export async function revokeTask(loading: Loading, admin: Admin, token: HeldToken): Promise<void> {
  if (stateOf(loading.book, token, loading.nowMs()) !== 'active') return
  const reason = randomUUID()
  token.ended = 'maybe'
  const answer = await change(loading, admin, `grants.revoked ${reason}`, { method: 'POST', path: '/v1/revocations', json: { task: token.task, reason } })
  if (answer?.status !== 200) return
  token.ended = 'yes'
  loading.book.counts.revocations++
}

/** Revokes everything that a workload was given so far. */
export async function revokeWorkload(loading: Loading, admin: Admin, workload: string): Promise<void> {
  const { book } = loading
  const reason = randomUUID()
  book.sweepsUnsure.add(workload)
  const answer = await change(loading, admin, `grants.revoked ${reason}`, { method: 'POST', path: '/v1/revocations', json: { workload, reason } })
  if (answer?.status !== 200) return
  book.sweptTo.set(workload, Number(answer.headers['stint-audit-index']))
  book.sweepsUnsure.delete(workload)
  book.counts.revocations++
}

async function change(loading: Loading, admin: Admin, mark: string, request: Omit<Request, 'bearer'>, refusals: readonly number[] = []): Promise<Answer | undefined> {
  const asked: Change = loading.book.ask(mark)
  const answer = await send(loading, admin, request, refusals)
  // A revocation that could not be recorded is kept in mind, and recorded once it can be.
  if (answer?.status === 503 && mark.startsWith('grants.revoked ')) asked.told = 'unanswered'
  else if (answer === undefined || cameToNothing(answer)) settle(asked, answer)
  else if (answer.status >= 300) asked.told = 'refused'
  else {
    asked.told = 'done'
    asked.index = Number(answer.headers['stint-audit-index'])
  }
  return answer
}

async function send(loading: Loading, { credential }: Admin, request: Omit<Request, 'bearer'>, refusals: readonly number[] = []): Promise<Answer | undefined> {
  const answer = await loading.client.send({ ...request, bearer: credential })
  count(loading, answer)
  if (answer === undefined || cameToNothing(answer)) return answer
  if (answer.status < 300) loading.book.counts.changes++
  else if (!refusals.includes(answer.status)) report(loading.book, `${request.method} ${request.path} was answered ${answer.status} ${answer.text}`)
  return answer
}
