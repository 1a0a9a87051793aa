import { signAccessToken } from '../crypto/access-token.ts'
import { resolveRequest, type GrantRequest, type RawRequest } from '../grant/request.ts'
import type { Principal } from '../identity/authenticate.ts'
import { spiffeId } from '../identity/workload.ts'
import { formatTime } from '../kernel/clock.ts'
import { BrokerError } from '../kernel/errors.ts'
import { newId } from '../kernel/ids.ts'
import type { Decision } from '../policy/decide.ts'
import { describeDecision } from '../policy/record.ts'
import { findTargetProblem } from '../policy/target.ts'
import type { Place, Recorded, RowsChange } from '../storage/change.ts'
import { actorOf, markOf, withWorkload, type ClientCredentials } from './authenticate.ts'
import { causedBy, type Broker } from './broker.ts'
import { decideAndCommit, type CommitDecision } from './decide.ts'
import type { View } from './knowledge.ts'

/** A token as answered. `scope` and `authorizationDetails` are what was granted (RFC 6749 §5.1, RFC 9396 §7). */
export interface IssuedToken {
  readonly accessToken: string
  readonly expiresInSeconds: number
  readonly scope: string
  readonly authorizationDetails?: readonly Readonly<Record<string, unknown>>[]
  readonly auditIndex: number
}

/** A request's end: what is answered once it is on record, be it a token or a refusal. */
type Answer = IssuedToken | BrokerError

/**
 * Authenticates a workload, decides what it asks for and gives it a token that Stint signs. Whatever the outcome, it is
 * in the log before this returns or throws (invariant 1). Throws the codes of the token endpoint.
 */
export async function issueToken(
  broker: Broker,
  credentials: ClientCredentials,
  raw: RawRequest,
  requestId: string,
): Promise<IssuedToken> {
  const answer = await withWorkload<Answer>(broker, credentials, (principal, view) => decideAndRecord(broker, principal, view, raw, requestId))
  if (answer instanceof BrokerError) throw answer
  return answer
}

async function decideAndRecord(
  broker: Broker,
  principal: Principal,
  view: View,
  raw: RawRequest,
  requestId: string,
): Promise<Recorded<Answer>> {
  const { policySet } = view
  if (policySet === undefined) {
    // Nothing is committed for this answer, so that nothing else would notice that this process was behind.
    if (!(await broker.knowledge.isNewest(view))) return { status: 'epoch_moved' }
    throw new BrokerError({ code: 'unavailable', publicMessage: 'No policy set is in force yet: an admin runs `stint policy apply`.' })
  }
  const base = { epoch: view.epoch, mark: markOf(principal) }
  const cause = { ...causedBy({ actor: actorOf(principal), requestId }), workload: principal.workload.name, proof_kid: principal.kid }
  let request: GrantRequest
  try {
    request = resolveRequest(raw, {
      tools: policySet.catalog,
      findTargetProblem: (tool, target) => findTargetProblem(tool.target, target),
    })
  } catch (error) {
    if (!(error instanceof BrokerError)) throw error
    const event = { type: 'grant.refused', ...cause, code: error.code, detail: error.publicMessage } as const
    return answerWith(await broker.ledger.append({ ...base, events: [event] }), () => countDenied(broker, error.code, error))
  }
  return decideAndCommit(broker, { view, policySet, principal, request }, (decision, commit) => {
    return recordDecision(broker, view, principal, request, { base, cause, decision, commit })
  })
}

interface Decided {
  readonly base: Pick<RowsChange, 'epoch' | 'mark'>
  readonly cause: Pick<Asked, 'actor' | 'request_id' | 'workload' | 'proof_kid'>
  readonly decision: Decision
  readonly commit: CommitDecision
}

async function recordDecision(
  broker: Broker,
  view: View,
  principal: Principal,
  request: GrantRequest,
  { base, cause, decision, commit }: Decided,
): Promise<Recorded<Answer>> {
  const asked = {
    ...cause,
    tool: request.tool.name,
    actions: request.actions,
    ...(request.target !== undefined && { target: request.target }),
    ...(request.task !== undefined && { task: request.task }),
    ttl_seconds: request.ttlSeconds,
    decision: describeDecision(decision),
  }
  if (decision.verdict !== 'allow') {
    return answerWith(await commit({ ...base, events: [{ type: 'grant.denied', ...asked }] }), () => {
      return countDenied(broker, decision.verdict === 'deny' ? 'denied' : decision.verdict, denial(decision))
    })
  }
  const { change, sign } = prepareGrant(broker, view, principal, request, asked)
  // Signed while the commit is under way; given only after it (invariant 1).
  const signing = sign()
  signing.catch(() => undefined)
  const outcome = await commit({ ...base, ...change })
  if (outcome.status !== 'recorded') return outcome
  const token = answerWith(outcome, await signing)
  broker.meter.count('tokens_issued', { tool: request.tool.name })
  return token
}

/** Counted only once it is recorded: a decision that is made again is one denial. */
function countDenied({ meter }: Broker, reason: string, error: BrokerError): BrokerError {
  meter.count('requests_denied', { reason })
  return error
}

function answerWith<R>(outcome: Recorded<undefined>, answer: (place: Place) => R): Recorded<R> {
  return outcome.status === 'recorded' ? { ...outcome, result: answer(outcome) } : outcome
}

type Asked = Omit<Extract<RowsChange['events'][0], { type: 'grant.denied' }>, 'type'>

function prepareGrant(broker: Broker, { keyring }: View, { workload }: Principal, request: GrantRequest, asked: Asked) {
  const nowMs = broker.ledger.nowMs()
  const id = newId('grant', nowMs, broker.random)
  const iatSeconds = Math.floor(nowMs / 1000)
  const expSeconds = iatSeconds + request.ttlSeconds
  const expiresAt = formatTime(expSeconds * 1000)
  const { tool, actions, target, task } = request
  const audience = tool.audience
  if (audience === undefined) throw new Error(`the tool ${tool.name} has no audience`)
  const key = keyring.signingKey(nowMs)
  const subject = spiffeId(broker.trustDomain, workload.name)
  const scope = actions.join(' ')
  const authorizationDetails = request.detailed
    ? [{ type: 'stint', actions, ...(target !== undefined && { target }), ...(task !== undefined && { task }), ttl_seconds: request.ttlSeconds }]
    : undefined
  const change: Pick<RowsChange, 'grant' | 'events'> = {
    grant: {
      id,
      workload: workload.name,
      tool: tool.name,
      actions: JSON.stringify(actions),
      target: target ?? null,
      task: task ?? null,
      audience,
      expires_at: expiresAt,
    },
    events: [
      { type: 'grant.issued', ...asked, grant: id, audience, expires_at: expiresAt, ends: 'introspection', token_kid: key.kid },
    ],
  }
  const sign = async () => {
    const accessToken = await signAccessToken(key, {
      iss: broker.issuer,
      sub: subject,
      aud: audience,
      clientId: subject,
      jti: id,
      iatSeconds,
      expSeconds,
      scope,
      ...(authorizationDetails !== undefined && { authorizationDetails }),
    })
    return ({ index }: Place): IssuedToken => ({
      accessToken,
      expiresInSeconds: Math.max(0, expSeconds - Math.floor(broker.ledger.nowMs() / 1000)),
      scope,
      ...(authorizationDetails !== undefined && { authorizationDetails }),
      auditIndex: index,
    })
  }
  return { change, sign }
}

/** What a denial tells the caller: only what concerns its own request. What else the policy holds is for admins. */
function denial({ verdict, approvalsNeeded = 1, allowedTtlSeconds }: Decision): BrokerError {
  let publicMessage = 'The policy does not allow this.'
  if (verdict === 'needs_approval') {
    const who = approvalsNeeded === 1 ? 'an approval by a person' : `approvals by ${approvalsNeeded} people`
    publicMessage = `This needs ${who}, which this broker cannot ask for yet.`
  } else if (allowedTtlSeconds !== undefined) {
    publicMessage = `The policy does not allow this for so long; ttl_seconds up to ${allowedTtlSeconds} would be allowed.`
  }
  return new BrokerError({ code: 'access_denied', publicMessage })
}
