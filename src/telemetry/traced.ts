import type { AuthenticateWorkload } from '../identity/authenticate.ts'
import type { Tracer } from '../kernel/tracer.ts'
import type { Decider } from '../policy/decide.ts'
import type { Recorded } from '../storage/change.ts'
import type { Ledger } from '../storage/ledger.ts'

interface Parts {
  readonly ledger: Ledger
  readonly decider: Decider
  readonly authenticate: AuthenticateWorkload
}

/**
 * The same parts, which tell what they do. They are wrapped, so that they themselves know nothing of traces, and cost
 * nothing more while none are wanted.
 */
export function traceParts({ ledger, decider, authenticate }: Parts, tracer: Tracer): Parts {
  return { ledger: traceLedger(ledger, tracer), decider: traceDecider(decider, tracer), authenticate: traceAuthenticate(authenticate, tracer) }
}

/** Tells who was believed, or why not. */
function traceAuthenticate(authenticate: AuthenticateWorkload, tracer: Tracer): AuthenticateWorkload {
  return (compact, context) =>
    tracer.trace('authenticate', async (span) => {
      const result = await authenticate(compact, context)
      span.note(result.ok ? { 'stint.workload': result.principal.workload.name } : { 'stint.refusal': result.reason })
      return result
    })
}

/** Tells what was decided about which tool. */
function traceDecider(decider: Decider, tracer: Tracer): Decider {
  return {
    factsRead: decider.factsRead,
    decide: (set, request) =>
      tracer.trace('decide', (span) => {
        const decision = decider.decide(set, request)
        span.note({ 'stint.tool': request.tool, 'stint.verdict': decision.verdict })
        return decision
      }),
  }
}

/** Tells how long a request waited for its commit, and which entry it has. */
function traceLedger(ledger: Ledger, tracer: Tracer): Ledger {
  function traceCommit<R>(commit: () => Promise<Recorded<R>>): Promise<Recorded<R>> {
    return tracer.trace('ledger commit', async (span) => {
      const outcome = await commit()
      span.note({ 'stint.commit': outcome.status, ...(outcome.status === 'recorded' && { 'stint.audit_index': outcome.index }) })
      return outcome
    })
  }
  return {
    append: (change) => traceCommit(() => ledger.append(change)),
    transact: (change) => traceCommit(() => ledger.transact(change)),
    spend: (conditions) => traceCommit(() => ledger.spend(conditions)),
    forgetExpiredMarks: ledger.forgetExpiredMarks,
    observe: ledger.observe,
    hold: ledger.hold,
    release: ledger.release,
    nowMs: ledger.nowMs,
    get halted() {
      return ledger.halted
    },
    get held() {
      return ledger.held
    },
    get failing() {
      return ledger.failing
    },
    close: ledger.close,
  }
}
