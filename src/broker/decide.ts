import type { GrantRequest } from '../grant/request.ts'
import type { Principal } from '../identity/authenticate.ts'
import type { Decision } from '../policy/decide.ts'
import type { PolicySet } from '../policy/policy-set.ts'
import type { AccessRequest } from '../policy/request.ts'
import { countDenialsSince, countGrantsSince } from '../storage/grants.ts'
import type { Recorded, RowsChange } from '../storage/change.ts'
import { stillProven } from './authenticate.ts'
import type { Broker } from './broker.ts'
import type { View } from './knowledge.ts'

/** Commits what follows from a decision, if all that the decision rests on still holds then (invariant 13). */
export type CommitDecision = (change: RowsChange) => Promise<Recorded<undefined>>

/** What is decided, by which set, for whom. */
export interface Question {
  readonly view: View
  readonly policySet: PolicySet
  readonly principal: Principal
  readonly request: GrantRequest
}

const recentMs = 3_600_000
const countAttemptsMax = 16

/**
 * Decides, and lets `record` commit what follows. Where a rule reads how often this workload asked lately, its requests
 * take turns, for each changes what the next one counts: at once, all but one of them would be decided in vain.
 */
export async function decideAndCommit<R>(
  broker: Broker,
  { view, policySet, principal, request }: Question,
  record: (decision: Decision, commit: CommitDecision) => Promise<Recorded<R>>,
): Promise<Recorded<R>> {
  const { decider, knowledge, ledger, turns } = broker
  const access = describeAccess(principal, request, ledger.nowMs())
  if (decider.factsRead(policySet, access).size === 0) {
    return record(decider.decide(policySet, access), principal.grant === undefined ? ledger.append : commitWhile(broker, principal))
  }
  return turns.take(principal.workload.name, async () => {
    for (let attempt = 1; ; attempt++) {
      const { decision, commit } = await decideByCounts(broker, policySet, principal, request)
      const outcome = await record(decision, commit)
      if (outcome.status !== 'epoch_moved' || attempt === countAttemptsMax) return outcome
      // A moved epoch is for the caller. Else another process has changed the counts: they are read again.
      if (!(await knowledge.isNewest(view))) return outcome
    }
  })
}

/** Decides by counts that the commit holds against the database again, under the log's lock. */
async function decideByCounts(
  { decider, database, ledger }: Broker,
  set: PolicySet,
  principal: Principal,
  request: GrantRequest,
): Promise<{ decision: Decision; commit: CommitDecision }> {
  const { name } = principal.workload
  const access = describeAccess(principal, request, ledger.nowMs())
  const facts = decider.factsRead(set, access)
  const sinceMs = access.nowMs - recentMs
  const recentGrants = facts.has('recentGrants') ? await countGrantsSince(database.read, name, sinceMs) : undefined
  const recentDenials = facts.has('recentDenials') ? await countDenialsSince(database.read, name, sinceMs) : undefined
  const decision = decider.decide(set, {
    ...access,
    ...(recentGrants !== undefined && { recentGrants }),
    ...(recentDenials !== undefined && { recentDenials }),
  })
  const commit: CommitDecision = (change) =>
    ledger.append({
      ...change,
      stillHolds: async (tx, place) =>
        (await stillProven(tx, principal, place.timeMs)) &&
        (change.stillHolds === undefined || (await change.stillHolds(tx, place))) &&
        (recentGrants === undefined || recentGrants === (await countGrantsSince(tx, name, sinceMs))) &&
        (recentDenials === undefined || recentDenials === (await countDenialsSince(tx, name, sinceMs))),
    })
  return { decision, commit }
}

/** Commits only while the token that the principal showed is good. */
function commitWhile({ ledger }: Broker, principal: Principal): CommitDecision {
  return (change) =>
    ledger.append({
      ...change,
      stillHolds: async (tx, place) => (await stillProven(tx, principal, place.timeMs)) && (change.stillHolds === undefined || change.stillHolds(tx, place)),
    })
}

function describeAccess({ workload, proof }: Principal, request: GrantRequest, nowMs: number): AccessRequest {
  return {
    workload: {
      name: workload.name,
      stage: workload.stage,
      environment: workload.environment,
      team: workload.owner.team,
      tags: workload.tags,
    },
    tool: request.tool.name,
    actions: request.actions,
    ...(request.target !== undefined && { target: request.target }),
    ttlSeconds: request.ttlSeconds,
    ...(request.task !== undefined && { task: request.task }),
    proof,
    boundKey: false,
    depth: 0,
    approvals: 0,
    nowMs,
  }
}
