import type { DecisionRecord } from '../audit/event.ts'
import type { Decision } from './decide.ts'

const reasonsMax = 100
const errorLengthMax = 300

/** A decision as the log keeps it: all that it takes to come to it again (invariant 5). */
export function describeDecision(decision: Decision): DecisionRecord {
  return {
    verdict: decision.verdict,
    ...(decision.approvalsNeeded !== undefined && { approvals_needed: decision.approvalsNeeded }),
    // An entry has a size limit, and a decision that cannot be recorded cannot be answered.
    reasons: decision.reasons.slice(0, reasonsMax),
    ...(decision.reasons.length > reasonsMax && { reasons_more: decision.reasons.length - reasonsMax }),
    errors: decision.errors.slice(0, reasonsMax).map((error) => error.slice(0, errorLengthMax).toWellFormed()),
    policy_set: decision.policySet,
    cedar_version: decision.cedarVersion,
    input: decision.input,
  }
}
