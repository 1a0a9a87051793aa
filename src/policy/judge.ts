import type { Tool } from './catalog.ts'
import { evaluateSlot } from './cedar.ts'
import type { Policy } from './policy-set.ts'
import type { Reads } from './reads.ts'
import { describeContext, type AccessRequest, type RequestWorld } from './request.ts'

/** What a decision says apart from the request: this is what may be remembered. */
export interface Judgement {
  readonly verdict: 'allow' | 'deny' | 'needs_approval'
  readonly approvalsNeeded?: number
  readonly allowedTtlSeconds?: number
  readonly reasons: readonly string[]
  readonly errors: readonly string[]
}

/** The policies that can match one action of the request. */
export interface ActionSlice {
  readonly action: string
  readonly policies: readonly Policy[]
  /** Puts the policies into Cedar's memory if they are not there, and names the slot. To be called just before use. */
  slot(): string
}

// Each attempt costs a call to Cedar for each action.
const shorterTimesMax = 32

interface Outcome {
  readonly allowed: boolean
  readonly reasons: readonly string[]
  readonly errors: readonly string[]
}

/**
 * Judges a request: all actions must be allowed. A denial looks on for the number of approvals that would turn it, and
 * then for a shorter time that would, where the rules read the one or the other.
 */
export function judge(
  tool: Tool,
  request: AccessRequest,
  world: RequestWorld,
  slices: readonly ActionSlice[],
  reads: Reads,
): Judgement {
  const evaluate = (approvals: number, ttlSeconds: number): Outcome => {
    const context = describeContext(request, reads.facts, { approvals, ttlSeconds })
    return joinOutcomes(
      slices.map(({ action, policies, slot }): Outcome => {
        // Default deny needs no question.
        if (policies.length === 0) return { allowed: false, reasons: [], errors: [] }
        const { principal, resource, entities } = world
        return evaluateSlot(slot(), { principal, action: { type: 'Action', id: action }, resource, context, entities })
      }),
    )
  }

  const { approvals, ttlSeconds } = request
  const { allowed, reasons, errors } = evaluate(approvals, ttlSeconds)
  if (allowed) return { verdict: 'allow', reasons, errors }
  // A rule that fails to evaluate denies whatever else would be allowed (invariant 4).
  if (errors.length > 0) return { verdict: 'deny', reasons, errors }

  for (let n = approvals + 1; reads.facts.has('approvals') && n <= tool.approvalsMax; n++) {
    const tried = evaluate(n, ttlSeconds)
    if (tried.allowed) return { verdict: 'needs_approval', approvalsNeeded: n, reasons: tried.reasons, errors: [] }
  }
  for (const shorter of reads.facts.has('ttl') ? shorterTimes(reads, ttlSeconds) : []) {
    if (evaluate(approvals, shorter).allowed) return { verdict: 'deny', allowedTtlSeconds: shorter, reasons, errors: [] }
  }
  return { verdict: 'deny', reasons, errors: [] }
}

/** An allow has the reasons of all actions, a denial those of the denied ones: the permit of another did not decide it. */
function joinOutcomes(outcomes: readonly Outcome[]): Outcome {
  const errors = [...new Set(outcomes.flatMap((outcome) => outcome.errors))].sort()
  const allowed = errors.length === 0 && outcomes.every((outcome) => outcome.allowed)
  const deciding = outcomes.filter((outcome) => outcome.allowed === allowed)
  return { allowed, reasons: [...new Set(deciding.flatMap(({ reasons }) => reasons))].sort(), errors }
}

/** The times that the rules name, and one second less for those that say "shorter than", the longest first. */
function shorterTimes(reads: Reads, ttlSeconds: number): number[] {
  const times = [...reads.durationsSeconds].flatMap((seconds) => [seconds, seconds - 1])
  return [...new Set(times)]
    .filter((seconds) => seconds >= 1 && seconds < ttlSeconds)
    .sort((a, b) => b - a)
    .slice(0, shorterTimesMax)
}
