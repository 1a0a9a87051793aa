import type { Effect } from '../connectors/connector.ts'
import { type CatalogLookup, type GrantRequest } from '../grant/request.ts'
import type { Principal } from '../identity/authenticate.ts'
import { BrokerError, type ErrorCode } from '../kernel/errors.ts'
import type { Secret } from '../kernel/secret.ts'
import type { Decision } from '../policy/decide.ts'
import { describeDecision } from '../policy/record.ts'
import { findTargetProblem } from '../policy/target.ts'
import type { Place, Recorded, RowsChange } from '../storage/change.ts'
import { actorOf, markOf, ownAudience, proofOf, stillProven } from './authenticate.ts'
import { causedBy, type Broker } from './broker.ts'
import { decideAndCommit, type CommitDecision } from './decide.ts'
import type { View } from './knowledge.ts'
import { prepareIntent, type Intent } from './mint.ts'
import { prepareToken } from './sign.ts'

/** What was given, as it is answered once: the credential is kept nowhere in this form. */
export interface Granted {
  readonly grant: string
  readonly request: GrantRequest
  readonly issuedAtMs: number
  readonly expiresAtMs: number
  readonly effect: Effect
  /** How long the tool takes to carry out its end, at most. */
  readonly delaySeconds?: number
  /** The first grant, where this one is its renewal. */
  readonly renews?: string
  readonly credential: Readonly<Record<string, string | number | Secret>>
  readonly environment: Readonly<Record<string, string | Secret>>
  readonly conceals?: readonly string[]
  /** The bearer token, where the credential is one. */
  readonly token?: Secret
  /** When the tool ends it by itself. */
  readonly diesAtMs?: number
  readonly auditIndex: number
}

/** How a workload asked, and what follows from it. */
export interface Ask<P = never> {
  /** Throws a `BrokerError` for what cannot be honoured. */
  resolve(catalog: CatalogLookup): GrantRequest
  /** What a denial by the policy is called where it was asked. */
  readonly deniedCode: Extract<ErrorCode, 'access_denied' | 'denied'>
  readonly requestId: string
  /** The grant that is to go on, whose longest life counts from the first. */
  readonly renewal?: { readonly first: string; readonly firstIssuedAtMs: number }
  /** What must hold for this workload in the same transaction, and is written beside the new grant. */
  guard?(workload: string): Guard
  /** What is done instead of giving a new credential, where the policy allows it. */
  prepare?(asked: Asked): Prepared<P>
  /** The assertion was spent by an earlier part of the same request. */
  readonly spent?: boolean
}

/** `stillHolds` may throw what is answered instead. */
export interface Guard {
  readonly stillHolds?: NonNullable<RowsChange['stillHolds']>
  also?(grant: string): NonNullable<RowsChange['also']>
}

/** A request's end: what is answered once it is on record, or what is to be minted now that the intent is. */
export type Answer = Granted | Intent | BrokerError

/** Decides what a workload asks for and records what follows, whatever it is (invariant 1). */
export async function decideAndRecord<P = never>(broker: Broker, principal: Principal, view: View, ask: Ask<P>): Promise<Recorded<Answer | P>> {
  const { policySet } = view
  if (policySet === undefined) {
    // Nothing is committed for this answer, so that nothing else would notice that this process was behind.
    if (!(await broker.knowledge.isNewest(view))) return { status: 'epoch_moved' }
    throw new BrokerError({ code: 'unavailable', publicMessage: 'No policy set is in force yet: an admin runs `stint policy apply`.' })
  }
  const base = { epoch: view.epoch, mark: ask.spent === true ? undefined : markOf(principal) }
  const cause = { ...causedBy({ actor: actorOf(principal), requestId: ask.requestId }), workload: principal.workload.name, ...proofOf(principal) }
  let request: GrantRequest
  try {
    request = ask.resolve({ tools: policySet.catalog, findTargetProblem: (tool, target) => findTargetProblem(tool.target, target) })
  } catch (error) {
    if (!(error instanceof BrokerError)) throw error
    const event = { type: 'grant.refused', ...cause, code: error.code, detail: error.publicMessage } as const
    return answerWith(await broker.ledger.append({ ...base, events: [event] }), () => countDenied(broker, error.code, error))
  }
  if (principal.grant !== undefined && request.tool.audience === ownAudience) {
    // Else a token that leaked for a minute could be made to last for ever.
    const detail = `A token for ${ownAudience} asks for other tools only: ask for ${request.tool.name} with a client assertion.`
    const event = { type: 'grant.refused', ...cause, code: 'denied', detail } as const
    return answerWith(await broker.ledger.append({ ...base, events: [event], stillHolds: (tx, { timeMs }) => stillProven(tx, principal, timeMs) }), () => {
      return countDenied(broker, 'denied', new BrokerError({ code: 'denied', publicMessage: detail }))
    })
  }
  return decideAndCommit<Answer | P>(broker, { view, policySet, principal, request }, (decision, commit) => {
    return recordDecision<P>(broker, { view, policySetHash: policySet.hash, principal, request, ask, base, cause, decision, commit })
  })
}

/** A decision with all that its record needs. */
export interface Decided<P = unknown> {
  readonly view: View
  readonly policySetHash: string
  readonly principal: Principal
  readonly request: GrantRequest
  readonly ask: Ask<P>
  readonly base: Pick<RowsChange, 'epoch' | 'mark'>
  readonly cause: Pick<Asked, 'actor' | 'request_id' | 'workload' | 'proof_kid' | 'proof_grant'>
  readonly decision: Decision
  readonly commit: CommitDecision
}

/** What events of all kinds say of a request. */
export type Asked = Omit<Extract<RowsChange['events'][0], { type: 'grant.denied' }>, 'type' | 'grant'>

export function describeAsked({ cause, request, decision }: Pick<Decided, 'cause' | 'request' | 'decision'>): Asked {
  return {
    ...cause,
    tool: request.tool.name,
    actions: request.actions,
    ...(request.target !== undefined && { target: request.target }),
    ...(request.task !== undefined && { task: request.task }),
    ttl_seconds: request.ttlSeconds,
    ...(request.reason !== undefined && { reason: request.reason }),
    decision: describeDecision(decision),
  }
}

async function recordDecision<P>(broker: Broker, decided: Decided<P>): Promise<Recorded<Answer | P>> {
  const { ask, base, decision, commit } = decided
  const asked = describeAsked(decided)
  if (decision.verdict !== 'allow') {
    return answerWith(await commit({ ...base, events: [{ type: 'grant.denied', ...asked }] }), () => {
      return countDenied(broker, decision.verdict === 'deny' ? 'denied' : decision.verdict, denial(decision, ask.deniedCode))
    })
  }
  const prepared = ask.prepare?.(asked) ?? prepareNew(broker, decided, asked)
  const guard = ask.guard?.(decided.principal.workload.name)
  const outcome = await commit({ ...base, ...(guard?.stillHolds && { stillHolds: guard.stillHolds }), ...prepared.change })
  if (outcome.status !== 'recorded') return outcome
  return { ...outcome, result: await prepared.answer(outcome) }
}

function prepareNew(broker: Broker, decided: Decided, asked: Asked): Prepared {
  return broker.tools.isOutside(decided.request.tool) ? prepareIntent(broker, decided, asked) : prepareToken(broker, decided, asked)
}

/** A change that is ready to be committed, and what is answered once it is. */
export interface Prepared<P = never> {
  readonly change: Pick<RowsChange, 'grant' | 'events' | 'also'>
  answer(place: Place): Answer | P | Promise<Answer>
}

/** Counted only once it is recorded: a decision that is made again is one denial. */
function countDenied({ meter }: Broker, reason: string, error: BrokerError): BrokerError {
  meter.count('requests_denied', { reason })
  return error
}

function answerWith<R>(outcome: Recorded<undefined>, answer: (place: Place) => R): Recorded<R> {
  return outcome.status === 'recorded' ? { ...outcome, result: answer(outcome) } : outcome
}

/** What a denial tells the caller: only what concerns its own request. What else the policy holds is for admins. */
export function denial({ verdict, approvalsNeeded = 1, allowedTtlSeconds }: Decision, code: Ask['deniedCode']): BrokerError {
  let publicMessage = 'The policy does not allow this.'
  if (verdict === 'needs_approval') {
    const who = approvalsNeeded === 1 ? 'an approval by a person' : `approvals by ${approvalsNeeded} people`
    publicMessage = `This needs ${who}, which this broker cannot ask for yet.`
  } else if (allowedTtlSeconds !== undefined) {
    publicMessage = `The policy does not allow this for so long; ttl_seconds up to ${allowedTtlSeconds} would be allowed.`
  }
  return new BrokerError({ code, publicMessage })
}
